"""HTTP responses in archives: parse the head, remove transfer and content codings, within limits.

Some archives store a decoded body with its original headers. So if a body is not encoded as its headers say, and looks
like markup, it is used as it is.
"""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

from isal import isal_zlib

from data_prep.warc.byte_sources import GZIP, STEP
from data_prep.warc.members import ZSTD_PIECE, IsalError
from data_prep.warc.record import Headers, end_of_head

STATUS = re.compile(rb"HTTP/\d+(?:\.\d+)?[ \t]+(\d{3})(?!\d)")
CHUNK_SIZE = re.compile(rb"[ \t]*([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\n]*)?\r?\n")
MARKUP = re.compile(rb"(?:\xef\xbb\xbf)?\s*<")
MAX_CHUNKS = 1_000_000  # a chunk of one byte takes as long as one of a thousand
MAX_CODINGS = 8
MAX_MEMBERS = 16  # gzip members per body
MAX_ZSTD_WINDOW = 8 << 20  # bytes; browsers must support this much (RFC 9659)


class UndecodableError(Exception):
    """Raised for a body that is not encoded as its headers say."""


class BodyTooLargeError(Exception):
    """Raised for a body whose decoded size is above the limit."""


class Response(NamedTuple):
    """Status and headers of an HTTP response."""

    status: int
    """HTTP status code, such as 200."""
    headers: Headers
    size: int
    """Bytes of the status line and headers: the position at which the body starts."""

    @property
    def media_type(self) -> str:
        """Media type of the Content-Type header, lower case without parameters, such as "text/html"; "" if absent."""
        return self.headers.get(b"content-type").partition(";")[0].strip().lower()


def parse_response(block: bytes) -> Response | None:
    """Parse the status and headers of the HTTP response at the start of `block`; None if it does not start with one."""
    status, size = STATUS.match(block), end_of_head(block)
    return None if status is None or size < 0 else Response(int(status[1]), Headers(block[:size]), size)


def decode_body(body: bytes, response: Response, limit: int, whole: bool) -> tuple[bytes, bytes]:
    """Return (body without the transfer coding, body also without content codings such as gzip).

    `whole` is False if the crawler recorded that it truncated the body. Raises BodyTooLargeError if the result exceeds
    `limit` bytes, UndecodableError if the body is invalid, or is cut off although `whole`.
    """
    if response.headers.get(b"transfer-encoding").lower().endswith("chunked"):
        body = dechunk(body, whole)
    written = response.headers.get(b"content-encoding")
    codings = [coding.strip().lower() for coding in written.split(",")] if written else []
    if len(codings) > MAX_CODINGS:
        raise UndecodableError(f"{len(codings)} content codings; the limit is {MAX_CODINGS}")
    decoded = body
    for coding in reversed(codings):
        decoded = remove_coding(decoded, coding, limit, whole)
    if len(decoded) > limit:
        raise BodyTooLargeError(f"a page of {len(decoded)} bytes; the limit is {limit}")
    return body, decoded


def dechunk(body: bytes, whole: bool) -> bytes:
    """Remove the chunked transfer coding (RFC 9112, section 7.1). `whole` and errors are those of `decode_body`."""
    size_line = CHUNK_SIZE.match(body)
    if size_line is None:
        return body  # it was stored decoded
    chunks, position = [], 0
    while size_line is not None and len(chunks) < MAX_CHUNKS:
        size, position = int(size_line[1], 16), size_line.end()
        if size == 0:
            return b"".join(chunks)
        chunks.append(body[position : position + size])
        position += size
        if position > len(body):
            break
        position += 2 if body.startswith(b"\r\n", position) else body.startswith(b"\n", position)
        size_line = CHUNK_SIZE.match(body, position)
    if not whole and position >= len(body):
        return b"".join(chunks)
    if len(chunks) >= MAX_CHUNKS:
        raise UndecodableError(f"more than {MAX_CHUNKS} chunks")
    if position >= len(body):
        raise UndecodableError(f"the last of {len(chunks)} chunks is missing or cut off")
    raise UndecodableError(f"no chunk size after {len(chunks)} chunks, but {body[position : position + 16]!r}")


