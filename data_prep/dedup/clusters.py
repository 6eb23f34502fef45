"""Clusters: documents that share a key, and those that share one with these, and so on; one of each cluster stays.

These are the connected components of a graph with an edge where two documents share a key. They are found by the
alternating algorithm of Kiveris et al. 2014 (Connected Components in MapReduce and Beyond, 10.1145/2670979.2670997) in
steps that each are one join, done range of keys by range of keys, each a unit:

    pairs (key, node) ─ link ─► edges (node, smallest of its key) ─► (large star ─► small star) until nothing changes
                                                                  ─► result, by the place of the duplicate

  large star: each node ties all its larger neighbours to the smallest of itself and all neighbours
  small star: each node ties its smaller neighbours, and itself, to the smallest of these

At the end every node is tied to the smallest of its component and to nothing else. Nobody ever holds the graph, nor a
component: a join reads its rows twice, first for the smallest node of each key, then, block by block, to tie each row's
node to that. What has met in memory anyway is contracted there, so that a graph of less than ROWS_AT_ONCE edges is done
after the link. The steps are files (sorted_runs.py): a killed run goes on from there, and no engine changes a byte.

Each range of a join reads from all run files of the step before. Where these are many, they are first merged,
RUN_FILES_AT_ONCE to one and again, as an external sort does: so files are opened about as often as there are files, not
ranges times files.

A key of very many rows (a boilerplate text of millions of pages) is a range of its own, cut into parts of like size. A
row needs only the smallest node of its key, so that parts first find the smallest of theirs, then tie their rows to the
smallest of these.
"""

import contextlib
import functools
import hashlib
import itertools
import json
from array import array
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from data_prep.dedup.sorted_runs import (
    ROW_BYTES,
    Join,
    Kind,
    begins,
    key_ranges,
    merged_blocks,
    parts_of,
    read_blocks,
    runs_of,
    smallest,
    sorted_rows,
    write_run_file,
    writing_run_file,
)
from data_prep.engine.tasks import Run, here
from lm.storage import Place, Url, inside, size_of, write_atomically, writing

ROWS_AT_ONCE = 1 << 20
"""Rows of a block in memory, 32 bytes each, where sorting takes about ten times that."""
BLOCKS_IN_RANGE = 4
"""Blocks of rows in the range of keys that one call works on."""
RUN_FILES_AT_ONCE = 64
"""Run files that a range of keys is read from: more are merged before."""
PLAN, DONE = "ranges.json", "done.json"
"""In the folder of a step: the ranges of keys that its run files are of; and, when all are made, how many edges changed
and what may be deleted later."""

PAIRS_AT_ONCE = 1 << 20
"""Pairs of a key and a node that are sorted in memory, 32 bytes each."""
Node = tuple[int, int]
"""A document as two words of 64 bits: when it was fetched, then a hash of its id (32 bits each); its place: the
number of its file, then its row (32 bits each). The smallest node of a cluster stays."""
INDEX_FILES = 2**31
"""Files of the run have numbers below it; from it on, files of the indices of earlier runs, one index after another."""
LOW_WORD = 2**32 - 1
UNKNOWN_DATE = 2**32 - 1


