"""How many documents each cluster holds, by the document that stays; what one of a cluster's size is worth repeating.

Clusters may have more documents than a process has memory. What stays is counted range by range of the duplicates of
clusters.py, and these counts are added up by ranges of what stays, in files as theirs.
"""

import bisect
import functools
from collections.abc import Iterator, Sequence

import numpy as np

from data_prep.dedup.clusters import (
    BLOCKS_IN_RANGE,
    LOW_WORD,
    PLAN,
    ROWS_AT_ONCE,
    Merge,
    Range,
    make,
    merge_many,
    planned,
    write,
)
from data_prep.dedup.sorted_runs import key_ranges, read_blocks, runs_of, write_run_file
from data_prep.engine.tasks import Run, here
from lm.storage import Place

LAST_PLACE = 2**64 - 1


def count_clusters(result: Place, folder: Place, run: Run, rows_at_once: int = ROWS_AT_ONCE) -> Place:
    """From the folder of `find_duplicates` to one for `sizes_in`; `run` and the others are as there."""
    tasks = planned(result)
    counts = [Merge((task.run_file,), folder / f"{number:06d}.counts") for number, task in enumerate(tasks)]
    if not (folder / PLAN).is_file():
        make(counts, functools.partial(count_kept, rows_at_once=rows_at_once), run)
    few, _ = merge_many([task.run_file for task in counts], folder, run, rows_at_once)
    if not (folder / PLAN).is_file():
        write(folder / PLAN, key_ranges(runs_of(few), BLOCKS_IN_RANGE * rows_at_once))
    make(planned(folder), functools.partial(add_up, run_files=few, rows_at_once=rows_at_once), run)
    return folder


def count_kept(task: Merge, rows_at_once: int) -> None:
    """Writes how many duplicates of a run file of clusters.py each document has that stays, block by block: rows of its
    place; the run file's and the block's number, which tell equal counts apart; the count; 0."""

    def counted() -> Iterator[np.ndarray]:
        for block, rows in enumerate(read_blocks(runs_of(task.run_files), 0, LAST_PLACE, rows_at_once)):
            places, counts = np.unique(rows[3], return_counts=True)
            name = np.full(len(places), int(task.run_file.name.partition(".")[0]) << 32 | block, np.uint64)
            yield np.stack([places, name, counts.astype(np.uint64), np.zeros_like(name)])

    write_run_file(here(task.run_file), counted())


def add_up(task: Range, run_files: Sequence[Place], rows_at_once: int) -> None:
    """Writes the sums of a range of places: rows of place, 0, the count, 0."""
    places, counts = np.empty(0, np.uint64), np.empty(0, np.uint64)
    for rows in read_blocks(runs_of(run_files), task.low, task.last, rows_at_once):
        every = np.concatenate([places, rows[0]])
        places, where = np.unique(every, return_inverse=True)
        sums = np.zeros(len(places), np.uint64)
        np.add.at(sums, where, np.concatenate([counts, rows[2]]))
        counts = sums
    zeros = np.zeros_like(places)
    write_run_file(here(task.run_file), [np.stack([places, zeros, counts, zeros])])


def sizes_in(folder: Place, file: int) -> dict[int, int]:
    """{row of the file with the number `file`: documents of its cluster, itself among them}, if others are in it."""
    low = file << 32
    last = low | LOW_WORD
    run_files = [task.run_file for task in planned(folder) if task.low <= last and low <= task.last]
    return {
        place & LOW_WORD: count + 1
        for places, _, counts, _ in read_blocks(runs_of(run_files), low, last, ROWS_AT_ONCE)
        for place, count in zip(places.tolist(), counts.tolist(), strict=True)
    }


def repeats(size: int, weights: Sequence[tuple[int, int]]) -> int:
    """How often a document of a cluster of `size` is to be repeated: the weight of the largest limit that it reaches,
    of (limit, weight) in the order of the limits."""
    return weights[bisect.bisect_right([limit for limit, _ in weights], size) - 1][1]
