"""Random access to the records of shards, on a disk or in a bucket, opening and downloading no more than necessary.

The footer of a shard has the offset of each record (lm.data.array_record), so reading a record is one read of a file or
one range request. All shards of a process share OPEN_FILES file descriptors and OFFSETS_BYTES of memory for offsets,
regardless of the number of shards.
"""

import bisect
import itertools
import os
import threading
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lm.data.array_record import BLOCK, POSTSCRIPT_BYTES, footer_range, offsets_of, record_of, stored_limit
from lm.data.records import MANIFEST, Shard, mask_bytes, record_bytes
from lm.errors import InputError
from lm.storage import Place

OPEN_FILES = 128
OFFSETS_BYTES = 256 * 2**20
RUN_BYTES = 4 * 2**20
"""Approximate maximum bytes of records per request."""
LEAST_RECORD = 64
"""Minimum bytes of a record in a file."""


class Recent[V]:
    """Thread-safe LRU cache of limited total weight; keys are (owner, index). Concurrent calls load a value once."""

    def __init__(self, limit: int, weight: Callable[[V], int]):
        self.limit, self.weight, self.total = limit, weight, 0
        self.held: OrderedDict[tuple[int, int], Future[V]] = OrderedDict()
        self.lock, self.forgotten = threading.Lock(), deque[int]()

    def get(self, key: tuple[int, int], load: Callable[[], V]) -> V:
        """Return the value of `key`; if it is not cached, from `load()`, whose errors are passed on."""
        with self.lock:
            future = self.held.get(key)
            if future is not None:
                self.held.move_to_end(key)
        if future is not None:
            return future.result()
        loading = Future[V]()
        with self.lock:
            future = self.held.setdefault(key, loading)
        if future is not loading:
            return future.result()
        try:
            value = load()
        except BaseException as error:
            with self.lock:
                self.held.pop(key, None)
            loading.set_exception(error)
            raise
        loading.set_result(value)
        with self.lock:
            self._drop_forgotten()
            self.total += self.weight(value)
            while self.total > self.limit:
                oldest = next((one for one, held in self.held.items() if held.done() and one != key), None)
                if oldest is None:
                    break
                self.total -= self.weight(self.held.pop(oldest).result())
        return value

    def forget(self, owner: int) -> None:
        """Remove the values of `owner`, the first part of their keys. For finalizers: if the lock is taken, the values
        are removed when the next value is loaded."""
        self.forgotten.append(owner)
        if self.lock.acquire(blocking=False):
            try:
                self._drop_forgotten()
            finally:
                self.lock.release()

    def _drop_forgotten(self) -> None:
        while self.forgotten:
            owner = self.forgotten.popleft()
            for key in [one for one, held in self.held.items() if one[0] == owner and held.done()]:
                self.total -= self.weight(self.held.pop(key).result())


class OpenFile:
    """File descriptor that is closed when the object is garbage-collected."""

    def __init__(self, path: Path):
        self.descriptor = -1
        self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def read(self, start: int, end: int) -> bytes:
        return os.pread(self.descriptor, end - start, start)

    def __del__(self):
        if self.descriptor >= 0:
            os.close(self.descriptor)


FILES = Recent[OpenFile](OPEN_FILES, lambda file: 1)
OFFSETS = Recent[np.ndarray](OFFSETS_BYTES, lambda offsets: offsets.nbytes + 512)
OWNERS = itertools.count()
DECODING = threading.Lock()
"""Decoding the footer of many records briefly takes tens of megabytes, so only one thread decodes at a time."""


class Run(NamedTuple):
    """Neighboring records of a shard, as bytes read at once."""

    begin: int
    """Number of the first record."""
    stored: bytes
    offsets: np.ndarray
    """(records + 1,): file offset of each record, and the end of the last."""
    limit: int
    """Maximum bytes of a record."""

    def record(self, index: int) -> bytes:
        """Return the bytes of record `index`. Raises InputError if it is damaged."""
        place = index - self.begin
        start, end, origin = int(self.offsets[place]), int(self.offsets[place + 1]), int(self.offsets[0])
        return record_of(memoryview(self.stored)[start - origin : end - origin], start, self.limit)


