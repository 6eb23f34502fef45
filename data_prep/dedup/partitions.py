"""Join the rows of many run files by key: the keys are split into 2^k partitions, and one task joins each.

    run files ─ gather: a task for 64 of them ─► their rows, partition after partition ─ join: a task for a partition ─►

The keys of a partition begin with the same k bits; k follows from the size of the run files. If all rows fit into one
task, it reads the run files directly. Otherwise the gather tasks read the U run files once and copy their rows by
partition, without sorting, and each partition reads its rows from their U / 64 files: U + 2^k U / 64 objects are read.
If run files are large, a gather task reads fewer than 64. The rows of a partition are read once and held in memory.
Only a partition with too many rows for that (a boilerplate text of millions of pages has one key) is read block by
block, as often as its join needs.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_prep.dedup.sorted_runs import (
    ROW_BYTES,
    Run,
    joined,
    pieces_between,
    put_together,
    read_rows,
    runs_of,
    sorted_rows,
)
from data_prep.engine.tasks import Run as RunTasks
from data_prep.engine.units import Counts, sizes_of
from data_prep.grouping import grouped
from lm.storage import Place, appearing, writing

FILES_AT_ONCE = 64
"""Maximum number of run files that one task gathers."""
BLOCKS_IN_PARTITION = 3
"""Maximum number of blocks of rows in a partition, if keys are uniformly distributed."""
GATHERED_PARTITIONS = 4
"""Maximum size of the input of a gather task, in units of the maximum size of a partition."""
MOST_BITS = 20
"""Maximum number of bits: a million partitions, for a hundred terabytes of keys."""
Rows = Callable[[], Iterator[np.ndarray]]
"""Returns the rows of a partition in blocks, uint64 (4, rows), each sorted. Every call gives the same blocks."""


@dataclass(frozen=True)
class Gather:
    """Task that reads run files (sorted_runs.py) and writes their rows by partition, or counts, to one file."""

    run_files: tuple[Place, ...]
    run_file: Place


@dataclass(frozen=True, eq=False)
class Partition:
    """Task that joins the rows of one partition, whose keys begin with the `bits` bits of `number`."""

    number: int
    bits: int
    run_file: Place
    extents: np.ndarray | None = None
    """int64 (files, 2): first row and end of the partition's rows in each gathered file. None: all rows."""

    @property
    def low(self) -> int:
        return self.number << 64 - self.bits

    @property
    def last(self) -> int:
        return (self.number + 1 << 64 - self.bits) - 1


JoinWork = Callable[[Partition, Path, Rows], Counts | None]
"""(partition, local file to write, rows) -> counts"""


@dataclass(frozen=True)
class Partitions:
    """Output files of a join, one for each of the 2^bits partitions, such as `folder`/000000.runs."""

    folder: Place
    bits: int
    suffix: str = ".runs"

    @property
    def places(self) -> list[Place]:
        return [self.place(number) for number in range(1 << self.bits)]

    @property
    def tasks(self) -> list[Partition]:
        """The tasks that write the files, one per partition. Their `extents` are not set yet."""
        return [Partition(number, self.bits, place) for number, place in enumerate(self.places)]

    def place(self, number: int) -> Place:
        return self.folder / f"{number:06d}{self.suffix}"

    def of(self, key: int) -> Place:
        """Return the file of the partition that has a key. `key` is the first of the two 64-bit words of the key."""
        return self.place(key >> 64 - self.bits)


