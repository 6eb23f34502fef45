"""Log-probabilities of sampled answers, for the trainer: bit for bit those of the engine that sampled them.

XLA rounds differently in other shapes and programs, so the trainer computes exactly what the engine computes: it reads
each prompt alone, padded to the same length, and each token of the answers in a decode step with as many rows as the
engine has slots. Optimization barriers prevent changes that XLA does not make in the engine: to transpose a weight once
for all steps, or to fuse a softcap with the softmax after it. jax.checkpoint keeps the forward pass as it is without
gradients; the backward pass computes activations again.

Measured on one CPU device in float32: 0 ulp; the usual forward pass over whole sequences gave another log-probability
for 35 to 70 % of the tokens (docs/benchmarks.md). On accelerators XLA may choose other kernels in another
program; each step logs the largest difference.

Axes: R replies of a step, B of them that are computed together (by default as many as the engine has slots), T
positions of a prompt, N tokens of a reply, W rows of the output table, F figures of an answer.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from lm.inference import steps
from lm.inference.engine import bucket
from lm.inference.sampling import logprobs
from lm.model.kv_cache import Cache
from lm.model.transformer import Transformer, empty_cache
from lm.parallel import constrain

FIGURES = ("reward", "pass_at_1", "answer_tokens")
"""Metrics, means over answers: reward; 1 if solved, else 0; tokens drawn."""
STEPS_TOGETHER = 8
"""Decode steps between two stored caches of the backward pass; the caches of all steps would need too much memory."""


class AnswerBatch(NamedTuple):
    """Replies of a step of training, padded. Those with a weight come first; the others are not computed."""

    prompts_RT: Int[Array, "R T"] | np.ndarray  # noqa: N815
    """Token ids of the prompts, padded at the end to the context of the engine."""
    lengths_R1: Int[Array, "R 1"] | np.ndarray  # noqa: N815
    """Tokens of each prompt, without padding."""
    tokens_RN: Int[Array, "R N"] | np.ndarray  # noqa: N815
    """Tokens drawn, including the one that ended the reply; then padding."""
    weights_RN: Float[Array, "R N"] | np.ndarray  # noqa: N815
    """Weights of the tokens in the objective; 0 for padding."""
    logprobs_RN: Float[Array, "R N"] | np.ndarray  # noqa: N815
    """Log-probabilities of the tokens from the engine, in nats."""
    figures_RF: Float[Array, "R F"] | np.ndarray  # noqa: N815
    """FIGURES of each answer, in the first rows; the others are NaN."""


def answer_logprobs(model: Transformer, shape: steps.Shape, batch: AnswerBatch) -> Float[Array, "B N"]:
    """Return the log-probability of each token of the replies, which are computed together, in nats, differentiable in
    the model; undefined for padding. `shape` is that of the engine."""
    prompts_BT, lengths_B1, tokens_BN = map(jnp.asarray, batch[:3])
    slots, count = tokens_BN.shape
    padded_lengths = sorted({bucket(length, shape.context) for length in range(1, shape.context)})

    def of_tokens(logits_BW: jax.Array, tokens_B: jax.Array) -> jax.Array:
        return logprobs(jax.lax.optimization_barrier(logits_BW), tokens_B, shape.symbols, 1)[0]

    def read(prompt: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, Cache]:
        """As lm.inference.steps.prefill, for one prompt, which the engine pads to one of `padded_lengths`."""
        own, (prompt_T, size, first) = jax.lax.optimization_barrier((model, prompt))

        def padded(length: int) -> tuple[jax.Array, Cache]:
            positions_1T, cache = jnp.arange(length)[None], empty_cache(shape.config, 1, length)
            logits_1W, cache = steps.last_logits(own, prompt_T[None, :length], positions_1T, positions_1T < size, cache)
            whole = empty_cache(shape.config, 1, shape.context)
            put = lambda all_rows, row: jax.lax.dynamic_update_slice(all_rows, row, (0,) * all_rows.ndim)
            return of_tokens(logits_1W, first[None])[0], jax.tree.map(put, whole, cache)

        at = jnp.searchsorted(jnp.array(padded_lengths), size)
        return jax.lax.switch(at, [lambda length=length: padded(length) for length in padded_lengths])

    def in_slots(rows: jax.Array, axes: tuple[str | None, ...]) -> jax.Array:
        """Convert caches of one row each, stacked along a new first axis, to a cache of all rows."""
        axis = axes.index("batch")
        return jnp.moveaxis(jnp.squeeze(rows, axis + 1), 0, axis)

    def step(cache: Cache, tokens: tuple[jax.Array, jax.Array]) -> tuple[Cache, jax.Array]:
        """As in lm.inference.steps.decode."""
        own, (token_B, next_B) = jax.lax.optimization_barrier((model, tokens))
        at_B1 = cache.lengths_B[:, None]
        logits_BW, cache = steps.last_logits(own, token_B[:, None], at_B1, at_B1 < shape.context, cache)
        return cache, of_tokens(logits_BW, next_B)

    def steps_together(cache: Cache, tokens: tuple[jax.Array, jax.Array]) -> tuple[Cache, jax.Array]:
        return jax.lax.scan(jax.checkpoint(step, prevent_cse=False), cache, tokens)

    prompts = prompts_BT, lengths_B1[:, 0], tokens_BN[:, 0]
    first_B, read_B = jax.lax.map(jax.checkpoint(read, prevent_cse=False), prompts)
    cache = jax.tree.map(in_slots, read_B, steps.cache_axes(shape.config))
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
    return -jnp.sum(jnp.where(batch.weights_RN == 0, 0.0, batch.weights_RN * logprobs_BN)), logprobs_BN


def objective_and_gradients(
    model: Transformer, shape: steps.Shape, batch: AnswerBatch, rows: int, metrics: dict[str, jax.Array]
) -> tuple[jax.Array, Any]:
    """Return the objective of all replies with a weight, and its gradients, summed in float32 over parts of `rows`
    replies. Adds FIGURES to `metrics`, and "logprob_difference": the largest difference between the log-probabilities
    of engine and trainer, in nats, which is 0 if they are exact."""

    def add(number: jax.Array, totals: Any) -> Any:
        cut = lambda x: constrain(jax.lax.dynamic_slice_in_dim(x, number * rows, rows), "batch")
        part = jax.tree.map(cut, batch)
        (loss, logprobs_BN), gradients = jax.value_and_grad(objective, has_aux=True)(model, shape, part)
        differences_BN = jnp.where(part.weights_RN == 0, 0.0, jnp.abs(logprobs_BN - part.logprobs_RN))
        added = jax.tree.map(lambda total, new: total + new.astype(total.dtype), totals[:2], (loss, gradients))
        return *added, jnp.maximum(totals[2], jnp.max(differences_BN))

    trained = jnp.sum(jnp.any(jnp.asarray(batch.weights_RN) != 0, axis=1))
    zero = lambda: jnp.zeros((), jnp.float32)
    zeros = zero(), jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), model), zero()
    loss, gradients, difference = jax.lax.fori_loop(0, -(-trained // rows), add, zeros)
    means_F = jnp.nanmean(jnp.asarray(batch.figures_RF), axis=0)
    metrics |= dict(zip(FIGURES, means_F, strict=True)) | {"logprob_difference": difference}
    return loss, gradients
