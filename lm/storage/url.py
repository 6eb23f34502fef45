"""Url: the address of an object, of a file of the hub or a web server, or of a folder of these. It has the methods of
pathlib.Path that reading needs, so that the same code reads files and objects."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lm.errors import UsageError, shown
from lm.storage import objects, stores
from lm.storage.objects import WEB, Object, StorageError
from lm.storage.stores import SCHEMES

if TYPE_CHECKING:
    from lm.storage.ranges import Ranges, Stream

READ_AHEAD = 2**20
"""Minimum bytes per read of a file with random access."""


def is_url(text: object) -> bool:
    """Return whether `text` begins with a scheme, such as s3://."""
    scheme, found, _ = str(text).partition("://")
    return bool(found) and scheme.isalnum()


@dataclass(frozen=True, order=True)
class Url:
    """Address such as s3://BUCKET/KEY, gs://BUCKET/KEY, hf://datasets/OWNER/NAME/PATH or https://HOST/PATH; a final
    slash is removed. Raises UsageError for any other text."""

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
                f"{shown(self.address)} is not the address of an object: give {scheme}://BUCKET/NAME, with no . "
                "or .. in NAME."
            )
        if scheme in WEB and not self.address.isprintable():
            raise UsageError(f"{shown(self.address)} has characters that addresses cannot have. Write them as %XX.")
        object.__setattr__(self, "address", "/".join([f"{scheme}://{bucket}", *parts]) + mark + query)
        if scheme == "hf":
            self.of_hub()

    def of_hub(self) -> Any:
        """Parse an hf:// address. Raises UsageError if it is invalid."""
        from lm.storage import hub  # most commands read no file of the hub

        return hub.named(self.address)

    @property
    def scheme(self) -> str:
        return stores.scheme_of(self.address)

    @property
    def key(self) -> str:
        """The part after the bucket or host, without a query: "a/b" for s3://bucket/a/b."""
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
        """The folder that contains this object; a bucket is its own parent."""
        if not self.key or (self.scheme == "hf" and not self.of_hub().path_in_repo):
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
        """Return the metadata of the object; None if it does not exist."""
        return stores.client_of(self.address).head(self.address)

    def is_file(self) -> bool:
        return self.found() is not None

    def is_dir(self) -> bool:
        """Return whether any object is below this address; always False for a web server."""
        return self.scheme not in WEB and bool(self.files())

    def exists(self) -> bool:
        return self.is_file() or self.is_dir()

    def files(self) -> dict[str, Object]:
        """Return {name relative to this address: metadata} of all objects below it, sorted. Raises UsageError if the
        store cannot list."""
        return stores.client_of(self.address, "listed").listing(self.address)

    def children(self) -> dict[str, Object | None]:
        """Return {name: metadata, or None for a folder} of the direct children, sorted. Only for s3:// and gs://."""
        return objects.children(self.address)

    def iterdir(self) -> Iterator["Url"]:
        yield from (self / name for name in dict.fromkeys(name.partition("/")[0] for name in self.files()))

    def read_bytes(self) -> bytes:
        """Read the object. Raises FileNotFoundError and StorageError, like all methods that read."""
        return stores.read(self.address)

    def read_text(self, encoding: str = "utf-8") -> str:
        return self.read_bytes().decode(encoding)

    def read_range(self, start: int, end: int) -> bytes:
        """Return bytes [start, end), fewer at the end of the object."""
        return stores.read(self.address, start, end)

    def open(
        self, mode: str = "rb", buffering: int = READ_AHEAD, version: Object | None = None
    ) -> "io.BufferedReader | Ranges":
        """Open the object for random access; only mode "rb". All reads are of `version`, by default the current one,
        and raise StorageError if the object was replaced. A request reads at least `buffering` bytes."""
        if mode != "rb":
            raise ValueError(f"mode = {mode!r}: objects can only be read with open(); lm.storage.appearing writes one")
        from lm.storage.ranges import Ranges

        raw = Ranges(self.address, self.held_to(version))
        return io.BufferedReader(raw, buffering) if buffering else raw

    def stream(self, version: Object | None = None) -> "Stream":
        """Open the object for sequential reads of one version, by default the current one, with read-ahead of some
        megabytes. Broken connections are resumed."""
        from lm.storage.ranges import Stream

        return Stream(self.address, self.held_to(version))

    def surely(self) -> Object:
        """Return the metadata of the object. Raises FileNotFoundError if it does not exist."""
        found = self.found()
        if found is None:
            raise FileNotFoundError(2, "No such object", self.address)
        return found

    def held_to(self, version: Object | None) -> Object:
        """Return `version` if it has an ETag, else the current version. Raises StorageError if their sizes differ."""
        if version is not None and version.etag:
            return version
        found = self.surely()
        if version is not None and version.size != found.size:
            raise StorageError(
                f"{self.address} has {found.size} bytes, but had {version.size} when it was listed. Restore that "
                "version, or fetch the pages again."
            )
        return found

    def unlink(self, missing_ok: bool = True) -> None:
        stores.delete([self.address])