def join(
    run_files: Sequence[Place],
    work: JoinWork,
    run: RunTasks,
    folder: Place,
    rows_at_once: int,
    made: Callable[[int], Partitions] | None = None,
) -> tuple[Partitions, list[Counts]]:
    """Join the rows of all `run_files` by key: split the rows into 2^bits partitions by the first bits of their keys,
    and call `work` for each partition. Return (output files, one per partition; counts that `work` returned for each).

    `run` runs the tasks, possibly on several machines. `folder` gets the intermediate files and the outputs. To store
    the outputs elsewhere, give a function `made`, which returns the output files for a number of bits. `work` reads a
    partition in blocks of at most `rows_at_once` rows, which bounds the memory.
    """
    found = sizes_of(run_files)
    sizes = [found.get(one, 0) for one in run_files]
    most = BLOCKS_IN_PARTITION * rows_at_once * ROW_BYTES
    bits = min(max(0, math.ceil(math.log2(max(1, sum(sizes)) / most))), MOST_BITS)
    target = made(bits) if made else Partitions(folder, bits)
    files, tasks = tuple(run_files), target.tasks
    if bits:
        gathers = gathers_of(run_files, sizes, GATHERED_PARTITIONS * most, folder)
        counts = run(gathers, functools.partial(gather, bits=bits, rows_at_once=rows_at_once))
        files = tuple(task.run_file for task in gathers)
        ends = np.cumsum([[0, *one["partitions"]] for one in counts], axis=1)
        tasks = [dataclasses.replace(task, extents=ends[:, n : n + 2].copy()) for n, task in enumerate(tasks)]
    return target, run(tasks, functools.partial(join_partition, files=files, rows_at_once=rows_at_once, work=work))


def gathers_of(run_files: Sequence[Place], sizes: Iterable[int], most: int, folder: Place) -> list[Gather]:
    """Return tasks that gather the files, in order, each of at most `most` bytes and FILES_AT_ONCE files. A larger file
    is a task of its own. `sizes` are the bytes of the files."""
    groups = grouped(zip(run_files, sizes, strict=True), lambda one: one[1], most, FILES_AT_ONCE)
    return [
        Gather(tuple(place for place, _ in group), folder / f"{number:06d}.gathered")
        for number, group in enumerate(groups)
    ]


def gather(task: Gather, path: Path, bits: int, rows_at_once: int) -> Counts:
    """Write the rows of the task's run files to `path` by partition. Returns {"partitions": number of rows in each}."""
    runs = runs_of(task.run_files)
    counts = np.zeros(1 << bits, np.int64)
    with writing(path), appearing(path, scratch=path.parent) as partial, partial.open("wb") as file:
        for rows in gathered(runs, bits, rows_at_once):
            numbers = (rows[0] >> np.uint64(64 - bits)).astype(np.uint16 if bits <= 16 else np.int64)
            order = np.argsort(numbers, kind="stable")  # linear time for 16 bits
            file.write(np.ascontiguousarray(rows.T, "<u8")[order].data)
            counts += np.bincount(numbers, minlength=1 << bits)
    return {"partitions": counts.tolist()}


def gathered(runs: Sequence[Run], bits: int, rows: int, number: int = 0, depth: int = 0) -> Iterator[np.ndarray]:
    """Yield the rows of `runs` in blocks of about `rows`: a block has either several whole partitions or rows of only
    one. Callers leave out `number` and `depth`, which select the keys that begin with the `depth` bits of `number`."""
    low, last = number << 64 - depth, (number + 1 << 64 - depth) - 1
    if depth == bits:
        yield from pieces_between(runs, low, last, rows)
    elif sum(end - begin for begin, end in (run.around(low, last) for run in runs)) <= rows:
        yield joined(pieces_between(runs, low, last, rows))
    else:
        for half in (0, 1):
            yield from gathered(runs, bits, rows, 2 * number + half, depth + 1)


def join_partition(
    task: Partition, path: Path, files: Sequence[Place], rows_at_once: int, work: JoinWork
) -> Counts | None:
    if task.extents is None:
        parts = [(run.place, run.offset, run.offset + run.rows * ROW_BYTES) for run in runs_of(files)]
    else:
        bounds = (task.extents * ROW_BYTES).tolist()
        parts = [(place, begin, end) for place, (begin, end) in zip(files, bounds, strict=True) if begin < end]
    total = sum(end - begin for _, begin, end in parts) // ROW_BYTES
    if total > BLOCKS_IN_PARTITION * rows_at_once:
        return work(task, path, lambda: map(sorted_rows, put_together(read_rows(parts, rows_at_once), rows_at_once)))
    rows = sorted_rows(joined(read_rows(parts, rows_at_once)))
    cuts = range(0, rows.shape[1], rows_at_once)
    return work(task, path, lambda: (rows[:, cut : cut + rows_at_once] for cut in cuts))
