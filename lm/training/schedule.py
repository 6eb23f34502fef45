"""Learning rate schedules."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from lm.config import OptimizerConfig
from lm.trusted_code import named


def cosine(config: OptimizerConfig, updates: int, after: jax.Array) -> jax.Array:
    """Return the factor `after` of `updates` updates since the warm-up: cosine decay from 1 to 0 (arXiv:1608.03983)."""
    return 0.5 * (1.0 + jnp.cos(jnp.pi * linear_progress(after, updates)))


def linear(config: OptimizerConfig, updates: int, after: jax.Array) -> jax.Array:
    return 1.0 - linear_progress(after, updates)


def warmup_stable_decay(config: OptimizerConfig, updates: int, after: jax.Array) -> jax.Array:
    """Return the factor `after` of `updates` updates since the warm-up: 1, then, in the last config.decay_steps, linear
    decay to 0 (arXiv:2404.06395)."""
    return 1.0 - linear_progress(after - (updates - config.decay_steps), config.decay_steps)


def linear_progress(after: jax.Array, updates: int) -> jax.Array:
    """Return after / updates, limited to the range from 0 to 1."""
    return jnp.clip(after / max(updates, 1), 0.0, 1.0)


SCHEDULES: dict[str, Callable[[OptimizerConfig, int, jax.Array], jax.Array]] = {
    "cosine": cosine, "linear": linear, "warmup_stable_decay": warmup_stable_decay,
}  # fmt: skip
"""{train.optimizer.schedule: function(config, number of updates after the warm-up, updates since the warm-up)}. The
function returns the position between the final rate (0) and the peak (1)."""


def learning_rate(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """Return the learning rate schedule: linear warm-up to the peak, then decay to the final rate by config.schedule.

    Steps count from 0: the last step of the warm-up (warmup_steps - 1) has the peak rate, the last step of the run
    (`steps` - 1) the final rate.
    """
    final_share = config.final_learning_rate / config.learning_rate
    decay = named(config.schedule, SCHEDULES, "train.optimizer.schedule")

    def rate(step: Any) -> jax.Array:
        warm = (step + 1) / max(config.warmup_steps, 1)
        after = jnp.maximum(step + 1 - config.warmup_steps, 0)
        left = decay(config, steps - config.warmup_steps, after)
        return config.learning_rate * jnp.where(
            step < config.warmup_steps, warm, final_share + (1.0 - final_share) * left
        )

    return rate
