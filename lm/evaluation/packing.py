"""Pack requests into batches: several per row, and continuations that share a context.

Axes: B rows, T positions, K scored tokens of a row.
"""

import bisect
import collections
import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
from jaxtyping import Array, Int

from lm.model.attention.mask import BRANCHES

ROW = 512
"""Preferred row length: longer rows compute more attention, shorter ones have more padding."""
ROUNDING = 1.1
"""Rows per batch are chosen so that the last batch adds at most this factor of padding."""
FEW_ENOUGH = 1.3
"""If fewer than this many positions are computed per token, fewer batch shapes are preferred to less padding."""


class Row(NamedTuple):
    """Tokens of a request for one forward pass. A request that is longer than the model's context has several rows."""

    request: int
    """Index of the request."""
    tokens: Sequence[int]
    """At most one more than the model's context length."""
    scored: int
    """Number of scored tokens at the end, at least 1."""


@dataclasses.dataclass
class Tree:
    """A context and the continuations to score after it (branches). The context is computed once for all of them."""

    context: tuple[int, ...]
    branches: list[tuple[int, Sequence[int]]]
    """(index of the request, its scored tokens)."""
    length: int
    """Tokens that the model reads; the last token of a branch is only predicted."""


class Layout(NamedTuple):
    """Rows to compute in batches of one shape. Each row has several trees, one after the other."""

    shape: tuple[int, int, int]
    """(B, T, K) of each batch."""
    rows: list[list[Tree]]


class PackedBatch(NamedTuple):
    """Input of one forward pass over packed requests; arrays are int32."""

    tokens_BT: Int[Array, "B T"]  # noqa: N815
    """Token ids, of several requests in a row."""
    positions_BT: Int[Array, "B T"]  # noqa: N815
    """Position of each token in its request."""
    segment_ids_BT: Int[Array, "B T"]  # noqa: N815
    """BRANCHES, 2 * BRANCHES, ... for the trees of a row; if branched, plus the index of the branch. 0: padding."""
    at_BK: Int[Array, "B K"]  # noqa: N815
    """Position in the row at which each scored token is predicted; 0 for unused slots."""
    targets_BK: Int[Array, "B K"]  # noqa: N815
    """The scored tokens; 0 for unused slots."""


def trees_of(rows: Iterable[Row], context_length: int, shared: bool) -> list[Tree]:
    """Convert rows to trees. If `shared`, rows with the same context become branches of one tree, which grows to at
    most min(`context_length`, max(ROW, 2 * tokens of the context)) tokens. Otherwise each row is a tree."""
    found: list[Tree] = []
    growing: dict[tuple[int, ...], Tree] = {}
    for request, tokens, scored in rows:
        context = tuple(tokens[: len(tokens) - scored])
        tree, most = growing.get(context), min(context_length, max(ROW, 2 * len(context)))
        if not shared or tree is None or len(tree.branches) == BRANCHES - 1 or tree.length + scored - 1 > most:
            growing[context] = tree = Tree(context, [], len(context))
            found.append(tree)
        tree.branches.append((request, tokens[len(tokens) - scored :]))
        tree.length += scored - 1
    return found


def bucket(length: int) -> int:
    """Round a length up, by at most a quarter, to one of ..., 8, 10, 12, 14, 16, 20, ... (4 per power of two)."""
    step = 1 << max(0, (length - 1).bit_length() - 3)
    return step * math.ceil(length / step)


def rows_at_once(rows: int, most: int) -> int:
    """Return the number of rows per batch for `rows` rows in total: as many as possible up to `most`, such that the
    last batch has little padding."""
    fits = lambda size: math.ceil(rows / size) * size <= ROUNDING * rows
    return next(size for size in range(max(1, min(most, rows)), 0, -1) if fits(size))


