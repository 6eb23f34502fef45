"""The trainer's log-probabilities are those of the engine, bit for bit, and their gradients are right."""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from lm.config import ReinforceConfig
from lm.inference.engine import Engine
from lm.inference.requests import GenerationRequest, SamplingParams
from lm.parallel import one_device_mesh, traced_on
from lm.reinforcement.sampler import answer_batch
from lm.reinforcement.scoring import AnswerBatch, objective_and_gradients
from lm.tokenizer.encoding import BytePairTokenizer, numbered
from lm.tokenizer.patterns import SPLIT_PATTERNS
from tests.lm.model_configs import FAMILIES, random_model
from tests.lm.trees import leaf_pairs

SLOTS, CONTEXT, NEW, REQUESTS = 4, 32, 10, 60
BYTES = tuple(bytes([byte]) for byte in range(256))
TOKENIZER = BytePairTokenizer(
    SPLIT_PATTERNS["cl100k"], BYTES, special_tokens=numbered(BYTES, ("<|endoftext|>",))
)  # fmt: skip


@functools.cache
def sampled(family: str, scanned: bool = False, layers: int = 2) -> tuple[Engine, AnswerBatch, Callable]:
    """An engine, its replies of mixed lengths to prompts of mixed lengths, with the weights 1, 2, 3, ..., and a
    function of model and batch that returns (objective, gradients, metrics)."""
    config = dataclasses.replace(
        FAMILIES[family], vocab_size=TOKENIZER.vocab_size, context_length=CONTEXT, scan_layers=scanned, layers=layers
    )
    mesh = one_device_mesh(config)
    engine = Engine(jax.device_put(random_model(config), NamedSharding(mesh, PartitionSpec())), config, TOKENIZER,
                    slots=SLOTS, mesh=mesh)  # fmt: skip
    draw, asked = np.random.default_rng(0), []
    for seed in range(REQUESTS):
        prompt = tuple(draw.integers(0, 256, draw.integers(1, CONTEXT - NEW)).tolist())
        params = SamplingParams(int(draw.integers(1, NEW + 1)), seed=seed, logprobs=0)
        asked.append(GenerationRequest(prompt, params))
    answers = [(one, [*done.logprobs]) for one, done in zip(asked, engine.complete(asked), strict=True)]
    sampling = ReinforceConfig(context=CONTEXT, max_tokens=NEW)
    batch = answer_batch(REQUESTS, sampling, [*zip(answers, range(1, REQUESTS + 1), strict=True)])

    def step(model, batch):
        metrics = {}
        return *objective_and_gradients(model, engine.shape, batch, SLOTS, metrics), metrics

    return engine, batch, traced_on(mesh, jax.jit(step), training=True)


def first_part(batch: AnswerBatch) -> AnswerBatch:
    """Only the first SLOTS replies have a weight."""
    return batch._replace(weights_RN=batch.weights_RN * (np.arange(REQUESTS) < SLOTS)[:, None])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "scanned", "layers"),
    [
        ("llama", False, 1),
        ("llama", True, 2),
        ("gpt2", False, 2),
        ("modern", False, 2),
    ],
)
def test_log_probabilities_are_those_of_the_engine_bit_for_bit(family, scanned, layers):
    engine, batch, run = sampled(family, scanned, layers)
    assert float(run(engine.model, batch)[2]["logprob_difference"]) == 0
    assert np.sum(batch.weights_RN > 0) > 250


@pytest.mark.slow
def test_the_largest_difference_of_log_probabilities_is_reported_and_replies_without_a_weight_are_left_out():
    engine, batch, run = sampled("llama", layers=1)
    batch = first_part(batch)._replace(figures_RF=np.full_like(batch.figures_RF, np.nan))
    batch.figures_RF[:2] = [[1, 1, 4], [0.5, 0, 8]]
    loss, gradients, metrics = run(engine.model, batch)
    assert {name: float(value) for name, value in metrics.items()} == {
        "reward": 0.75, "pass_at_1": 0.5, "answer_tokens": 6, "logprob_difference": 0,
    }  # fmt: skip
    assert float(loss) == pytest.approx(-np.sum(batch.weights_RN * batch.logprobs_RN), rel=1e-5)
    assert {leaf.dtype for leaf in jax.tree.leaves(gradients)} == {np.dtype(np.float32)}
    assert float(run(engine.model, batch._replace(logprobs_RN=batch.logprobs_RN + 0.5))[2]["logprob_difference"]) > 0.4
    nothing, gradients, _ = run(engine.model, batch._replace(weights_RN=0 * batch.weights_RN))
    assert float(nothing) == 0 and not any(np.any(leaf) for leaf in jax.tree.leaves(gradients))


@pytest.mark.slow
@pytest.mark.parametrize(("family", "layers"), [("llama", 1), ("modern", 2)])
def test_gradients_are_those_of_the_usual_forward_pass(family, layers):
    engine, batch, run = sampled(family, layers=layers)
    batch = first_part(batch)

    def plainly(model, ids_BT, weights_BT):
        logprobs_BTV = jax.nn.log_softmax(model.logits(model.read(ids_BT[:, :-1], jnp.ones_like(ids_BT[:, :-1]))))
        chosen_BT = jnp.take_along_axis(logprobs_BTV, ids_BT[:, 1:, None], axis=-1)[..., 0]
        return -jnp.sum(chosen_BT * weights_BT)

    ids_BT, weights_BT = np.zeros((SLOTS, CONTEXT + 1), np.int32), np.zeros((SLOTS, CONTEXT), np.float32)
    for row, length in enumerate(batch.lengths_R1[:SLOTS, 0]):
        ids_BT[row, :length] = batch.prompts_RT[row, :length]
        ids_BT[row, length : length + NEW] = batch.tokens_RN[row]
        weights_BT[row, length - 1 : length - 1 + NEW] = batch.weights_RN[row]
    found = run(engine.model, batch)[1]
    wanted = jax.jit(jax.grad(plainly))(engine.model, ids_BT, weights_BT)
    for one, other in leaf_pairs(found, wanted):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4 * float(jnp.max(jnp.abs(other))) + 1e-6)
