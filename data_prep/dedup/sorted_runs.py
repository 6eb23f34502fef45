"""Run files: sorted runs of rows of four unsigned integers, from which any range of keys can be read. Writers sort each
run; a reader of a range locates its part of each run. Memory is bounded, and every engine writes the same bytes.

    run 0: rows x 4 words | run 1 | ...
    | index: (rows, samples) of each run, then the samples of each run: every SAMPLE_ROWS-th key_0, and the last
    | trailer: magic, runs, bytes and CRC-32 of the index; all little-endian, 64 bits per word

The four words of a row are stored together, so that a range of a run is one request to a bucket. The index gives its
position.
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

from data_prep.grouping import grouped
from lm.errors import InputError
from lm.storage import Place, StorageError, Url, appearing, size_of, writing

COLUMNS = 4
"""A row has a key of two words, then a node of two (clusters.py). In memory, rows are uint64 (4, rows)."""
ROW_BYTES = 8 * COLUMNS
SAMPLE_ROWS = 1024
MAGIC = int.from_bytes(b"GMRUNS1\n", "little")
TRAILER = np.dtype([("magic", "<u8"), ("runs", "<u8"), ("index_bytes", "<u8"), ("crc32", "<u8")])
LAST_KEY = 2**64 - 1
READERS = 16
Part = tuple[Place, int, int]
"""(file, first byte, end) of some rows of a file."""


@contextlib.contextmanager
def writing_run_file(path: Path) -> Generator[Callable[[np.ndarray], None]]:
    """Yield a function that appends a sorted run to the run file `path`: it sorts the given rows, uint64 (4, rows). The
    file is written atomically when the block ends. Raises InputError if the disk cannot be written."""
    table: list[tuple[int, int]] = []
    samples: list[np.ndarray] = []
    with writing(path), appearing(path, scratch=path.parent) as partial, partial.open("wb") as file:

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


def write_run_file(path: Path, runs: Iterable[np.ndarray]) -> None:
    with writing_run_file(path) as add:
        for run in runs:
            add(run)


def joined(blocks: Iterable[np.ndarray], columns: int = COLUMNS) -> np.ndarray:
    """Return the rows of all blocks, uint64 (columns, rows), also if there are no blocks."""
    return np.concatenate([np.empty((columns, 0), np.uint64), *blocks], axis=1)


def sorted_rows(rows: np.ndarray) -> np.ndarray:
    """Return the rows, uint64 (4, rows), sorted by all columns (`order_of`) and each only once."""
    rows = rows[:, order_of(rows)]
    new = begins(rows)
    return rows if new.all() else rows[:, new]


def order_of(rows: np.ndarray) -> np.ndarray:
    """Return the indices that sort the rows by the first column, then the second and so on; int64 (rows,)."""
    order = np.argsort(rows[0])  # ten times as fast as sorting by all columns, which only ties need
    keys = rows[0, order]
    tied = np.zeros(len(keys), bool)
    tied[1:] = keys[1:] == keys[:-1]
    tied[:-1] |= tied[1:]
    some = order[tied]
    order[tied] = some[np.lexsort(rows[::-1, some])]
    return order


def begins(rows: np.ndarray) -> np.ndarray:
    """Return (rows,) bool: whether each of the sorted rows differs from the row before."""
    new = np.ones(rows.shape[1], bool)
    new[1:] = (rows[:, 1:] != rows[:, :-1]).any(axis=0)
    return new


@dataclass(frozen=True, eq=False)
class Run:
    """Location of a sorted run in a run file, with a sample of its keys."""

    place: Place
    offset: int
    """Position of its first byte in the file."""
    rows: int
    """Number of rows."""
    samples: np.ndarray
    """First word of the key of every SAMPLE_ROWS-th row, and of the last row, uint64."""

    def around(self, low: int, last: int) -> tuple[int, int]:
        """Return (begin, end), row numbers that include all rows with a first key word from `low` to `last`, and few
        others."""
        if not low <= last or self.samples[-1] < low or self.samples[0] > last:
            return 0, 0
        before = int(np.searchsorted(self.samples[:-1], np.uint64(low), side="left"))
        after = int(np.searchsorted(self.samples[:-1], np.uint64(last), side="right"))
        return max(before - 1, 0) * SAMPLE_ROWS, min(after * SAMPLE_ROWS, self.rows)


def read_range(place: Place, start: int, end: int) -> bytes:
    """Read bytes `start` to `end` of a file or object. Raises InputError if it has fewer."""
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
    return InputError(f"{place} cannot be read: {how}. Delete the folder {place.parent}, and run the command again.")


def runs_in(place: Place) -> list[Run]:
    """Return the runs of a run file, reading only its index. Raises InputError if it is missing or damaged."""
    size = size_of(place)
    if size is None:
        raise damaged(place, "it is not there")
    if size < TRAILER.itemsize:
        raise damaged(place, f"it has {size} bytes")
    guess = max(size - 2**16, 0)  # enough for index and trailer of most files
    end = read_range(place, guess, size)
    (trailer,) = np.frombuffer(end[-TRAILER.itemsize :], TRAILER)
    magic, count, index_bytes, crc32 = (int(value) for value in trailer)
    start = size - TRAILER.itemsize - index_bytes
    if magic != MAGIC or start < 0 or index_bytes < 16 * count:
        raise damaged(place, "its end is not that of a run file")
    index = end[start - guess : -TRAILER.itemsize] if start >= guess else read_range(place, start, start + index_bytes)
    words = np.frombuffer(index, "<u8").astype(np.uint64, copy=False)
    table = words[: 2 * count].reshape(-1, 2).astype(np.int64)
    if zlib.crc32(index) != crc32 or ROW_BYTES * table[:, 0].sum() != start:
        raise damaged(place, "its index has changed since it was written")
    runs, offset, at = [], 0, 2 * count
    for rows, samples in table.tolist():
        runs.append(Run(place, offset, rows, words[at : at + samples]))
        offset, at = offset + rows * ROW_BYTES, at + samples
    return runs


def runs_of(places: Sequence[Place]) -> list[Run]:
    return [run for runs in read_many(runs_in, places, any(isinstance(one, Url) for one in places)) for run in runs]


def read_many[Item, Read](read: Callable[[Item], Read], items: Sequence[Item], remote: bool) -> Iterator[Read]:
    """Yield read(item) for each item, in order; if the items are `remote` (in a bucket), READERS at a time."""
    if not remote:
        yield from map(read, items)
        return
    with ThreadPoolExecutor(READERS) as pool:
        for some in itertools.batched(items, READERS):
            yield from pool.map(read, some)


def read_rows(parts: Sequence[Part], rows: int) -> Iterator[np.ndarray]:
    """Yield the rows in some parts of files, at most `rows` at a time: uint64 (4, rows)."""
    step = rows * ROW_BYTES
    cuts = [(place, cut, min(cut + step, end)) for place, begin, end in parts for cut in range(begin, end, step)]
    for data in read_many(lambda cut: read_range(*cut), cuts, any(isinstance(place, Url) for place, *_ in cuts)):
        yield np.frombuffer(data, "<u8").reshape(-1, COLUMNS).T


def pieces_between(runs: Sequence[Run], low: int, last: int, rows: int) -> Iterator[np.ndarray]:
    """Yield the rows whose first key word is from `low` to `last`, at most `rows` at a time, in stored order."""
    bounds = [(run, *run.around(low, last)) for run in runs]
    part = lambda run, begin, end: (run.place, run.offset + begin * ROW_BYTES, run.offset + end * ROW_BYTES)
    parts = [part(*one) for one in bounds if one[1:] != (0, 0)]
    for piece in read_rows(parts, rows):
        begin = np.searchsorted(piece[0], np.uint64(low), "left")
        end = np.searchsorted(piece[0], np.uint64(last), "right")
        if begin < end:
            yield piece[:, begin:end]


def read_blocks(runs: Sequence[Run], low: int, last: int, rows: int) -> Iterator[np.ndarray]:
    """Yield the rows whose first key word is from `low` to `last`, in sorted blocks of at most `rows` rows."""
    return map(sorted_rows, put_together(pieces_between(runs, low, last, rows), rows))


# Keys that are places, (file, row), are distributed evenly by file.

FACTOR, INVERSE = 0x9E3779B1, pow(0x9E3779B1, -1, 2**32)


def spread(places: np.ndarray, factor: int = FACTOR) -> np.ndarray:
    """Return places (file number << 32 | row, uint64) with permuted file numbers. File numbers may be small or close
    together; the permuted ones are distributed evenly over 32 bits, so that the places can be used as keys. With the
    factor INVERSE, the places are returned from their keys."""
    file = (places >> np.uint64(32)) * np.uint64(factor) << np.uint64(32)
    return file | places & np.uint64(2**32 - 1)


def keys_of_file(file: int) -> tuple[int, int]:
    """Return the range (first, last) of the keys that `spread` makes for the documents of the file with this number."""
    low = file * FACTOR % 2**32 << 32
    return low, low | 2**32 - 1


# The rows of a partition are read twice: for the first row of each key, then block by block.


def first_rows(blocks: Iterable[np.ndarray], counts: list[np.ndarray] | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Find the first row of each key in sorted blocks of rows. A key may be in several blocks; its first row in each
    block is called a start. Return (index of the key at each start of all blocks, int64 (starts,); first row of each
    key, uint64 (4, keys)). Appends to `counts` one array per block: the number of rows of each key in it."""
    firsts = []
    for block in blocks:
        starts = begins(block[:2])
        firsts.append(block[:, starts])
        if counts is not None:
            counts.append(np.diff(np.append(np.flatnonzero(starts), block.shape[1])))
    rows = joined(firsts)
    del firsts
    order = order_of(rows)
    rows = rows[:, order]
    new = begins(rows[:2])
    group = np.empty(len(order), np.int64)
    group[order] = np.cumsum(new) - 1
    return group, rows[:, new]


def with_keys(blocks: Iterable[np.ndarray], group: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield (block, starts, keys) for each block. `starts`, (rows,) bool, is True for the first row of each key in the
    block; `keys` are the indices of these keys. `group` is the first result of `first_rows` for the same blocks."""
    at = 0
    for block in blocks:
        starts = begins(block[:2])
        keys = group[at : at + int(starts.sum())]
        at += len(keys)
        yield block, starts, keys


def put_together(blocks: Iterable[np.ndarray], rows: int) -> Iterator[np.ndarray]:
    """Concatenate consecutive blocks to blocks of at most `rows` rows; a larger block stays as it is."""
    for some in grouped(blocks, lambda block: block.shape[1], rows):
        yield joined(some)
