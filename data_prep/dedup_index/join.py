"""Which documents meet a key of an index: a join range of keys by range of keys, beside those of dedup/clusters.py.

What it gives are pairs (key, node) as these take them: of each key that the run and an index share, the run's nodes and
one node of the index, which is smaller than all of the run. So the index's document stays, and the whole cluster that
meets it goes, as if both runs had been one.
"""

import functools
from collections.abc import Iterator, Sequence

import numpy as np

from data_prep.dedup.clusters import (
    BLOCKS_IN_RANGE,
    INDEX_FILES,
    PLAN,
    ROWS_AT_ONCE,
    Range,
    make,
    merge_many,
    planned,
    write,
)
from data_prep.dedup.sorted_runs import begins, key_ranges, read_blocks, runs_of, sorted_rows, write_run_file
from data_prep.dedup_index.format import Index
from data_prep.engine.tasks import Run, here
from lm.storage import Place


def pairs_met(
    pairs: Sequence[Place],
    indices: Sequence[Index],
    kinds: Sequence[str],
    folder: Place,
    run: Run,
    rows_at_once: int = ROWS_AT_ONCE,
) -> list[Place]:
    """Files of pairs for `find_duplicates` in `folder`, from files of the run's own keys for an index.

    The files of the indices' runs are numbered from INDEX_FILES on, in the order of the indices. `run` and
    `rows_at_once` are as of `find_duplicates`.
    """
    few, _ = merge_many(pairs, folder, run, rows_at_once)
    if not (folder / PLAN).is_file():
        write(folder / PLAN, key_ranges(runs_of(few), BLOCKS_IN_RANGE * rows_at_once))
    tasks = planned(folder)
    work = functools.partial(meet_range, run_files=few, indices=indices, kinds=kinds, rows_at_once=rows_at_once)
    make(tasks, work, run)
    return [task.run_file for task in tasks]


def meet_range(
    task: Range,
    run_files: Sequence[Place],
    indices: Sequence[Index],
    kinds: Sequence[str],
    rows_at_once: int,
) -> None:
    """Makes the pairs of one range of keys."""
    write_run_file(here(task.run_file), met_runs(task, run_files, indices, kinds, rows_at_once))


def met_runs(
    task: Range,
    run_files: Sequence[Place],
    indices: Sequence[Index],
    kinds: Sequence[str],
    rows_at_once: int,
) -> Iterator[np.ndarray]:
    """Runs of pairs, uint64 (4, pairs). Three readings: the run's distinct keys, the index, the run's nodes."""
    read = lambda: read_blocks(runs_of(run_files), task.low, task.last, rows_at_once)
    own = sorted_rows(np.concatenate([np.empty((2, 0), np.uint64), *(distinct(block) for block in read())], axis=1))
    met = np.zeros(own.shape[1], bool)
    first_file = INDEX_FILES
    for index in indices:
        for kind in kinds:
            for keys in index.read_keys(kind, task.low, task.last):
                mine, theirs = matches(own, keys.first, keys.second)
                met[mine] = True
                place = keys.place[theirs] + np.uint64(first_file << 32)
                yield np.stack([*own[:, mine], np.zeros_like(place), place])
        first_file += len(index.texts)
    own = own[:, met]
    if own.shape[1]:
        for block in read():
            rows, _ = matches(block[:2], *own)
            yield block[:, np.unique(rows)]


def distinct(block: np.ndarray) -> np.ndarray:
    """The distinct keys of sorted rows, uint64 (2, keys)."""
    return block[:2, begins(block[:2])]


def matches(keys: np.ndarray, first: np.ndarray, second: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Where in `keys`, uint64 (2, n), and where among others, sorted, the same key stands; by the first words alone
    where there are no second ones."""
    begin = np.searchsorted(first, keys[0], side="left")
    many = np.searchsorted(first, keys[0], side="right") - begin
    mine, theirs = [np.empty(0, np.intp)], [np.empty(0, np.intp)]
    for step in range(int(many.max(initial=0))):  # more than once only where keys differ after 8 bytes alone
        some = np.flatnonzero(many > step)
        at = begin[some] + step
        if second is not None:
            same = second[at] == keys[1, some]
            some, at = some[same], at[same]
        mine.append(some)
        theirs.append(at)
    return np.concatenate(mine), np.concatenate(theirs)
