"""Clusters of duplicates: connected components of the documents that share a key. One document of each cluster is kept.

The components are found by the alternating algorithm of Kiveris et al. 2014 (Connected Components in MapReduce and
Beyond, 10.1145/2670979.2670997). Each step is one join (partitions.py):

    pairs (key, node) ─ link ─► edges (node, smallest of its key) ─► (large star ─► small star) until nothing changes
                                                                  ─► result, by the place of the duplicate

    large star: connect all larger neighbors of each node to the smallest of itself and all its neighbors
    small star: connect each node and its smaller neighbors to the smallest of these

At the end every node is connected to the smallest node of its component. No process holds the whole graph: a join reads
its rows twice, once for the smallest node of each key, and once, block by block, to connect the node of each row to it.
Edges that are in memory together are contracted there, so a graph of less than ROWS_AT_ONCE edges is finished after the
link step. The steps are files (sorted_runs.py): an interrupted run resumes from them, and every engine writes the same
bytes.
"""

import bisect
import contextlib
import functools
import hashlib
import itertools
import json
from array import array
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from data_prep.dates import read_date
from data_prep.dedup.partitions import MOST_BITS, Gather, Partition, Partitions, Rows, join
from data_prep.dedup.sorted_runs import (
    INVERSE,
    LAST_KEY,
    begins,
    damaged,
    first_rows,
    keys_of_file,
    put_together,
    read_blocks,
    runs_in,
    runs_of,
    spread,
    with_keys,
    write_run_file,
    writing_run_file,
)
from data_prep.engine.tasks import Run
from data_prep.engine.units import Counts
from lm.storage import Place, Url, write_json, writing

ROWS_AT_ONCE = 1 << 20
"""Rows of a block in memory, 32 bytes each. Sorting takes about ten times that."""
DONE = "done.json"
"""File in the folder of a finished step: the number of edges that changed, and the number of bits of its partitions."""

PAIRS_AT_ONCE = 1 << 20
"""Number of (key, node) pairs, 32 bytes each, that are sorted in memory."""
Node = tuple[int, int]
"""A document as two 64-bit words. The first is its fetch time, then a hash of its ID (32 bits each); the second is its
place: the number of its file, then its row (32 bits each). The smallest node of a cluster is kept."""
INDEX_FILES = 2**31
"""First number of files of earlier runs' indices, one index after another. Files of this run have smaller numbers."""
LOW_WORD = 2**32 - 1
Kind = Literal["link", "large", "small", "result"]
UNKNOWN_DATE = 2**32 - 1


def make_node(date: str, document_id: str, file: int, row: int) -> Node:
    """Return the node of a document: two integers that order the documents of a cluster (see Node). The order is by
    date (data_prep/dates.py) in seconds since 1970, invalid dates last, then by a hash of the ID, so it does not depend
    on the order of the files. `file` is the number of the document's file."""
    digest = hashlib.blake2b(document_id.encode("utf-8", "surrogatepass"), digest_size=4).digest()
    seconds = min(max(int(moment.timestamp()), 0), UNKNOWN_DATE - 1) if (moment := read_date(date)) else UNKNOWN_DATE
    return seconds << 32 | int.from_bytes(digest, "little"), file << 32 | row


def file_ids(names: Iterable[str]) -> dict[str, int]:
    """Return {file name: number}: 31 bits of a hash of the name, so that a file keeps its number when others are added
    or removed. If two hashes collide (one pair among 65,000 files), the later name takes its next hash."""
    ids: dict[str, int] = {}
    taken: set[int] = set()
    for name in sorted(names):
        data = name.encode("utf-8", "surrogatepass")
        hashes = (hashlib.blake2b(data, digest_size=4, salt=n.to_bytes(8)).digest() for n in itertools.count())
        ids[name] = next(id for one in hashes if (id := int.from_bytes(one) % INDEX_FILES) not in taken)
        taken.add(ids[name])
    return ids


@contextlib.contextmanager
def writing_pairs(path: Path) -> Generator[Callable[[Sequence[bytes], Node], None]]:
    """Yield a function (keys, node) that writes the keys of a document to the file `path`, for `find_duplicates`. A key
    is 16 uniformly distributed bytes; documents with a common key are duplicates. The file is written atomically when
    the block ends. Raises InputError if the disk cannot be written."""
    waiting, nodes = bytearray(), array("Q")
    with writing_run_file(path) as add_run:

        def flush() -> None:
            halves = [np.frombuffer(waiting, ">u8").reshape(-1, 2), np.frombuffer(nodes, np.uint64).reshape(-1, 2)]
            add_run(np.concatenate(halves, axis=1).astype(np.uint64).T)

        def add(keys: Sequence[bytes], node: Node) -> None:
            waiting.extend(b"".join(keys))
            nodes.extend(node * len(keys))
            if len(nodes) >= 2 * PAIRS_AT_ONCE:
                flush()
                waiting.clear()
                del nodes[:]

        yield add
        flush()


