"""File objects over stored objects: `Ranges` for random access, `Stream` for sequential reads with read-ahead."""

import io
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import cast

from lm.storage import stores
from lm.storage.objects import Object

READ_AHEAD = 2**20
"""Smallest read of a file with random access, in bytes."""
BLOCK = 8 * 2**20
"""Bytes per request of a stream."""
KEPT = 2
"""Blocks that a stream keeps: the current one and the one before. The next one is being read ahead."""


def begun(bring: Callable[[], bytes]) -> Future[bytes]:
    """Call `bring` in a thread; return its result as a Future."""
    future: Future[bytes] = Future()

    def run() -> None:
        try:
            future.set_result(bring())
        except BaseException as error:
            future.set_exception(error)

    # A daemon: a server that does not answer must not keep the process from ending.
    threading.Thread(target=run, name="storage", daemon=True).start()
    return future


class Ranges(io.RawIOBase):
    """A seekable file; each read is one request. Raises StorageError if the object was replaced since it was opened."""

    def __init__(self, address: str, found: Object):
        self.address, self.object, self.position = address, found, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self.position, io.SEEK_END: self.object.size}[whence]
        self.position = max(origin + offset, 0)
        return self.position

    def tell(self) -> int:
        return self.position

    def bytes_at(self, start: int, end: int) -> bytes:
        """Return at least one byte of [start, end)."""
        return stores.read(self.address, start, end, self.object)

    def readinto(self, buffer) -> int:  # type: ignore[override]
        end, into = min(self.position + len(buffer), self.object.size), 0
        while self.position < end:
            data = self.bytes_at(self.position, end)
            buffer[into : into + len(data)] = data
            into += len(data)
            self.position += len(data)
        return into


class Stream(Ranges):
    """A file for sequential reads in blocks of `block` bytes; the next block is requested while one is read. Seeking
    out of the kept blocks costs one more request."""

    def __init__(self, address: str, found: Object, block: int = 0):
        super().__init__(address, found)
        self.size, self.blocks = block or BLOCK, dict[int, Future[bytes]]()

    def bytes_at(self, start: int, end: int) -> bytes:
        number = start // self.size
        self.begin(number)
        held = self.blocks[number]
        for other in [one for one in self.blocks if not number - KEPT < one <= number + 1]:
            del self.blocks[other]
        if (number + 1) * self.size < self.object.size:
            self.begin(number + 1)
        data = memoryview(held.result())
        return cast(bytes, data[start - number * self.size : end - number * self.size])

    def begin(self, number: int) -> None:
        """Request a block unless it was requested before."""
        if number in self.blocks:
            return
        start = number * self.size
        end = min(start + self.size, self.object.size)
        self.blocks[number] = begun(lambda: stores.read(self.address, start, end, self.object))

    def close(self) -> None:
        self.blocks.clear()
        super().close()


def ahead[T](bring: Callable[[T], bytes], wanted: Iterable[T]) -> Iterator[tuple[T, bytes]]:
    """Yield (item, bring(item)) in order, calling `bring` for the next item while one is used."""
    waiting: list[tuple[T, Future[bytes]]] = []
    for one in wanted:
        waiting.append((one, begun(lambda one=one: bring(one))))
        if len(waiting) == 2:
            first, future = waiting.pop(0)
            yield first, future.result()
    for last, future in waiting:
        yield last, future.result()
