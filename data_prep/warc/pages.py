"""WARC files to web pages, WET files to their texts. What is damaged is told of, place by place."""

import dataclasses
import functools
import re
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from data_prep.documents import Damage, WebPage
from data_prep.warc.byte_sources import FileBytes
from data_prep.warc.damage import (
    BAD_HTTP_HEADER,
    BAD_WARC_HEADER,
    DAMAGED_MEMBER,
    SEGMENTED,
    TOO_LARGE,
    UNDECODABLE,
    WRONG_BLOCK,
    WRONG_PAYLOAD,
)
from data_prep.warc.digests import digest_holds
from data_prep.warc.headers import Headers
from data_prep.warc.http_response import (
    BodyTooLargeError,
    Response,
    UndecodableError,
    decode_body,
    parse_response,
)
from data_prep.warc.record import MAX_BLOCK_BYTES, MAX_HEAD_BYTES, MAX_PAGE_BYTES, Record
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
"""Why a record is passed over without a trace but its count: it is sound, but neither a page nor a text."""
USUAL_HEAD_BYTES = 8 << 10
LOOKED_AT = 2 << 10  # bytes of a body, as it came, by which a page without a type is told; a browser looks at 1,445
# How HTML begins, by the table of the MIME Sniffing standard (mimesniff.spec.whatwg.org, "matching a MIME type pattern"
# of unknown types); a byte order mark may come before, and any white space may end the tag.
BEGINS_AS_HTML = re.compile(
    rb"(?:\xef\xbb\xbf)?[\t\n\f\r ]*<"
    rb"(?:!--|(?:!DOCTYPE HTML|HTML|HEAD|SCRIPT|IFRAME|H1|DIV|FONT|TABLE|A|STYLE|TITLE|B|BODY|BR|P)[\t\n\f\r >])",
    re.IGNORECASE,
)

OnDamage = Callable[[Damage], None]


class DamagedError(Exception):
    """A record that is not passed on; `reason` is one of damage's names."""

    def __init__(self, reason: str, detail: str):
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


def read(
    page_of: Callable[[Record, str], WebPage | str],
    path: Place | str,
    on_damage: OnDamage | None = None,
    counts: Counter[str] | None = None,
    name: str | None = None,
    version: Object | None = None,
) -> Iterator[WebPage]:
    """What `page_of` makes of the records of one file, in its order; see `read_pages`.

    What is damaged, clipped, too large or undecodable is skipped, each place after a call of `on_damage`. `counts` has
    at the end how many records were seen, by outcome: KEPT, one of SKIPPED, or the damage's reason; nothing is left
    out without one. Pages call the file by `name`, its path if it is not given, and themselves by their WARC-Record-ID
    or else `NAME/OFFSET`. A file that lies elsewhere is streamed; it must be the `version` that was listed, if one is
    given.

    Raises InputError if the file cannot be read, or nothing in it looks like a WARC record.
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
    """The pages of what lies in `file`, as `read_pages`; `start` is where in the archive that is. Where nothing looks
    like a WARC record, what it begins with instead."""
    seen = Counter() if counts is None else counts

    def tell(damage: Damage) -> None:
        seen[damage.reason] += 1
        if on_damage:
            on_damage(damage)

    reader = RecordReader(FileBytes(file), tell)
    for record in reader.records():
        try:
            outcome = page_of(record, name)
        except DamagedError as error:
            tell(Damage(record.offset, error.reason, error.detail))
            continue
        if isinstance(outcome, str):
            seen[outcome] += 1
        else:
            seen[KEPT] += 1
            yield outcome if outcome.id else dataclasses.replace(outcome, id=f"{name}/{record.place(start)}")
    return None if reader.is_warc else reader.lead


REMEDY = ". Give WARC files (.warc, .warc.gz, .warc.zst); is it a web archive at all?"
REMEDIES = {
    b"file": ": it looks like ARC, the format before WARC. Convert it with `warcio recompress`.",
    b"\x04\x22\x4d\x18": ": it is compressed with lz4. Uncompress it, or compress it with gzip or zstd.",
}


def page_of_response(record: Record, file_path: str) -> WebPage | str:
    """The page in a response record, or the name of why it is none. Raises DamagedError.

    Where the gzip member's checksum speaks for the record, no more than its head is read of what is no page.
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
    if response.media_type not in ("", *HTML_TYPES):  # one that names another type keeps its parameters alone
        content_type = "".join([HTML_TYPES[0], *content_type.partition(";")[1:]])
    page = web_page(headers, content_type, body, file_path)
    return dataclasses.replace(page, xhtml=media_type_of(record, response) == XHTML)


def media_type_of(record: Record, response: Response) -> str:
    """As the crawler identified it, else as the server called it; "" where neither did."""
    identified = record.headers.get(b"warc-identified-payload-type").partition(";")[0].strip().lower()
    return identified or response.media_type


def is_html(record: Record, response: Response) -> bool:
    """Whether a response is a page: as the crawler identified it, else as the server called it, else as it begins."""
    if media_type := media_type_of(record, response):
        return media_type in HTML_TYPES
    begin = record.first(response.size + LOOKED_AT)[response.size :]
    try:
        _, decoded = decode_body(begin, response, MAX_PAGE_BYTES, whole=False)
    except (UndecodableError, BodyTooLargeError):
        return False
    return BEGINS_AS_HTML.match(decoded) is not None


def page_of_text(record: Record, file_path: str) -> WebPage | str:
    """The text in a conversion record, as `page_of_response`."""
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
"""The HTML pages of one WARC file: successful responses, content and transfer codings removed. What is HTML is decided
by the crawler's WARC-Identified-Payload-Type, else by the HTTP Content-Type, else by how the body begins."""
read_texts = functools.partial(read, page_of_text)
"""The texts of one WET file: its conversion records, the body UTF-8 and the type text/plain."""


def whole_block(record: Record) -> bytes:
    if record.length > MAX_BLOCK_BYTES:
        raise DamagedError(TOO_LARGE, f"a record of {record.length} bytes; {MAX_BLOCK_BYTES} are read")
    return record.block()


def raise_unless_block_holds(record: Record) -> None:
    """Of a record of whatever kind for which no gzip checksum speaks: its block digest must hold.

    If it has none, nothing is known in an uncompressed file; in a member whose checksum is wrong it cannot be believed.
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
    """The block digest must hold if there is one, else the payload digest, if there is one.

    Crawlers do not agree on what a payload is: as it came, without its transfer coding, or without its content coding
    too.
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
    """WARC-Date in UTC, or "" when it is none."""
    try:
        date = datetime.fromisoformat(written)
        if written.endswith("Z"):
            return written
        return date.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if date.tzinfo else written
    except (ValueError, OverflowError):  # in UTC it may be before the year 1, or after 9999
        return ""
