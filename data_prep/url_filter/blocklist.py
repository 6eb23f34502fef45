"""Compiled blocklist: millions of URLs as sorted 64-bit hashes in one memory-mapped file.

    digest of everything after it (16 hex digits) · words as one line of JSON · sorted hashes in native byte order

FineWeb's list, 4.6 million entries in 124 MB, becomes 36 MB, shared by the workers of a machine. The lookup of an
unlisted URL is a false positive with probability 4.6e6 / 2^64 = 2.5e-13: with five lookups per page, once in 800
billion pages.
"""

import bisect
import json
import mmap
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import xxhash

from data_prep.urls import canonical_host, page_key, split_address

CHUNK = 1 << 22  # bytes of a list in memory at once
DIGEST_DIGITS = 16
ALIGNMENT = 64  # bytes
PLAIN = b"abcdefghijklmnopqrstuvwxyz0123456789-_.\n"  # most lists of domains contain only these
DOT_OUTSIDE = re.compile(rb"^\.|\.$", re.MULTILINE)


@dataclass(frozen=True)
class BannedWords:
    """Words of the lists, in their original spelling."""

    words: tuple[str, ...] = ()
    soft_words: tuple[str, ...] = ()
    substrings: tuple[str, ...] = ()


class Blocklist:
    """Contents of a compiled file; `entry in blocklist` tests a canonical host or a page's key (urls.py)."""

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
    """Open the blocklist in `path`; None if it is missing or its digest is wrong, so it must be compiled again."""
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
    """Yield the parts of a compiled file. `hashes` are unsigned 64-bit integers in any order."""
    header = json.dumps(asdict(words)).encode()
    header += b" " * (-(DIGEST_DIGITS + len(header) + 1) % ALIGNMENT) + b"\n"
    body = memoryview(np.sort(hashes)).cast("B")
    digest = xxhash.xxh3_64(header)
    digest.update(body)
    yield digest.hexdigest().encode()
    yield header
    yield body


def hash_domains(stream: BinaryIO) -> Iterator[np.ndarray]:
    """Yield hashes of the domains and hosts in a list, one per line; a leading dot or "*." is removed."""
    for lines in line_chunks(stream):
        if lines.translate(None, PLAIN) or DOT_OUTSIDE.search(lines):  # other spellings, or comments
            yield hashes_of(canonical_host(entry.removeprefix("*")).encode() for entry in entries(lines))
        else:
            yield hashes_of(lines.split())


def hash_pages(stream: BinaryIO) -> Iterator[np.ndarray]:
    """Yield hashes of the single pages in a list, one URL per line, with or without a scheme."""
    for lines in line_chunks(stream):
        yield hashes_of(page_key(*split_address(entry)).encode(errors="replace") for entry in entries(lines))


def hashes_of(names: Iterable[bytes]) -> np.ndarray:
    return np.fromiter(map(hash_of, names), dtype=np.uint64)


def entries(lines: bytes) -> Iterator[str]:
    """Yield stripped lines, without empty lines and comments. Invalid UTF-8 is replaced."""
    for line in lines.decode(errors="replace").splitlines():
        if (entry := line.strip()) and not entry.startswith("#"):
            yield entry


def line_chunks(stream: BinaryIO) -> Iterator[bytes]:
    """Yield whole lines, in chunks of a few megabytes."""
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
