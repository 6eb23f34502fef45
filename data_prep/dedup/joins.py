"""What a step of clusters.py does to the rows of a range of keys: arrays in, arrays out.

Rows are uint64 (4, rows): a key of two words, then a node of two, sorted. Edges are uint64 (4, edges): the larger node,
then the smaller one.
"""

from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np

from data_prep.dedup.sorted_runs import begins, sorted_rows

Kind = Literal["link", "large", "small", "result"]
"""Of a step."""


class Join:
    """The join of the rows of a range; `known` are the smallest nodes of its keys, uint64 (4, keys), sorted, where they
    cannot be found in these rows alone."""

    def __init__(
        self, kind: Kind, read: Callable[[], Iterator[np.ndarray]], rows_at_once: int, known: np.ndarray | None = None
    ):
        self.kind, self.read, self.rows_at_once, self.known = kind, read, rows_at_once, known
        self.changes = self.rows = 0

    def runs(self) -> Iterator[np.ndarray]:
        """The runs of a run file of the step from the blocks, which are read twice. Counts rows and changes."""
        least_of = self.least_by_order() if self.known is None else self.least_by_key
        waiting: list[np.ndarray] = []
        count = 0
        for block in self.read():
            starts = begins(block[:2])
            edges, changed = tied(self.kind, block, starts, least_of(block[:, starts])[:, np.cumsum(starts) - 1])
            self.rows += block.shape[1]
            self.changes += changed
            waiting.append(edges)
            count += edges.shape[1]
            if count >= self.rows_at_once:
                yield self.contract(waiting)
                waiting, count = [], 0
        if waiting:
            yield self.contract(waiting)

    def contract(self, waiting: list[np.ndarray]) -> np.ndarray:
        forest, changed = contracted(np.concatenate(waiting, axis=1))
        self.changes += changed
        return keyed(forest, both_ways=self.kind in ("link", "small"))

    def least_by_order(self) -> Callable[[np.ndarray], np.ndarray]:
        """Gives what gives the smallest nodes of the keys that begin in each block, when blocks come in their order."""
        group, least = least_nodes(self.read())
        at = 0

        def take(firsts: np.ndarray) -> np.ndarray:
            nonlocal at
            at += firsts.shape[1]
            return least[:, group[at - firsts.shape[1] : at]]

        return take

    def least_by_key(self, firsts: np.ndarray) -> np.ndarray:
        """The smallest nodes of the keys of some rows, looked up: keys of a range that is read in parts are few."""
        assert self.known is not None
        number = {key: i for i, key in enumerate(zip(*self.known[:2].tolist(), strict=True))}
        return self.known[2:, [number[key] for key in zip(*firsts[:2].tolist(), strict=True)]]


def smallest(blocks: Iterator[np.ndarray]) -> np.ndarray:
    """The different keys of the rows in order, each with its smallest node: uint64 (4, keys)."""
    rows = np.empty((4, 0), np.uint64)
    for block in blocks:
        rows = sorted_rows(np.concatenate([rows, block[:, begins(block[:2])]], axis=1))
        rows = rows[:, begins(rows[:2])]
    return rows


def least_nodes(blocks: Iterator[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Of each key the smallest node: which key each begin of a key in a block is, and the nodes, uint64 (2, keys)."""
    firsts = [np.empty((4, 0), np.uint64), *(block[:, begins(block[:2])] for block in blocks)]
    rows = np.concatenate(firsts, axis=1)
    order = np.lexsort(rows[::-1])
    rows = rows[:, order]
    new = begins(rows[:2])
    group = np.empty(len(order), np.int64)
    group[order] = np.cumsum(new) - 1
    return group, rows[2:, new]


def tied(step: Kind, block: np.ndarray, starts: np.ndarray, least: np.ndarray) -> tuple[np.ndarray, int]:
    """The edges that a step makes of rows and the smallest nodes of their keys; and how many were not there before.

    Edges are uint64 (4, edges): the larger node, then the smaller one. `starts` tells where a key begins.
    """
    node = block[2:]
    centre = block[1::-1]  # of all steps but the link the key is a node too, its place first
    if step == "result":
        return np.concatenate([centre, node])[:, less(node, centre)], 0
    if step == "large":
        smallest = np.where(less(least, centre), least, centre)
        larger = less(centre, node)
        edges = np.concatenate([node, smallest])[:, larger]
        return edges, int((edges[3] != centre[1, larger]).sum())
    other = node[1] != least[1]
    edges = np.concatenate([node, least])[:, other]
    if step == "link":
        return edges, 0
    centres = np.concatenate([block[1::-1], least])[:, starts]
    return np.concatenate([centres, edges], axis=1), int(other.sum())


def contracted(edges: np.ndarray) -> tuple[np.ndarray, int]:
    """Edges that tie each node to the smallest of its component among these edges; and whether any is new (0 or 1)."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    count = edges.shape[1]
    ends = np.concatenate([edges[:2], edges[2:]], axis=1)
    order = np.lexsort(ends[::-1])
    new = begins(ends[:, order])
    nodes = ends[:, order][:, new]
    number = np.empty(2 * count, np.int64)
    number[order] = np.cumsum(new) - 1
    larger, smaller, total = number[:count], number[count:], nodes.shape[1]
    graph = coo_array((np.ones(count, np.int8), (larger, smaller)), shape=(total, total))
    _, component = connected_components(graph, directed=False)
    _, smallest = np.unique(component, return_index=True)  # nodes are numbered in their order
    root = smallest[component]
    tied_nodes = np.flatnonzero(root != np.arange(total))
    root = root[tied_nodes]
    same = np.array_equal(np.unique(larger * total + smaller), tied_nodes * total + root)
    return np.concatenate([nodes[:, tied_nodes], nodes[:, root]]), int(not same)


def keyed(edges: np.ndarray, both_ways: bool) -> np.ndarray:
    """The edges as rows of a run file: the larger node is the key of the smaller one, and the other way round too."""
    one_way = edges[[1, 0, 2, 3]]
    return np.concatenate([one_way, edges[[3, 2, 0, 1]]], axis=1) if both_ways else one_way


def less(nodes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Where a node is smaller than the other, each uint64 (2, n)."""
    return (nodes[0] < others[0]) | ((nodes[0] == others[0]) & (nodes[1] < others[1]))
