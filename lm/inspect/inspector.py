"""A model, its config and its tokenizer: what can be asked of them."""

import jax
from jax.sharding import Mesh

from lm.config import ModelConfig
from lm.model.transformer import Transformer
from lm.tokenizer import Tokenizer


class Inspector:
    """A model that is looked at."""

    def __init__(self, model: Transformer, config: ModelConfig, tokenizer: Tokenizer, mesh: Mesh):
        self.model, self.config, self.tokenizer, self.mesh = model, config, tokenizer, mesh

    @property
    def parameters(self) -> int:
        return sum(leaf.size for leaf in jax.tree.leaves(self.model))
