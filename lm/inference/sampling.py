"""Which token comes next: one jitted function for rows that each have their own settings.

Axes: B rows, V ids that may be drawn, W rows of the output table (V or more), K alternatives.
"""

from collections.abc import Callable
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt32

from lm.inference.requests import SamplingParams
from lm.model import cpu
from lm.model.cpu import on_cpu
from lm.parallel import constrain

LEAST_TEMPERATURE = 1e-6
"""Below it, as above 0, the likeliest token has all of the probability in float32."""
SUMMED_TOGETHER = 128
"""Ids in a block of a sum over all."""


class Sampling(NamedTuple):
    """Sampling parameters of the rows, as lm.inference.requests.SamplingParams explains them."""

    temperature_B: Float[Array, " B"] | np.ndarray  # noqa: N815
    top_k_B: Int[Array, " B"] | np.ndarray  # noqa: N815
    top_p_B: Float[Array, " B"] | np.ndarray  # noqa: N815
    min_p_B: Float[Array, " B"] | np.ndarray  # noqa: N815
    repetition_penalty_B: Float[Array, " B"] | np.ndarray  # noqa: N815
    seed_B: UInt32[Array, " B"] | np.ndarray  # noqa: N815
    logprobs_B: Bool[Array, " B"] | np.ndarray  # noqa: N815
    """Whether log-probabilities are asked for."""

    @classmethod
    def of(cls, params: list[SamplingParams]) -> "Sampling":
        """A row for each of `params`, in NumPy."""
        column = lambda dtype, get: np.array([get(one) for one in params], dtype)
        return cls(
            column(np.float32, lambda one: one.temperature),
            column(np.int32, lambda one: min(one.top_k, 2**31 - 1)),
            column(np.float32, lambda one: one.top_p),
            column(np.float32, lambda one: one.min_p),
            column(np.float32, lambda one: one.repetition_penalty),
            column(np.uint32, lambda one: one.seed),
            column(np.bool_, lambda one: one.logprobs is not None),
        )


class Drawn(NamedTuple):
    """A token for each row, and where any row asked for them the log-probabilities (nats) that go with it."""

    token_B: Int[Array, " B"]  # noqa: N815
    logprob_B: Float[Array, " B"]  # noqa: N815
    top_BK: Int[Array, "B K"]  # noqa: N815
    """The likeliest ids, best first."""
    top_logprob_BK: Float[Array, "B K"]  # noqa: N815


def draw(
    logits_BW: Float[Array, "B W"],
    seen_BV: Bool[Array, "B V"],
    sampling: Sampling,
    position_B: Int[Array, " B"],
    alternatives: int,
) -> Drawn:
    """The token at `position_B` of each row, among the first V ids, and log-probabilities of the model's distribution.

    `seen` are the tokens of the text so far. What is drawn for a row depends on its logits, its settings, its seed and
    its position, and on no other row: work that no row asks for is left out, and changes nothing where it is done.
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


@on_cpu(cpu.argmax)
def likeliest(x_BV: Float[Array, "B V"]) -> Int[Array, " B"]:
    """The id of each row's greatest logit, the lowest of equal ones."""
    return jnp.argmax(x_BV, axis=-1)


def when[R](rows_B: Bool[Array, " B"] | np.ndarray, some: Callable[[], R], none: Callable[[], R]) -> R:
    """What `some` computes where any row is True, else what `none` does: only one of the two is run."""
    return jax.lax.cond(jnp.any(rows_B), some, none)


def penalised(
    logits_BV: Float[Array, "B V"], seen_BV: Bool[Array, "B V"], penalty_B: Float[Array, " B"]
) -> Float[Array, "B V"]:
    """Logits of tokens that were seen, divided by the penalty where positive, multiplied where negative
    (arXiv:1909.05858, section 4.1)."""
    penalty_B1 = penalty_B[:, None]
    return jnp.where(seen_BV, jnp.where(logits_BV > 0, logits_BV / penalty_B1, logits_BV * penalty_B1), logits_BV)


