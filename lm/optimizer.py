"""The optimizer of a run."""

import jax
import optax

from lm.config import OptimizerConfig
from lm.schedule import learning_rate


def matrices(parameters: object) -> object:
    """True for every parameter with two axes or more: those get weight decay; norms' scales and biases do not."""
    return jax.tree.map(lambda parameter: parameter.ndim >= 2, parameters)


def make_optimizer(config: OptimizerConfig, steps: int) -> optax.GradientTransformation:
    """Clipping by global norm, then AdamW (arXiv:1711.05101)."""
    return optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        optax.adamw(
            learning_rate(config, steps),
            b1=config.beta1,
            b2=config.beta2,
            eps=config.epsilon,
            weight_decay=config.weight_decay,
            mask=matrices,
        ),
    )
