"""The number of documents of each cluster, by the document that stays, and how often to repeat that. Clusters may not
fit into memory: counts in each file of clusters.py are joined by the document that stays."""

import bisect
import functools
from collections.abc import Iterator, Sequence

import numpy as np

from data_prep.dedup.clusters import LOW_WORD, ROWS_AT_ONCE
from data_prep.dedup.partitions import Gather, Partition, Partitions, Rows, join
from data_prep.dedup.sorted_runs import (
    LAST_KEY,
    keys_of_file,
    read_blocks,
    runs_in,
    runs_of,
    spread,
    write_run_file,
)
from data_prep.engine.tasks import Run, here
from lm.storage import Place


def count_clusters(result: Partitions, folder: Place, run: Run, rows_at_once: int = ROWS_AT_ONCE) -> Partitions:
    """From what `find_duplicates` made to what `sizes_in` reads; `run` and the others are as there."""
    counts = [Gather((place,), folder / f"{number:06d}.counts") for number, place in enumerate(result.places)]
    run(counts, functools.partial(count_kept, rows_at_once=rows_at_once))
    return join([task.run_file for task in counts], add_up, run, folder, rows_at_once)[0]


def count_kept(task: Gather, rows_at_once: int) -> None:
    """Write how many duplicates each document that stays has in a file of clusters.py, block by block: rows of its
    place, spread; the numbers of file and block, which tell equal counts apart; the count; 0."""

    def counted() -> Iterator[np.ndarray]:
        seen = np.empty(0, np.uint64)  # rows of a partition of many blocks may be in several runs
        for block, rows in enumerate(read_blocks(runs_of(task.run_files), 0, LAST_KEY, rows_at_once)):
            rows = rows[:, ~np.isin(rows[0], seen)]
            seen = np.union1d(seen, rows[0])
            places, counts = np.unique(rows[3], return_counts=True)
            name = np.full(len(places), int(task.run_file.name.partition(".")[0]) << 32 | block, np.uint64)
            yield np.stack([spread(places), name, counts.astype(np.uint64), np.zeros_like(name)])

    write_run_file(here(task.run_file), counted())


def add_up(task: Partition, rows: Rows) -> None:
    """Writes the sums of a partition of places: rows of place, spread, 0, the count, 0."""
    places, counts = np.empty(0, np.uint64), np.empty(0, np.uint64)
    for block in rows():
        every = np.concatenate([places, block[0]])
        places, where = np.unique(every, return_inverse=True)
        sums = np.zeros(len(places), np.uint64)
        np.add.at(sums, where, np.concatenate([counts, block[2]]))
        counts = sums
    zeros = np.zeros_like(places)
    write_run_file(here(task.run_file), [np.stack([places, zeros, counts, zeros])])


def sizes_in(sums: Partitions, file: int) -> dict[int, int]:
    """{row of the file with the number `file`: documents of its cluster, itself among them}, if others are in it."""
    low, last = keys_of_file(file)
    return {
        key & LOW_WORD: count + 1
        for keys, _, counts, _ in read_blocks(runs_in(sums.of(low)), low, last, ROWS_AT_ONCE)
        for key, count in zip(keys.tolist(), counts.tolist(), strict=True)
    }


def repeats(size: int, weights: Sequence[tuple[int, int]]) -> int:
    """How often to repeat a document of a cluster of `size`: the weight of the largest (limit, weight) that it
    reaches."""
    return weights[bisect.bisect_right([limit for limit, _ in weights], size) - 1][1]