def sampled(logits_BV: Float[Array, "B V"], sampling: Sampling, position_B: Int[Array, " B"]) -> Int[Array, " B"]:
    """A draw from softmax(logits / temperature), of what top-k, top-p and min-p leave of it, by the key of the row's
    seed and position."""
    share = lambda seed, position: jax.random.uniform(jax.random.fold_in(jax.random.key(seed), position))
    share_B = jax.vmap(share)(sampling.seed_B, position_B)
    return jax.vmap(at_share)(weights(logits_BV, sampling), share_B)


def weights(logits_BV: Float[Array, "B V"], sampling: Sampling) -> Float[Array, "B V"]:
    """What the probability of each token is proportional to, where the temperature is above 0: 1 for the likeliest, 0
    for those that top-k, top-p and min-p leave out."""
    temperature_B1 = jnp.maximum(sampling.temperature_B, LEAST_TEMPERATURE)[:, None]
    # The likeliest becomes 0: nothing overflows at the lowest temperatures.
    scaled_BV = (logits_BV - jnp.max(logits_BV, axis=-1, keepdims=True)) / temperature_B1
    kept_BV = when(
        (sampling.top_k_B > 0) | (sampling.top_p_B < 1.0),
        lambda: kept_by_rank(scaled_BV, sampling),
        lambda: jnp.ones(scaled_BV.shape, bool),
    )
    kept_BV &= scaled_BV >= jnp.log(sampling.min_p_B)[:, None]
    return jnp.where(kept_BV, jnp.exp(scaled_BV), 0.0)


def at_share(weights_V: Float[Array, " V"], share: Float[Array, ""]) -> Int[Array, ""]:
    """Where the weights before and at an id first exceed this share, below 1, of all: an id of weight 0 never.

    One random number an id (the Gumbel trick, jax.random.categorical) takes a CPU ten times as long. The sum goes by
    blocks, so that it rounds little.
    """
    weights_NC = jnp.pad(weights_V, (0, -weights_V.size % SUMMED_TOGETHER)).reshape(-1, SUMMED_TOGETHER)
    blocks_N = jnp.sum(weights_NC, axis=1)
    target = share * jnp.sum(blocks_N)

    def first_beyond(weights_X: jax.Array, target: jax.Array) -> tuple[jax.Array, jax.Array]:
        """(the place, how far the target lies into it)."""
        until_X, places_X = jnp.cumsum(weights_X), jnp.arange(weights_X.size)
        # XLA adds in a tree: by rounding, a sum may grow where the weight is 0, or stay below the target to the end.
        # Then it is the next place, or the last, that has a weight.
        last = jnp.max(jnp.where(weights_X > 0, places_X, 0))
        place = jnp.min(jnp.where((until_X > target) & (weights_X > 0), places_X, last))
        return place, jnp.maximum(target - (until_X[place] - weights_X[place]), 0.0)

    block, rest = first_beyond(blocks_N, target)
    return (block * SUMMED_TOGETHER + first_beyond(weights_NC[block], rest)[0]).astype(jnp.int32)


def kept_by_rank(scaled_BV: Float[Array, "B V"], sampling: Sampling) -> Bool[Array, "B V"]:
    """The top_k likeliest tokens, and of these the fewest likeliest that together have top_p of their probability; of
    equally likely ones, those with the lower ids."""
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
    logits_BW: Float[Array, "B W"], token_B: Int[Array, " B"], symbols: int, alternatives: int
) -> tuple[Float[Array, " B"], Int[Array, "B K"], Float[Array, "B K"]]:
    """(log-probability of each row's token, the likeliest of the first `symbols` ids, theirs), in nats."""
    logits_BW = logits_BW.astype(jnp.float32)
    total_B1 = jax.nn.logsumexp(logits_BW, axis=-1, keepdims=True)
    token_B1 = jnp.take_along_axis(logits_BW, token_B[:, None], axis=-1) - total_B1
    top_BK, ids_BK = jax.lax.top_k(logits_BW[:, :symbols], alternatives)
    return token_B1[:, 0], ids_BK, top_BK - total_B1
