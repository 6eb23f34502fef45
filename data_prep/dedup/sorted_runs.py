"""Run files: files of sorted runs of rows of four whole numbers, from which any range of keys can be read. The writer
sorts, the reader of a range finds its part of each run: the same bytes on every engine, in bounded memory.

    run 0: rows x 4 words | run 1 | ... | index: of each run rows, samples, and every SAMPLE_ROWS-th key_0 and the last
    | trailer: magic, runs, bytes and CRC-32 of the index; all little-endian, 64 bits a word

The four words of a row are together, so that a range of a run is one request to a bucket. The index tells which.
"""

import contextlib
import itertools
import os
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lm.errors import InputError
from lm.storage import Place, StorageError, Url, appearing, size_of, writing

COLUMNS = 4
"""A key of two words, and a node of two (clusters.py). Rows are arrays of shape (4, rows), one line a column."""
ROW_BYTES = 8 * COLUMNS
SAMPLE_ROWS = 1024
MAGIC = int.from_bytes(b"GMRUNS1\n", "little")
TRAILER = np.dtype([("magic", "<u8"), ("runs", "<u8"), ("index_bytes", "<u8"), ("crc32", "<u8")])
LAST_KEY = 2**64 - 1
READERS = 16
Part = tuple[Place, int, int]
"""Some rows of a file: its bytes from the first to the end."""


@contextlib.contextmanager
def writing_run_file(path: Path, scratch: Path | None = None) -> Generator[Callable[[np.ndarray], None]]:
    """Gives a function that adds a run, uint64 (4, rows), which is sorted. The file appears whole at the end, written
    in `scratch`, by default next to it. Raises InputError when the disk does not take it."""
    table: list[tuple[int, int]] = []
    samples: list[np.ndarray] = []
    with writing(path), appearing(path, scratch=scratch or path.parent) as partial, partial.open("wb") as file:

        def add(run: np.ndarray) -> None:
            if run.shape[1]:
                rows = sorted_rows(run)
                file.write(np.ascontiguousarray(rows.T, "<u8").data)
                samples.append(np.append(rows[0, ::SAMPLE_ROWS], rows[0, -1:]))
                table.append((rows.shape[1], len(samples[-1])))

        yield add
        parts = [np.array(table, "<u8").reshape(-1), *samples]
        index = np.concatenate([part.astype("<u8") for part in parts]).tobytes()
        file.write(index)
        file.write(np.array([(MAGIC, len(table), len(index), zlib.crc32(index))], TRAILER).tobytes())


def write_run_file(path: Path, runs: Iterable[np.ndarray], scratch: Path | None = None) -> None:
    with writing_run_file(path, scratch) as add:
        for run in runs:
            add(run)


def sorted_rows(rows: np.ndarray) -> np.ndarray:
    """The different ones of the rows in order (`order_of`)."""
    rows = rows[:, order_of(rows)]
    new = begins(rows)
    return rows if new.all() else rows[:, new]


def order_of(rows: np.ndarray) -> np.ndarray:
    """What sorts the rows by the first column, then the second and so on: int64 (rows,)."""
    order = np.argsort(rows[0])  # ten times as fast as a sort by all columns, which only ties need
    keys = rows[0, order]
    tied = np.zeros(len(keys), bool)
    tied[1:] = keys[1:] == keys[:-1]
    tied[:-1] |= tied[1:]
    some = order[tied]
    order[tied] = some[np.lexsort(rows[::-1, some])]
    return order


def begins(rows: np.ndarray) -> np.ndarray:
    """Where, in sorted rows, one stands that differs from the row before it; boolean (rows,)."""
    new = np.ones(rows.shape[1], bool)
    new[1:] = (rows[:, 1:] != rows[:, :-1]).any(axis=0)
    return new


