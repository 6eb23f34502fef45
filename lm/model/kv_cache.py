"""Cache of a model for generation, so that each token is computed once. Rows may have different lengths.

Axes: B batch, T positions of new tokens, S positions of the cache, K key-value heads, C channels of a head, N tokens.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from lm.model import cpu
from lm.model.arrays import CachedKeys, Keys, RowInts, TokenInts
from lm.model.cpu import on_cpu

NOTHING = -1
"""Segment id of an empty slot, and token id before the start of a document."""


class LayerCache(NamedTuple):
    """Cache of `Block`: keys and values of one attention layer. values_BKSC has the layout of keys_BKSC."""

    keys_BKSC: CachedKeys  # noqa: N815
    """Stored head by head, so that attention over the cache needs no transpose."""
    values_BKSC: CachedKeys  # noqa: N815

    def joined_by(self, k_BTKC: Keys, v_BTKC: Keys, positions_BT: TokenInts) -> "LayerCache":
        """Return the cache with the keys and values of new tokens written at `positions_BT`."""
        return LayerCache(
            written_by_head(self.keys_BKSC, k_BTKC, positions_BT),
            written_by_head(self.values_BKSC, v_BTKC, positions_BT),
        )


class Cache(NamedTuple):
    """Cache of a model. The token at position p of its row is in slot p."""

    layers: Any
    """List of the blocks' caches (`Block.init_cache`); if layers are stacked (ModelConfig.scan_layers), one cache whose
    arrays have an additional first axis."""
    last_tokens_BN: Int[Array, "B N"] | None  # noqa: N815
    """Ids of the last tokens of each row, for n-grams (lm/model/lookback.py); None without n-grams."""
    segment_ids_BS: Int[Array, "B S"]  # noqa: N815
    """Segment id of each token; NOTHING in an empty slot."""
    lengths_B: RowInts  # noqa: N815
    """Number of tokens in each row, which is the position of its next token."""

    def reading(self, positions_BT: TokenInts, segment_ids_BT: TokenInts) -> "Cache":
        """Return the cache with the segment ids of new tokens stored. Call this before the layers run, which add the
        tokens to their own caches. Padding (segment 0) does not count towards a row's length; tokens beyond the last
        slot are dropped."""
        ends_BT = jnp.where(segment_ids_BT > 0, positions_BT + 1, 0)
        return self._replace(
            segment_ids_BS=written(self.segment_ids_BS, segment_ids_BT, positions_BT),
            lengths_B=jnp.maximum(self.lengths_B, jnp.max(ends_BT, axis=1)),
        )


def written(slots_BS: jax.Array, values_BT: jax.Array, positions_BT: TokenInts) -> jax.Array:
    """Return `slots_BS` (B, S, ...) with `values_BT` (B, T, ...) written at these positions of each row."""
    rows_B1 = jnp.arange(slots_BS.shape[0])[:, None]
    return slots_BS.at[rows_B1, positions_BT].set(values_BT.astype(slots_BS.dtype), mode="drop")


# Row by row, each device would receive all rows.
written_by_head = on_cpu(cpu.written_by_head, unless_sharded="batch")(cpu.scattered_by_head)
