"""Learning rate by step."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from lm.config import OptimizerConfig


def cosine(config: OptimizerConfig, updates: int, after: jax.Array) -> jax.Array:
    """arXiv:1608.03983"""
    return 0.5 * (1.0 + jnp.cos(jnp.pi * linear_progress(after, updates)))


def linear(config: OptimizerConfig, updates: int, after: jax.Array) -> jax.Array:
    return 1.0 - linear_progress(after, updates)


def warmup_stable_decay(config: OptimizerConfig, updates: int, after: jax.Array) -> jax.Array:
    """arXiv:2404.06395: the peak until the last decay_steps updates, then a line."""
    return 1.0 - linear_progress(after - (updates - config.decay_steps), config.decay_steps)


def linear_progress(after: jax.Array, updates: int) -> jax.Array:
    """From 0 to 1 over so many updates."""
    return jnp.clip(after / max(updates, 1), 0.0, 1.0)


SCHEDULES: dict[str, Callable[[OptimizerConfig, int, jax.Array], jax.Array]] = {
    "cosine": cosine, "linear": linear, "warmup_stable_decay": warmup_stable_decay,
}  # fmt: skip
"""{train.optimizer.schedule: function(config, updates after the warm-up in all, updates after the warm-up so far)}: the
share of the way from the final rate up to the peak, from 1 to 0."""


def learning_rate(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """Linear from 0 to the peak over the warm-up, then down to the final rate by config.schedule.

    The peak is the rate of the warm-up's last update, the final rate that of update `steps`; updates count from 0 here.
    """
    final_share = config.final_learning_rate / config.learning_rate

    def rate(step: Any) -> jax.Array:
        warm = (step + 1) / max(config.warmup_steps, 1)
        after = jnp.maximum(step + 1 - config.warmup_steps, 0)
        left = SCHEDULES[config.schedule](config, steps - config.warmup_steps, after)
        return config.learning_rate * jnp.where(
            step < config.warmup_steps, warm, final_share + (1.0 - final_share) * left
        )

    return rate
