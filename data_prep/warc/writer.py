"""Write web pages to a WARC file (ISO 28500, version 1.1). Equal pages give equal bytes.

A WARC record is a few header lines and a block; each record is a separate gzip member.
"""

import gzip
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

from data_prep.documents import WebPage
from data_prep.warc.pages import XHTML
from data_prep.warc.record import sha1_digest
from lm.storage import appearing, writing

EPOCH = "1970-01-01T00:00:00Z"
COMPRESSION = 6  # gzip's default; 9 takes twice as long for 1 % smaller files


def record_id(url: str, kind: str) -> str:
    """Return a WARC-Record-ID, the same in every run, for a record of `url` of a `kind` ("request", "response", …)."""
    return f"<urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, f'{kind} {url}')}>"


def write_pages(path: Path, pages: Iterable[WebPage]) -> None:
    """Write a WARC file atomically: a warcinfo record, then a request, a response and a metadata record per page.

    The metadata record has page.file_path, the origin of the page. Equal pages give equal bytes. Raises InputError if
    the file cannot be written.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with appearing(path, path.parent) as partial, partial.open("wb") as file:
            info_id = record_id(path.name, "warcinfo")
            for number, page in enumerate(pages):
                if number == 0:
                    file.write(info_record(path.name, info_id, page.date))
                for record in records_of_page(page, info_id):
                    file.write(record)
            if file.tell() == 0:
                file.write(info_record(path.name, info_id, EPOCH))


def info_record(file_name: str, info_id: str, date: str) -> bytes:
    headers = {"WARC-Type": "warcinfo", "WARC-Record-ID": info_id, "WARC-Date": date, "WARC-Filename": file_name}
    fields = b"software: gristmill\r\nformat: WARC File Format 1.1\r\n"
    return record_bytes(headers, "application/warc-fields", b"", fields)


def records_of_page(page: WebPage, info_id: str) -> Iterator[bytes]:
    """Yield the request, response and metadata records of a page. `info_id` is the id of the file's warcinfo record."""
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
    identified = {}
    if page.xhtml != (page.content_type.partition(";")[0].strip().lower() == XHTML):
        identified = {"WARC-Identified-Payload-Type": XHTML if page.xhtml else "text/html"}
    yield record_bytes(
        {**of("response"), "WARC-Record-ID": response_id, **identified},
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
    """Return header lines, followed by an empty line, as bytes. Line breaks within a value become blanks, so that a
    value cannot start another header."""
    return "".join(" ".join(line.splitlines()) + "\r\n" for line in [*lines, ""]).encode()


def record_bytes(headers: dict[str, str], content_type: str, http: bytes, payload: bytes) -> bytes:
    """Return a record as a gzip member: `headers` plus digests and length, the HTTP headers `http`, and `payload`."""
    block = http + payload
    lines = [f"{name}: {value}" for name, value in headers.items()]
    lines.append(f"Content-Type: {content_type}")
    lines.append(f"WARC-Block-Digest: {sha1_digest(block)}")
    if http:
        lines.append(f"WARC-Payload-Digest: {sha1_digest(payload)}")
    lines.append(f"Content-Length: {len(block)}")
    return gzip.compress(http_headers(["WARC/1.1", *lines]) + block + b"\r\n\r\n", COMPRESSION, mtime=0)
