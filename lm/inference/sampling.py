"""Draw the next token: one jitted function for rows with individual sampling parameters.

Axes: B rows, V token ids that can be drawn, W rows of the output table (V or more), K alternatives.
"""

from collections.abc import Callable
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt32

from lm.inference.requests import SamplingParams
from lm.model.arrays import RowFloats, RowInts, RowLogits, TokenMask
from lm.model.cpu import on_cpu
from lm.parallel import constrain

LEAST_TEMPERATURE = 1e-6
"""At or below this temperature, the most likely token has all the probability in float32."""
SUMMED_TOGETHER = 128
"""Block size of the sum over all token ids."""
COLUMNS = 32
"""Columns of maxima in `argmax_by_blocks`."""


class Sampling(NamedTuple):
    """Sampling parameters of all rows of a batch. temperature_B, top_k_B, top_p_B, min_p_B, repetition_penalty_B and
    seed_B are as in lm.inference.requests.SamplingParams."""

    temperature_B: RowFloats | np.ndarray  # noqa: N815
    top_k_B: RowInts | np.ndarray  # noqa: N815
    top_p_B: RowFloats | np.ndarray  # noqa: N815
    min_p_B: RowFloats | np.ndarray  # noqa: N815
    repetition_penalty_B: RowFloats | np.ndarray  # noqa: N815
    seed_B: UInt32[Array, " B"] | np.ndarray  # noqa: N815
    logprobs_B: Bool[Array, " B"] | np.ndarray  # noqa: N815
    """Whether log-probabilities are requested."""

    @classmethod
    def of(cls, params: list[SamplingParams]) -> "Sampling":
        """Stack sampling parameters into NumPy arrays, row i from params[i]."""
        floats = lambda name: np.array([getattr(one, name) for one in params], np.float32)
        return cls(
            floats("temperature"),
            np.array([min(one.top_k, 2**31 - 1) for one in params], np.int32),
            floats("top_p"),
            floats("min_p"),
            floats("repetition_penalty"),
            np.array([one.seed for one in params], np.uint32),
            np.array([one.logprobs is not None for one in params]),
        )


class Drawn(NamedTuple):
    """Token drawn for each row, with log-probabilities in nats (zeros if no row requests them)."""

    token_B: RowInts  # noqa: N815
    """Token ids."""
    logprob_B: RowFloats  # noqa: N815
    """Log-probability of the drawn token."""
    top_BK: Int[Array, "B K"]  # noqa: N815
    """Most likely token ids, best first."""
    top_logprob_BK: Float[Array, "B K"]  # noqa: N815
    """Log-probabilities of `top_BK`."""


def draw(
    logits_BW: Float[Array, "B W"],
    seen_BV: TokenMask,
    sampling: Sampling,
    position_B: RowInts,
    alternatives: int,
) -> Drawn:
    """Draw one of the first V token ids for each row; it becomes the token at position `position_B`. Log-probabilities
    are those of the model, before penalty, temperature and top-k.

    `seen_BV` marks the tokens of the prompt and the text so far, `alternatives` is K. The result of a row depends only
    on its own logits, parameters, seed and position, not on other rows.
    """
    symbols = seen_BV.shape[1]
    logits_BW = constrain(logits_BW, "drawn", None)
    logits_BV = logits_BW[:, :symbols].astype(jnp.float32)
    penalised_BV = when(
        sampling.repetition_penalty_B != 1.0,
        lambda: penalised(logits_BV, seen_BV, cast(jax.Array, sampling.repetition_penalty_B)),
        lambda: logits_BV,
    )
    likeliest_B = likeliest(penalised_BV).astype(jnp.int32)
    token_B = when(
        sampling.temperature_B > 0,
        lambda: jnp.where(sampling.temperature_B > 0, sampled(penalised_BV, sampling, position_B), likeliest_B),
        lambda: likeliest_B,
    )
    nothing = (
        jnp.zeros(token_B.shape, jnp.float32),
        jnp.zeros((*token_B.shape, alternatives), jnp.int32),
        jnp.zeros((*token_B.shape, alternatives), jnp.float32),
    )
    found = when(sampling.logprobs_B, lambda: logprobs(logits_BW, token_B, symbols, alternatives), lambda: nothing)
    return Drawn(token_B, *found)


def argmax_by_blocks(x_BV: RowLogits) -> RowInts:
    """Return the index of each row's first maximum. Faster on CPUs than jnp.argmax: first finds the maximum by
    blocks."""
    width = x_BV.shape[1]
    filled_BV = jnp.pad(x_BV, ((0, 0), (0, -width % COLUMNS)), constant_values=-jnp.inf)
    by_columns_BV = jnp.max(filled_BV.reshape(x_BV.shape[0], -1, COLUMNS), axis=1)
    greatest_B1 = jnp.max(by_columns_BV, axis=1, keepdims=True)
    places_1V = jnp.arange(width)[None]
    return jnp.min(jnp.where(x_BV == greatest_B1, places_1V, width - 1), axis=1)


@on_cpu(argmax_by_blocks)
def likeliest(x_BV: RowLogits) -> RowInts:
    """Return the id of the largest logit of each row; of equal logits, the one with the lowest id."""
    return jnp.argmax(x_BV, axis=-1)


def when[R](rows_B: Bool[Array, " B"] | np.ndarray, some: Callable[[], R], none: Callable[[], R]) -> R:
    """Run `some` if any row is True, else `none`, and return the result (lax.cond)."""
    return jax.lax.cond(jnp.any(rows_B), some, none)


