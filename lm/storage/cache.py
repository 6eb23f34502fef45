"""Cached downloads: local files of remote objects, valid as long as the ETag is the same."""

import contextlib
import functools
import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lm.storage import objects, stores
from lm.storage.files import appearing_file, cache_folder
from lm.storage.local_copy import READS, announce, download
from lm.storage.names import inside
from lm.storage.objects import Object, ReplacedError
from lm.storage.places import size_of
from lm.storage.url import Url


@functools.cache
def fetched(url: Url) -> Path:
    """Return the local path of the same name with everything at the URL; it does not exist if there is nothing. Changes
    during the lifetime of this process are not detected. Raises StorageError, and OSError if the disk is full."""
    for _ in range(READS - 1):
        with contextlib.suppress(ReplacedError):
            return fetch_listed(url, below(url))
    return fetch_listed(url, below(url))


def fetch_listed(url: Url, found: dict[str, Object]) -> Path:
    """`fetched` for these versions. Raises ReplacedError if one no longer exists."""
    version = json.dumps([url.address, *((name, *one) for name, one in found.items())])
    folder = cache_folder() / "reading" / hashlib.sha256(version.encode()).hexdigest()[:16]
    missing = [name for name, one in found.items() if not one.etag or size_of(folder / name) != one.size]
    announce(sum(found[name].size for name in missing), len(missing), url)
    folder.mkdir(parents=True, exist_ok=True)

    def bring(name: str) -> None:
        path = inside(folder, name, url)
        path.parent.mkdir(parents=True, exist_ok=True)
        with appearing_file(path, folder, durable=False) as partial:
            # The address itself may have a query.
            download(url if name == url.name else url.parent / name, partial, found[name])

    with ThreadPoolExecutor(objects.THREADS) as pool:
        list(pool.map(bring, missing))
    return folder / url.name


def as_local_file(place: Path | Url) -> Path:
    """The file itself, or the local copy of a remote object (`fetched`). Raises like it."""
    return fetched(place) if isinstance(place, Url) else place.expanduser()


def below(url: Url) -> dict[str, Object]:
    """The object at the URL and all below it, as `name` and name/…; siblings are not listed."""
    one = url.found()
    others = {} if url.scheme in stores.WEB else url.files()
    return ({} if one is None else {url.name: one}) | {f"{url.name}/{name}": found for name, found in others.items()}
