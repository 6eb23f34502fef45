"""Run files: files of sorted runs of rows of four whole numbers, from which any range of keys can be read alone.

They are what the steps of clusters.py hand to one another. Between two steps rows must meet by their key. Beam's own
GroupByKey would do that, but on one machine it holds all that is grouped in the memory of one process. Here the writer
of a run file sorts its rows, and the reader of a range of keys finds its part of each by bisection: the same bytes on
every runner, nothing in memory but the part that is being worked on, and a restart finds what is done.
"""

import contextlib
import itertools
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from lm.errors import InputError
from lm.storage import appearing, writing

SCHEMA = pa.schema([(name, pa.uint64()) for name in ("key_0", "key_1", "when", "place")])
"""A key of two words, and a node (clusters.py). Rows are arrays of shape (4, rows), one line a column."""
ROW_BYTES = 32
LAST_KEY = 2**64 - 1
RANGES_MAPPED = 8
"""Ranges that a merge reads before it maps its run files anew: pages that were read count as the process's own until
then, 32 bytes a row, though the system may take them back."""
Run = list[np.ndarray]
"""The four columns of some sorted rows, each uint64 (rows,)."""


@contextlib.contextmanager
def writing_run_file(path: Path) -> Generator[Callable[[np.ndarray], None]]:
    """Gives what adds a run, uint64 (4, rows), to a run file: it is sorted by itself. The file appears whole at
    the end.

    Raises InputError when the disk does not take it.
    """
    with (
        writing(path),
        appearing(path, scratch=path.parent) as partial,
        pa.OSFile(str(partial), "wb") as file,
        pa.ipc.new_file(file, SCHEMA) as run_file,
    ):

        def add(run: np.ndarray) -> None:
            if run.shape[1]:
                run_file.write_batch(pa.record_batch(list(sorted_rows(run)), schema=SCHEMA))

        yield add


def write_run_file(path: Path, runs: Iterable[np.ndarray]) -> None:
    """Writes a run file of these runs, as `writing_run_file` does."""
    with writing_run_file(path) as add:
        for run in runs:
            add(run)


def sorted_rows(rows: np.ndarray) -> np.ndarray:
    """The different ones of the rows in order, by the first column, then the second and so on."""
    order = np.argsort(rows[0])  # ten times as fast as a sort by all columns, which only ties need
    keys = rows[0, order]
    tied = np.zeros(len(keys), bool)
    tied[1:] = keys[1:] == keys[:-1]
    tied[:-1] |= tied[1:]
    some = order[tied]
    order[tied] = some[np.lexsort(rows[::-1, some])]
    rows = rows[:, order]
    return rows[:, begins(rows)]


def begins(rows: np.ndarray) -> np.ndarray:
    """Where, in sorted rows, one stands that differs from the row before it; boolean (rows,)."""
    new = np.ones(rows.shape[1], bool)
    new[1:] = (rows[:, 1:] != rows[:, :-1]).any(axis=0)
    return new


def mapped_runs(run_files: Sequence[Path]) -> Iterator[Run]:
    """Each run of each run file, a view of the file: it is mapped as long as one of its runs is held.

    Raises InputError when a run file is not there or damaged.
    """
    for path in run_files:
        try:
            with pa.memory_map(str(path)) as mapped:
                run_file = pa.ipc.open_file(mapped)
                for number in range(run_file.num_record_batches):
                    yield [column.to_numpy() for column in run_file.get_batch(number).columns]
        except (OSError, pa.ArrowInvalid) as error:
            raise InputError(
                f"{path} cannot be read: {error}. Delete the folder {path.parent} and give the command again."
            ) from error


def read_blocks(runs: Iterable[Run], low: int, last: int, rows: int) -> Iterator[np.ndarray]:
    """The rows with a key_0 from `low` to `last`, in sorted blocks of at most `rows` rows."""
    waiting: list[np.ndarray] = []
    count = 0
    for run in runs:
        if run[0][0] > last or run[0][-1] < low:  # two pages of the file instead of a bisection's ten
            continue
        begin = int(np.searchsorted(run[0], np.uint64(low), side="left"))
        end = int(np.searchsorted(run[0], np.uint64(last), side="right"))
        for cut in range(begin, end, rows):
            piece = np.stack([column[cut : min(cut + rows, end)] for column in run])
            if count + piece.shape[1] > rows:
                yield sorted_rows(np.concatenate(waiting, axis=1))
                waiting, count = [], 0
            waiting.append(piece)
            count += piece.shape[1]
    if waiting:
        yield sorted_rows(np.concatenate(waiting, axis=1))


def merged_blocks(run_files: Sequence[Path], rows: int) -> Iterator[np.ndarray]:
    """All rows of some run files, in sorted blocks of at most `rows` rows that follow one another."""
    ranges = key_ranges(mapped_runs(run_files), max(1, rows * 3 // 4))  # about so many: hardly one comes in two blocks
    for some in itertools.batched(ranges, RANGES_MAPPED):
        runs = list(mapped_runs(run_files))
        for low, last in some:
            yield from read_blocks(runs, low, last, rows)


def key_ranges(runs: Iterable[Run], rows: int) -> list[tuple[int, int]]:
    """Ranges of key_0 (first and last, both included) that cover all keys, with about `rows` rows in each.

    Judged by a sample of one row in `rows` / 64, as TeraSort does. A key with more rows gets a longer range.
    """
    stride = max(1, rows // 64)
    samples, offset = [np.empty(0, np.uint64)], stride // 2
    for keys, *_ in runs:
        samples.append(keys[offset::stride].copy())
        offset += stride * len(samples[-1]) - len(keys)
    lows = sorted({0, *np.sort(np.concatenate(samples))[64::64].tolist()})
    return list(zip(lows, [*(low - 1 for low in lows[1:]), LAST_KEY], strict=True))
