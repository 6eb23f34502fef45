"""Clusters: documents that share a key, and those that share one with these, and so on; one of each cluster stays.

These are the connected components of a graph with an edge where two documents share a key. They are found by the
alternating algorithm of Kiveris et al. 2014 (Connected Components in MapReduce and Beyond, 10.1145/2670979.2670997) in
steps that each are one join, which Beam does range of keys by range of keys:

    pairs (key, node) ─ link ─► edges (node, smallest of its key) ─► (large star ─► small star) until nothing changes
                                                                  ─► result, by the place of the duplicate

  large star: each node ties all its larger neighbours to the smallest of itself and all neighbours
  small star: each node ties its smaller neighbours, and itself, to the smallest of these

At the end every node is tied to the smallest of its component and to nothing else. Nobody ever holds the graph, nor a
component: a join reads its rows twice, first for the smallest node of each key, then, block by block, to tie each row's
node to that. What has met in memory anyway is contracted there, so that a graph of less than ROWS_AT_ONCE edges is done
after the link. The steps are files (sorted_runs.py): a killed run goes on from there, and no runner changes a byte.

Each range of a join opens all run files of the step before. Where these are many, they are first merged,
RUN_FILES_AT_ONCE to one and again, as an external sort does: so files are opened about as often as there are files, not
ranges times files.
"""

import contextlib
import functools
import hashlib
import itertools
import json
from array import array
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from data_prep.dedup.sorted_runs import (
    ROW_BYTES,
    begins,
    key_ranges,
    mapped_runs,
    merged_blocks,
    read_blocks,
    write_run_file,
    writing_run_file,
)
from lm.storage import write_atomically

if TYPE_CHECKING:
    import apache_beam as beam

ROWS_AT_ONCE = 1 << 20
"""Rows of a block in memory, 32 bytes each, where sorting takes about ten times that."""
BLOCKS_IN_RANGE = 4
"""Blocks of rows in the range of keys that one call works on."""
RUN_FILES_AT_ONCE = 64
"""Run files that a range of keys is read from: more are merged before."""

Node = tuple[int, int]
"""A document as two words of 64 bits: when it was fetched, then a hash of its id (32 bits each); where it stands, its
file's index, then its row (32 bits each). The smallest node of a cluster stays."""
LOW_WORD = 2**32 - 1
PLAN = "ranges.json"
"""In the folder of a step: the ranges of keys that its run files are of."""
UNKNOWN_DATE = 2**32 - 1

Step = Literal["link", "large", "small", "result"]


def make_node(date: str, document_id: str, file: int, row: int) -> Node:
    """The node of the document in `row` of the input file of index `file`.

    Nodes are ordered by the date (ISO 8601, to the second; one that cannot be read comes last), then by a hash of the
    id, and only for the same document read twice by place: who stays does not depend on the order of the files.
    """
    digest = hashlib.blake2b(document_id.encode("utf-8", "surrogatepass"), digest_size=4).digest()
    return seconds_since_1970(date) << 32 | int.from_bytes(digest, "little"), file << 32 | row


def seconds_since_1970(date: str) -> int:
    """Of an ISO 8601 date, in UTC unless it says otherwise, within 32 bits; UNKNOWN_DATE for one that is none."""
    try:
        moment = datetime.fromisoformat(date)
    except ValueError:
        return UNKNOWN_DATE
    moment = moment.replace(tzinfo=moment.tzinfo or UTC)
    return min(max(int(moment.timestamp()), 0), UNKNOWN_DATE - 1)


