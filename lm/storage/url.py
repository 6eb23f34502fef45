"""Url: an object of a bucket, a file of the hub or of a web server, or all below it, with those of pathlib.Path's
methods that reading needs, so that what reads a file reads an object too."""

import io
from collections.abc import Iterator
from dataclasses import dataclass

from lm.errors import UsageError, shown
from lm.storage import hub, objects, stores
from lm.storage.objects import Object, StorageError
from lm.storage.ranges import READ_AHEAD, Ranges, Stream
from lm.storage.stores import SCHEMES, WEB

__all__ = ["StorageError", "Url", "is_url"]


def is_url(text: object) -> bool:
    """Whether it begins as an address does, with whatever scheme."""
    scheme, found, _ = str(text).partition("://")
    return bool(found) and scheme.isalnum()


@dataclass(frozen=True, order=True)
class Url:
    """s3://BUCKET/KEY, gs://BUCKET/KEY, hf://datasets/OWNER/NAME/PATH or https://HOST/PATH, without a slash at the end.
    Raises UsageError for any other text."""

    address: str

    def __post_init__(self):
        scheme, bucket, key = objects.split(self.address)
        if scheme not in SCHEMES or not is_url(self.address):
            raise UsageError(
                f"{shown(self.address)} is not the address of an object: it begins with none of "
                f"{', '.join(f'{one}://' for one in SCHEMES)}. Give s3://BUCKET/NAME, gs://BUCKET/NAME, "
                "hf://datasets/OWNER/NAME/PATH, https://HOST/PATH, or a path."
            )
        key, mark, query = key.partition("?") if scheme in WEB else (key, "", "")
        parts = [part for part in key.split("/") if part]
        strange = set(bucket) & set("?#@ " if scheme in WEB else "?#@: ")
        if not bucket or {".", ".."} & {*parts} or not bucket.isprintable() or strange:
            raise UsageError(
                f"{shown(self.address)} names no object: give {scheme}://BUCKET/NAME, where NAME has no . and .. in it."
            )
        if scheme in WEB and not self.address.isprintable():
            raise UsageError(f"{shown(self.address)} has letters that no address has. Write them as %XX.")
        object.__setattr__(self, "address", "/".join([f"{scheme}://{bucket}", *parts]) + mark + query)
        if scheme == "hf":
            hub.named(self.address)

    @property
    def scheme(self) -> str:
        return stores.scheme_of(self.address)

    @property
    def key(self) -> str:
        """What comes after the bucket or host, without a query."""
        key = objects.split(self.address)[2]
        return key.partition("?")[0] if self.scheme in WEB else key

    def __str__(self) -> str:
        return self.address

    def __truediv__(self, name: object) -> "Url":
        return Url(f"{self.address}/{name}")

    @property
    def name(self) -> str:
        return self.key.rpartition("/")[2]

    @property
    def parent(self) -> "Url":
        """What it lies in; of a bucket, itself."""
        if not self.key or (self.scheme == "hf" and not hub.named(self.address).path):
            return self
        return Url(
            self.address.partition("?")[0].rpartition("/")[0] if self.scheme in WEB else self.address.rpartition("/")[0]
        )

    def with_name(self, name: str) -> "Url":
        return self.parent / name

    def expanduser(self) -> "Url":
        return self

    def resolve(self) -> "Url":
        return self

    def found(self) -> Object | None:
        """What the store says of it; None where there is no such object."""
        return stores.head(self.address)

    def is_file(self) -> bool:
        return self.found() is not None

    def is_dir(self) -> bool:
        """Whether anything lies below; a web server does not tell."""
        return self.scheme not in WEB and bool(self.files())

    def exists(self) -> bool:
        return self.is_file() or self.is_dir()

    def files(self) -> dict[str, Object]:
        """{name relative to it: object} of all that lies below, sorted."""
        return stores.listing(self.address)

    def children(self) -> dict[str, Object | None]:
        """{name: object} of what is directly below, sorted; None of a name with a slash behind it. Of s3:// and gs://
        alone."""
        return objects.children(self.address)

    def iterdir(self) -> Iterator["Url"]:
        yield from (self / name for name in dict.fromkeys(name.partition("/")[0] for name in self.files()))

    def read_bytes(self) -> bytes:
        """Raises FileNotFoundError and StorageError, as all that reads."""
        return stores.read(self.address)

    def read_text(self, encoding: str = "utf-8") -> str:
        return self.read_bytes().decode(encoding)

    def read_range(self, start: int, end: int) -> bytes:
        """Bytes `start` to `end`, as far as there are so many."""
        return stores.read(self.address, start, end)

    def open(
        self, mode: str = "rb", buffering: int = READ_AHEAD, version: Object | None = None
    ) -> io.BufferedReader | Ranges:
        """A file to read from anywhere in it; only "rb". It is of one version of the object, by default the one that is
        there now: a read that finds it replaced raises StorageError. At least `buffering` bytes are read at a time; 0:
        as many as are asked for."""
        if mode != "rb":
            raise ValueError(f"mode = {mode!r}: an object is only read so; lm.storage.appearing writes one")
        raw = Ranges(self.address, self.held_to(version))
        return io.BufferedReader(raw, buffering) if buffering else raw

    def stream(self, version: Object | None = None) -> Stream:
        """A file to read from its beginning on, of one version, as `open`: the next range comes while one is read, and
        what breaks off is gone on with. It holds some megabytes, whatever the object's size."""
        return Stream(self.address, self.held_to(version))

    def surely(self) -> Object:
        """What the store says of it. Raises FileNotFoundError where there is no such object."""
        found = self.found()
        if found is None:
            raise FileNotFoundError(2, "No such object", self.address)
        return found

    def held_to(self, version: Object | None) -> Object:
        """The version to read: that which is given, if it has an ETag, else the one that is there. Raises StorageError
        where that is of another size."""
        if version is not None and version.etag:
            return version
        found = self.surely()
        if version is not None and version.size != found.size:
            raise StorageError(
                f"{self.address} has {found.size} bytes, but had {version.size} when it was listed. Bring it back as "
                "it was, or fetch the pages again."
            )
        return found

    def unlink(self, missing_ok: bool = True) -> None:
        stores.delete([self.address])
