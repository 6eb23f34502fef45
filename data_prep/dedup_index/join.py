"""Which documents meet a key of an index: a join (dedup/partitions.py) that reads the same keys of each index.

It gives pairs (key, node) for dedup/clusters.py: of each key that both have, the run's nodes and one of the index,
which is smaller. So the index's document stays, and the whole cluster that meets it goes, as if both runs had been one.
"""

import functools
from collections.abc import Iterator, Sequence

import numpy as np

from data_prep.dedup.clusters import INDEX_FILES, ROWS_AT_ONCE
from data_prep.dedup.partitions import Partition, Rows, join
from data_prep.dedup.sorted_runs import begins, sorted_rows, write_run_file
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
    """Files of pairs for `find_duplicates` in `folder`, from files of the run's keys for an index. Files of the indices
    have numbers from INDEX_FILES on. `run` and `rows_at_once` are as of `find_duplicates`."""
    return join(pairs, functools.partial(meet, indices=indices, kinds=kinds), run, folder, rows_at_once)[0].places


def meet(task: Partition, rows: Rows, indices: Sequence[Index], kinds: Sequence[str]) -> None:
    """Makes the pairs of one partition of the keys."""
    write_run_file(here(task.run_file), met_runs(task, rows, indices, kinds))


def met_runs(task: Partition, rows: Rows, indices: Sequence[Index], kinds: Sequence[str]) -> Iterator[np.ndarray]:
    """Runs of pairs, uint64 (4, pairs): the run's rows are gone over twice, the index's keys once."""
    own = sorted_rows(np.concatenate([np.empty((2, 0), np.uint64), *(distinct(block) for block in rows())], axis=1))
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
        for block in rows():
            found, _ = matches(block[:2], *own)
            yield block[:, np.unique(found)]


def distinct(block: np.ndarray) -> np.ndarray:
    """The distinct keys of sorted rows, uint64 (2, keys)."""
    return block[:2, begins(block[:2])]


def matches(keys: np.ndarray, first: np.ndarray, second: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Where in `keys`, uint64 (2, n), and among others, sorted, the same key stands; without `second`, by the first
    words."""
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
