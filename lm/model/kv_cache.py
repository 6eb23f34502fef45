"""Cache of keys and values for generation, so that each token is computed once. Rows may have different lengths.

Axes: B batch, T positions of new tokens, S positions of the cache, K key-value heads, C channels of a head, D width.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from lm.config import ModelConfig
from lm.errors import UsageError
from lm.model import cpu
from lm.model.cpu import on_cpu
from lm.trusted_code import load_named

NOTHING = -1
"""Segment id of an empty slot, and token id before the start of a document."""


class LayerCache(NamedTuple):
    """Cache of one layer; in a scan over layers, of all layers, with an additional first axis. values_BKSC has the
    layout of keys_BKSC, attention_last_B1D the meaning of mlp_last_B1D."""

    keys_BKSC: Float[Array, "B K S C"]  # noqa: N815
    """Stored head by head, so that attention over the cache needs no transpose."""
    values_BKSC: Float[Array, "B K S C"]  # noqa: N815
    attention_last_B1D: Float[Array, "B 1 D"] | None  # noqa: N815
    mlp_last_B1D: Float[Array, "B 1 D"] | None  # noqa: N815
    """Inputs of attention and MLP at each row's last token, for token shift (lm/model/lookback.py); None without it."""

    def joined_by(
        self, k_BTKC: Float[Array, "B T K C"], v_BTKC: Float[Array, "B T K C"], positions_BT: Int[Array, "B T"]
    ) -> "LayerCache":
        """Return the cache with the keys and values of new tokens written at `positions_BT`."""
        return self._replace(
            keys_BKSC=written_by_head(self.keys_BKSC, k_BTKC, positions_BT),
            values_BKSC=written_by_head(self.values_BKSC, v_BTKC, positions_BT),
        )


class Cache(NamedTuple):
    """Key-value cache of a model. The token at position p of its row is in slot p."""

    layers: list[LayerCache] | LayerCache
    tokens_BS: Int[Array, "B S"]  # noqa: N815
    """Token id in each slot, undefined in an empty one."""
    segment_ids_BS: Int[Array, "B S"]  # noqa: N815
    """Segment id of each token; NOTHING in an empty slot."""
    lengths_B: Int[Array, " B"]  # noqa: N815
    """Number of tokens in each row, which is the position of its next token."""

    def reading(
        self, tokens_BT: Int[Array, "B T"], positions_BT: Int[Array, "B T"], segment_ids_BT: Int[Array, "B T"]
    ) -> "Cache":
        """Return the cache with the ids and segment ids of new tokens stored. Call this before the layers run, which
        add the tokens' keys and values. Padding (segment 0) does not count towards a row's length; tokens beyond the
        last slot are dropped."""
        ends_BT = jnp.where(segment_ids_BT > 0, positions_BT + 1, 0)
        return self._replace(
            tokens_BS=written(self.tokens_BS, tokens_BT, positions_BT),
            segment_ids_BS=written(self.segment_ids_BS, segment_ids_BT, positions_BT),
            lengths_B=jnp.maximum(self.lengths_B, jnp.max(ends_BT, axis=1)),
        )


def written(slots_BS: jax.Array, values_BT: jax.Array, positions_BT: Int[Array, "B T"]) -> jax.Array:
    """Return `slots_BS` (B, S, ...) with `values_BT` (B, T, ...) written at these positions of each row."""
    rows_B1 = jnp.arange(slots_BS.shape[0])[:, None]
    return slots_BS.at[rows_B1, positions_BT].set(values_BT.astype(slots_BS.dtype), mode="drop")


@on_cpu(cpu.written_by_head, unless_sharded="batch")  # row by row, each device would receive all rows
def written_by_head(
    slots_BKSC: Float[Array, "B K S C"], x_BTKC: Float[Array, "B T K C"], positions_BT: Int[Array, "B T"]
) -> Float[Array, "B K S C"]:
    """Return `slots_BKSC` with `x_BTKC` written at these positions of each row; tokens beyond the last slot are
    dropped."""
    rows_B1 = jnp.arange(slots_BKSC.shape[0])[:, None]
    return slots_BKSC.at[rows_B1, :, positions_BT].set(x_BTKC.astype(slots_BKSC.dtype), mode="drop")


def reads_by_attention(config: ModelConfig) -> bool:
    """Return whether the block reads other tokens only as the shipped blocks do, so that this cache is all that it
    needs. The user's own block says so by `standard_cache = True` in the class itself; a subclass says it again."""
    if "." not in config.block:
        return True
    own = load_named(config.block, "model.block")
    return getattr(own, "__dict__", {}).get("standard_cache") is True


def check_cache(config: ModelConfig) -> None:
    """Raise UsageError if the block may need more than this cache to generate text (`reads_by_attention`)."""
    if not reads_by_attention(config):
        raise UsageError(
            f"model.block = {config.block} does not say that keys and values are all that it needs of earlier tokens, "
            "so no text can be generated. If it reads other tokens only by its attention, set standard_cache = True in "
            "the class; otherwise train without samples (--train.sample-every 0; launch.pretrain --until evaluate)."
        )


def empty_cache(config: ModelConfig, batch_size: int, capacity: int | None = None) -> Cache:
    """Return an empty cache with `capacity` positions per row (by default config.context_length). Raises like
    `check_cache`."""
    check_cache(config)
    capacity = config.context_length if capacity is None else capacity
    layers = (config.layers,) if config.scan_layers else ()
    dtype = jnp.dtype(config.compute_dtype)
    # Separate buffers, so that the cache can be donated.
    zeros = lambda: jnp.zeros((*layers, batch_size, config.kv_heads, capacity, config.head_channels), dtype)
    last = lambda: jnp.zeros((*layers, batch_size, 1, config.width), dtype) if config.token_shift else None
    layer = lambda: LayerCache(zeros(), zeros(), last(), last())
    slots = lambda: jnp.full((batch_size, capacity), NOTHING, jnp.int32)
    return Cache(
        layer() if config.scan_layers else [layer() for _ in range(config.layers)],
        slots(),
        slots(),
        jnp.zeros((batch_size,), jnp.int32),
    )
