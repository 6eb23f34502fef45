"""Skip harmful training steps inside the compiled step: non-finite losses or gradients, and spikes.

A spike is a loss or gradient norm that exceeds the mean of the last accepted steps by several standard deviations,
after OLMo 2 (arXiv:2501.00656), whose optimizer skips such steps. A skipped step leaves parameters and optimizer state
bit-identical, but the step counter still advances, so training continues with the next batch.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from lm.config import SpikeConfig

LEAST_DEVIATION = 0.01
"""Lower bound of the standard deviation, as a fraction of the mean. Without it, a tiny rise of a nearly constant loss
would count as a spike."""


class Guard(NamedTuple):
    """Statistics of the last accepted steps, from which `bounds` computes the largest loss and gradient norm to accept.
    Part of the TrainState."""

    recent_2W: Float[Array, "2 W"]  # noqa: N815
    """Losses and gradient norms of the last W accepted steps, as a ring buffer; the next entry goes to accepted % W.
    Steps without a gradient, as if no answer of reinforcement learning had a reward, are not entered."""
    accepted: Int[Array, ""]
    """Number of applied steps."""
    in_row: Int[Array, ""]
    """Number of skipped steps since the last accepted one."""


def make_guard(config: SpikeConfig) -> Guard:
    zero = lambda: jnp.zeros((), jnp.int32)  # two arrays: one could not be donated twice
    return Guard(jnp.zeros((2, max(config.window, 1)), jnp.float32), zero(), zero())


def bounds(guard: Guard, config: SpikeConfig) -> Float[Array, " 2"]:
    """Return the largest loss and gradient norm that are no spike; infinite until the buffer is full."""
    if not config.window:
        return jnp.full((2,), jnp.inf)
    mean_2 = jnp.mean(guard.recent_2W, axis=1)
    deviation_2 = jnp.maximum(jnp.std(guard.recent_2W, axis=1), LEAST_DEVIATION * jnp.abs(mean_2))
    return jnp.where(jnp.all(guard.recent_2W[1] > 0), mean_2 + config.deviations * deviation_2, jnp.inf)


def accept(
    guard: Guard, loss: Float[Array, ""], norm: Float[Array, ""], config: SpikeConfig
) -> tuple[Bool[Array, ""], Guard]:
    """Return (whether to apply a step with this loss and gradient norm, updated guard). Raises ValueError if the guard
    was made for another config.window."""
    if guard.recent_2W.shape[1] != max(config.window, 1):
        raise ValueError(f"the guard has a window of {guard.recent_2W.shape[1]}, the config one of {config.window}")
    seen_2 = jnp.stack([loss, norm]).astype(jnp.float32)
    applied = jnp.all(jnp.isfinite(seen_2) & (seen_2 <= bounds(guard, config)))
    place = guard.accepted % guard.recent_2W.shape[1]
    recent_2W = jnp.where(applied & (norm > 0), guard.recent_2W.at[:, place].set(seen_2), guard.recent_2W)
    after = Guard(recent_2W, guard.accepted + applied, jnp.where(applied, 0, guard.in_row + 1))
    return applied, after


def where_applied[Tree](applied: Bool[Array, ""], new: Tree, old: Tree) -> Tree:
    """Return `new` if the step is applied, else `old`. XLA fuses the selection into the loops that compute `new`."""
    return jax.tree.map(lambda changed, kept: jnp.where(applied, changed, kept), new, old)
