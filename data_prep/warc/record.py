"""One WARC record: its headers, its block, their digests, and the names of damage."""

import base64
import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from data_prep.warc.byte_sources import ByteSource

# Stable names of damage in a WARC file: the `reason` of a Damage.
DAMAGED_MEMBER = "damaged_gzip_member"  # or zstd frame
CUT_OFF = "cut_off"
NO_RECORD = "no_record_here"
BAD_WARC_HEADER = "bad_warc_header"
WRONG_LENGTH = "wrong_content_length"
TOO_LARGE = "record_too_large"
WRONG_BLOCK = "wrong_block_digest"
WRONG_PAYLOAD = "wrong_payload_digest"
BAD_HTTP_HEADER = "bad_http_header"
UNDECODABLE = "undecodable_body"
SEGMENTED = "segmented_record"

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
HEAD_END = re.compile(rb"\r?\n\r?\n")
ALGORITHMS = {
    "md5": (hashlib.md5, 16),
    "sha1": (hashlib.sha1, 20),
    "sha256": (hashlib.sha256, 32),
    "sha512": (hashlib.sha512, 64),
}
"""{name: (function, bytes of the digest)} of the supported digests."""
FROM_BASE_32 = str.maketrans("abcdefghijklmnopqrstuvwxyz234567", "0123456789abcdefghijklmnopqrstuv")

Checksum = Literal["valid", "broken", "none"]
"""Checksum of the gzip member around a record: right, wrong, or missing."""


class HeaderError(Exception):
    """Raised for WARC headers that cannot be parsed, or, if no checksum covers them, that are implausible."""


class Headers:
    """Headers of a WARC record or HTTP response, including the first line (version or status) and the last, empty line.

    Values are parsed on request, because only ten of about forty lines per page are used. WARC headers are UTF-8, HTTP
    headers traditionally Latin-1.
    """

    __slots__ = ("_lowered", "head")

    def __init__(self, head: bytes):
        self.head, self._lowered = head, head.lower()

    def get(self, name: bytes) -> str:
        """Return the value of the first header called `name`, which must be lower case; "" if there is none."""
        start = self._lowered.find(b"\n" + name + b":")
        if start < 0:
            return ""
        start += len(name) + 2
        end = self.head.find(b"\n", start)
        while self.head[end + 1 : end + 2] in (b" ", b"\t"):  # the value continues in the next line
            end = self.head.find(b"\n", end + 1)
        value = self.head[start:end].strip()
        if b"\n" in value:
            value = b" ".join(value.split())
        try:
            return value.decode()
        except UnicodeDecodeError:
            return value.decode("latin-1")


def end_of_head(data: bytes) -> int:
    """Return the position after the headers at the start of `data` and their empty line; -1 if that is missing."""
    first = data.find(b"\n")
    if data[first - 1 : first] == b"\r":
        end = data.find(b"\r\n\r\n")
        if end >= 0:
            return end + 4
    found = HEAD_END.search(data)
    return found.end() if found else -1


