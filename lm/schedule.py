"""Learning rate by step."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from lm.config import OptimizerConfig


def learning_rate(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """Linear from 0 to the peak over the warm-up, then a cosine down to the final rate (arXiv:1608.03983).

    The peak is the rate of the warm-up's last update, the final rate that of update `steps`; updates count from 0 here.
    """
    cosine = optax.cosine_decay_schedule(
        config.learning_rate, steps - config.warmup_steps, alpha=config.final_learning_rate / config.learning_rate
    )

    def rate(step: Any) -> jax.Array:
        warm = config.learning_rate * (step + 1) / max(config.warmup_steps, 1)
        return jnp.where(step < config.warmup_steps, warm, jnp.asarray(cosine(step + 1 - config.warmup_steps)))

    return rate
