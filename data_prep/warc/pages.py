"""Read web pages from WARC files and texts from WET files. Every damaged place is reported."""

import dataclasses
import functools
import re
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from data_prep.documents import Damage, OnDamage, WebPage
from data_prep.warc.byte_sources import DamagedError, FileBytes
from data_prep.warc.http_response import BodyTooLargeError, Response, UndecodableError, decode_body, parse_response
from data_prep.warc.record import (
    BAD_HTTP_HEADER,
    BAD_WARC_HEADER,
    DAMAGED_MEMBER,
    MAX_BLOCK_BYTES,
    MAX_HEAD_BYTES,
    MAX_PAGE_BYTES,
    SEGMENTED,
    TOO_LARGE,
    UNDECODABLE,
    WRONG_BLOCK,
    WRONG_PAYLOAD,
    Headers,
    Record,
    digest_holds,
)
from data_prep.warc.records import RecordReader
from lm.errors import InputError
from lm.storage import Place, is_url, place_of, streamed
from lm.storage.objects import Object

XHTML = "application/xhtml+xml"
HTML_TYPES = ("text/html", XHTML)
KEPT = "kept"
NOT_A_RESPONSE, NOT_HTTP, NOT_A_SUCCESS, NOT_HTML = "not_a_response", "not_http", "not_a_success", "not_html"
NOT_A_TEXT = "not_a_text"
SKIPPED = (NOT_A_RESPONSE, NOT_HTTP, NOT_A_SUCCESS, NOT_HTML, NOT_A_TEXT)
"""Reasons to skip an undamaged record that is neither a page nor a text. Such records are only counted."""
USUAL_HEAD_BYTES = 8 << 10
LOOKED_AT = 2 << 10  # bytes of an undecoded body to detect HTML without a media type; browsers read 1,445
# Start of HTML by the MIME Sniffing standard (mimesniff.spec.whatwg.org, table of "identifying a resource with an
# unknown MIME type"). A byte order mark may precede it, and any white space may end the tag.
BEGINS_AS_HTML = re.compile(
    rb"(?:\xef\xbb\xbf)?[\t\n\f\r ]*<"
    rb"(?:!--|(?:!DOCTYPE HTML|HTML|HEAD|SCRIPT|IFRAME|H1|DIV|FONT|TABLE|A|STYLE|TITLE|B|BODY|BR|P)[\t\n\f\r >])",
    re.IGNORECASE,
)


def read(
    page_of: Callable[[Record, str], WebPage | str],
    path: Place | str,
    on_damage: OnDamage | None = None,
    counts: Counter[str] | None = None,
    name: str | None = None,
    version: Object | None = None,
) -> Iterator[WebPage]:
    """Yield the pages that `page_of` returns for the records of a WARC file, as `read_pages` and `read_texts` do.

    Damaged, truncated, too large or undecodable records are skipped and reported to `on_damage`, once per damaged
    place. At the end, `counts` has the number of records by outcome: KEPT, one of SKIPPED, or the reason of the damage.
    A page's file_path is `name`, by default the path; its id is the WARC-Record-ID or else NAME/OFFSET. Remote files
    are streamed, and must be the listed `version` if it is given.

    Raises InputError if the file cannot be read, or contains nothing that looks like a WARC record.
    """
    place = Path(path) if isinstance(path, str) and not is_url(path) else place_of(path)
    try:
        with streamed(place, version) as file:
            lead = yield from pages_in(file, name or str(path), page_of, on_damage, counts)
    except OSError as error:
        raise InputError(
            f"The WARC file {path} cannot be read: {error.strerror or error}. Check the path and its permissions."
        ) from error
    if lead is not None:
        raise InputError(f"{path} holds no WARC record{REMEDIES.get(lead[:4], REMEDY)}")