def make_node(date: str, document_id: str, file: int, row: int) -> Node:
    """The node of the document in `row` of the input file with the number `file`.

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


def file_ids(names: Iterable[str]) -> dict[str, int]:
    """{name: number}: 31 bits of a hash of the name, so that a file keeps its number when others come or go.

    Of names whose hashes are equal (one pair among 65,000 files, on average) the first in order keeps it and the others
    take their next hash: then, and only then, one file's number depends on another file.
    """
    ids: dict[str, int] = {}
    taken: set[int] = set()
    for name in sorted(names):
        data = name.encode("utf-8", "surrogatepass")
        hashes = (hashlib.blake2b(data, digest_size=4, salt=n.to_bytes(8)).digest() for n in itertools.count())
        ids[name] = next(id for one in hashes if (id := int.from_bytes(one) % INDEX_FILES) not in taken)
        taken.add(ids[name])
    return ids


@contextlib.contextmanager
def writing_pairs(path: Path, scratch: Path | None = None) -> Generator[Callable[[Sequence[bytes], Node], None]]:
    """Gives what adds the keys (of 16 bytes, evenly spread as hashes are) of a node to a file for `find_duplicates`.

    The file appears whole at the end. Raises InputError when the disk does not take it.
    """
    waiting, nodes = bytearray(), array("Q")
    with writing_run_file(path, scratch) as add_run:

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


def find_duplicates[Folder: (Path, Url)](
    pairs: Sequence[Place], folder: Folder, run: Run, rows_at_once: int = ROWS_AT_ONCE
) -> Folder:
    """From files of `writing_pairs` to a folder for `duplicates_in`; `run` does the work on many tasks.

    `folder` holds the steps, on a disk that all workers share or in a bucket. What is done in there is not done again,
    so it must be empty when the pairs are others. `rows_at_once` bounds the memory and has no influence on the result.
    Raises InputError when a file is damaged or the disk does not take one.
    """
    run_files, _ = take_step("link", pairs, folder / "link", run, rows_at_once)
    steps = [folder / "link"]
    for number in itertools.count(1):
        changes = 0
        for kind in ("large", "small"):
            steps.append(folder / f"round-{number}-{kind}-star")
            run_files, more_changes = take_step(kind, run_files, steps[-1], run, rows_at_once)
            changes += more_changes
            if len(steps) > 2:  # the one before is left: another process may be at reading it still
                delete_run_files(steps.pop(0))
        if not changes:
            take_step("result", run_files, folder / "result", run, rows_at_once)
            return folder / "result"
    raise AssertionError("a count ended")


def duplicates_in(result: Place, file: int) -> dict[int, tuple[int, int]]:
    """The rows of the file with the number `file` that are duplicates, each with the (file, row) of the one that
    stays."""
    low = file << 32
    last, stays = low | LOW_WORD, {}
    runs = runs_of(task.run_file for task in planned(result) if task.low <= last and low <= task.last)
    for places, _, _, kept in read_blocks(runs, low, last, ROWS_AT_ONCE):
        for place, other in zip(places.tolist(), kept.tolist(), strict=True):
            stays[place & LOW_WORD] = other >> 32, other & LOW_WORD
    return dict(sorted(stays.items()))


def take_step(
    kind: Kind, run_files: Sequence[Place], folder: Place, run: Run, rows_at_once: int
) -> tuple[list[Place], int]:
    """Makes the run files of a step in `folder`, unless it is done; gives them and how many edges changed."""
    done, plan = folder / DONE, folder / PLAN
    if not done.is_file():
        few, merged = merge_many(run_files, folder, run, rows_at_once)
        if not plan.is_file():
            write_plan(few, plan, rows_at_once)
        tasks = planned(folder)
        hot = [task.minima for task in tasks if task.parts > 1]
        make(hot, functools.partial(write_minima, run_files=few, rows_at_once=rows_at_once), run)
        join = functools.partial(join_range, kind=kind, run_files=few, minima=hot, rows_at_once=rows_at_once)
        make(tasks, join, run)
        changes = sum(int(task.note.read_text()) for task in tasks)
        names = [place.name for place in [*merged, *(one.run_file for one in hot)]]
        write(done, {"changes": changes, "merged": names})
    return [task.run_file for task in planned(folder)], json.loads(done.read_text())["changes"]


def write_plan(run_files: Sequence[Place], plan: Place, rows_at_once: int) -> None:
    """Writes the ranges of a step, [first key, last key, part, parts] of each, in the order of the keys."""
    rows, runs = BLOCKS_IN_RANGE * rows_at_once, runs_of(run_files)
    ranges = [
        [low, last, part, parts]
        for low, last in key_ranges(runs, rows)
        for parts in [parts_of(runs, low, last, rows)]
        for part in range(parts)
    ]
    write(plan, ranges)


def write(place: Place, value: object) -> None:
    """Writes JSON whole; several processes may do so at once."""
    if isinstance(place, Path):
        place.parent.mkdir(parents=True, exist_ok=True)
    with writing(place):
        write_atomically(place, json.dumps(value), scratch=place.parent if isinstance(place, Path) else None)


def delete_run_files(folder: Place) -> None:
    """Deletes what a step made and nobody reads any more, since the disk may be scarce."""
    merged = json.loads((folder / DONE).read_text())["merged"]
    for place in [
        *(inside(folder, name, folder / DONE) for name in merged),
        *(task.run_file for task in planned(folder)),
    ]:
        place.unlink(missing_ok=True)


def merge_many(
    run_files: Sequence[Place], folder: Place, run: Run, rows_at_once: int
) -> tuple[Sequence[Place], list[Place]]:
    """The run files, or at most RUN_FILES_AT_ONCE in `folder` that hold the same rows; and all that were made for that.
    Few rows, one range, stay as they are: that opens each run file three times."""
    few_bytes, made = BLOCKS_IN_RANGE * rows_at_once * ROW_BYTES, []
    for level in itertools.count(1):
        if len(run_files) <= RUN_FILES_AT_ONCE or total_bytes(run_files) <= few_bytes:
            return run_files, made
        groups = itertools.batched(run_files, RUN_FILES_AT_ONCE)
        tasks = [Merge(group, folder / f"{level}-{number:06d}.merged") for number, group in enumerate(groups)]
        make(tasks, functools.partial(merge, rows_at_once=rows_at_once), run)
        run_files = [task.run_file for task in tasks]
        made += run_files
    raise AssertionError("a count ended")


def total_bytes(places: Sequence[Place]) -> int:
    """Of some files; in a bucket by one listing of each folder."""
    listings = {folder: folder.files() for folder in {one.parent for one in places if isinstance(one, Url)}}
    size = lambda one: listings[one.parent][one.name].size if isinstance(one, Url) else size_of(one) or 0
    return sum(map(size, places))


@dataclass(frozen=True)
class Range:
    """A range of the first word of keys, both ends included, or a part of its rows, and the run file that its join
    makes."""

    low: int
    last: int
    run_file: Place
    part: int = 0
    parts: int = 1

    @property
    def note(self) -> Place:
        """Holds the number of edges that the join changed."""
        return self.run_file.with_name(f"{self.run_file.name}.changes")

    @property
    def outputs(self) -> tuple[Place, ...]:
        return self.run_file, self.note

    @property
    def minima(self) -> "Minima":
        """Of the keys in this part."""
        path = self.run_file.with_name(f"{self.run_file.name}.minima")
        return Minima(self.low, self.last, path, self.part, self.parts)


@dataclass(frozen=True)
class Minima:
    """A part of a range, and the run file of the smallest nodes of its keys."""

    low: int
    last: int
    run_file: Place
    part: int
    parts: int


def planned(folder: Place) -> list[Range]:
    """The ranges of a step, in the order of their keys."""
    ranges = json.loads((folder / PLAN).read_text())
    return [Range(low, last, folder / f"{n:06d}.runs", *part) for n, (low, last, *part) in enumerate(ranges)]


@dataclass(frozen=True)
class Merge:
    """Some run files, and the one that their merge makes."""

    run_files: tuple[Place, ...]
    run_file: Place


def make[Task: (Range, Merge, Minima)](tasks: Sequence[Task], work: Callable[[Task], None], run: Run) -> None:
    """Makes the run files of the tasks, those that are not there."""
    if tasks:
        run(list(tasks), work)


def merge(task: Merge, rows_at_once: int) -> None:
    """Makes one run file of several."""
    write_run_file(here(task.run_file), merged_blocks(runs_of(task.run_files), rows_at_once))


def join_range(
    task: Range, kind: Kind, run_files: Sequence[Place], minima: Sequence[Minima], rows_at_once: int
) -> None:
    """Makes one run file of a step."""
    runs = runs_of(run_files)
    read = lambda: read_blocks(runs, task.low, task.last, rows_at_once, task.part, task.parts)
    known = None
    if task.parts > 1:
        own = runs_of(one.run_file for one in minima if one.low == task.low)
        rows = sorted_rows(np.concatenate([run.read(0, run.rows) for run in own], axis=1))
        known = rows[:, begins(rows[:2])]
    join = Join(kind, read, rows_at_once, known)
    write_run_file(here(task.run_file), join.runs())
    here(task.note).write_text(str(join.changes))


def write_minima(task: Minima, run_files: Sequence[Place], rows_at_once: int) -> None:
    """Makes a run file of the smallest node of each key in a part of a range."""
    blocks: Iterator[np.ndarray] = read_blocks(
        runs_of(run_files), task.low, task.last, rows_at_once, task.part, task.parts
    )
    write_run_file(here(task.run_file), [smallest(blocks)])
