"""Attention mask, in a form that every implementation accepts.

Axes: B batch, T query position, S key position.
"""

import functools
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from lm.model.arrays import Positions, RowInts, TokenInts, VisibleKeys
from lm.model.kv_cache import NOTHING

BRANCHES = 64
"""Number of segment ids per document in AttentionMask.branched."""


def causal(positions: Any, key_positions: Any, window: int | None) -> Any:
    """Return whether queries at `positions` may attend to `key_positions`. A query attends to its own and earlier
    positions, at most `window` in all. For JAX or NumPy arrays."""
    seen = key_positions <= positions
    return seen if window is None else seen & (key_positions > positions - window)


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["segment_ids_BT", "prefix_B", "positions_BT", "key_segment_ids_BS"],
    meta_fields=["window", "branched"],
)
@dataclass(frozen=True)
class AttentionMask:
    """Which keys each query may attend to: its own token, and earlier tokens of its document. A pytree; `window` and
    `branched` are static."""

    segment_ids_BT: TokenInts  # noqa: N815
    """Index of the document of each token within its row; 0: padding."""
    window: int | None = None
    """Maximum number of tokens that a token attends to, including itself (sliding window, arXiv:2310.06825); None:
    all."""
    prefix_B: RowInts | None = None  # noqa: N815
    """Number of first positions of each row that attend to each other in both directions, regardless of the window
    (prefix LM, arXiv:1910.10683, section 3.2.1); None: none."""
    positions_BT: TokenInts | None = None  # noqa: N815
    """Position of each query among the keys; None: query t is at position t, and the keys are of the same tokens."""
    key_segment_ids_BS: Int[Array, "B S"] | None = None  # noqa: N815
    """Segment ids of the keys, if these come from a cache."""
    branched: bool = False
    """Whether documents are trees: among the segment ids BRANCHES * d + b, b = 0 is a shared beginning that the
    continuations b = 1, 2, ... also attend to, but these do not attend to each other. A window counts positions in the
    row, so it must be None for trees."""

    def within(self, window: int | None) -> "AttentionMask":
        """Return the mask with its window limited to `window`."""
        narrowest = min((size for size in (self.window, window) if size is not None), default=None)
        return replace(self, window=narrowest)

    def over(self, positions_BT: TokenInts, key_segment_ids_BS: Int[Array, "B S"]) -> "AttentionMask":
        """Return the mask for queries at `positions_BT` and the keys of a cache, whose segment ids are
        `key_segment_ids_BS`."""
        return replace(self, positions_BT=positions_BT, key_segment_ids_BS=key_segment_ids_BS)

    def query_positions(self) -> Positions:
        """Return the positions of the queries among the keys."""
        return jnp.arange(self.segment_ids_BT.shape[1])[None] if self.positions_BT is None else self.positions_BT

    def same_document(self, back: int) -> Bool[Array, "B T"]:
        """Return whether the token `back` positions before each query belongs to the same document. Not for trees
        (`branched`)."""
        if self.positions_BT is None or self.key_segment_ids_BS is None:
            before_BT = jnp.pad(self.segment_ids_BT, ((0, 0), (back, 0)), constant_values=NOTHING)[:, :-back]
            return before_BT == self.segment_ids_BT
        before_BT = jnp.take_along_axis(self.key_segment_ids_BS, jnp.maximum(self.positions_BT - back, 0), axis=1)
        return (self.positions_BT >= back) & (before_BT == self.segment_ids_BT)

    def visible(
        self,
        positions_BT: Positions,
        segment_ids_BT: TokenInts,
        keys: slice = slice(None),
    ) -> VisibleKeys:
        """Return True where a query at `positions_BT` in the documents `segment_ids_BT` may attend to a key. Keys are
        at positions 0, 1, ...; the slice `keys` selects some of them, and must not start below 0."""
        key_segment_ids_BS = self.segment_ids_BT if self.key_segment_ids_BS is None else self.key_segment_ids_BS
        key_segment_ids_BS = key_segment_ids_BS[:, keys]
        start = keys.start or 0
        key_positions_11S = jnp.arange(start, start + key_segment_ids_BS.shape[1])[None, None]
        positions_BT1 = positions_BT[:, :, None]
        seen_BTS = causal(positions_BT1, key_positions_11S, self.window)
        if self.prefix_B is not None:
            ends_B11 = self.prefix_B[:, None, None]
            seen_BTS |= (key_positions_11S < ends_B11) & (positions_BT1 < ends_B11)
        of_key_B1S = key_segment_ids_BS[:, None, :]
        same_BTS = segment_ids_BT[:, :, None] == of_key_B1S
        if self.branched:
            same_BTS |= (segment_ids_BT - segment_ids_BT % BRANCHES)[:, :, None] == of_key_B1S
        return same_BTS & seen_BTS

    def all_visible(self) -> VisibleKeys:
        """Return whether each query may attend to each key."""
        return self.visible(self.query_positions(), self.segment_ids_BT)
