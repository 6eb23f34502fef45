"""Endless inputs are stopped by limits on bytes read and unpacked, even if they never yield a page."""

import contextlib
import gzip
import json
from collections.abc import Generator, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from data_prep.config import EngineConfig
from data_prep.measure.run import extract_texts
from data_prep.sources import InputFile
from data_prep.warc import write_pages
from lm.storage import MeteredFile, Place, Url, metered
from tests.data_prep.measured import CONFIG
from tests.data_prep.pages import PROSE, html, page
from tests.loopback_server import listening, start

LIMIT = 300_000
CLAIMED = 1 << 40
RECORD = b"WARC/1.0\r\nWARC-Type: metadata\r\nWARC-Record-ID: <urn:x:1>\r\nContent-Length: %d\r\n\r\n"


def skipped_records() -> bytes:
    """Valid records without a page, 2 MB in a few kB."""
    one = gzip.compress(RECORD % 100_000 + bytes(100_000) + b"\r\n\r\n", mtime=0)
    return one * 20


def uncompressed_records() -> bytes:
    return (RECORD % 10_000 + bytes(10_000) + b"\r\n\r\n") * 100


def bomb() -> bytes:
    """One record of 10 MB, larger than the pieces that are unpacked."""
    return gzip.compress(RECORD % 10_000_000 + bytes(10_000_000) + b"\r\n\r\n", mtime=0)


def empty_lines() -> bytes:
    return b"\n" * 2_000_000


def empty_members() -> bytes:
    """Empty gzip members: the number of unpacked bytes never grows."""
    return gzip.compress(b"", mtime=0) * 20_000


def endless(request: BaseHTTPRequestHandler) -> None:
    """Send empty lines until the client closes the connection."""
    status, size, headers = 200, CLAIMED, {"ETag": '"1"'}
    if request.command == "GET":
        begin, end = (int(part) for part in request.headers["Range"].removeprefix("bytes=").split("-"))
        status, size, headers = 206, end + 1 - begin, headers | {"Content-Range": f"bytes {begin}-{end}/{CLAIMED}"}
    start(request, status, headers | {"Content-Length": str(size)})
    if request.command == "GET":
        request.wfile.write(b"\n" * size)


@contextlib.contextmanager
def serving_without_end() -> Generator[Url]:
    with listening(endless) as address:
        yield Url(f"{address}/endless.jsonl")


def set_aside(place: Place, kind: str, size: int, folder: Path) -> str:
    """Return the error of a file that is extracted together with a good one."""
    write_pages(folder / "good.warc.gz", [page(html(PROSE))])
    good = InputFile(folder / "good.warc.gz", "good.warc.gz", "warc", 1)
    extract_texts(
        [good, InputFile(place, place.name, kind, size)], CONFIG, folder / "out",
        engine=EngineConfig(max_unit_bytes=LIMIT, max_failed=0.5),
    )  # fmt: skip
    (record,) = (folder / "out/quarantine/texts").iterdir()
    found = json.loads(record.read_text())
    assert found["attempts"] == 1 and "TooManyBytesError" in found["traceback"]
    return found["error"]


@pytest.mark.parametrize(
    ("contents", "name", "said"),
    [
        (skipped_records, "x.warc.gz", "bytes were unpacked from"),
        (uncompressed_records, "x.warc", "bytes were read, more than engine.max_unit_bytes = 300,000"),
        (bomb, "x.warc.gz", "bytes were unpacked from"),
        (empty_lines, "x.jsonl", "bytes were read, more than engine.max_unit_bytes = 300,000"),
        (lambda: gzip.compress(empty_lines(), mtime=0), "x.jsonl.gz", "bytes were unpacked from"),
        (empty_members, "x.jsonl.gz", "bytes were read, more than engine.max_unit_bytes = 300,000"),
    ],
    ids=["skipped records", "uncompressed", "bomb", "empty lines", "empty lines, gzip", "empty members"],
)
def test_a_file_without_pages_is_stopped_by_its_bytes(contents, name, said, tmp_path):
    path, data = tmp_path / name, contents()
    path.write_bytes(data)
    assert said in set_aside(path, "warc" if "warc" in name else "table", len(data), tmp_path)


def test_an_endless_web_response_is_stopped_by_its_bytes(tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("lm.storage.ranges.BLOCK", 1 << 18)
    with serving_without_end() as url:
        assert "bytes were read" in set_aside(url, "table", CLAIMED, tmp_path)


def test_bytes_are_reported_only_on_request(tmp_path):
    (tmp_path / "file").write_bytes(b"0123456789")
    heard: list[tuple[int, int]] = []

    def pieces() -> Iterator[bytes]:
        with MeteredFile((tmp_path / "file").open("rb", buffering=0)) as file:
            yield file.read(4)
            yield file.read(100)

    reader = pieces()
    with metered(lambda read, unpacked: heard.append((read, unpacked))):
        assert next(reader) == b"0123"
    assert next(reader) == b"456789" and heard == [(4, 0)]
