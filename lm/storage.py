"""Files that are written whole or not at all, and their hashes."""

import contextlib
import errno
import hashlib
import itertools
import json
import os
from collections.abc import Generator
from pathlib import Path
from typing import IO

HASHING_THREADS = min(8, os.cpu_count() or 1)
"""For many files at a time: hashlib lets go of the interpreter."""


def digest(path: Path) -> tuple[int, str]:
    """(bytes, SHA-256) of a file."""
    with path.open("rb") as file:
        return os.fstat(file.fileno()).st_size, hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Waits until what was written to a file, or the names in a folder, are on disk, lest a loss of power undo it."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def appearing(path: Path, durable: bool = True) -> Generator[IO[bytes]]:
    """What to write `path` by: it appears, or is replaced, when the block ends well, and never half of it. Unless
    `durable`, a machine that loses power may still lose it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        yield file
        file.flush()
        if durable:
            os.fsync(file.fileno())
    partial.replace(path)


def write_atomically(path: Path, data: str | bytes, durable: bool = True) -> None:
    """Writes `data`, text as UTF-8, to `path`, or leaves what was there: never half of it."""
    with appearing(path, durable) as file:
        file.write(data.encode() if isinstance(data, str) else data)


def write_json(path: Path, value: object) -> None:
    """Writes `value` as JSON, whole or not at all."""
    write_atomically(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def unused(path: Path) -> Path:
    """The first of `path`-1, `path`-2, … at which nothing is."""
    return next(one for n in itertools.count(1) if not os.path.lexists(one := path.with_name(f"{path.name}-{n}")))


class Appended:
    """A file that grows by whole pieces: one that does not fit on the disk leaves nothing of itself."""

    def __init__(self, path: Path):
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.file = path.open("ab", buffering=0)  # nothing is left to be written when it is closed

    def append(self, piece: bytes) -> None:
        """Raises OSError where it cannot be written."""
        end = self.file.seek(0, os.SEEK_END)
        written = self.file.write(piece)
        if written != len(piece):
            os.truncate(self.path, end)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))

    def close(self) -> None:
        self.file.close()
