"""Read wheels (zip) and source distributions (tar.gz) in bounded memory; nothing is built, executed or unpacked to
disk."""

import fnmatch
import gzip
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from lm.errors import InputError

LIMIT = 500_000_000
"""Maximum unpacked bytes of an archive, and of each compressed file in it."""
UNKNOWN_DATE = "1980-01-01T00:00:00Z"  # start of zip's calendar, written by packers that know no date
DAMAGE = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, RuntimeError, ValueError)


@dataclass(frozen=True)
class Member:
    """A file in an archive."""

    name: str
    """Path in the archive."""
    date: str
    """Time of the last change according to the archive, ISO 8601 in UTC."""
    data: bytes


class LimitedReader:
    """Stream that raises InputError when more than `limit` bytes have been read, including `used` bytes read before."""

    def __init__(self, stream: BinaryIO, limit: int, name: str, used: int = 0):
        self.stream, self.left, self.limit, self.name = stream, limit - used, limit, name

    def read(self, size: int = -1) -> bytes:
        data = self.stream.read(size if size >= 0 else self.left + 1)
        self.left -= len(data)
        if self.left < 0:
            raise InputError(f"{self.name} unpacks to more than {self.limit} bytes, the limit. Pin another package.")
        return data


def read_members(path: Path, pattern: str, limit: int = LIMIT) -> Iterator[Member]:
    """Yield the files in a .zip, .whl or .tar.gz whose names match the shell pattern (`*` also matches `/`), in order.

    Raises InputError if the archive is damaged, or unpacks to more than `limit` bytes: actual bytes are counted,
    because headers can claim any number.
    """
    try:
        yield from (read_zip if path.name.endswith((".whl", ".zip")) else read_tar)(path, pattern, limit)
    except DAMAGE as error:
        raise InputError(
            f"{path} is damaged or not an archive: {error}. Delete the file, and run the command again."
        ) from error


def read_zip(path: Path, pattern: str, limit: int) -> Iterator[Member]:
    used = 0
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if not info.is_dir() and fnmatch.fnmatchcase(info.filename, pattern):
                with archive.open(info) as file:
                    data = LimitedReader(file, limit, path.name, used).read()  # ty: ignore[invalid-argument-type]
                used += len(data)
                yield Member(info.filename, iso_date(info.date_time), data)


def read_tar(path: Path, pattern: str, limit: int) -> Iterator[Member]:
    with gzip.open(path) as stream:
        # Read the stream once, under the limit, including headers, which may claim to be gigabytes long.
        counted = LimitedReader(stream, limit, path.name)  # ty: ignore[invalid-argument-type]
        with tarfile.open(fileobj=counted, mode="r|") as archive:  # ty: ignore[no-matching-overload]
            for info in archive:
                if (
                    info.isreg()
                    and not info.issparse()
                    and fnmatch.fnmatchcase(info.name, pattern)
                    and (file := archive.extractfile(info))
                ):
                    yield Member(info.name, iso_date(info.mtime), file.read())


def iso_date(written: tuple[int, ...] | float) -> str:
    """Return (year, month, day, ...) in UTC, or seconds since 1970, as a WARC-Date; UNKNOWN_DATE if invalid."""
    try:
        at = datetime(*written, tzinfo=UTC) if isinstance(written, tuple) else datetime.fromtimestamp(int(written), UTC)
        return at.strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):  # some tools write month 0 for "unknown"
        return UNKNOWN_DATE
