"""What is kept of the tokens already seen, so that generation computes each token once: keys, values, and what the
token shift looks back at.

Axes: B batch, S positions the cache holds, K key-value heads, C channels of a head, D width, N tokens looked back at.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from lm.config import ModelConfig
from lm.model.ngrams import NOTHING


class LayerCache(NamedTuple):
    """One layer's part of the cache."""

    keys_BSKC: Float[Array, "B S K C"]  # noqa: N815
    values_BSKC: Float[Array, "B S K C"]  # noqa: N815
    before_attention_B1D: Float[Array, "B 1 D"] | None  # noqa: N815
    """What the attention was given at the last position; None without a token shift."""
    before_mlp_B1D: Float[Array, "B 1 D"] | None  # noqa: N815
    """The same of the MLP."""


class Cache(NamedTuple):
    """All that decoding looks back at."""

    layers: list[LayerCache]
    before_BN: Int[Array, "B N"]  # noqa: N815
    """The last N tokens, the newest first, for n-gram embeddings; N is config.tokens_back."""


def empty_cache(config: ModelConfig, batch_size: int) -> Cache:
    """Zeros for config.context_length positions in each layer, and no token seen."""
    shape = (batch_size, config.context_length, config.kv_heads, config.head_width)
    zeros = jnp.zeros(shape, jnp.dtype(config.compute_dtype))
    before = jnp.zeros((batch_size, 1, config.width), zeros.dtype) if config.token_shift else None
    layers = [LayerCache(zeros, zeros, before, before) for _ in range(config.layers)]
    return Cache(layers, jnp.full((batch_size, config.tokens_back), NOTHING, jnp.int32))
