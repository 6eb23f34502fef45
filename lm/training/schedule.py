"""Learning rate by step."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from lm.config import OptimizerConfig


def learning_rate(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """Linear from 0 to the peak over the warm-up, then down to the final rate by config.schedule.

    The peak is the rate of the warm-up's last update, the final rate that of update `steps`; updates count from 0 here.
    """
    falling = steps - config.warmup_steps
    if config.schedule == "warmup_stable_decay":
        falling = config.decay_steps
    final_share = config.final_learning_rate / config.learning_rate

    def rate(step: Any) -> jax.Array:
        warm = (step + 1) / max(config.warmup_steps, 1)
        progress = jnp.clip((step + 1 - (steps - falling)) / max(falling, 1), 0.0, 1.0)
        left = 0.5 * (1.0 + jnp.cos(jnp.pi * progress)) if config.schedule == "cosine" else 1.0 - progress
        share = jnp.where(step < config.warmup_steps, warm, final_share + (1.0 - final_share) * left)
        return config.learning_rate * share

    return rate
