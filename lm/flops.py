"""Parameters and floating-point operations of a model, counted from its config."""

import jax

from lm.model.config import ModelConfig
from lm.model.transformer import Transformer


def count_parameters(config: ModelConfig) -> int:
    """Parameters of the model, without making them."""
    abstract = jax.eval_shape(lambda: Transformer(config, jax.random.key(0)))
    return sum(leaf.size for leaf in jax.tree.leaves(abstract))