def remove_coding(body: bytes, coding: str, limit: int, whole: bool) -> bytes:
    """Remove one content coding, such as "gzip" or "br"; parameters and errors are those of `decode_body`."""
    if coding in ("", "identity", "none"):
        return body
    decode = CODINGS.get(coding)
    if not body:
        return body
    try:
        if decode is None:
            raise UndecodableError(f"the content coding {coding[:40]!r} is unknown")
        return decode(body, limit, whole)
    except UndecodableError:
        if MARKUP.match(body[:100]):
            return body  # it was stored decoded
        raise


def gunzip(body: bytes, limit: int, whole: bool) -> bytes:
    """Decompress consecutive gzip members (RFC 1952), without the bytes after them. Arguments and errors: see
    `decode_body`."""
    pieces, size = [], 0
    for _ in range(MAX_MEMBERS):
        piece, body = inflate(body, limit - size, whole, isal_zlib.MAX_WBITS | 16)
        pieces.append(piece)
        size += len(piece)
        if not body.startswith(GZIP):
            return b"".join(pieces)
    raise UndecodableError(f"more than {MAX_MEMBERS} gzip members")


def deflate(body: bytes, limit: int, whole: bool) -> bytes:
    """Decompress zlib or raw deflate (RFC 1950, 1951; servers call both "deflate"). Arguments: see `decode_body`."""
    try:
        return inflate(body, limit, whole, isal_zlib.MAX_WBITS)[0]
    except UndecodableError:
        return inflate(body, limit, whole, -isal_zlib.MAX_WBITS)[0]


def inflate(body: bytes, limit: int, whole: bool, window_bits: int) -> tuple[bytes, bytes]:
    """Return (decompressed data, bytes after it) of one stream. `window_bits`: see zlib; others, and
    errors: see `decode_body`."""
    inflater = isal_zlib.decompressobj(window_bits)
    step = lambda body: (inflater.decompress(body, STEP), inflater.unconsumed_tail)
    return joined(step, lambda: inflater.eof, IsalError, body, limit, whole), inflater.unused_data


def unbrotli(body: bytes, limit: int, whole: bool) -> bytes:
    """Decompress Brotli (RFC 7932). Arguments and errors: see `decode_body`."""
    import brotli

    decompressor = brotli.Decompressor()
    step = lambda body: (decompressor.process(body, output_buffer_limit=STEP), b"")
    return joined(step, decompressor.is_finished, brotli.error, body, limit, whole)


def unzstd(body: bytes, limit: int, whole: bool) -> bytes:
    """Decompress a zstd frame (RFC 8878) in small steps, to use little memory. Arguments and errors: see
    `decode_body`."""
    import zstandard

    inflater = zstandard.ZstdDecompressor(max_window_size=MAX_ZSTD_WINDOW).decompressobj()
    step = lambda body: (inflater.decompress(body[:ZSTD_PIECE]), body[ZSTD_PIECE:])
    return joined(step, lambda: inflater.eof, zstandard.ZstdError, memoryview(body), limit, whole)


def joined(
    step: Callable[[Any], tuple[bytes, Any]],
    is_done: Callable[[], bool],
    errors: type[Exception],
    body: bytes | memoryview,
    limit: int,
    whole: bool,
) -> bytes:
    """Return the data of a compressed stream. step(body) decompresses a part of `body`, and returns (data, rest of
    `body`). `errors` are those of the decompressor; other arguments and errors: see `decode_body`."""
    pieces, size = [], 0
    try:
        while not is_done():
            piece, body = step(body)
            pieces.append(piece)
            size += len(piece)
            if size > limit:
                raise BodyTooLargeError(f"a page that decodes to more than {limit} bytes")
            if not body and not piece and not is_done():
                if whole:
                    raise UndecodableError(f"it is cut off after {size} bytes")
                break
    except errors as error:
        raise UndecodableError(f"after {size} bytes: {error}") from error
    return b"".join(pieces)


CODINGS: dict[str, Callable[[bytes, int, bool], bytes]] = {
    "gzip": gunzip,
    "x-gzip": gunzip,
    "deflate": deflate,
    "br": unbrotli,
    "zstd": unzstd,
}