def penalised(logits_BV: RowLogits, seen_BV: TokenMask, penalty_B: RowFloats) -> RowLogits:
    """Divide positive logits of seen tokens by the repetition penalty, and multiply negative ones
    (arXiv:1909.05858)."""
    penalty_B1 = penalty_B[:, None]
    return jnp.where(seen_BV, jnp.where(logits_BV > 0, logits_BV / penalty_B1, logits_BV * penalty_B1), logits_BV)


def sampled(logits_BV: RowLogits, sampling: Sampling, position_B: RowInts) -> RowInts:
    """Sample an id per row from softmax(logits / temperature), restricted by top-k, top-p and min-p. The random key
    comes from the row's seed and position."""
    share = lambda seed, position: jax.random.uniform(jax.random.fold_in(jax.random.key(seed), position))
    share_B = jax.vmap(share)(sampling.seed_B, position_B)
    return jax.vmap(at_share)(weights(logits_BV, sampling), share_B)


def weights(logits_BV: RowLogits, sampling: Sampling) -> RowLogits:
    """Return unnormalized sampling probabilities, temperature applied: 1 for the most likely token, 0 for tokens
    excluded by top-k, top-p or min-p. Valid for temperatures above 0."""
    temperature_B1 = jnp.maximum(sampling.temperature_B, LEAST_TEMPERATURE)[:, None]
    # Subtract the maximum: nothing overflows at low temperatures.
    scaled_BV = (logits_BV - jnp.max(logits_BV, axis=-1, keepdims=True)) / temperature_B1
    kept_BV = when(
        (sampling.top_k_B > 0) | (sampling.top_p_B < 1.0),
        lambda: kept_by_rank(scaled_BV, sampling),
        lambda: jnp.ones(scaled_BV.shape, bool),
    )
    kept_BV &= scaled_BV >= jnp.log(sampling.min_p_B)[:, None]
    return jnp.where(kept_BV, jnp.exp(scaled_BV), 0.0)


def at_share(weights_V: Float[Array, " V"], share: Float[Array, ""]) -> Int[Array, ""]:
    """Return the first id at which the cumulative weight exceeds `share` (from 0 to 1) of the total: a sample, if
    `share` is uniform. An id of weight 0 is never returned.

    One random number per id (the Gumbel trick of jax.random.categorical) takes ten times as long on a CPU. The sum is
    computed in blocks to reduce rounding errors.
    """
    weights_NC = jnp.pad(weights_V, (0, -weights_V.size % SUMMED_TOGETHER)).reshape(-1, SUMMED_TOGETHER)
    blocks_N = jnp.sum(weights_NC, axis=1)
    target = share * jnp.sum(blocks_N)

    def first_beyond(weights_X: jax.Array, target: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return (index, distance of the target into its weight)."""
        until_X, places_X = jnp.cumsum(weights_X), jnp.arange(weights_X.size)
        # XLA sums in a tree: with rounding, the sum can grow at a weight of 0, or stay below the target. Then take the
        # next, or the last, index with a weight above 0.
        last = jnp.max(jnp.where(weights_X > 0, places_X, 0))
        place = jnp.min(jnp.where((until_X > target) & (weights_X > 0), places_X, last))
        return place, jnp.maximum(target - (until_X[place] - weights_X[place]), 0.0)

    block, rest = first_beyond(blocks_N, target)
    return (block * SUMMED_TOGETHER + first_beyond(weights_NC[block], rest)[0]).astype(jnp.int32)


def kept_by_rank(scaled_BV: RowLogits, sampling: Sampling) -> TokenMask:
    """Return which tokens top-k and top-p keep. Of the top_k most likely tokens, top-p keeps the likeliest until they
    have the share top_p of the probability of all top_k. Of equally likely tokens, lower ids come first."""
    order_BV = jnp.argsort(-scaled_BV, axis=-1, stable=True)
    sorted_BV = jnp.take_along_axis(scaled_BV, order_BV, axis=-1)
    top_k_B1, top_p_B1 = sampling.top_k_B[:, None], sampling.top_p_B[:, None]
    ranks_1V = jnp.arange(scaled_BV.shape[1])[None]
    kept_BV = (top_k_B1 == 0) | (ranks_1V < top_k_B1)
    share_BV = jax.nn.softmax(jnp.where(kept_BV, sorted_BV, -jnp.inf), axis=-1)
    better_BV = jnp.cumsum(share_BV, axis=-1) - share_BV
    kept_BV &= (top_p_B1 >= 1.0) | (better_BV < top_p_B1) | (ranks_1V == 0)
    return jax.vmap(lambda order_V, kept_V: jnp.zeros(kept_V.shape, bool).at[order_V].set(kept_V))(order_BV, kept_BV)


def logprobs(
    logits_BW: Float[Array, "B W"], token_B: RowInts, symbols: int, alternatives: int
) -> tuple[RowFloats, Int[Array, "B K"], Float[Array, "B K"]]:
    """Return (log p of each row's token in nats, K most likely of the first `symbols` ids, their log p)."""
    logits_BW = logits_BW.astype(jnp.float32)
    total_B1 = jax.nn.logsumexp(logits_BW, axis=-1, keepdims=True)
    token_B1 = jnp.take_along_axis(logits_BW, token_B[:, None], axis=-1) - total_B1
    top_BK, ids_BK = jax.lax.top_k(logits_BW[:, :symbols], alternatives)
    return token_B1[:, 0], ids_BK, top_BK - total_B1