def pages_in(
    file: BinaryIO,
    name: str,
    page_of: Callable[[Record, str], WebPage | str],
    on_damage: OnDamage | None,
    counts: Counter[str] | None,
    start: int = 0,
) -> Generator[WebPage, None, bytes | None]:
    """Yield the pages in an open `file`, as in `read`; `start` is the position of its first byte in the archive. The
    generator returns None, or the file's first bytes if nothing in it looks like a WARC record."""
    seen = Counter() if counts is None else counts

    def report(damage: Damage) -> None:
        seen[damage.reason] += 1
        if on_damage:
            on_damage(damage)

    reader = RecordReader(FileBytes(file), report)
    for record in reader.records():
        try:
            outcome = page_of(record, name)
        except DamagedError as error:
            report(Damage(record.offset, error.reason, error.detail))
            continue
        if isinstance(outcome, str):
            seen[outcome] += 1
        else:
            seen[KEPT] += 1
            yield outcome if outcome.id else dataclasses.replace(outcome, id=f"{name}/{record.place(start)}")
    return None if reader.is_warc else reader.lead


REMEDY = ". Give WARC files (.warc, .warc.gz, .warc.zst); is this a web archive?"
REMEDIES = {
    b"file": ": it looks like ARC, the format before WARC. Convert it with `warcio recompress`.",
    b"\x04\x22\x4d\x18": ": it is compressed with lz4. Uncompress it, or compress it with gzip or zstd.",
}


def page_of_response(record: Record, file_path: str) -> WebPage | str:
    """Return the HTML page in a response record or, if it has none, the reason in SKIPPED. Raises DamagedError.

    If a gzip checksum has verified a record that has no page, only its headers are read.
    """
    if record.checksum != "valid":
        raise_unless_block_holds(record)
    if record.kind != "response":
        return NOT_A_RESPONSE
    headers = record.headers
    if not headers.get(b"content-type").lower().startswith("application/http") and record.first(5) != b"HTTP/":
        return NOT_HTTP
    response = parse_response(record.first(USUAL_HEAD_BYTES)) or parse_response(record.first(MAX_HEAD_BYTES))
    if response is None:
        raise DamagedError(BAD_HTTP_HEADER, f"the response begins with {record.first(64)!r}")
    if not 200 <= response.status < 300:
        return NOT_A_SUCCESS
    if not is_html(record, response):
        return NOT_HTML
    if headers.get(b"warc-segment-number"):
        raise DamagedError(SEGMENTED, "the page is split over several records")
    block = whole_block(record)
    coded = block[response.size :]
    try:
        unchunked, body = decode_body(coded, response, MAX_PAGE_BYTES, whole=not headers.get(b"warc-truncated"))
    except UndecodableError as error:
        raise_unless_digests_hold(record, headers, coded)
        raise DamagedError(UNDECODABLE, str(error)) from error
    except BodyTooLargeError as error:
        raise DamagedError(TOO_LARGE, str(error)) from error
    raise_unless_digests_hold(record, headers, coded, unchunked, body)
    content_type = response.headers.get(b"content-type")
    if response.media_type not in ("", *HTML_TYPES):  # of another media type, keep only the parameters
        content_type = "".join([HTML_TYPES[0], *content_type.partition(";")[1:]])
    page = web_page(headers, content_type, body, file_path)
    return dataclasses.replace(page, xhtml=media_type_of(record, response) == XHTML)


def media_type_of(record: Record, response: Response) -> str:
    """Return the media type that the crawler identified, or else that of the server's Content-Type, or else ""."""
    identified = record.headers.get(b"warc-identified-payload-type").partition(";")[0].strip().lower()
    return identified or response.media_type


def is_html(record: Record, response: Response) -> bool:
    """Whether a response is an HTML page, by `media_type_of`, or, if that is "", by the start of the body."""
    if media_type := media_type_of(record, response):
        return media_type in HTML_TYPES
    begin = record.first(response.size + LOOKED_AT)[response.size :]
    try:
        _, decoded = decode_body(begin, response, MAX_PAGE_BYTES, whole=False)
    except (UndecodableError, BodyTooLargeError):
        return False
    return BEGINS_AS_HTML.match(decoded) is not None