class ShardRecords:
    """Random access to the records of several shards, numbered over all of them. Thread-safe.

    No file is opened before the first read. Errors do not name the record; callers add `name_of`.
    """

    def __init__(self, folder: Place, shards: Sequence[Shard], record_length: int):
        self.shards = shards
        self.files = [folder / shard.file for shard in shards]
        self.is_remote = not isinstance(folder, Path)
        self.first = list(itertools.accumulate((shard.records for shard in shards), initial=0))
        """Number of each shard's first record, and the total number of records."""
        self.limit = record_bytes(record_length, "uint32", record_length + 1) + mask_bytes(record_length)
        """Maximum bytes of a record, reached if every token is a document."""
        self.owner = next(OWNERS)
        for cache in (FILES, OFFSETS):
            weakref.finalize(self, cache.forget, self.owner)

    def __len__(self) -> int:
        return self.first[-1]

    def stored_bytes(self) -> int:
        """Return the mean size in bytes that a record takes in the files."""
        return sum(shard.bytes for shard in self.shards) // max(len(self), 1)

    def read(self, index: int) -> bytes:
        """Return the bytes of record `index`, read with one pread from a disk or one GET from a bucket. Raises
        InputError if that fails or the record is damaged."""
        return self.read_run(index, index + 1).record(index)

    def read_run(self, begin: int, end: int) -> "Run":
        """Read records `begin` to `end` - 1, all of one shard, with one request. Raises InputError if that fails."""
        shard = self.shard_of(begin)
        first = self.first[shard]
        offsets = self.offsets(shard)[begin - first : end - first + 1]
        most = stored_limit(self.limit) * (end - begin)
        if int(offsets[-1]) - int(offsets[0]) > most:
            raise InputError(f"It has {int(offsets[-1]) - int(offsets[0])} bytes; the limit is {most}.")
        return Run(begin, self.read_bytes(shard, int(offsets[0]), int(offsets[-1])), offsets, self.limit)

    def run_end(self, begin: int) -> int:
        """Return `end` such that `read_run(begin, end)` reads about RUN_BYTES and stays in one shard."""
        return min(begin + max(RUN_BYTES // max(self.stored_bytes(), 1), 1), self.first[self.shard_of(begin) + 1])

    def shard_of(self, index: int) -> int:
        return bisect.bisect_right(self.first, index) - 1

    def name_of(self, index: int) -> str:
        """Return a record's name for errors: "Record 5 of tokens/train-00000-of-00002.array_record"."""
        shard = self.shard_of(index)
        return f"Record {index - self.first[shard]} of {self.files[shard]}"

    def offsets(self, shard: int) -> np.ndarray:
        """Return the file offsets of a shard's records and the end of the last: (records + 1,) uint32 or uint64."""
        return OFFSETS.get((self.owner, shard), lambda: self.read_offsets(shard))

    def read_offsets(self, shard: int) -> np.ndarray:
        size, records = self.shards[shard].bytes, self.shards[shard].records
        if not 0 < records <= size // LEAST_RECORD or size < BLOCK:
            raise InputError(f"{MANIFEST} says {records} records in {size} bytes, which cannot be.")
        tail = self.read_bytes(shard, size - BLOCK, size - BLOCK + POSTSCRIPT_BYTES)
        start, end = footer_range(tail, size)
        if end - start > 64 * records + 2 * BLOCK:
            raise InputError(f"The shard has a footer of {end - start} bytes for {records} records.")
        footer = self.read_bytes(shard, start, end)
        with DECODING:
            return offsets_of(footer, start, records)

    def read_bytes(self, shard: int, start: int, end: int) -> bytes:
        """Return bytes `start` to `end` - 1 of a shard. Raises InputError if the file is missing or too short."""
        file = self.files[shard]
        try:
            if isinstance(file, Path):
                data = FILES.get((self.owner, shard), lambda: OpenFile(file)).read(start, end)
            else:
                data = file.read_range(start, end)
        except OSError as error:
            raise InputError(f"{error.strerror or error}.") from error
        if len(data) != end - start:
            raise InputError(f"The shard ends after {start + len(data)} bytes, but bytes {start} to {end} are needed.")
        return data
