"""What is kept of the tokens already seen, so that generation computes each token once: keys, values, and what the
token shift looks back at.

Axes: B batch, S positions the cache holds, K key-value heads, C channels of a head, D width.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from lm.model.config import ModelConfig


class LayerCache(NamedTuple):
    """One layer's part of the cache."""

    keys_BSKC: Float[Array, "B S K C"]  # noqa: N815
    values_BSKC: Float[Array, "B S K C"]  # noqa: N815
    before_attention_B1D: Float[Array, "B 1 D"] | None  # noqa: N815
    """What the attention was given at the last position; None without a token shift."""
    before_mlp_B1D: Float[Array, "B 1 D"] | None  # noqa: N815
    """The same of the MLP."""


def empty_cache(config: ModelConfig, batch_size: int) -> list[LayerCache]:
    """Zeros for config.context_length positions, one LayerCache a layer."""
    shape = (batch_size, config.context_length, config.kv_heads, config.head_width)
    zeros = jnp.zeros(shape, jnp.dtype(config.compute_dtype))
    before = jnp.zeros((batch_size, 1, config.width), zeros.dtype) if config.token_shift else None
    return [LayerCache(zeros, zeros, before, before) for _ in range(config.layers)]
