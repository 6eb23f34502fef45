"""Every way to generate text with a user's block that declares no cache, or an invalid one, is refused by name."""

import re
from collections.abc import Callable
from dataclasses import replace

import jax
import jax.numpy as jnp
import pytest

from lm.config import ReinforceConfig
from lm.errors import UsageError
from lm.inference import steps
from lm.inference.engine import Engine
from lm.inference.generate import sample_texts
from lm.model.block import Block
from lm.model.transformer import BLOCKS, check_cache
from lm.parallel import one_device_mesh
from lm.reinforcement.sampler import Sampler, answer_batch
from lm.reinforcement.scoring import answer_logprobs
from lm.reinforcement.tasks import reverse_words
from lm.training import preflight
from lm.training.loop import train
from lm.trusted_code import module_code, trust
from tests.corpus import tiny_experiment, write_tokens
from tests.lm.model_configs import LLAMA, random_model
from tests.lm.reinforcement.test_sampler import TALKER
from tests.test_house import REPOSITORY

OWN = replace(LLAMA, vocab_size=TALKER.vocab_size, block="tests.lm.own_parts.UndeclaredBlock")
REFUSED = re.escape(f"model.block = {OWN.block} does not say")


@pytest.fixture(autouse=True)
def _trusted():
    trust(module_code("tests.lm.own_parts"))


SHAPE, ANSWERS = steps.Shape(OWN, 2, 16, 64, 1, 4), ReinforceConfig(context=16, max_tokens=4)
GENERATES = {
    "engine": lambda: Engine(random_model(OWN), OWN, TALKER, slots=1),
    "samples": lambda: sample_texts(random_model(OWN), OWN, TALKER, ["a"], [0.0], 8, key=jax.random.key(0)),
    "reinforcement": lambda: Sampler(
        OWN, tiny_experiment().train, ANSWERS, TALKER, reverse_words, one_device_mesh(OWN)
    ),
    "its log-probabilities": lambda: answer_logprobs(random_model(OWN), SHAPE, answer_batch(2, ANSWERS)),
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
    model = replace(experiment.model, block=OWN.block)
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
    assert makers - {"lm/compilation_cache.py"} == {
        "lm/model/block.py",
        "lm/model/kv_cache.py",
        "lm/model/transformer.py",
    }


class Grows(Block):
    """Its cache has other arrays for more rows, or rows in two axes or none, by `shapes`."""

    shapes: Callable[[int], dict[str, tuple[int, ...]]]

    @staticmethod
    def init_cache(config, rows, capacity):
        return jax.tree.map(jnp.zeros, Grows.shapes(rows), is_leaf=lambda node: type(node) is tuple)


@pytest.mark.parametrize(
    ("shapes", "told"),
    [
        (lambda rows: {"a": (4,)}, "{'a': (4,)} for one row and {'a': (4,)} for two"),
        (lambda rows: {"a": (rows, rows)}, "{'a': (1, 1)} for one row and {'a': (2, 2)} for two"),
        (lambda rows: {"a": (1,) * rows}, "{'a': (1,)} for one row and {'a': (1, 1)} for two"),
        (lambda rows: {"ab"[rows - 1]: (rows,)}, "{'a': (1,)} for one row and {'b': (2,)} for two"),
    ],
)
def test_a_cache_whose_arrays_do_not_have_one_axis_of_rows_is_refused(monkeypatch, shapes, told):
    monkeypatch.setattr(Grows, "shapes", staticmethod(shapes), raising=False)
    monkeypatch.setitem(BLOCKS, "pre_norm", Grows)
    with pytest.raises(UsageError, match=f"model.block = pre_norm returns arrays of the shapes {re.escape(told)}"):
        check_cache(LLAMA)