@dataclass(frozen=True, eq=False)
class Run:
    """Some sorted rows of a run file."""

    place: Place
    offset: int
    """Bytes of the file before it."""
    rows: int
    samples: np.ndarray
    """key_0 of every SAMPLE_ROWS-th row, and of the last, uint64."""

    def around(self, low: int, last: int) -> tuple[int, int]:
        """(begin, end) of rows among which are all that have a key_0 from `low` to `last`, and few others."""
        if not low <= last or self.samples[-1] < low or self.samples[0] > last:
            return 0, 0
        before = int(np.searchsorted(self.samples[:-1], np.uint64(low), side="left"))
        after = int(np.searchsorted(self.samples[:-1], np.uint64(last), side="right"))
        return max(before - 1, 0) * SAMPLE_ROWS, min(after * SAMPLE_ROWS, self.rows)


def read_range(place: Place, start: int, end: int) -> bytes:
    """Bytes `start` to `end` of a file or object. Raises InputError where they are not there."""
    try:
        if isinstance(place, Url):
            data = place.read_range(start, end)
        else:
            with place.open("rb") as file:
                data = os.pread(file.fileno(), end - start, start)
    except StorageError:
        raise
    except OSError as error:
        raise damaged(place, str(error)) from error
    if len(data) != end - start:
        raise damaged(place, f"it ends at byte {start + len(data):,}, but {end:,} are needed")
    return data


def damaged(place: Place, how: str) -> InputError:
    return InputError(f"{place} cannot be read: {how}. Delete the folder {place.parent} and give the command again.")


def runs_in(place: Place) -> list[Run]:
    """The runs of a run file, of which the index alone is read. Raises InputError when it is not there or damaged."""
    size = size_of(place)
    if size is None:
        raise damaged(place, "it is not there")
    if size < TRAILER.itemsize:
        raise damaged(place, f"it has {size} bytes")
    guess = max(size - 2**16, 0)  # of most files, index and trailer
    end = read_range(place, guess, size)
    (trailer,) = np.frombuffer(end[-TRAILER.itemsize :], TRAILER)
    magic, count, index_bytes, crc32 = (int(value) for value in trailer)
    start = size - TRAILER.itemsize - index_bytes
    if magic != MAGIC or start < 0 or index_bytes < 16 * count:
        raise damaged(place, "it does not end as a run file does")
    index = end[start - guess : -TRAILER.itemsize] if start >= guess else read_range(place, start, start + index_bytes)
    words = np.frombuffer(index, "<u8").astype(np.uint64, copy=False)
    table = words[: 2 * count].reshape(-1, 2).astype(np.int64)
    if zlib.crc32(index) != crc32 or ROW_BYTES * table[:, 0].sum() != start:
        raise damaged(place, "its index is not the one that was written")
    runs, offset, at = [], 0, 2 * count
    for rows, samples in table.tolist():
        runs.append(Run(place, offset, rows, words[at : at + samples]))
        offset, at = offset + rows * ROW_BYTES, at + samples
    return runs


def runs_of(places: Sequence[Place]) -> list[Run]:
    return [run for runs in read_many(runs_in, places, any(isinstance(one, Url) for one in places)) for run in runs]


def read_many[Item, Read](read: Callable[[Item], Read], items: Sequence[Item], remote: bool) -> Iterator[Read]:
    """Reads the items in their order; of a bucket, some at once."""
    if not remote:
        yield from map(read, items)
        return
    with ThreadPoolExecutor(READERS) as pool:
        for some in itertools.batched(items, READERS):
            yield from pool.map(read, some)


def read_rows(parts: Sequence[Part], rows: int) -> Iterator[np.ndarray]:
    """The rows of some parts of files, at most `rows` at a time: uint64 (4, rows)."""
    step = rows * ROW_BYTES
    cuts = [(place, cut, min(cut + step, end)) for place, begin, end in parts for cut in range(begin, end, step)]
    for data in read_many(lambda cut: read_range(*cut), cuts, any(isinstance(place, Url) for place, *_ in cuts)):
        yield np.frombuffer(data, "<u8").reshape(-1, COLUMNS).T


