"""Log-likelihoods: transformers' numbers on a trained model, and sharding, batching and windows.

The numbers in tests/fixtures/log_likelihood come from transformers (make_log_likelihood.py of commit 6e194231).
"""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.config import MeshConfig
from lm.evaluation.evaluator import EvaluationInterrupted
from lm.evaluation.log_likelihood import LogLikelihoods, Request, encode_pair
from lm.model.param_names import replace_leaves
from lm.model.transformer import Transformer
from lm.parallel import make_mesh, one_device_mesh, shardings
from lm.tokenizer import Tokenizer, load
from lm.tokenizer.characters import CharacterTokenizer
from tests.lm.hugging_face_files import load_hugging_face
from tests.lm.inference.models import log_probabilities
from tests.lm.model_configs import LLAMA, MODERN, initial_model

REPOSITORY = Path(__file__).parents[3]
STORIES = REPOSITORY / "../shared/data/models/stories260K"
GOLDEN = REPOSITORY / "tests/fixtures/log_likelihood/stories260k.json"
DRAW = np.random.default_rng(0)
LENGTHS = [(1, 1), (3, 2), (9, 4), (14, 2), (15, 1), (30, 5), (1, 16), (2, 40), (7, 0)]
"""(context, continuation): short, full, context too long, continuation too long, and empty."""
REQUESTS = [Request(DRAW.integers(0, 64, a).tolist(), DRAW.integers(0, 64, b).tolist()) for a, b in LENGTHS]


@pytest.mark.skipif(not STORIES.is_dir(), reason="needs ../shared/data/models/stories260K")
def test_a_trained_model_gives_the_log_likelihoods_of_transformers():
    config, arrays = load_hugging_face(STORIES / "hf")
    like = jax.eval_shape(lambda: Transformer(config, jax.random.key(0)))
    model = replace_leaves(like, {name: jnp.asarray(array) for name, array in arrays.items()})
    golden = json.loads(GOLDEN.read_text())
    requests = [Request(row["context"], row["continuation"]) for row in golden]
    found = LogLikelihoods(config, 4).score(model, one_device_mesh(config), requests)
    assert [one.log_likelihood for one in found] == pytest.approx([row["log_likelihood"] for row in golden], abs=1e-3)
    assert [one.greedy for one in found] == [row["greedy"] for row in golden]
    assert {row["greedy"] for row in golden} == {True, False}


def naive(log_p, context: int, request: Request) -> tuple[float, bool]:
    """Each token separately, in its window by the definition."""
    whole, nats, greedy = [*request.context, *request.continuation], 0.0, True
    first = len(request.context)
    for at in range(first, len(whole)):
        end = min(first + context * ((at - first) // context + 1), len(whole))
        seen = whole[max(0, end - context - 1) : at]
        log_p_V = log_p(seen)[-1]
        nats += log_p_V[whole[at]]
        greedy &= int(log_p_V.argmax()) == whole[at]
    return nats, greedy


def test_batches_of_all_lengths_equal_token_by_token_scores():
    config = MODERN
    model = initial_model(config, 1)
    log_p = log_probabilities(model, config.context_length)
    best = int(log_p([7, 8])[-1].argmax())
    requests = [*REQUESTS, Request([7, 8], [best])]
    found = LogLikelihoods(config, 2).score(model, one_device_mesh(config), requests)
    for request, one in zip(requests, found, strict=True):
        nats, greedy = naive(log_p, config.context_length, request)
        assert one.log_likelihood == pytest.approx(nats, abs=2e-4)
        assert one.greedy == greedy
    assert found[-1].greedy and not all(one.greedy for one in found)


@pytest.mark.slow
def test_scores_are_the_same_on_a_fully_sharded_mesh():
    config = dataclasses.replace(LLAMA, layers=1, kv_heads=4)
    model = initial_model(config, 1)
    alone = LogLikelihoods(config, 2).score(model, one_device_mesh(config), REQUESTS)
    devices = make_mesh(MeshConfig(fsdp=2, tensor=2, context=2), config, 8)
    placed = jax.device_put(model, shardings(model, devices))
    found = LogLikelihoods(config, 2).score(placed, devices, REQUESTS)
    nats = [one.log_likelihood for one in alone]
    assert [one.log_likelihood for one in found] == pytest.approx(nats, abs=1e-4)
    assert [one.greedy for one in found] == [one.greedy for one in alone]


def test_an_evaluation_stops_on_request():
    model = jax.eval_shape(lambda: Transformer(LLAMA, jax.random.key(0)))
    with pytest.raises(EvaluationInterrupted):
        LogLikelihoods(LLAMA, 2, should_stop=lambda: True).score(model, one_device_mesh(LLAMA), REQUESTS)


@pytest.fixture(params=["bpe", "characters"])
def tokenizer(request, tokens) -> Tokenizer:
    return load(tokens / "tokenizer") if request.param == "bpe" else CharacterTokenizer("\n abcdefghijklmnopqrstuvwxyz")


@pytest.mark.parametrize("add_bos_token", [True, False])
@pytest.mark.parametrize(
    ("context", "continuation"),
    [("the miller", " found it"), ("the old ", "baker"), ("", "a farmer"), ("a", "b"), ("  ", "by")],
)
def test_a_pair_is_encoded_as_the_whole_text_after_the_head(tokenizer, context, continuation, add_bos_token):
    found = encode_pair(tokenizer, context, continuation, add_bos_token)
    ids, head = [*found.context, *found.continuation], tokenizer.bos_id
    assert found.context and found.continuation
    whole = tokenizer.encode(context + continuation)
    assert ids == ([head, *whole] if add_bos_token or not context.strip() else whole)
    said = tokenizer.decode(found.continuation)
    assert said.endswith(continuation) and not tokenizer.decode(ids[: len(ids) - len(found.continuation)]).endswith(" ")


def test_a_token_across_the_boundary_belongs_to_the_continuation(tokens):
    tokenizer = load(tokens / "tokenizer")
    (joined,) = [id for id in range(tokenizer.vocab_size) if tokenizer.token_bytes(id) == b"he"]
    found = encode_pair(tokenizer, "h", "e")
    assert found == ([tokenizer.bos_id], [joined])