def page_of_text(record: Record, file_path: str) -> WebPage | str:
    """Return the text in a conversion record as a page, or NOT_A_TEXT for other records. Raises DamagedError."""
    if record.checksum != "valid":
        raise_unless_block_holds(record)
    if record.kind != "conversion":
        return NOT_A_TEXT
    headers = record.headers
    if not headers.get(b"content-type").lower().startswith("text/plain"):
        return NOT_A_TEXT
    block = whole_block(record)
    raise_unless_digests_hold(record, headers, block)
    return web_page(headers, "text/plain", block, file_path)


read_pages = functools.partial(read, page_of_response)
"""Yield the HTML pages of one WARC file: successful responses, with content and transfer codings removed. Pages are
HTML by the crawler's WARC-Identified-Payload-Type, or else the HTTP Content-Type, or else the start of the body."""
read_texts = functools.partial(read, page_of_text)
"""Yield the texts of one WET file: its conversion records, as UTF-8 bodies of type text/plain."""


def whole_block(record: Record) -> bytes:
    if record.length > MAX_BLOCK_BYTES:
        raise DamagedError(TOO_LARGE, f"a record of {record.length} bytes; the limit is {MAX_BLOCK_BYTES}")
    return record.block()


def raise_unless_block_holds(record: Record) -> None:
    """Raise DamagedError if the WARC-Block-Digest of a record without a valid gzip checksum does not match.

    A record without a digest is accepted in an uncompressed file, but not in a member with a wrong checksum.
    """
    if record.kind == "request" and record.first(5) == b"HTTP/":
        raise DamagedError(BAD_WARC_HEADER, "a request that reads as a response: the heads of two records, joined")
    if record.length > MAX_BLOCK_BYTES:
        return  # never passed on
    holds = record.block_digest_holds()
    if holds is None and record.checksum == "broken":
        raise DamagedError(DAMAGED_MEMBER, "the checksum of the gzip member is wrong, and the record has no digest")
    if holds is False:
        raise_wrong_block(record)


def raise_unless_digests_hold(record: Record, headers: Headers, *payloads: bytes) -> None:
    """Raise DamagedError if the block digest is wrong, or, if there is none, the payload digest matches none of
    `payloads`.

    Crawlers disagree about what the payload is: the body as received, without transfer coding, or also without content
    codings.
    """
    holds = record.block_digest_holds()
    if holds is False:
        raise_wrong_block(record)
    forms = (lambda payload=payload: payload for payload in payloads)
    if holds is None and digest_holds(headers.get(b"warc-payload-digest"), *forms) is False:
        raise DamagedError(WRONG_PAYLOAD, f"{headers.get(b'warc-payload-digest')[:80]} is not the payload's")


def raise_wrong_block(record: Record) -> None:
    raise DamagedError(WRONG_BLOCK, f"{record.headers.get(b'warc-block-digest')[:80]} is not the block's")


def web_page(headers: Headers, content_type: str, body: bytes, file_path: str) -> WebPage:
    url = headers.get(b"warc-target-uri").strip("<>")
    if not url:
        raise DamagedError(BAD_WARC_HEADER, "no WARC-Target-URI")
    date = date_in_utc(headers.get(b"warc-date"))
    return WebPage(url, headers.get(b"warc-record-id"), date, content_type, body, file_path)


def date_in_utc(written: str) -> str:
    """Convert a WARC-Date with a time zone to UTC; one without is unchanged, and an invalid one becomes ""."""
    try:
        date = datetime.fromisoformat(written)
        if written.endswith("Z"):
            return written
        return date.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if date.tzinfo else written
    except (ValueError, OverflowError):  # UTC may be before the year 1 or after 9999
        return ""
