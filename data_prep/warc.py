"""WARC files (ISO 28500, version 1.1) to web pages and back.

Reading is FastWARC's. Writing is ours, so that the same pages give the same bytes: a WARC record is a few header lines
and a block, each record its own gzip member.
"""

import base64
import gzip
import hashlib
import mmap
import re
import uuid
import zlib
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from data_prep.documents import WebPage
from lm.errors import InputError

if TYPE_CHECKING:
    from fastwarc.warc import WarcRecord

HTML_TYPES = ("text/html", "application/xhtml+xml")
RECORD_START = re.compile(rb"\x1f\x8b\x08|(?<=\r\n\r\n)WARC/")  # a gzip member, or an uncompressed record
EPOCH = "1970-01-01T00:00:00Z"
MAX_PAGE_BYTES = 64_000_000
"""Bytes of one page, as it came and decoded, that are read: bounds the memory, whatever a file unpacks to."""
MAX_HEAD_BYTES = 64 << 10  # of HTTP headers; FastWARC itself takes no line above half of that
CHUNK = 1 << 20
DIGESTS = ("md5", "sha1", "sha256", "sha512")
COMPRESSION = 6  # gzip's own default; 9 takes twice the time for 1 % less


def read_pages(path: Path | str, on_damage: Callable[[int], None] | None = None) -> Iterator[WebPage]:
    """The HTML pages of one WARC file, in its order: successful responses, content and transfer encodings removed.

    Damaged, clipped and undecodable responses are skipped, each after a call of `on_damage` with the byte offset of its
    record; where the file itself breaks, with that of the last record before. Responses without an address or an id are
    skipped without. A page of more than MAX_PAGE_BYTES, as it came or decoded, is cut to one byte above: extraction
    refuses it by name. Raises InputError when the file cannot be read or holds no WARC record at all.
    """
    from fastwarc.warc import ArchiveIterator, WarcRecordType

    path, told = Path(path), set()

    def tell(position: int) -> None:
        if on_damage and position not in told:
            told.add(position)
            on_damage(position)

    found_any, response, start = False, WarcRecordType.response, 0
    try:
        with path.open("rb") as stream:
            # After damage FastWARC cannot go on by itself, so each try starts at the next place where one may begin.
            # This is a simple resync: what the damage hides from `next_record` stays lost.
            while start >= 0:
                stream.seek(start)
                last, found = start, False
                try:
                    for record in ArchiveIterator(stream, parse_http=False, fsspec_args=False):
                        found_any = found = True
                        last = record.stream_pos
                        if record.record_type != response or not record.is_http:
                            continue
                        page = page_of_response(record, str(path), tell)
                        if page is not None:
                            yield page
                    if on_damage and breaks_off(path, last):
                        tell(last)
                    break
                except OSError:
                    if found:  # else a try within the same damage
                        tell(last)
                    start = next_record(path, last + 1)
    except OSError as error:
        raise InputError(
            f"The WARC file {path} cannot be read: {error.strerror or error}. Check the path and its permissions."
        ) from error
    if not found_any:
        raise InputError(f"{path} holds no WARC record. Give WARC files (.warc, .warc.gz); is it a web archive at all?")


def next_record(path: Path, start: int) -> int:
    """The first offset from `start` on at which a record may begin, or -1."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        found = RECORD_START.search(data, start)
        return found.start() if found else -1


def breaks_off(path: Path, start: int) -> bool:
    """Whether the file ends within a gzip member, at or after the one at `start`: FastWARC takes that for the end."""
    with path.open("rb") as file:
        file.seek(start)
        try:
            with gzip.GzipFile(fileobj=file) as members:
                while members.read(CHUNK):
                    pass
        except EOFError:
            return True
        except (OSError, zlib.error):  # no gzip at all, or other damage
            return False
    return False


def page_of_response(record: "WarcRecord", file_path: str, tell: Callable[[int], None]) -> WebPage | None:
    """The page in a response record, or None when it is not HTML, not a success, or, which `tell` hears, not whole.

    Reads no more of the block than its head until that says that the rest is wanted. Raises OSError when the block
    cannot be decompressed.
    """
    block = read_up_to(record, MAX_HEAD_BYTES)
    try:
        head = http_response(block, "none")
    except OSError:
        tell(record.stream_pos)
        return None
    status, content_type = head.http_headers.status_code, (head.http_content_type or "").lower()
    url, page_id = (record.headers.get("WARC-Target-URI") or "").strip("<>"), record.record_id
    if content_type not in HTML_TYPES or (status is not None and not 200 <= status < 300) or not url or not page_id:
        return None
    block += read_up_to(record, MAX_HEAD_BYTES + MAX_PAGE_BYTES + 1 - len(block))
    # What is cut is left encoded: half of it may decode to little, which would pass for a whole page.
    cut = len(block) > MAX_HEAD_BYTES + MAX_PAGE_BYTES
    whole = len(block) == record.content_length and digest_holds(record.headers.get("WARC-Block-Digest") or "", block)
    try:
        body = read_up_to(http_response(block, "none" if cut else "all"), MAX_PAGE_BYTES + 1) if cut or whole else None
    except OSError:
        body = None
    if body is None:
        tell(record.stream_pos)
        return None
    return WebPage(
        url=url,
        id=page_id,
        date=date_of(record),
        content_type=head.http_headers.get("Content-Type") or "",
        body=body,
        file_path=file_path,
    )


def read_up_to(record: "WarcRecord", size: int) -> bytes:
    """The next bytes of the record's block or body, fewer than `size` only at its end."""
    chunks = []
    while size > 0 and (chunk := record.reader.read(min(size, CHUNK))):
        chunks.append(chunk)
        size -= len(chunk)
    return b"".join(chunks)


