"""File objects that read an object of a store: `Ranges` for random access, `Stream` sequentially with read-ahead."""

import io
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import cast

from lm.storage import stores
from lm.storage.objects import Object, begun

BLOCK = 8 * 2**20
"""Bytes per request of a stream."""
KEPT = 2
"""Blocks that a stream keeps: the current one and the one before. The next one is being read ahead."""


class Ranges(io.RawIOBase):
    """Seekable file object for the object at `address`, whose metadata is `found`; each read is one request. A read
    raises StorageError if the object has been replaced."""

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
        """Return bytes from position `start` on: at least one, at most `end` - `start`."""
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
    """File object for sequential reads, which requests blocks of `block` bytes (default BLOCK) and always the next one
    ahead. Seeking to another block than the current, the previous and the next costs one more request."""

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
        """Request block `number` unless it was requested before."""
        if number in self.blocks:
            return
        start = number * self.size
        end = min(start + self.size, self.object.size)
        self.blocks[number] = begun(lambda: stores.read(self.address, start, end, self.object))

    def close(self) -> None:
        self.blocks.clear()
        super().close()


def ahead[T](bring: Callable[[T], bytes], wanted: Iterable[T]) -> Iterator[tuple[T, bytes]]:
    """Yield (item, bring(item)) in order. While the caller uses one item, a thread calls `bring` for the next."""
    waiting: list[tuple[T, Future[bytes]]] = []
    for one in wanted:
        waiting.append((one, begun(lambda one=one: bring(one))))
        if len(waiting) == 2:
            first, future = waiting.pop(0)
            yield first, future.result()
    for last, future in waiting:
        yield last, future.result()
