"""The trainer's log-probabilities are those of the engine, bit for bit, and their gradients are right."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from lm.config import ReinforceConfig
from lm.inference.engine import Engine
from lm.inference.requests import GenerationRequest, SamplingParams
from lm.parallel import one_device_mesh, traced_on
from lm.reinforcement.sampler import Reply, answer_batch
from lm.reinforcement.scoring import AnswerBatch, objective, objective_and_gradients
from lm.tokenizer.encoding import BytePairTokenizer, numbered
from lm.tokenizer.patterns import SPLIT_PATTERNS
from tests.lm.model_configs import FAMILIES, random_model

SLOTS, CONTEXT, NEW = 4, 48, 20
BYTES = tuple(bytes([byte]) for byte in range(256))
TOKENIZER = BytePairTokenizer(
    SPLIT_PATTERNS["cl100k"], BYTES, special_tokens=numbered(BYTES, ("<|endoftext|>",))
)  # fmt: skip


def sampled(
    family: str, requests: int, most: int = CONTEXT - NEW, **changes
) -> tuple[Engine, list[Reply], AnswerBatch]:
    """Replies of mixed lengths to prompts of mixed lengths, up to `most` tokens; the weights are 1, 2, 3, ..."""
    config = dataclasses.replace(
        FAMILIES[family], vocab_size=TOKENIZER.vocab_size, context_length=CONTEXT, **changes
    )  # fmt: skip
    mesh = one_device_mesh(config)
    engine = Engine(jax.device_put(random_model(config), NamedSharding(mesh, PartitionSpec())), config, TOKENIZER,
                    slots=SLOTS, mesh=mesh)  # fmt: skip
    draw, asked = np.random.default_rng(0), []
    for seed in range(requests):
        prompt = tuple(draw.integers(0, 256, draw.integers(1, most)).tolist())
        params = SamplingParams(int(draw.integers(1, NEW + 1)), seed=seed, logprobs=0)
        asked.append(GenerationRequest(prompt, params))
    answers = [(one, [*done.logprobs]) for one, done in zip(asked, engine.complete(asked), strict=True)]
    rows = -(-requests // SLOTS) * SLOTS
    config = ReinforceConfig(context=CONTEXT, max_tokens=NEW)
    return engine, answers, answer_batch(rows, config, [*zip(answers, range(1, requests + 1), strict=True)])


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        pytest.param("llama", {}, id="llama"),
        pytest.param("llama", {"scan_layers": True}, id="stacked", marks=pytest.mark.slow),
        pytest.param("gpt2", {}, id="gpt2", marks=pytest.mark.slow),
        pytest.param("modern", {}, id="modern", marks=pytest.mark.slow),
    ],
)
def test_log_probabilities_are_those_of_the_engine_bit_for_bit(family, changes):
    engine, answers, batch = sampled(family, 90, **changes)
    on_mesh = lambda function: traced_on(one_device_mesh(engine.shape.config), jax.jit(function), training=True)
    found = on_mesh(jax.value_and_grad(functools.partial(objective, shape=engine.shape), has_aux=True))
    tokens = 0
    for start in range(0, 90, SLOTS):
        part = AnswerBatch(*(rows[start : start + SLOTS] for rows in batch))
        (_, logprobs_BN), _ = found(engine.model, batch=part)
        for (_, drawn), found_N in zip(answers[start : start + SLOTS], np.asarray(logprobs_BN), strict=False):
            wanted_N = np.array([one.logprob for one in drawn], np.float32)
            np.testing.assert_array_equal(found_N[: wanted_N.size].view(np.int32), wanted_N.view(np.int32))
            tokens += wanted_N.size
    assert tokens > 700


def test_the_largest_difference_of_log_probabilities_is_reported_and_replies_without_a_weight_are_left_out():
    engine, _, batch = sampled("llama", 6)

    def step(model, batch):
        metrics = {}
        return *objective_and_gradients(model, engine.shape, batch, SLOTS, metrics), metrics

    run = traced_on(one_device_mesh(engine.shape.config), jax.jit(step), training=True)
    batch.weights_RN[SLOTS:] = 0  # no second part is computed
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


def test_gradients_are_those_of_the_usual_forward_pass():
    engine, _, batch = sampled("modern", 4, most=16)

    def plainly(model, ids_BT, weights_BT):
        logprobs_BTV = jax.nn.log_softmax(model.logits(model.read(ids_BT[:, :-1], jnp.ones_like(ids_BT[:, :-1]))))
        chosen_BT = jnp.take_along_axis(logprobs_BTV, ids_BT[:, 1:, None], axis=-1)[..., 0]
        return -jnp.sum(chosen_BT * weights_BT)

    ids_BT, weights_BT = np.zeros((SLOTS, CONTEXT + 1), np.int32), np.zeros((SLOTS, CONTEXT), np.float32)
    for row, length in enumerate(batch.lengths_R1[:, 0]):
        ids_BT[row, :length] = batch.prompts_RT[row, :length]
        ids_BT[row, length : length + NEW] = batch.tokens_RN[row]
        weights_BT[row, length - 1 : length - 1 + NEW] = batch.weights_RN[row]
    minimized = lambda model: objective(model, engine.shape, batch)[0]
    found = jax.jit(jax.grad(minimized))(engine.model)
    wanted = jax.jit(jax.grad(plainly))(engine.model, ids_BT, weights_BT)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4 * float(jnp.max(jnp.abs(other))) + 1e-6)
