"""Url: an object of a bucket, or all below it, with those of pathlib.Path's methods that reading needs, so that what
reads a file reads an object too."""

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from lm.errors import UsageError, shown
from lm.storage import objects
from lm.storage.objects import SCHEMES, Object, StorageError

__all__ = ["StorageError", "Url", "is_url"]


def is_url(text: object) -> bool:
    """Whether it begins as an address does, with whatever scheme."""
    scheme, found, _ = str(text).partition("://")
    return bool(found) and scheme.isalnum()


@dataclass(frozen=True, order=True)
class Url:
    """s3://bucket/key or gs://bucket/key, without a slash at the end. Raises UsageError for any other text."""

    address: str

    def __post_init__(self):
        scheme, bucket, key = objects.split(self.address)
        if scheme not in SCHEMES or not is_url(self.address):
            raise UsageError(
                f"{shown(self.address)} is not the address of an object: it begins with none of "
                f"{', '.join(f'{one}://' for one in SCHEMES)}. Give s3://BUCKET/NAME, gs://BUCKET/NAME, or a path."
            )
        parts = [part for part in key.split("/") if part]
        if not bucket or {".", ".."} & {*parts} or not bucket.isprintable() or set(bucket) & set("?#@: "):
            raise UsageError(
                f"{shown(self.address)} names no object: give {scheme}://BUCKET/NAME, where NAME has no . and .. in it."
            )
        object.__setattr__(self, "address", "/".join([f"{scheme}://{bucket}", *parts]))

    def __str__(self) -> str:
        return self.address

    def __truediv__(self, name: object) -> "Url":
        return Url(f"{self.address}/{name}")

    @property
    def name(self) -> str:
        return objects.split(self.address)[2].rpartition("/")[2]

    @property
    def parent(self) -> "Url":
        """What it lies in; of a bucket, itself."""
        above, _, _ = self.address.rpartition("/")
        return Url(above) if objects.split(self.address)[2] else self

    def with_name(self, name: str) -> "Url":
        return self.parent / name

    def expanduser(self) -> "Url":
        return self

    def resolve(self) -> "Url":
        return self

    def found(self) -> Object | None:
        """What the store says of it; None where there is no such object."""
        return objects.head(self.address)

    def is_file(self) -> bool:
        return self.found() is not None

    def is_dir(self) -> bool:
        return bool(self.files())

    def exists(self) -> bool:
        return self.is_file() or self.is_dir()

    def files(self) -> dict[str, Object]:
        """{name relative to it: object} of all that lies below, sorted."""
        return objects.listing(self.address)

    def iterdir(self) -> Iterator["Url"]:
        yield from (self / name for name in dict.fromkeys(name.partition("/")[0] for name in self.files()))

    def read_bytes(self) -> bytes:
        """Raises FileNotFoundError and StorageError, as all that reads."""
        return objects.read(self.address)

    def read_text(self, encoding: str = "utf-8") -> str:
        return self.read_bytes().decode(encoding)

    def read_range(self, start: int, end: int) -> bytes:
        """Bytes `start` to `end`, as far as there are so many."""
        return objects.read(self.address, start, end)

    def open(self, mode: str = "rb") -> io.BufferedReader:
        """A file to read from anywhere in it; only "rb". It is of one version of the object: a read that finds it
        replaced raises StorageError."""
        if mode != "rb":
            raise ValueError(f"mode = {mode!r}: an object is only read so; lm.storage.appearing writes one")
        found = self.found()
        if found is None:
            raise FileNotFoundError(2, "No such object", self.address)
        return io.BufferedReader(Ranges(self.address, found), READ_AHEAD)

    def unlink(self, missing_ok: bool = True) -> None:
        objects.delete([self.address])


READ_AHEAD = 2**20
"""Bytes that are read at least."""


class Ranges(io.RawIOBase):
    """An object as a file: each read is a request."""

    def __init__(self, address: str, found: Object, read: Callable[..., bytes] = objects.read):
        self.address, self.object, self.position, self.ask = address, found, 0, read

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

    def readinto(self, buffer) -> int:  # type: ignore[override]
        from obstore.exceptions import PreconditionError

        end = min(self.position + len(buffer), self.object.size)
        if end <= self.position:
            return 0
        try:
            data = self.ask(self.address, self.position, end, self.object.etag)
        except PreconditionError as error:
            raise StorageError(f"{self.address} was replaced while it was read. Run it again.") from error
        buffer[: len(data)] = data
        self.position += len(data)
        return len(data)
