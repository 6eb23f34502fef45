"""Log-probabilities of sampled answers, for the trainer: bit for bit those of the engine that sampled them.

XLA rounds differently in other shapes and programs, so the trainer computes exactly what the engine computes: it reads
each prompt alone, padded to the same length, and each token of the answers in a decode step with as many rows as the
engine has slots. Optimization barriers prevent changes that XLA does not make in the engine: to transpose a weight once
for all steps, or to fuse a softcap with the softmax after it. jax.checkpoint keeps the forward pass as it is without
gradients; the backward pass computes activations again.

Measured on one CPU device in float32: 0 ulp; the usual forward pass over whole sequences gave another log-probability
for 35 to 70 % of the tokens (tests/bench/reinforce.py). On accelerators XLA may choose other kernels in another
program; the loop logs the largest difference of each step.

Axes: B answers (slots of the engine), T positions of a prompt, N tokens of an answer, W rows of the output table.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from lm.inference import steps
from lm.inference.sampling import logprobs
from lm.model.kv_cache import Cache
from lm.model.transformer import Transformer, empty_cache

STEPS_TOGETHER = 8
"""Decode steps between two stored caches of the backward pass; the caches of all steps would need too much memory."""


class AnswerBatch(NamedTuple):
    """As many answers as the engine has slots, to prompts that it pads to the same length."""

    prompts_BT: Int[Array, "B T"] | np.ndarray  # noqa: N815
    """Token ids of the prompts, padded at the end."""
    lengths_B: Int[Array, " B"] | np.ndarray  # noqa: N815
    """Tokens of each prompt, without padding."""
    tokens_BN: Int[Array, "B N"] | np.ndarray  # noqa: N815
    """Tokens drawn, including the one that ended the answer; then padding."""
    weights_BN: Float[Array, "B N"] | np.ndarray  # noqa: N815
    """Weights of the tokens in the objective; 0 for padding."""


def answer_logprobs(model: Transformer, shape: steps.Shape, batch: AnswerBatch) -> Float[Array, "B N"]:
    """Return the log-probability of each token of the answers in nats, differentiable in the model; undefined for
    padding. `shape` is that of the engine."""
    prompts_BT, lengths_B, tokens_BN, _ = map(jnp.asarray, batch)
    (_, length), (slots, count) = prompts_BT.shape, tokens_BN.shape

    def of_tokens(logits_BW: jax.Array, tokens_B: jax.Array) -> jax.Array:
        return logprobs(jax.lax.optimization_barrier(logits_BW), tokens_B, shape.symbols, 1)[0]

    def read(prompt: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, Cache]:
        """As lm.inference.steps.prefill, for one prompt."""
        own, (prompt_T, size, first) = jax.lax.optimization_barrier((model, prompt))
        positions_1T, cache = jnp.arange(length)[None], empty_cache(shape.config, 1, length)
        logits_1W, cache = steps.last_logits(own, prompt_T[None], positions_1T, positions_1T < size, cache)
        return of_tokens(logits_1W, first[None])[0], cache

    def put(all_rows: jax.Array, rows: jax.Array, axes: tuple[str | None, ...]) -> jax.Array:
        """Write the caches of the prompts, stacked along a new first axis, to the slots."""
        axis = axes.index("batch")
        rows = jnp.moveaxis(jnp.squeeze(rows, axis + 1), 0, axis).astype(all_rows.dtype)
        return jax.lax.dynamic_update_slice(all_rows, rows, (0,) * all_rows.ndim)

    def step(cache: Cache, tokens: tuple[jax.Array, jax.Array]) -> tuple[Cache, jax.Array]:
        """As in lm.inference.steps.decode."""
        own, (token_B, next_B) = jax.lax.optimization_barrier((model, tokens))
        at_B1 = cache.lengths_B[:, None]
        logits_BW, cache = steps.last_logits(own, token_B[:, None], at_B1, at_B1 < shape.context, cache)
        return cache, of_tokens(logits_BW, next_B)

    def steps_together(cache: Cache, tokens: tuple[jax.Array, jax.Array]) -> tuple[Cache, jax.Array]:
        return jax.lax.scan(jax.checkpoint(step, prevent_cse=False), cache, tokens)

    prompts = prompts_BT, lengths_B, tokens_BN[:, 0]
    first_B, read_B = jax.lax.map(jax.checkpoint(read, prevent_cse=False), prompts)
    cache = jax.tree.map(
        put, empty_cache(shape.config, slots, shape.context), read_B, steps.cache_axes(shape.config)
    )  # fmt: skip
    tokens_BN = jnp.pad(tokens_BN, ((0, 0), (0, -(count - 1) % STEPS_TOGETHER)))
    in_blocks = lambda tokens_BN: tokens_BN.T.reshape(-1, STEPS_TOGETHER, slots)
    pairs = in_blocks(tokens_BN[:, :-1]), in_blocks(tokens_BN[:, 1:])
    _, rest = jax.lax.scan(jax.checkpoint(steps_together, prevent_cse=False), cache, pairs)
    return jnp.concatenate([first_B[:, None], rest.reshape(-1, slots).T], axis=1)[:, :count]


def objective(
    model: Transformer, shape: steps.Shape, batch: AnswerBatch
) -> tuple[Float[Array, ""], Float[Array, "B N"]]:
    """Return (minus the sum of weights times log-probabilities, log-probabilities); tokens of weight 0 are ignored."""
    logprobs_BN = answer_logprobs(model, shape, batch)
    return -jnp.sum(jnp.where(batch.weights_BN == 0, 0.0, batch.weights_BN * logprobs_BN)), logprobs_BN