def lay_out(
    trees: Sequence[Tree], context_length: int, tokens_at_once: int, row_parts: int = 1, length_parts: int = 1
) -> list[Layout]:
    """Pack trees into batches of few shapes, with little padding and about `tokens_at_once` positions each.

    `row_parts` and `length_parts` are the numbers of devices that rows and positions are sharded over; the shapes are
    multiples of them. On one device, the positions to compute are at most 1.4 times the tokens of the trees.
    """
    even = lambda size, parts: parts * math.ceil(size / parts)

    def layouts(shortest: int) -> list[Layout]:
        """Pack trees into rows of at least `shortest` positions, by best fit, longest first."""
        rows_of: dict[int, list[list[Tree]]] = collections.defaultdict(list)  # by length
        rooms: list[tuple[int, int, list[Tree]]] = []  # (free positions, number of the row, its trees), ascending
        for number, tree in enumerate(sorted(trees, key=lambda tree: -tree.length)):
            place = bisect.bisect_left(rooms, (tree.length, -1))
            if place == len(rooms):
                length = min(max(shortest, bucket(tree.length)), context_length)
                rows_of[length].append([])
                rooms.append((length, number, rows_of[length][-1]))
            room, row, own = rooms.pop(place)
            own.append(tree)
            bisect.insort(rooms, (room - tree.length, row, own))
        found = []
        for length, rows in rows_of.items():
            size = even(rows_at_once(len(rows), max(1, tokens_at_once // length)), row_parts)
            scored = max(sum(len(tokens) for tree in row for _, tokens in tree.branches) for row in rows)
            shape = size, even(length, length_parts), even(bucket(scored), length_parts)
            found.append(Layout(shape, rows))
        return found

    real = sum(tree.length for tree in trees)
    best, cost = list[Layout](), (math.inf, math.inf)
    for shortest in sorted({bucket(length) for length in range(1, ROW + 1)}, reverse=True):
        tried = layouts(shortest)
        this = max(FEW_ENOUGH, computed(tried) / max(1, real)), len(tried)
        if this < cost:
            best, cost = tried, this
        if cost <= (FEW_ENOUGH, 1):
            break
    return best


def computed(layouts: Iterable[Layout]) -> int:
    """Return how many positions the model computes for the batches, padding included."""
    return sum(math.ceil(len(rows) / size) * size * length for (size, length, _), rows in layouts)


def fill(rows: Sequence[Sequence[Tree]], shape: tuple[int, int, int], branched: bool) -> tuple[PackedBatch, np.ndarray]:
    """Build one batch of `shape` (B, T, K) from at most B rows. Return (batch, index of the request that each scored
    token belongs to: (B, K) int64, -1 for unused slots). `branched`: branches of a tree get segment ids of their own,
    so that they attend to their context but not to one another."""
    size, length, slots = shape
    tokens_BT, positions_BT, segments_BT = (np.zeros((size, length), np.int32) for _ in range(3))
    at_BK, targets_BK = (np.zeros((size, slots), np.int32) for _ in range(2))
    requests_BK = np.full((size, slots), -1, np.int64)
    for row, trees in enumerate(rows):
        start = slot = 0
        for number, tree in enumerate(trees, 1):
            segment, context = BRANCHES * number, len(tree.context)
            parts = [(tree.context, 0), *((tokens[:-1], context) for _, tokens in tree.branches)]
            last = start + context - 1
            for branch, (ids, position) in enumerate(parts):
                here = slice(start, start + len(ids))
                tokens_BT[row, here], segments_BT[row, here] = ids, segment + branch * branched
                positions_BT[row, here] = np.arange(position, position + len(ids))
                if branch:
                    request, targets = tree.branches[branch - 1]
                    # The context's last token predicts the first target, the branch itself the others.
                    there = slice(slot, slot + len(targets))
                    at_BK[row, there] = [last, *range(start, start + len(ids))]
                    targets_BK[row, there], requests_BK[row, there] = targets, request
                    slot += len(targets)
                start += len(ids)
    arrays = (tokens_BT, positions_BT, segments_BT, at_BK, targets_BK)
    return PackedBatch(*cast(tuple[Any, Any, Any, Any, Any], arrays)), requests_BK  # NumPy arrays; jit accepts them
