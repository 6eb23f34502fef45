"""Parameters and floating-point operations of a model, counted from its config."""

import jax

from lm.config import ModelConfig
from lm.model.transformer import Transformer


def count_parameters(config: ModelConfig) -> int:
    """Parameters of the model, without making them."""
    abstract = jax.eval_shape(lambda: Transformer(config, jax.random.key(0)))
    return sum(leaf.size for leaf in jax.tree.leaves(abstract))


def flops_per_token(config: ModelConfig) -> int:
    """Floating-point operations of training on one token of a full context (PaLM, arXiv:2204.02311, appendix B).

    6 a parameter: a product and a sum forward, twice as many backward. Tables that are looked up count nothing: the
    positions, the n-grams, and the embedding unless it is the output projection too. Attention is 12 * layers * context
    * (heads * head_dim): scores and mixture over the whole context (or the layer's window), though an implementation
    may leave out what is masked, up to half of it. What is computed a second time to save memory does not count.
    """
    looked_up = 0 if config.tie_embeddings else config.vocab_size * config.width
    looked_up += config.tokens_back * config.ngram_rows * config.width
    if config.position == "learned":
        looked_up += config.context_length * config.width
    context = config.context_length
    windows = config.attention_windows or (0,)  # which the layers take in turn
    layers_with = lambda place: len(range(place, config.layers, len(windows)))
    seen = sum(layers_with(place) * min(window or context, context) for place, window in enumerate(windows))
    attention = 12 * seen * config.heads * config.head_channels
    return 6 * (count_parameters(config) - looked_up) + attention
