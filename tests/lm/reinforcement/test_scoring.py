"""The trainer's log-probabilities are those of the engine, bit for bit, and their gradients are right."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from lm.inference.engine import Engine
from lm.inference.requests import GenerationRequest, SamplingParams
from lm.parallel import one_device_mesh, traced_on
from lm.reinforcement.loop import SampledReply, batches, largest_difference
from lm.reinforcement.scoring import objective
from lm.tokenizer.encoding import BytePairTokenizer, numbered
from lm.tokenizer.patterns import SPLIT_PATTERNS
from tests.lm.model_configs import FAMILIES, random_model

SLOTS, CONTEXT, NEW = 4, 48, 20
BYTES = tuple(bytes([byte]) for byte in range(256))
TOKENIZER = BytePairTokenizer(
    SPLIT_PATTERNS["cl100k"], BYTES, special_tokens=numbered(BYTES, ("<|endoftext|>",))
)  # fmt: skip


def sampled(family: str, requests: int, most: int = CONTEXT - NEW, **changes) -> tuple[Engine, list[Any]]:
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
    answers = [
        SampledReply(one.prompt, *zip(*((x.token, x.logprob) for x in done.logprobs), strict=True))
        for one, done in zip(asked, engine.complete(asked), strict=True)
    ]
    return engine, [*batches(answers, np.arange(1.0, requests + 1), engine, NEW)]


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
    engine, batches_of_engine = sampled(family, 90, **changes)
    found = traced_on(one_device_mesh(engine.shape.config), jax.jit(
        jax.value_and_grad(functools.partial(objective, shape=engine.shape), has_aux=True)
    ), training=True)  # fmt: skip
    tokens = 0
    for answers, batch in batches_of_engine:
        (_, logprobs_BN), _ = found(engine.model, batch=batch)
        for one, found_N in zip(answers, np.asarray(logprobs_BN), strict=False):
            wanted_N = np.array(one.logprobs, np.float32)
            np.testing.assert_array_equal(found_N[: wanted_N.size].view(np.int32), wanted_N.view(np.int32))
            tokens += wanted_N.size
        assert largest_difference(answers, logprobs_BN) == 0
        assert largest_difference(answers, logprobs_BN + 0.5) > 0.4
    assert tokens > 700


def test_gradients_are_those_of_the_usual_forward_pass():
    engine, ((_, batch),) = sampled("modern", 4, most=16)

    def plainly(model, ids_BT, weights_BT):
        logprobs_BTV = jax.nn.log_softmax(model.logits(model.read(ids_BT[:, :-1], jnp.ones_like(ids_BT[:, :-1]))))
        chosen_BT = jnp.take_along_axis(logprobs_BTV, ids_BT[:, 1:, None], axis=-1)[..., 0]
        return -jnp.sum(chosen_BT * weights_BT)

    ids_BT, weights_BT = np.zeros((SLOTS, CONTEXT + 1), np.int32), np.zeros((SLOTS, CONTEXT), np.float32)
    for row, length in enumerate(batch.lengths_B):
        ids_BT[row, :length] = batch.prompts_BT[row, :length]
        ids_BT[row, length : length + NEW] = batch.tokens_BN[row]
        weights_BT[row, length - 1 : length - 1 + NEW] = batch.weights_BN[row]
    minimized = lambda model: objective(model, engine.shape, batch)[0]
    found = jax.jit(jax.grad(minimized))(engine.model)
    wanted = jax.jit(jax.grad(plainly))(engine.model, ids_BT, weights_BT)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4 * float(jnp.max(jnp.abs(other))) + 1e-6)


def test_the_last_answer_fills_up_a_batch_with_weight_0():
    _, found = sampled("llama", 5)
    assert sum(len(answers) for answers, _ in found) == 5
    for answers, batch in found:
        assert len(batch.tokens_BN) == SLOTS and not batch.weights_BN[len(answers) :].any()
        assert [*(batch.weights_BN > 0).sum(axis=1)[: len(answers)]] == [len(one.tokens) for one in answers]