@contextlib.contextmanager
def writing_pairs(path: Path) -> Generator[Callable[[Sequence[bytes], Node], None]]:
    """Gives what adds the keys (of 16 bytes, evenly spread as hashes are) of a node to a file for `find_duplicates`.

    The file appears whole at the end. Raises InputError when the disk does not take it.
    """
    waiting, nodes = bytearray(), array("Q")
    with writing_run_file(path) as add_run:

        def flush() -> None:
            halves = [np.frombuffer(waiting, ">u8").reshape(-1, 2), np.frombuffer(nodes, np.uint64).reshape(-1, 2)]
            add_run(np.concatenate(halves, axis=1).astype(np.uint64).T)

        def add(keys: Sequence[bytes], node: Node) -> None:
            waiting.extend(b"".join(keys))
            nodes.extend(node * len(keys))
            if len(nodes) >= 2 * ROWS_AT_ONCE:
                flush()
                waiting.clear()
                del nodes[:]

        yield add
        flush()


def find_duplicates(
    pairs: Sequence[Path],
    folder: Path,
    run: Callable[[Callable[["beam.Pipeline"], None]], object],
    rows_at_once: int = ROWS_AT_ONCE,
) -> Path:
    """From files of `write_pairs` to a folder for `duplicates_in`; `run` executes a pipeline that it is given to build.

    `folder` holds the steps, on a disk that all workers share. What is done in there is not done again, so it must be
    empty when the pairs are others. `rows_at_once` bounds the memory and has no influence on the result. Raises
    InputError when a file is damaged or the disk does not take one.
    """
    run_files, _ = take_step("link", pairs, folder / "link", run, rows_at_once)
    for number in itertools.count(1):
        run_files, changes = take_step("large", run_files, folder / f"{number}-large", run, rows_at_once)
        run_files, more_changes = take_step("small", run_files, folder / f"{number}-small", run, rows_at_once)
        if changes == more_changes == 0:
            take_step("result", run_files, folder / "result", run, rows_at_once)
            return folder / "result"
    raise AssertionError("a count ended")


def duplicates_in(result: Path, file: int) -> dict[int, tuple[int, int]]:
    """The rows of the file of index `file` that are duplicates, each with the (file, row) of the one that stays."""
    low = file << 32
    last, stays = low | LOW_WORD, {}
    run_files = [task.run_file for task in planned(result) if task.low <= last and low <= task.last]
    for places, _, _, kept in read_blocks(mapped_runs(run_files), low, last, ROWS_AT_ONCE):
        for place, other in zip(places.tolist(), kept.tolist(), strict=True):
            stays[place & LOW_WORD] = other >> 32, other & LOW_WORD
    return dict(sorted(stays.items()))


def take_step(
    step: Step, run_files: Sequence[Path], folder: Path, run: Callable, rows_at_once: int
) -> tuple[list[Path], int]:
    """Makes the run files of a step in `folder`, those that are not there; gives them and how many edges changed.

    The run files that it read are deleted when they are a step's, since the disk may be scarce.
    """
    plan, done = folder / PLAN, folder / "changes"
    if not done.exists():
        folder.mkdir(parents=True, exist_ok=True)
        few = merge_many(run_files, folder, run, rows_at_once)
        if not plan.exists():
            ranges = key_ranges(mapped_runs(few), BLOCKS_IN_RANGE * rows_at_once)
            write_atomically(plan, json.dumps(ranges).encode(), scratch=folder)
        tasks = planned(folder)
        make(tasks, functools.partial(join_range, step=step, run_files=few, rows_at_once=rows_at_once), run)
        changes = sum(int(task.note.read_text()) for task in tasks)
        write_atomically(done, str(changes).encode(), scratch=folder)
    for run_file in [*folder.glob("*.merged"), *(run_files if step != "link" else ())]:
        run_file.unlink(missing_ok=True)
    return [task.run_file for task in planned(folder)], int(done.read_text())