def find_duplicates(
    pairs: Sequence[Place], folder: Path | Url, run: Run, rows_at_once: int = ROWS_AT_ONCE
) -> Partitions:
    """Find the clusters of documents that share keys, directly or by way of others, in files written by
    `writing_pairs`. Return the files from which `duplicates_in` reads the duplicates.

    `run` runs the tasks of each join. `folder` stores the steps, and finished steps are not repeated, so other pairs
    need another folder. `rows_at_once` bounds the memory and does not affect the result. Raises InputError if a file is
    damaged or the disk cannot be written.
    """
    last = folder / "link"
    made, _ = take_step("link", pairs, last, run, rows_at_once)
    for number in itertools.count(1):
        changes = 0
        for kind in ("large", "small"):
            before, last = last, folder / f"round-{number}-{kind}-star"
            made, more_changes = take_step(kind, made.places, last, run, rows_at_once)
            changes += more_changes
            for place in before.iterdir():  # no longer read; frees disk space
                if place.name != DONE:
                    place.unlink(missing_ok=True)
        if not changes:
            return take_step("result", made.places, folder / "result", run, rows_at_once)[0]
    raise AssertionError("a count ended")


def duplicates_in(result: Partitions, file: int) -> dict[int, tuple[int, int]]:
    """Return {row of a duplicate: (file, row) of the document that is kept instead} for the file with the number
    `file`. `result` is from `find_duplicates`."""
    low, last = keys_of_file(file)
    duplicates = {}
    for keys, _, _, kept in read_blocks(runs_in(result.of(low)), low, last, ROWS_AT_ONCE):
        for key, other in zip(keys.tolist(), kept.tolist(), strict=True):
            duplicates[key & LOW_WORD] = other >> 32, other & LOW_WORD
    return dict(sorted(duplicates.items()))


def take_step(
    kind: Kind, run_files: Sequence[Place], folder: Path | Url, run: Run, rows_at_once: int
) -> tuple[Partitions, int]:
    """Run one step of the search for clusters (link, large star, small star or result; see the module), unless `folder`
    has its result. Return (its output files, number of edges that changed). Raises InputError if the stored result is
    damaged."""
    done = folder / DONE
    if not done.is_file():
        work = functools.partial(write_edges, kind=kind, rows_at_once=rows_at_once)
        made, counts = join(run_files, work, run, folder, rows_at_once)
        with writing(done):
            write_json(done, {"changes": sum(one["changes"] for one in counts), "bits": made.bits})
    state = json.loads(done.read_text())
    if not 0 <= state["bits"] <= MOST_BITS:
        raise damaged(done, f"bits is {state['bits']!r}, but must be from 0 to {MOST_BITS}")
    return Partitions(folder, state["bits"]), state["changes"]


def write_edges(task: Partition, path: Path, read: Rows, kind: Kind, rows_at_once: int) -> Counts:
    """Write the edges (pairs of connected documents) that a step of this kind makes in one partition of its input.
    `read` is called twice. Returns {"changes": number of changed edges}."""
    group, firsts = first_rows(read())
    changes = 0

    def edges() -> Iterator[np.ndarray]:
        """Yield the edges of each block, uint64 (4, edges): pairs of connected documents, the larger node first."""
        nonlocal changes
        for block, starts, keys in with_keys(read(), group):
            node, least = block[2:], firsts[2:, keys][:, np.cumsum(starts) - 1]  # `least`: smallest node of the key
            if kind == "link":
                yield np.concatenate([node, least])[:, node[1] != least[1]]
                continue
            center = np.stack([block[1], spread(block[0], INVERSE)])  # the key is a node too, at a permuted place
            if kind == "result":
                yield np.concatenate([center, node])[:, less(node, center)]
            elif kind == "large":
                smallest = np.where(less(least, center), least, center)
                larger = less(center, node)
                made = np.concatenate([node, smallest])[:, larger]
                changes += int((made[3] != center[1, larger]).sum())
                yield made
            else:
                other = node[1] != least[1]
                changes += int(other.sum())
                centers = np.concatenate([center, least])[:, starts]
                yield np.concatenate([centers, np.concatenate([node, least])[:, other]], axis=1)

    def runs() -> Iterator[np.ndarray]:
        """Yield rows (key, node). The key is the larger node, with its place permuted by `spread`. Of the link and the
        small star, each edge also gives a row with the smaller node as key."""
        nonlocal changes
        for some in put_together(edges(), rows_at_once):
            forest, changed = contract(some)
            changes += changed
            rows = forest[[1, 0, 2, 3]]
            if kind in ("link", "small"):
                rows = np.concatenate([rows, forest[[3, 2, 0, 1]]], axis=1)
            rows[0] = spread(rows[0])
            yield rows

    write_run_file(path, runs())
    return {"changes": changes}


