"""A place is a file or folder, or a Url: what writes to either, whole or not at all."""

import contextlib
import json
import tempfile
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import BinaryIO, cast

from lm.errors import UsageError
from lm.storage import stores
from lm.storage.files import appearing_file
from lm.storage.meter import MeteredFile
from lm.storage.objects import Object
from lm.storage.url import Url, is_url

Place = Path | Url


def place_of(text: object) -> Place:
    """The Url or, with its `~` expanded, the path. Raises UsageError where it can be neither."""
    if isinstance(text, Url):
        return text
    if is_url(text):
        return Url(str(text))
    try:
        return Path(str(text)).expanduser()
    except RuntimeError as error:
        raise UsageError(f"{text} names the home of a user that does not exist here. Give another path.") from error


def size_of(place: Place) -> int | None:
    """Bytes of the file or object; None where there is none."""
    if isinstance(place, Url):
        found = place.found()
        return None if found is None else found.size
    return place.stat().st_size if place.is_file() else None


def sizes_of(folder: Place, names: Iterable[str]) -> dict[str, int | None]:
    """{name: bytes of that file in the folder, None where there is none}; of a Url by one listing."""
    if isinstance(folder, Path):
        return {name: size_of(folder / name) for name in names}
    found = folder.files()
    return {name: found[name].size if name in found else None for name in names}


def streamed(place: Place, version: Object | None = None) -> BinaryIO:
    """A file to read from its beginning on, though a step back costs at most a request more; of an object as
    `Url.stream`. Its bytes are counted (meter.py). Raises OSError, StorageError."""
    raw = place.stream(version) if isinstance(place, Url) else place.open("rb", buffering=0)
    return cast(BinaryIO, MeteredFile(raw))


@contextlib.contextmanager
def appearing(place: Place, scratch: Path | None = None, durable: bool = True) -> Generator[Path]:
    """The name of a file to write, whose contents are at `place` when the block ends well, whole; when it does not,
    what was there stays. `scratch` and `durable` are as of lm.storage.files.appearing_file; what is to be an object is
    written in `scratch`, by default the system's folder for such, and uploaded at the end.

    Raises OSError where a disk, StorageError where a store does not take it.
    """
    if isinstance(place, Path):
        with appearing_file(place, scratch, durable) as partial:
            yield partial
        stores.note_write(place)
        return
    with tempfile.TemporaryDirectory(prefix="gristmill-", dir=scratch) as folder:
        partial = Path(folder) / (place.name or "object")
        yield partial
        stores.upload(partial, place.address)


def write_atomically(place: Place, data: str | bytes, scratch: Path | None = None, durable: bool = True) -> None:
    """Writes `data`, text as UTF-8, to `place`, or leaves what was there: never half of it. Raises as `appearing`."""
    content = data.encode() if isinstance(data, str) else data
    if isinstance(place, Url):
        stores.write(place.address, content)
        return
    with appearing(place, scratch, durable) as partial:
        partial.write_bytes(content)


def write_json(place: Place, value: object) -> None:
    """Writes `value` as JSON, whole or not at all."""
    write_atomically(place, json.dumps(value, indent=1, ensure_ascii=False) + "\n")