def pieces_between(runs: Sequence[Run], low: int, last: int, rows: int) -> Iterator[np.ndarray]:
    """The rows of the runs with a key_0 from `low` to `last`, at most `rows` at a time, as they stand."""
    bounds = [(run, *run.around(low, last)) for run in runs]
    part = lambda run, begin, end: (run.place, run.offset + begin * ROW_BYTES, run.offset + end * ROW_BYTES)
    parts = [part(*one) for one in bounds if one[1:] != (0, 0)]
    for piece in read_rows(parts, rows):
        begin = np.searchsorted(piece[0], np.uint64(low), "left")
        end = np.searchsorted(piece[0], np.uint64(last), "right")
        if begin < end:
            yield piece[:, begin:end]


def in_blocks(pieces: Iterable[np.ndarray], rows: int) -> Iterator[np.ndarray]:
    """Some rows in blocks of at most `rows` of them, as many as each piece has at most, each sorted."""
    waiting: list[np.ndarray] = []
    count = 0
    for piece in pieces:
        if count + piece.shape[1] > rows:
            yield sorted_rows(np.concatenate(waiting, axis=1))
            waiting, count = [], 0
        waiting.append(piece)
        count += piece.shape[1]
    if waiting:
        yield sorted_rows(np.concatenate(waiting, axis=1))


def read_blocks(runs: Sequence[Run], low: int, last: int, rows: int) -> Iterator[np.ndarray]:
    """The rows with a key_0 from `low` to `last`, in blocks of at most `rows` rows, each sorted."""
    return in_blocks(pieces_between(runs, low, last, rows), rows)


# A key that is a place, of which the word tells a file and a row, is spread by the file.

FACTOR, INVERSE = 0x9E3779B1, pow(0x9E3779B1, -1, 2**32)


def spread(places: np.ndarray, factor: int = FACTOR) -> np.ndarray:
    """Places, uint64, as keys: the numbers of files, which may be small or near one another, evenly over 32 bits."""
    file = (places >> np.uint64(32)) * np.uint64(factor) << np.uint64(32)
    return file | places & np.uint64(2**32 - 1)


def places_of(keys: np.ndarray) -> np.ndarray:
    """The inverse of `spread`."""
    return spread(keys, INVERSE)


def keys_of_file(file: int) -> tuple[int, int]:
    """The keys of the places in the file with that number: the first and the last."""
    low = file * FACTOR % 2**32 << 32
    return low, low | 2**32 - 1


# The rows of a partition are gone over twice: for the first row of each key, then block by block.


def first_rows(blocks: Iterable[np.ndarray], counts: list[np.ndarray] | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Of blocks of sorted rows: the number of the key of each `begins` of a key in a block, and the first row of each
    key, uint64 (4, keys). `counts` gets how many rows begin there, an array a block."""
    firsts = [np.empty((4, 0), np.uint64)]
    for block in blocks:
        starts = begins(block[:2])
        firsts.append(block[:, starts])
        if counts is not None:
            counts.append(np.diff(np.append(np.flatnonzero(starts), block.shape[1])))
    rows = np.concatenate(firsts, axis=1)
    del firsts
    order = order_of(rows)
    rows = rows[:, order]
    new = begins(rows[:2])
    group = np.empty(len(order), np.int64)
    group[order] = np.cumsum(new) - 1
    return group, rows[:, new]


def with_keys(blocks: Iterable[np.ndarray], group: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(block, where a key begins in it, number of each such key), given the first of `first_rows`."""
    at = 0
    for block in blocks:
        starts = begins(block[:2])
        keys = group[at : at + int(starts.sum())]
        at += len(keys)
        yield block, starts, keys


def put_together(blocks: Iterable[np.ndarray], rows: int) -> Iterator[np.ndarray]:
    """The blocks, each as many together as have `rows` rows."""
    waiting: list[np.ndarray] = []
    count = 0
    for block in blocks:
        waiting.append(block)
        count += block.shape[1]
        if count >= rows:
            yield np.concatenate(waiting, axis=1)
            waiting, count = [], 0
    if waiting:
        yield np.concatenate(waiting, axis=1)
