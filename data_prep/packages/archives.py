"""Reading wheels (zip) and source distributions (tar.gz) without trust: nothing is built, run or written to disk."""

import fnmatch
import gzip
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from lm.errors import InputError

CHUNK = 1 << 20
UNKNOWN_DATE = "1980-01-01T00:00:00Z"  # where zip's calendar begins, and what packers write who know no date
DAMAGE = (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError)


@dataclass(frozen=True)
class Member:
    """A file in an archive."""

    name: str
    """Its path inside the archive."""
    date: str
    """When it was last changed as the archive tells, ISO 8601 in UTC."""
    data: bytes


class LimitedReader:
    """Passes `read` on to `stream`.

    Raises InputError once more than `limit` bytes came out, `total` bytes from before included.
    """

    def __init__(self, stream: BinaryIO, limit: int, name: str, total: int = 0):
        self.stream, self.limit, self.name, self.total = stream, limit, name, total

    def read(self, size: int = -1) -> bytes:
        data = self.stream.read(size if size >= 0 else self.limit + 1)
        self.total += len(data)
        if self.total > self.limit:
            raise InputError(
                f"{self.name} unpacks to more than pages.unpacked_limit = {self.limit} bytes, so it is refused. "
                "If it can be trusted, raise the limit."
            )
        return data


def read_members(path: Path, pattern: str, unpacked_limit: int) -> Iterator[Member]:
    """The files in the archive whose path matches the shell pattern (`*` also matches `/`), in the archive's order.

    The whole archive is looked through before the first one is given. Raises InputError when it is damaged, holds an
    absolute path, "..", a link that leaves its folder or a special file, or unpacks to more than `unpacked_limit`
    bytes: real bytes are counted, for what a header claims may be a lie.
    """
    read = read_zip if path.name.endswith((".whl", ".zip")) else read_tar
    try:
        for _ in read(path, None, unpacked_limit):
            pass
        yield from read(path, pattern, unpacked_limit)
    except DAMAGE as error:
        raise InputError(f"{path} is damaged or no archive: {error}. Delete it and run again.") from error


def read_zip(path: Path, pattern: str | None, limit: int) -> Iterator[Member]:
    """Matching members of a zip; with pattern None nothing is kept, but all is decompressed and checked."""
    total = 0
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            refuse_path(path, info.filename)
            mode = info.external_attr >> 16
            if stat.S_ISLNK(mode):  # wheels cannot hold links, so one has no honest use
                raise InputError(f"{path} is refused: {info.filename} is a link, which a wheel must not hold.")
            if info.is_dir() or (pattern is not None and not fnmatch.fnmatchcase(info.filename, pattern)):
                continue
            chunks = []
            with archive.open(info) as file:
                counted = LimitedReader(file, limit, path.name, total)  # ty: ignore[invalid-argument-type]
                while chunk := counted.read(CHUNK):
                    if pattern is not None:
                        chunks.append(chunk)
            total = counted.total
            if pattern is not None:
                yield Member(info.filename, zip_date(info), b"".join(chunks))


def read_tar(path: Path, pattern: str | None, limit: int) -> Iterator[Member]:
    """Matching members of a tar.gz; with pattern None nothing is kept, but all is decompressed and checked."""
    with gzip.open(path) as stream:
        # A stream that is read once, under the limit: so the headers too, which may claim to be gigabytes long.
        counted = LimitedReader(stream, limit, path.name)  # ty: ignore[invalid-argument-type]
        with tarfile.open(fileobj=counted, mode="r|", bufsize=CHUNK) as archive:  # ty: ignore[no-matching-overload]
            for info in archive:
                refuse_path(path, info.name)
                if info.issym() or info.islnk():
                    folder = PurePosixPath(info.name).parent if info.issym() else PurePosixPath()
                    refuse_link(path, info.name, folder, info.linkname)
                elif not (info.isreg() or info.isdir()) or info.issparse():
                    raise InputError(f"{path} is refused: {info.name} is neither a plain file nor a folder.")
                if pattern is not None and info.isreg() and fnmatch.fnmatchcase(info.name, pattern):
                    file = archive.extractfile(info)
                    assert file is not None
                    yield Member(info.name, tar_date(info), file.read())


def refuse_path(archive: Path, name: str) -> None:
    """Raises InputError when `name` would lie outside of the folder that the archive is unpacked in."""
    parts = name.replace("\\", "/").split("/")
    if name.startswith(("/", "\\")) or ".." in parts or parts[0].endswith(":"):
        raise InputError(
            f"{archive} is refused: it holds {name!r}, a path outside of its folder. Do not use this file."
        )


def refuse_link(archive: Path, name: str, folder: PurePosixPath, target: str) -> None:
    """Raises InputError when a link in `folder` to `target` leads out of the archive's folder."""
    depth = len(folder.parts)
    for part in target.replace("\\", "/").split("/"):
        depth += (part not in ("", ".")) - 2 * (part == "..")
        if depth < 0 or target.startswith(("/", "\\")):
            raise InputError(
                f"{archive} is refused: the link {name!r} leads to {target!r}, outside of its folder. "
                "Do not use this file."
            )


def zip_date(info: zipfile.ZipInfo) -> str:
    """Zip has no time zone: taken for UTC everywhere."""
    try:
        return iso_date(datetime(*info.date_time, tzinfo=UTC))
    except ValueError:  # no such day: month 0 is what some tools write for "unknown"
        return UNKNOWN_DATE


def tar_date(info: tarfile.TarInfo) -> str:
    try:
        return iso_date(datetime.fromtimestamp(int(info.mtime), UTC))
    except (ValueError, OverflowError, OSError):  # not a number, or beyond what a date can be
        return UNKNOWN_DATE


def iso_date(date: datetime) -> str:
    """ISO 8601 in UTC to the second, the form of WARC-Date."""
    return date.strftime("%Y-%m-%dT%H:%M:%SZ")
