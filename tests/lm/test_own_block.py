"""A user's block that reads other tokens past the cache is scored right, and every way to generate text with it is
refused by name. A block that says that the cache is enough shares contexts, and generates."""

import dataclasses
import re
from typing import Any, cast

import jax
import numpy as np
import pytest

from lm.config import ModelConfig, ReinforceConfig
from lm.errors import UsageError
from lm.evaluation.log_likelihood import LogLikelihoods, Request
from lm.inference import steps
from lm.inference.engine import Engine
from lm.inference.generate import sample_texts
from lm.model.kv_cache import check_cache, reads_by_attention
from lm.model.transformer import BLOCKS
from lm.parallel import one_device_mesh
from lm.reinforcement.loop import Learner
from lm.reinforcement.scoring import AnswerBatch, answer_logprobs
from lm.reinforcement.tasks import reverse_words
from lm.training import preflight
from lm.training.loop import train
from lm.training.state import TrainState
from lm.trusted_code import module_code, trust
from tests.corpus import tiny_experiment, write_tokens
from tests.lm.inference.models import log_probabilities
from tests.lm.model_configs import LLAMA, random_model
from tests.lm.reinforcement.test_loop import TALKER
from tests.test_house import REPOSITORY

OWN = dataclasses.replace(LLAMA, vocab_size=TALKER.vocab_size, block="tests.lm.own_parts.ConvolutionBlock")
PARALLEL = dataclasses.replace(OWN, block="tests.lm.own_parts.ParallelBlock")
REFUSED = re.escape(f"model.block = {OWN.block} does not say")
SHARED = (5, 9, 3)
REQUESTS = [Request(SHARED, tail) for tail in ((7,), (8, 2), (8, 2, 4, 1))]


@pytest.fixture(autouse=True)
def _trusted():
    trust(module_code("tests.lm.own_parts"))


@pytest.mark.parametrize("config", [OWN, PARALLEL], ids=["convolution", "parallel"])
def test_continuations_of_one_context_score_like_the_forward_pass(config):
    model, scorer = random_model(config), LogLikelihoods(config, 2)
    found = scorer.score(model, one_device_mesh(config), REQUESTS)
    log_p, size = log_probabilities(model, config.context_length), len(SHARED)
    for request, score in zip(REQUESTS, found, strict=True):
        whole = [*request.context, *request.continuation]
        nats = log_p(whole)[np.arange(size - 1, len(whole) - 1), whole[size:]].sum()
        assert score.log_likelihood == pytest.approx(nats, abs=1e-5)
    assert scorer.branches(one_device_mesh(config)) == (config is PARALLEL)


def test_the_scores_of_a_prompt_are_those_of_the_forward_pass():
    model, ids = random_model(OWN), [5, 9, 3, 8, 2]
    found = steps.score(model, OWN.vocab_size, 1, np.array([ids + [0] * 3]))[0][: len(ids) - 1]
    wanted = log_probabilities(model, OWN.context_length)(ids)[np.arange(len(ids) - 1), ids[1:]]
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def reinforced(config: ModelConfig) -> Learner:
    state = cast(Any, TrainState)(*[0] * len(TrainState._fields))._replace(model=random_model(config))
    return Learner(
        config, tiny_experiment().train, ReinforceConfig(context=16, max_tokens=8), state, TALKER, reverse_words
    )


SHAPE = steps.Shape(OWN, 2, 16, 64, 1, 4)
ONES = np.ones((2, 4), np.int32)
ANSWERS = AnswerBatch(ONES, ONES[:, 0], ONES, ONES.astype(np.float32))
GENERATES = {
    "engine": lambda: Engine(random_model(OWN), OWN, TALKER, slots=1),
    "samples": lambda: sample_texts(random_model(OWN), OWN, TALKER, ["a"], [0.0], 8, jax.random.key(0)),
    "reinforcement": lambda: reinforced(OWN),
    "its log-probabilities": lambda: answer_logprobs(random_model(OWN), SHAPE, ANSWERS),
    "plans": lambda: steps.lower_decode(random_model(OWN), SHAPE, one_device_mesh(OWN)),
    "training, before its shards exist": lambda: preflight.devices_with_memory(OWN, tiny_experiment().train),
    "pretraining with the stage sample": lambda: preflight.check_samples(OWN),
}  # fmt: skip


@pytest.mark.parametrize("generates", GENERATES)
def test_generation_with_an_unknown_cache_is_refused(generates):
    with pytest.raises(UsageError, match=REFUSED):
        GENERATES[generates]()


def test_training_with_samples_is_refused_before_the_step_is_compiled(tmp_path):
    experiment = tiny_experiment()
    write_tokens(tmp_path / "run", experiment)
    model = dataclasses.replace(experiment.model, block=OWN.block)
    with pytest.raises(UsageError, match=f"{REFUSED}.* .--train.sample-every 0"):
        train(model, experiment.train, tmp_path / "run")


def test_caches_are_made_only_where_the_block_is_checked():
    """So every other way to generate text is refused too."""
    makers = {
        str(path.relative_to(REPOSITORY))
        for room in ("lm", "launch", "viewer", "configs")
        for path in (REPOSITORY / room).rglob("*.py")
        if re.search(r"\b(?:Layer)?Cache\(", path.read_text(encoding="utf-8"))
    }
    assert makers - {"lm/compilation_cache.py"} == {"lm/model/kv_cache.py"}


def test_a_shipped_block_and_one_that_says_so_are_cached_but_not_a_subclass():
    for block in BLOCKS:
        check_cache(dataclasses.replace(LLAMA, block=block))
    assert reads_by_attention(PARALLEL)
    assert not reads_by_attention(OWN)  # a subclass of ParallelBlock