def digest_holds(written: str, *forms: Callable[[], bytes]) -> bool | None:
    """Whether a digest such as "sha1:…" (base 32 or hex, upper or lower case) matches one of `forms`, functions that
    return bytes. None if the digest is missing or of an unsupported kind."""
    algorithm, _, value = written.strip().lower().replace("-", "").partition(":")
    value = value.strip().rstrip("=")
    if algorithm not in ALGORITHMS:
        return None
    digest_of, size = ALGORITHMS[algorithm]
    base_32_length = -(-8 * size // 5)
    try:
        if len(value) == 2 * size:
            number = int(value, 16)
        elif len(value) == base_32_length:  # the last character has padding bits
            number = int(value.translate(FROM_BASE_32), 32) >> (5 * base_32_length - 8 * size)
        else:
            return None
    except ValueError:
        return False
    digest = number.to_bytes(size, "big") if 0 <= number < 1 << 8 * size else b""
    return any(digest_of(form(), usedforsecurity=False).digest() == digest for form in forms)


def sha1_digest(data: bytes) -> str:
    """Return "sha1:" and the SHA-1 of `data` in base 32, the usual form in WARC files."""
    return "sha1:" + base64.b32encode(hashlib.sha1(data, usedforsecurity=False).digest()).decode()


@dataclass(slots=True)
class Record:
    """A WARC record: its headers, and its block, which can be read until the next record is requested."""

    offset: int
    """Position in the file: of the record, or of the gzip member or zstd frame that contains it."""
    kind: str
    """WARC-Type in lower case."""
    headers: Headers
    source: ByteSource
    start: int
    """Position of the block in `source`."""
    length: int
    """Bytes of the block, by the Content-Length header."""
    checksum: Checksum
    _block: bytes | None = field(default=None, repr=False)
    _digest: bool | Literal["unknown"] | None = field(default="unknown", repr=False)

    @property
    def end(self) -> int:
        """Position after the block in `source`."""
        return self.start + self.length

    def place(self, start: int = 0) -> str:
        """Return the record's position as text, unique within the archive: `start` + offset, such as "1047", or
        "1047+530" for a record at byte 530 of decompressed data. `start` is the opened file's position in the
        archive."""
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
        """Whether WARC-Block-Digest matches the block or, as some writers store, its payload; None if the digest is
        missing or of an unsupported kind."""
        if self._digest == "unknown":
            payload = lambda: self.block().partition(b"\r\n\r\n")[2]
            self._digest = digest_holds(self.headers.get(b"warc-block-digest"), self.block, payload)
        return self._digest

    def fault_at_end(self) -> tuple[str, str] | None:
        """Return (reason, description) of the damage if the block is cut off, or is followed by neither a record nor
        the end of the data; else None.

        Two empty lines should follow a block; some writers omit one or both.
        """
        after = self.source.at(self.end, AFTER)
        if not after and self.length and not self.source.at(self.end - 1, 1):
            return CUT_OFF, f"a block of {self.length} bytes, and the file or the gzip member ends before"
        rest = after.lstrip(b"\r\n")
        if rest.startswith(MARK) or (not rest and len(after) < AFTER):
            return None
        if self.checksum == "valid" and after.startswith(EMPTY_LINES):  # the next record is checked separately
            return None
        return WRONG_LENGTH, f"after a block of {self.length} bytes, the record should end, but {after!r} follows"

    def may_end(self) -> bool:
        """Whether two CR LF follow the block, as they should; they rarely do by chance."""
        return self.source.at(self.end, len(EMPTY_LINES)) == EMPTY_LINES


def record_at(source: ByteSource, position: int, offset: int, checksum: Checksum) -> Record:
    """Parse the headers of the record that begins at `position` with a line such as "WARC/1.1"; `offset` is that of
    Record. Raises HeaderError."""
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
        raise HeaderError(f"the Content-Length is {length[:80]!r}, not a number of bytes")
    kind = headers.get(b"warc-type").lower()
    if not kind:
        raise HeaderError("no WARC-Type")
    if checksum != "valid":
        raise_unless_plausible(headers)
    return Record(offset, kind, headers, source, position + end, int(length), checksum)


def raise_unless_plausible(headers: Headers) -> None:
    """Raise HeaderError if WARC headers that no checksum covers are malformed, repeated, or of an unknown type."""
    try:
        lines = headers.head.decode().replace("\r\n", "\n").rstrip("\n").split("\n")[1:]
    except UnicodeDecodeError as error:
        raise HeaderError("headers that are not UTF-8") from error
    names = set()
    for line in lines:
        if not LINE.fullmatch(line):
            raise HeaderError(f"the header line {line[:80]!r} is malformed")
        name = line.partition(":")[0].rstrip().lower()
        if name in names and not line.startswith(FOLD) and name not in REPEATED:
            raise HeaderError(f"two headers {name}: it may be the heads of two records, joined")
        names.add(name)
    kind, page_id = headers.get(b"warc-type"), headers.get(b"warc-record-id")
    if kind.lower() not in TYPES:
        raise HeaderError(f"the WARC-Type {kind[:80]!r} is unknown")
    for name, address in (("id", page_id), ("address", headers.get(b"warc-target-uri"))):
        if address and not ADDRESS.fullmatch(address):  # some writers omit the id
            raise HeaderError(f"the {name} {address[:80]!r} is not a URI")
