"""Byte sources of records: a file, bytes in memory, or decompressed members, read in pieces of bounded size.

`at(start, size)` returns `size` bytes from `start`, fewer only at the end of the source. Files are seekable;
decompressed data can only be read forward. So `hold(start, size)` promises that nothing before `start` will be read
again; the `size` bytes from there can be read repeatedly.
"""

import os
import re
from collections.abc import Callable
from typing import BinaryIO

GZIP = b"\x1f\x8b\x08"  # first bytes of a gzip member (RFC 1952): the magic number, and deflate, the only method
CHUNK = 1 << 20
STEP = 4 << 20  # bytes to decompress at once
OVERLAP = 64  # bytes of the longest search pattern


class DamagedError(Exception):
    """Raised for compressed data that is damaged, cut off or too large, and for a record that is skipped as damaged;
    `reason` is the name of the damage (record.py), `detail` describes it."""

    def __init__(self, reason: str, detail: str):
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


class FileBytes:
    """Byte source of a file of any size, local or remote, of which about CHUNK bytes are in memory. It is read forward
    except around damage. Methods raise OSError if the file does."""

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
            self.window = b""  # free it before reading the next: memory may not hold two
            self.file.seek(start)
            self.start, self.window = start, self.file.read(max(size, CHUNK))

    def piece(self, start: int, exact: bool) -> bytes:
        """Return the bytes from `start` on that are in memory, at least one except at the end of the file.

        If `exact`, they end before the next gzip header, so no bytes of the next gzip member are copied.
        """
        self.hold(start, 1)
        offset = start - self.start
        end = self.window.find(GZIP, offset + 1) if exact else -1
        return self.window[offset : end if end >= 0 else None]


class HeldBytes:
    """Byte source of bytes in memory."""

    __slots__ = ("held",)

    def __init__(self, held: bytes):
        self.held = held

    def at(self, start: int, size: int) -> bytes:
        return self.held[start : start + size]

    def hold(self, start: int, size: int) -> None:
        pass


class InflatedBytes:
    """Byte source of data that is decompressed on demand by `read(size)`, which returns up to `size` more bytes, b"" at
    the end. If it raises DamagedError, the source ends there, and `broken` is that error."""

    def __init__(self, read: Callable[[int], bytes]):
        self.read, self.start, self.window = read, 0, bytearray()
        self.broken: DamagedError | None = None

    def at(self, start: int, size: int) -> bytes:
        offset = start - self.start
        while len(self.window) < offset + size and self._inflate():
            pass
        return bytes(self.window[offset : offset + size])

    def hold(self, start: int, size: int) -> None:
        while start > self.start + len(self.window):  # skip without keeping
            self.start += len(self.window)
            self.window.clear()
            if not self._inflate():
                return
        del self.window[: start - self.start]
        self.start = start

    def _inflate(self) -> bool:
        try:
            inflated = self.read(STEP) if self.broken is None else b""
        except DamagedError as error:
            self.broken, inflated = error, b""
        self.window += inflated
        return bool(inflated)


type ByteSource = FileBytes | HeldBytes | InflatedBytes


class Pattern:
    """Pattern for the start of a record or member: `regex` matches at most OVERLAP bytes that begin with `literal`."""

    def __init__(self, literal: bytes, regex: bytes):
        self.literal, self.regex = literal, re.compile(regex, re.DOTALL)

    def find(self, data: bytes) -> int:
        """Return the position of the first match in `data`, or -1. Searching for the literal first is faster."""
        if not self.literal:
            found = self.regex.search(data)
            return found.start() if found else -1
        at = data.find(self.literal)
        while at >= 0 and not self.regex.match(data, at):
            at = data.find(self.literal, at + 1)
        return at


def search(source: ByteSource, pattern: Pattern, start: int) -> int | None:
    """Return the first position >= `start` in the source at which `pattern` matches, or None."""
    size = 4096  # the next match is often near
    while True:
        source.hold(start, size)
        chunk = source.at(start, size)
        found = pattern.find(chunk)
        if found >= 0:
            return start + found
        if len(chunk) < size:
            return None
        start, size = start + size - OVERLAP, CHUNK