def contract(edges: np.ndarray) -> tuple[np.ndarray, int]:
    """Return the edges from each node (document) to the smallest node of its component, and 1 if they differ from the
    given edges, else 0. Edges are uint64 (4, n): the larger node, then the smaller one."""
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
    _, smallest = np.unique(component, return_index=True)  # node numbers are in sorted order
    root = smallest[component]
    connected = np.flatnonzero(root != np.arange(total))
    root = root[connected]
    same = np.array_equal(np.unique(larger * total + smaller), connected * total + root)
    return np.concatenate([nodes[:, connected], nodes[:, root]]), int(not same)


def less(nodes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return (n,) bool: whether each node (document) is smaller than the other. Nodes are uint64 (2, n)."""
    return (nodes[0] < others[0]) | ((nodes[0] == others[0]) & (nodes[1] < others[1]))


# Cluster sizes, which may not fit into memory: the counts of each result file are joined by the kept document.


def count_clusters(result: Partitions, folder: Place, run: Run, rows_at_once: int = ROWS_AT_ONCE) -> Partitions:
    """Count the documents in each cluster of a `result` of `find_duplicates`, and return the files from which
    `sizes_in` reads the sizes. The other arguments are as for `find_duplicates`."""
    counts = [Gather((place,), folder / f"{number:06d}.counts") for number, place in enumerate(result.places)]
    run(counts, functools.partial(count_kept, rows_at_once=rows_at_once))
    return join([task.run_file for task in counts], add_up, run, folder, rows_at_once)[0]


def count_kept(task: Gather, path: Path, rows_at_once: int) -> None:
    """Count the duplicates of each kept document in one result file. Writes rows of four words for `add_up`: the place
    of the document (permuted by `spread`); the numbers of file and block, which make the row unique; the count; 0."""

    def counted() -> Iterator[np.ndarray]:
        seen = np.empty(0, np.uint64)  # a row of a partition of many blocks may be in several runs
        for block, rows in enumerate(read_blocks(runs_of(task.run_files), 0, LAST_KEY, rows_at_once)):
            rows = rows[:, ~np.isin(rows[0], seen)]
            seen = np.union1d(seen, rows[0])
            places, counts = np.unique(rows[3], return_counts=True)
            name = np.full(len(places), int(task.run_file.name.partition(".")[0]) << 32 | block, np.uint64)
            yield np.stack([spread(places), name, counts.astype(np.uint64), np.zeros_like(name)])

    write_run_file(path, counted())


def add_up(task: Partition, path: Path, rows: Rows) -> None:
    """Add up the counts from `count_kept` for each kept document in a partition. Writes rows of four words: the place
    of the document (permuted by `spread`), 0, the sum, and 0."""
    places, counts = np.empty(0, np.uint64), np.empty(0, np.uint64)
    for block in rows():
        every = np.concatenate([places, block[0]])
        places, where = np.unique(every, return_inverse=True)
        sums = np.zeros(len(places), np.uint64)
        np.add.at(sums, where, np.concatenate([counts, block[2]]))
        counts = sums
    zeros = np.zeros_like(places)
    write_run_file(path, [np.stack([places, zeros, counts, zeros])])


def sizes_in(sums: Partitions, file: int) -> dict[int, int]:
    """Return {row of a kept document: number of documents in its cluster, itself included} for the file with the number
    `file`, without clusters of one document. `sums` is from `count_clusters`."""
    low, last = keys_of_file(file)
    return {
        key & LOW_WORD: count + 1
        for keys, _, counts, _ in read_blocks(runs_in(sums.of(low)), low, last, ROWS_AT_ONCE)
        for key, count in zip(keys.tolist(), counts.tolist(), strict=True)
    }


def repeats(size: int, weights: Sequence[tuple[int, int]]) -> int:
    """Return how often to repeat a document whose duplicate cluster has `size` documents. `weights` is a list of
    (minimum size, repeats), sorted, with 1 as the first minimum; the last entry whose minimum is at most `size`
    applies."""
    return weights[bisect.bisect_right([limit for limit, _ in weights], size) - 1][1]