def merge_many(run_files: Sequence[Path], folder: Path, run: Callable, rows_at_once: int) -> Sequence[Path]:
    """The run files, or at most RUN_FILES_AT_ONCE in `folder` that hold the same rows. Few rows, one range, stay as
    they are: that opens each run file three times."""
    few_rows = BLOCKS_IN_RANGE * rows_at_once
    for level in itertools.count(1):
        if (
            len(run_files) <= RUN_FILES_AT_ONCE
            or sum(run_file.stat().st_size for run_file in run_files) <= few_rows * ROW_BYTES
        ):
            return run_files
        groups = itertools.batched(run_files, RUN_FILES_AT_ONCE)
        tasks = [Merge(group, folder / f"{level}-{number:06d}.merged") for number, group in enumerate(groups)]
        make(tasks, functools.partial(merge, rows_at_once=rows_at_once), run)
        run_files = [task.run_file for task in tasks]
    raise AssertionError("a count ended")


@dataclass(frozen=True)
class Range:
    """A range of the first word of keys, both ends included, and the run file that its join makes."""

    low: int
    last: int
    run_file: Path

    @property
    def note(self) -> Path:
        """Holds the number of edges that the join changed; there before the run file is."""
        return self.run_file.with_suffix(".changes")


def planned(folder: Path) -> list[Range]:
    """The ranges of a step, in the order of their keys."""
    ranges = json.loads((folder / PLAN).read_text())
    return [Range(low, last, folder / f"{number:06d}.arrow") for number, (low, last) in enumerate(ranges)]


@dataclass(frozen=True)
class Merge:
    """Some run files, and the one that their merge makes."""

    run_files: tuple[Path, ...]
    run_file: Path


def make[Task: (Range, Merge)](tasks: list[Task], work: Callable[[Task], None], run: Callable) -> None:
    """Makes the run files of the tasks, those that are not there."""
    missing = [task for task in tasks if not task.run_file.exists()]
    if len(missing) == 1:  # needs no other process, nor the seconds that it takes to start one
        work(missing[0])
    elif missing:
        run(functools.partial(add_work, tasks=missing, work=work))


def add_work[Task: (Range, Merge)](pipeline: "beam.Pipeline", tasks: list[Task], work: Callable[[Task], None]) -> None:
    """Adds the tasks to `pipeline`."""
    import apache_beam as beam

    pipeline | "tasks" >> beam.Create(tasks) | "spread" >> beam.Reshuffle() | "work" >> beam.Map(work)


def merge(task: Merge, rows_at_once: int) -> None:
    """Makes one run file of several."""
    write_run_file(task.run_file, merged_blocks(task.run_files, rows_at_once))


def join_range(task: Range, step: Step, run_files: Sequence[Path], rows_at_once: int) -> None:
    """Makes one run file of a step."""

    def read() -> Iterator[np.ndarray]:
        return read_blocks(mapped_runs(run_files), task.low, task.last, rows_at_once)

    write_run_file(task.run_file, joined_runs(step, read, rows_at_once, task.note))


def joined_runs(
    step: Step, read: Callable[[], Iterator[np.ndarray]], rows_at_once: int, note: Path
) -> Iterator[np.ndarray]:
    """The runs of a run file of the step from the blocks that are read twice; at the end `note` gets the changes."""
    group, least = least_nodes(read())
    changes = begin = count = 0
    waiting: list[np.ndarray] = []
    for block in read():
        starts = begins(block[:2])
        groups = group[begin : begin + starts.sum()]
        begin += len(groups)
        edges, changed = tied(step, block, starts, least[:, groups[np.cumsum(starts) - 1]])
        changes += changed
        waiting.append(edges)
        count += edges.shape[1]
        if count >= rows_at_once:
            forest, changed = contracted(np.concatenate(waiting, axis=1))
            changes += changed
            waiting, count = [], 0
            yield keyed(forest, both_ways=step in ("link", "small"))
    if waiting:
        forest, changed = contracted(np.concatenate(waiting, axis=1))
        changes += changed
        yield keyed(forest, both_ways=step in ("link", "small"))
    note.write_text(str(changes))


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


def tied(step: Step, block: np.ndarray, starts: np.ndarray, least: np.ndarray) -> tuple[np.ndarray, int]:
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
