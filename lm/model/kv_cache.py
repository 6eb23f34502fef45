"""Keys and values of the tokens already seen, so that generation computes each token once.

Axes: L layers, B batch, S positions the cache holds, K key-value heads, C channels of a head.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from lm.model.config import ModelConfig


class LayerCache(NamedTuple):
    """One layer's part of the cache."""

    keys_BSKC: Float[Array, "B S K C"]  # noqa: N815
    values_BSKC: Float[Array, "B S K C"]  # noqa: N815


def empty_cache(config: ModelConfig, batch_size: int) -> list[LayerCache]:
    """Zeros for config.context_length positions, one LayerCache a layer."""
    shape = (batch_size, config.context_length, config.kv_heads, config.head_width)
    zeros = jnp.zeros(shape, jnp.dtype(config.compute_dtype))
    return [LayerCache(zeros, zeros) for _ in range(config.layers)]
