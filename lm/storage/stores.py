"""The same functions for every scheme: s3:// and gs:// (objects.py), hf:// (hub.py), https:// and http:// (http.py).
Web servers are read-only and cannot list files."""

import contextlib
from collections.abc import Generator, Iterable
from pathlib import Path

from lm.errors import UsageError
from lm.storage import http, hub, objects
from lm.storage.objects import CHUNK, Object, StorageError

WEB = ("https", "http")
SCHEMES = (*objects.SCHEMES, "hf", *WEB)


def scheme_of(address: str) -> str:
    return address.partition("://")[0]


def refuse_web(address: str, verb: str) -> None:
    if scheme_of(address) in WEB:
        raise UsageError(
            f"{address} cannot be {verb}: over {scheme_of(address)}:// files are only read, each by its own address. "
            + (
                "Give a text file with one address a line, as @FILE."
                if verb == "listed"
                else "Give s3://, gs:// or hf://."
            )
        )


def head(address: str) -> Object | None:
    """Metadata of the object; None if it does not exist. Raises StorageError, like all functions here."""
    if scheme_of(address) == "hf":
        return hub.head(address)
    return http.head(address) if scheme_of(address) in WEB else objects.head(address)


def read(address: str, start: int = 0, end: int | None = None, version: Object | None = None) -> bytes:
    """Read bytes [start, end), by default all. Raises FileNotFoundError if the object does not exist, StorageError if
    it is no longer the given `version`."""
    if scheme_of(address) == "hf":
        return hub.read(address, start, end, version)
    if scheme_of(address) in WEB:
        return http.read(address, start, end, version)
    return objects.read(address, start, end, version.etag if version else "")


def download(address: str, path: Path, wanted: Object | None = None) -> Object:
    """Download the object to `path` in chunks; return its metadata. Raises like `read`."""
    if scheme_of(address) in objects.SCHEMES:
        return objects.download(address, path, wanted)
    found = wanted or head(address)
    if found is None:
        raise FileNotFoundError(2, "No such object", address)
    with path.open("wb") as file:
        for start in range(0, found.size, CHUNK):
            file.write(read(address, start, min(start + CHUNK, found.size), found))
    return found


WRITTEN: list[set[str]] = []
"""Places written by this process, one set per active `noting_writes`."""


@contextlib.contextmanager
def noting_writes() -> Generator[set[str]]:
    """Collect the addresses and absolute paths that this process writes in the block (`note_write`)."""
    WRITTEN.append(written := set())
    try:
        yield written
    finally:
        WRITTEN.pop()


def note_write(place: str | Path) -> None:
    """Count a file or address as written by this process (`noting_writes`)."""
    for written in WRITTEN:
        written.add(str(place.absolute()) if isinstance(place, Path) else place)


def upload(path: Path, address: str) -> Object:
    """Upload a file atomically; return the object's metadata. Raises UsageError if the store is read-only."""
    refuse_web(address, "written")
    note_write(address)
    return hub.upload(path, address) if scheme_of(address) == "hf" else objects.upload(path, address)


def write(address: str, data: bytes) -> Object:
    """Write an object atomically; return its metadata. Raises like `upload`."""
    refuse_web(address, "written")
    note_write(address)
    return hub.upload(data, address) if scheme_of(address) == "hf" else objects.write(address, data)


def listing(address: str) -> dict[str, Object]:
    """{name relative to the address: metadata} of all objects below it, sorted. Raises UsageError if the store cannot
    list."""
    refuse_web(address, "listed")
    return hub.listing(address) if scheme_of(address) == "hf" else objects.listing(address)


def delete(addresses: Iterable[str]) -> None:
    """Delete objects, ignoring missing ones. Raises UsageError if the store is read-only."""
    named = list(addresses)
    for address in named:
        refuse_web(address, "deleted")
    objects.delete(address for address in named if scheme_of(address) in objects.SCHEMES)
    for address in named:
        if scheme_of(address) == "hf":
            hub.delete(address)


__all__ = ["SCHEMES", "StorageError", "delete", "download", "head", "listing", "read", "upload", "write"]