def http_response(block: bytes, decode: Literal["none", "all"]) -> "WarcRecord":
    """`block` with its HTTP headers parsed, ready to read the body. Raises OSError when it has none.

    A record of its own: FastWARC loses its place in the file when a decoded body is not read to its end.
    """
    from fastwarc.warc import WarcRecord

    record = WarcRecord()
    record.set_bytes_content(block)
    record.is_http = True
    record.parse_http(auto_decode=decode)
    if record.http_headers is None:
        raise OSError("no HTTP headers")
    return record


def digest_holds(written: str, block: bytes) -> bool:
    """Whether a WARC-Block-Digest is the block's; also when there is none, or one of a kind that we do not know.

    Checked wherever it is written, also in gzip files: FastWARC meets the checksum of a gzip member after the block,
    when the page may be gone already. Crawlers write base 32 or hex, in either case.
    """
    algorithm, _, value = written.strip().lower().replace("-", "").partition(":")
    value = value.strip().rstrip("=")
    if algorithm not in DIGESTS:
        return True
    digest = hashlib.new(algorithm, block, usedforsecurity=False).digest()
    forms = digest.hex(), base64.b32encode(digest).decode().lower().rstrip("=")
    return value in forms or len(value) not in map(len, forms)


def date_of(record: "WarcRecord") -> str:
    """WARC-Date in UTC, or "" when it is none."""
    date, written = record.record_date, record.headers.get("WARC-Date") or ""
    if date is None or written.endswith("Z"):
        return written if date else ""
    try:
        return date.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except OverflowError:  # in UTC it would be before the year 1, or after 9999
        return ""


def record_id(url: str, kind: str) -> str:
    """The WARC-Record-ID of the `kind` record of `url`: a function of both, so that ids are the same in every run."""
    return f"<urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, f'{kind} {url}')}>"


def write_pages(path: Path, pages: Iterable[WebPage]) -> None:
    """Writes a WARC file: a warcinfo record, then a request, a response and a metadata record for each page.

    The metadata record names page.file_path, where the page was taken from. The same pages give the same bytes. The
    file appears whole or not at all. Raises InputError when it cannot be written.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            info_id = record_id(path.name, "warcinfo")
            for number, page in enumerate(pages):
                if number == 0:
                    file.write(info_record(path.name, info_id, page.date))
                for record in records_of_page(page, info_id):
                    file.write(record)
            if file.tell() == 0:
                file.write(info_record(path.name, info_id, EPOCH))
        partial.replace(path)
    except OSError as error:
        raise InputError(
            f"{path} cannot be written: {error.strerror or error}. Make room on the disk, or mend the permissions."
        ) from error


def info_record(file_name: str, info_id: str, date: str) -> bytes:
    headers = {"WARC-Type": "warcinfo", "WARC-Record-ID": info_id, "WARC-Date": date, "WARC-Filename": file_name}
    fields = b"software: gristmill\r\nformat: WARC File Format 1.1\r\n"
    return record_bytes(headers, "application/warc-fields", b"", fields)


def records_of_page(page: WebPage, info_id: str) -> Iterator[bytes]:
    """The request, response and metadata records of one page."""
    address = urlsplit(page.url)
    target = (address.path or "/") + (f"?{address.query}" if address.query else "")
    response_id = page.id or record_id(page.url, "response")
    common = {"WARC-Date": page.date, "WARC-Target-URI": page.url, "WARC-Warcinfo-ID": info_id}

    def of(kind: str) -> dict[str, str]:
        return {"WARC-Type": kind, "WARC-Record-ID": record_id(page.url, kind), **common}

    request = http_headers([f"GET {target} HTTP/1.1", f"Host: {address.netloc}"])
    yield record_bytes(
        {**of("request"), "WARC-Concurrent-To": response_id}, "application/http; msgtype=request", request, b""
    )
    status = ["HTTP/1.1 200 OK", f"Content-Type: {page.content_type}", f"Content-Length: {len(page.body)}"]
    yield record_bytes(
        {**of("response"), "WARC-Record-ID": response_id},
        "application/http; msgtype=response",
        http_headers(status),
        page.body,
    )
    yield record_bytes(
        {**of("metadata"), "WARC-Refers-To": response_id},
        "application/warc-fields",
        b"",
        http_headers([f"via: {page.file_path}"])[:-2],
    )


def http_headers(lines: list[str]) -> bytes:
    """Header lines and the empty line after them; a line break inside a value cannot begin another header."""
    return "".join(" ".join(line.splitlines()) + "\r\n" for line in [*lines, ""]).encode()


def record_bytes(headers: dict[str, str], content_type: str, http: bytes, payload: bytes) -> bytes:
    """One record as a gzip member of its own: WARC headers with digests, the HTTP headers, the payload."""
    block = http + payload
    lines = [f"{name}: {value}" for name, value in headers.items()]
    lines.append(f"Content-Type: {content_type}")
    lines.append(f"WARC-Block-Digest: {sha1_digest(block)}")
    if http:
        lines.append(f"WARC-Payload-Digest: {sha1_digest(payload)}")
    lines.append(f"Content-Length: {len(block)}")
    return gzip.compress(http_headers(["WARC/1.1", *lines]) + block + b"\r\n\r\n", COMPRESSION, mtime=0)


def sha1_digest(data: bytes) -> str:
    """ "sha1:" and the SHA-1 in base 32, the form that crawlers write and readers check."""
    return "sha1:" + base64.b32encode(hashlib.sha1(data, usedforsecurity=False).digest()).decode()
