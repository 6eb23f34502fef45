"""The same functions for every scheme: s3://, gs://, https:// and http:// (objects.py), hf:// (hub.py). Web servers are
read-only and cannot list files."""

import contextlib
import os
from collections.abc import Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from lm.errors import UsageError
from lm.storage import objects
from lm.storage.objects import WEB, Object

SCHEMES = (*objects.SCHEMES, "hf", *WEB)


def scheme_of(address: str) -> str:
    return address.partition("://")[0]


def client_of(address: str, verb: str = "") -> Any:
    """Return the module for the scheme of the address: objects or hub. Raises UsageError if the address is on a
    web server and `verb` is given: an action such as "listed" or "written", for the message."""
    if verb and scheme_of(address) in WEB:
        remedy = "Give s3://, gs:// or hf://."
        if verb == "listed":
            remedy = "Give a text file with one address per line, as @FILE."
        raise UsageError(
            f"{address} cannot be {verb}: over {scheme_of(address)}:// files can only be read, each by its own "
            "address. " + remedy
        )
    if scheme_of(address) != "hf":
        return objects
    from lm.storage import hub

    return hub


def read(address: str, start: int = 0, end: int | None = None, version: Object | None = None) -> bytes:
    """Return bytes [start, end) of the object, by default all. Raises FileNotFoundError if it does not exist,
    StorageError if it is no longer `version` and, like all functions here, if the store does not answer."""
    return client_of(address).read(address, start, end, version)


def download(address: str, path: Path, wanted: Object | None = None) -> Object:
    """Download the object, in version `wanted` if given, to `path` in chunks; return its metadata. Raises the errors of
    `read`."""
    found = wanted or client_of(address).head(address)
    if found is None:
        raise FileNotFoundError(2, "No such object", address)
    # Several requests at once only to buckets: web servers refuse clients for too many.
    with (
        path.open("wb") as file,
        ThreadPoolExecutor(objects.THREADS if scheme_of(address) in objects.SCHEMES else 1) as pool,
    ):
        file.truncate(found.size)

        def bring(start: int) -> None:
            data = read(address, start, min(start + objects.CHUNK, found.size), found)
            os.pwrite(file.fileno(), data, start)

        list(pool.map(bring, range(0, found.size, objects.CHUNK)))
    return found


WRITTEN: list[set[str]] = []
"""Addresses and paths written by this process, one set per active `noting_writes`."""


@contextlib.contextmanager
def noting_writes() -> Generator[set[str]]:
    """Yield a set that collects the addresses and absolute paths that this process writes in the block."""
    WRITTEN.append(written := set())
    try:
        yield written
    finally:
        WRITTEN.pop()


def note_write(place: str | Path) -> None:
    """Add a file or address to the sets of all active `noting_writes` blocks."""
    for written in WRITTEN:
        written.add(str(place.absolute()) if isinstance(place, Path) else place)


def upload(source: Path | bytes, address: str) -> Object:
    """Write the contents of the file `source`, or bytes, atomically; return the object's metadata. Raises UsageError if
    the store is read-only."""
    client = client_of(address, "written")
    note_write(address)
    return client.upload(source, address)


def delete(addresses: Iterable[str]) -> None:
    """Delete objects, ignoring missing ones. Raises UsageError if the store is read-only."""
    by_client: dict[Any, list[str]] = {}
    for address in addresses:
        by_client.setdefault(client_of(address, "deleted"), []).append(address)
    for client, some in by_client.items():
        client.delete(some)
