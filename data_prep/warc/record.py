"""One WARC record: its headers, its block, and the checks of both."""

import re
from dataclasses import dataclass, field
from typing import Literal

from data_prep.warc.byte_sources import Source
from data_prep.warc.damage import CUT_OFF, WRONG_LENGTH
from data_prep.warc.digests import digest_holds
from data_prep.warc.headers import Headers, end_of_head

MAX_PAGE_BYTES = 64_000_000
"""Maximum bytes of a page, both as received and decoded; bounds the memory."""
MAX_HEAD_BYTES = 64 << 10
"""Maximum bytes of a record's WARC headers, and of a response's HTTP headers."""
MAX_BLOCK_BYTES = MAX_PAGE_BYTES + MAX_HEAD_BYTES

MARK = b"WARC/"
LENGTH = re.compile(r"[0-9]{1,18}")
LINE = re.compile(r"(?:[A-Za-z0-9-]+[ \t]*:|[ \t])[^\x00-\x08\x0a-\x1f\x7f]*")
ADDRESS = re.compile(r"<?[A-Za-z][A-Za-z0-9+.-]*:[^<>]+>?")
TYPES = ("warcinfo", "response", "resource", "request", "metadata", "revisit", "conversion", "continuation")
REPEATED = ("warc-concurrent-to", "warc-protocol")  # headers that may be repeated
FOLD = (" ", "\t")
EMPTY_LINES = b"\r\n\r\n"
AFTER = 16  # bytes after a block to check

Checksum = Literal["valid", "broken", "none"]
"""Checksum of the gzip member around a record: right, wrong, or missing."""


class HeaderError(Exception):
    """WARC headers that cannot be parsed, or that are implausible and not covered by a checksum."""


@dataclass(slots=True)
class Record:
    """One record. Its block can be read until the next record is requested."""

    offset: int
    """Position in the file, as in Damage."""
    kind: str
    """WARC-Type in lower case."""
    headers: Headers
    """The WARC headers."""
    source: Source
    start: int
    """Start of the block in the source."""
    length: int
    """Bytes of the block, from the headers."""
    checksum: Checksum
    _block: bytes | None = field(default=None, repr=False)
    _digest: bool | Literal["unknown"] | None = field(default="unknown", repr=False)

    @property
    def end(self) -> int:
        """End of the block in the source."""
        return self.start + self.length

    def place(self, start: int = 0) -> str:
        """Return the position of the record in a file that is read from byte `start`: its offset, and in a member with
        several records "+" and its uncompressed position in the member. Unique within the file."""
        position = self.start - len(self.headers.head)
        return f"{start + self.offset}" + (f"+{position}" if position not in (0, self.offset) else "")

    def block(self) -> bytes:
        """Return the whole block."""
        if self._block is None:
            self._block = self.source.at(self.start, self.length)
        return self._block

    def first(self, size: int) -> bytes:
        """Return the first `size` bytes of the block."""
        return self.source.at(self.start, min(size, self.length))

    def block_digest_holds(self) -> bool | None:
        """Whether WARC-Block-Digest matches the block; None if it is missing or unsupported.

        Some writers store the digest of the payload under that name.
        """
        if self._digest == "unknown":
            payload = lambda: self.block().partition(b"\r\n\r\n")[2]
            self._digest = digest_holds(self.headers.get(b"warc-block-digest"), self.block, payload)
        return self._digest

    def fault_at_end(self) -> tuple[str, str] | None:
        """Check the bytes after the block; return (name, description) of the damage, or None if the next record or
        nothing follows.

        Two empty lines follow the block of a record. Some writers omit one or both.
        """
        after = self.source.at(self.end, AFTER)
        if not after and self.length and not self.source.at(self.end - 1, 1):
            return CUT_OFF, f"a block of {self.length} bytes, and the file or the gzip member ends before"
        rest = after.lstrip(b"\r\n")
        if rest.startswith(MARK) or (not rest and len(after) < AFTER):
            return None
        if self.checksum == "valid" and after.startswith(EMPTY_LINES):  # the next record is checked separately
            return None
        return WRONG_LENGTH, f"after a block of {self.length} bytes there is no end of the record, but {after!r}"

    def may_end(self) -> bool:
        """Whether at least two empty lines follow the block, which is rare by chance."""
        return self.source.at(self.end, len(EMPTY_LINES)) == EMPTY_LINES


def record_at(source: Source, position: int, offset: int, checksum: Checksum) -> Record:
    """Parse the record whose version line is at `position`. Raises HeaderError."""
    head = source.at(position, 2048)
    end = end_of_head(head)
    if end < 0:
        source.hold(position, MAX_HEAD_BYTES)
        head = source.at(position, MAX_HEAD_BYTES)
        end = end_of_head(head)
        if end < 0:
            raise HeaderError(f"headers without an end within {len(head)} bytes")
    headers = Headers(head[:end])
    length = headers.get(b"content-length")
    if not LENGTH.fullmatch(length):
        raise HeaderError(f"the Content-Length is {length[:80]!r}")
    kind = headers.get(b"warc-type").lower()
    if not kind:
        raise HeaderError("no WARC-Type")
    if checksum != "valid":
        raise_unless_plausible(headers)
    return Record(offset, kind, headers, source, position + end, int(length), checksum)


def raise_unless_plausible(headers: Headers) -> None:
    """Check WARC headers that no checksum covers. Raises HeaderError."""
    try:
        lines = headers.head.decode().replace("\r\n", "\n").rstrip("\n").split("\n")[1:]
    except UnicodeDecodeError as error:
        raise HeaderError("headers that are not UTF-8") from error
    names = set()
    for line in lines:
        if not LINE.fullmatch(line):
            raise HeaderError(f"the header line {line[:80]!r}")
        name = line.partition(":")[0].rstrip().lower()
        if name in names and not line.startswith(FOLD) and name not in REPEATED:
            raise HeaderError(f"two headers {name}: it may be the heads of two records, joined")
        names.add(name)
    kind, page_id = headers.get(b"warc-type"), headers.get(b"warc-record-id")
    if kind.lower() not in TYPES:
        raise HeaderError(f"the type {kind[:80]!r}")
    for name, address in (("id", page_id), ("address", headers.get(b"warc-target-uri"))):
        if address and not ADDRESS.fullmatch(address):  # some writers omit the id
            raise HeaderError(f"the {name} {address[:80]!r}")
