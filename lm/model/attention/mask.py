"""Who may see whom: one small type that every implementation of attention is given.

Axes: B batch, T query position, S key position.
"""

import functools
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

BRANCHES = 64
"""Segment ids of a document in AttentionMask.branched."""


def causal(positions: Any, key_positions: Any, window: int | None) -> Any:
    """Whether queries at these positions see keys at those: their own and the ones before, `window` at most. Of JAX or
    of NumPy."""
    seen = key_positions <= positions
    return seen if window is None else seen & (key_positions > positions - window)


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["segment_ids_BT", "prefix_B", "positions_BT", "key_segment_ids_BS"],
    meta_fields=["window", "branched"],
)
@dataclass(frozen=True)
class AttentionMask:
    """A token sees itself and the earlier ones of its own document. A pytree, whose window is static."""

    segment_ids_BT: Int[Array, "B T"]  # noqa: N815
    """Which document of its row a token belongs to; 0 is padding."""
    window: int | None = None
    """Tokens that one sees at most, itself among them (sliding window, arXiv:2310.06825); None for no limit."""
    prefix_B: Int[Array, " B"] | None = None  # noqa: N815
    """The first so many positions of a row see one another in both directions, whatever the window (prefix LM,
    arXiv:1910.10683, section 3.2.1); None for none."""
    positions_BT: Int[Array, "B T"] | None = None  # noqa: N815
    """At which of the keys' positions each query stands; None: query t at t, and the keys are of the same tokens."""
    key_segment_ids_BS: Int[Array, "B S"] | None = None  # noqa: N815
    """The documents of the keys, where these come from a cache."""
    branched: bool = False
    """Whether documents are trees: of those with the ids BRANCHES * d + b, b = 0 is a beginning that the continuations
    b = 1, 2, ... see too, and these do not see one another. A window counts positions in the row: for trees it must be
    None."""

    def within(self, window: int | None) -> "AttentionMask":
        """The same, its window no wider than `window`."""
        narrowest = min((size for size in (self.window, window) if size is not None), default=None)
        return replace(self, window=narrowest)

    def over(self, positions_BT: Int[Array, "B T"], key_segment_ids_BS: Int[Array, "B S"]) -> "AttentionMask":
        """The same for queries at `positions_BT` among the keys of a cache."""
        return replace(self, positions_BT=positions_BT, key_segment_ids_BS=key_segment_ids_BS)

    def query_positions(self) -> Int[Array, "#B T"]:
        """Where the queries stand among the keys."""
        return jnp.arange(self.segment_ids_BT.shape[1])[None] if self.positions_BT is None else self.positions_BT

    def visible(
        self,
        positions_BT: Int[Array, "#B T"],
        segment_ids_BT: Int[Array, "B T"],
        keys: slice = slice(None),
    ) -> Bool[Array, "B T S"]:
        """True where a query, of any that stand at these positions in these documents, may see a key of `keys`, whose
        start must be given as 0 or more. Keys stand at 0, 1, ..."""
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

    def all_visible(self) -> Bool[Array, "B T S"]:
        """`visible` for the mask's own queries and all keys."""
        return self.visible(self.query_positions(), self.segment_ids_BT)

    def same_as_before(self) -> Bool[Array, "B T"]:
        """True where the token before is of the same document; False for the first of a row."""
        if self.key_segment_ids_BS is None or self.positions_BT is None:
            before_BT = jnp.pad(self.segment_ids_BT[:, :-1], ((0, 0), (1, 0)), constant_values=-1)
            return before_BT == self.segment_ids_BT
        before_BT = jnp.take_along_axis(self.key_segment_ids_BS, jnp.maximum(self.positions_BT - 1, 0), axis=1)
        return (self.positions_BT > 0) & (before_BT == self.segment_ids_BT)
