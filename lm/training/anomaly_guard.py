"""Steps that would do harm are skipped within the step: losses or gradients that are not finite, and spikes.

A spike is a loss or a gradient norm beyond the mean of the last accepted steps by some standard deviations, after
OLMo 2 (arXiv:2501.00656), whose optimizer skips such steps. Parameters and optimizer stay as they were, to the bit; the
step counts, so that the next batch is another.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from lm.config import SpikeConfig

LEAST_DEVIATION = 0.01
"""The standard deviation counts as at least this share of the mean. Otherwise, where the loss hardly changes from step
to step, a tiny rise would be many deviations, and count as a spike."""


class Guard(NamedTuple):
    """What the bound is made of, a part of the TrainState."""

    recent_2W: Float[Array, "2 W"]  # noqa: N815
    """Losses and gradient norms of the last W accepted steps; of a ring whose next place is accepted % W."""
    accepted: Int[Array, ""]
    """Steps that were applied."""
    in_row: Int[Array, ""]
    """Steps skipped since the last accepted one."""


def make_guard(config: SpikeConfig) -> Guard:
    zero = lambda: jnp.zeros((), jnp.int32)  # two arrays: one could not be donated twice
    return Guard(jnp.zeros((2, max(config.window, 1)), jnp.float32), zero(), zero())


def bounds(guard: Guard, config: SpikeConfig) -> Float[Array, " 2"]:
    """The largest loss and gradient norm that are accepted; infinite until `window` steps were, and where it is 0."""
    if not config.window:
        return jnp.full((2,), jnp.inf)
    mean_2 = jnp.mean(guard.recent_2W, axis=1)
    deviation_2 = jnp.maximum(jnp.std(guard.recent_2W, axis=1), LEAST_DEVIATION * jnp.abs(mean_2))
    return jnp.where(guard.accepted >= config.window, mean_2 + config.deviations * deviation_2, jnp.inf)


def accept(
    guard: Guard, loss: Float[Array, ""], norm: Float[Array, ""], config: SpikeConfig
) -> tuple[Bool[Array, ""], Guard]:
    """(whether the step is applied, the guard after it). Raises ValueError on a guard of another window."""
    if guard.recent_2W.shape[1] != max(config.window, 1):
        raise ValueError(f"the guard has a window of {guard.recent_2W.shape[1]}, the config one of {config.window}")
    seen_2 = jnp.stack([loss, norm]).astype(jnp.float32)
    applied = jnp.all(jnp.isfinite(seen_2) & (seen_2 <= bounds(guard, config)))
    place = guard.accepted % guard.recent_2W.shape[1]
    recent_2W = jnp.where(applied, guard.recent_2W.at[:, place].set(seen_2), guard.recent_2W)
    after = Guard(recent_2W, guard.accepted + applied, jnp.where(applied, 0, guard.in_row + 1))
    return applied, after


def where_applied[Tree](applied: Bool[Array, ""], new: Tree, old: Tree) -> Tree:
    """`new`, or `old` of a step that is skipped. XLA computes it in the loops that make `new`."""
    return jax.tree.map(lambda changed, kept: jnp.where(applied, changed, kept), new, old)
