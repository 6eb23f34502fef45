"""Where records are read from: the bytes of a file, or what its compressed members hold, in pieces whatever their size.

A source gives bytes by position: `at(start, size)` gives `size` bytes from `start`, fewer only where the source ends.
A file can be asked anywhere; what is inflated as it is read only goes forward. So after `hold(start, size)` nothing
before `start` is asked for any more; the `size` bytes from there may be, repeatedly.
"""

import os
import re
from collections.abc import Callable
from typing import BinaryIO

GZIP = b"\x1f\x8b\x08"  # a gzip member's first bytes (RFC 1952): the magic number, and deflate: all there is
CHUNK = 1 << 20
STEP = 4 << 20  # bytes inflated at a time
OVERLAP = 64  # the longest pattern that is searched for


class BrokenError(Exception):
    """Compressed data that cannot be inflated any further; `reason` names the damage, `detail` says how."""

    def __init__(self, reason: str, detail: str):
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


class FileBytes:
    """A file of any size, through a window. Whoever reads goes forward, but for what is damaged; so a stream that can
    step back serves as well as a file of a disk. Raises OSError where the file does."""

    def __init__(self, file: BinaryIO):
        self.file, self.size = file, file.seek(0, os.SEEK_END)
        self.start, self.window = 0, b""

    def at(self, start: int, size: int) -> bytes:
        offset = start - self.start
        if offset >= 0 and offset + size <= len(self.window):
            return self.window[offset : offset + size]
        self.file.seek(start)
        return self.file.read(size)

    def hold(self, start: int, size: int) -> None:
        if start < self.start or min(start + size, self.size) > self.start + len(self.window):
            self.window = b""  # let go before the next is read: there may be no room for two
            self.file.seek(start)
            self.start, self.window = start, self.file.read(max(size, CHUNK))

    def piece(self, start: int, exact: bool) -> bytes:
        """Bytes from `start`, at least one before the file's end; if `exact`, only to the next gzip magic number.

        A member is nearly always one such piece. So nothing that belongs to the next is copied to and fro.
        """
        self.hold(start, 1)
        offset = start - self.start
        end = self.window.find(GZIP, offset + 1) if exact else -1
        return self.window[offset : end if end >= 0 else None]


class HeldBytes:
    """Bytes in memory."""

    __slots__ = ("held",)

    def __init__(self, held: bytes):
        self.held = held

    def at(self, start: int, size: int) -> bytes:
        return self.held[start : start + size]

    def hold(self, start: int, size: int) -> None:
        pass


class InflatedBytes:
    """What `read(size)` gives: the next bytes, `size` at most, none only at the end. Where it raises BrokenError, the
    source ends, and `broken` is that error."""

    def __init__(self, read: Callable[[int], bytes]):
        self.read, self.start, self.window = read, 0, bytearray()
        self.broken: BrokenError | None = None

    def at(self, start: int, size: int) -> bytes:
        offset = start - self.start
        while len(self.window) < offset + size and self._inflate():
            pass
        return bytes(self.window[offset : offset + size])

    def hold(self, start: int, size: int) -> None:
        while start > self.start + len(self.window):  # pass over it without keeping it
            self.start += len(self.window)
            self.window.clear()
            if not self._inflate():
                return
        del self.window[: start - self.start]
        self.start = start

    def _inflate(self) -> bool:
        try:
            inflated = self.read(STEP) if self.broken is None else b""
        except BrokenError as error:
            self.broken, inflated = error, b""
        self.window += inflated
        return bool(inflated)


type Source = FileBytes | HeldBytes | InflatedBytes


class Pattern:
    """What a record or a member begins with: at most OVERLAP bytes, the first of which are `literal`."""

    def __init__(self, literal: bytes, regex: bytes):
        self.literal, self.regex = literal, re.compile(regex, re.DOTALL)

    def find(self, data: bytes) -> int:
        """The first place in `data`, -1 if there is none. To find a literal first is three times as fast."""
        if not self.literal:
            found = self.regex.search(data)
            return found.start() if found else -1
        at = data.find(self.literal)
        while at >= 0 and not self.regex.match(data, at):
            at = data.find(self.literal, at + 1)
        return at


def search(source: Source, pattern: Pattern, start: int) -> int | None:
    """The first position from `start` on where `pattern` is; None if there is none."""
    size = 4096  # it is often near
    while True:
        source.hold(start, size)
        chunk = source.at(start, size)
        found = pattern.find(chunk)
        if found >= 0:
            return start + found
        if len(chunk) < size:
            return None
        start, size = start + size - OVERLAP, CHUNK
