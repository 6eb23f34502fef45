"""WARC: what is written is read back, by us and by FastWARC's own checks; what is damaged is skipped, and no more."""

import dataclasses
import gzip
import hashlib
import random
import re
import subprocess
import sys
import zlib
from pathlib import Path

import brotli
import pytest
from fastwarc.warc import ArchiveIterator
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.demo import get_config
from data_prep import extract, warc
from data_prep.documents import WebPage
from data_prep.warc import read_pages, record_bytes, record_id, sha1_digest, write_pages
from lm.errors import InputError

SAMPLES = Path(__file__).parents[2] / "../shared/data/warc"
needs_samples = pytest.mark.skipif(not SAMPLES.is_dir(), reason="the sample WARC files of shared/data are not here")


def page(number: int, body: bytes | None = None) -> WebPage:
    url = f"https://site.example/päge {number}?q=a&b=ü"
    return WebPage(
        url=url,
        id=record_id(url, "response"),
        date="2024-05-06T07:08:09Z",
        content_type="text/html; charset=utf-8",
        body=f"<p>page {number} ".encode() + b"x" * 500 if body is None else body,
        file_path="archive.whl/page.txt",
    )


def filed(pages, path: Path) -> list[WebPage]:
    return [dataclasses.replace(p, file_path=str(path)) for p in pages]


def test_round_trip_keeps_every_field(tmp_path):
    pages, path = [page(n) for n in range(5)], tmp_path / "new folder" / "a.warc.gz"
    write_pages(path, pages)
    assert list(read_pages(path)) == filed(pages, path)
    assert not list(path.parent.glob("*.partial"))


@settings(max_examples=30, deadline=None)
@given(bodies=st.lists(st.binary(max_size=300), max_size=4))
def test_any_bytes_survive(tmp_path_factory, bodies):
    path = tmp_path_factory.getbasetemp() / "any.warc.gz"
    pages = [page(n, body) for n, body in enumerate(bodies)]
    write_pages(path, pages)
    assert list(read_pages(path)) == filed(pages, path)


def test_records_and_digests_hold_by_fastwarc(tmp_path):
    path = tmp_path / "a.warc.gz"
    write_pages(path, [page(0), page(1)])
    kinds, ids = [], set()
    for record in ArchiveIterator(str(path), parse_http=False, fsspec_args=False):
        kinds.append(record.headers["WARC-Type"])
        ids.add(record.record_id)
        is_http = record.headers["WARC-Type"] in ("request", "response")
        assert record.verify_block_digest(consume=not is_http)
        if is_http:
            record.parse_http()
            assert record.verify_payload_digest(consume=True)
    assert kinds == ["warcinfo", *["request", "response", "metadata"] * 2]
    assert len(ids) == 7


def test_same_pages_same_bytes_and_one_gzip_member_a_record(tmp_path):
    for name in ("one", "two"):
        write_pages(tmp_path / name / "a.warc.gz", [page(0), page(1)])
    one, two = ((tmp_path / name / "a.warc.gz").read_bytes() for name in ("one", "two"))
    assert one == two
    members = 0
    while one:
        member = zlib.decompressobj(wbits=31)
        member.decompress(one)
        one, members = member.unused_data, members + 1
    assert members == 7


def test_a_line_break_in_a_field_begins_no_header(tmp_path):
    path = tmp_path / "a.warc.gz"
    write_pages(path, [dataclasses.replace(page(0), content_type="text/html;\r\nContent-Encoding: gzip")])
    (read,) = read_pages(path)
    assert read.body == page(0).body


def response(body: bytes, http: str, warc: dict[str, str] | None = None) -> bytes:
    """A record as a crawler may have written it."""
    headers = {
        "WARC-Type": "response",
        "WARC-Record-ID": "<urn:uuid:00000000-0000-0000-0000-000000000001>",
        "WARC-Date": "2024-01-02T03:04:05Z",
        "WARC-Target-URI": "https://site.example/",
    } | (warc or {})
    block = http.replace("\n", "\r\n").encode() + b"\r\n\r\n"
    return record_bytes({k: v for k, v in headers.items() if v}, "application/http; msgtype=response", block, body)


def chunked(data: bytes) -> bytes:
    half = len(data) // 2
    pieces = [data[:half], data[half:], b""]
    return b"".join(f"{len(piece):x}\r\n".encode() + piece + b"\r\n" for piece in pieces)


HTML = b"<p>" + b"A page of some length. " * 40
OK = "HTTP/1.1 200 OK\nContent-Type: text/html"
ENCODINGS = {
    "plain": (HTML, OK),
    "gzip": (gzip.compress(HTML), OK + "\nContent-Encoding: gzip"),
    "deflate": (zlib.compress(HTML), OK + "\nContent-Encoding: deflate"),
    "br": (brotli.compress(HTML), OK + "\nContent-Encoding: br"),
    "chunked": (chunked(HTML), OK + "\nTransfer-Encoding: chunked"),
    "in capitals": (HTML, OK.replace("text/html", "TEXT/HTML; charset=UTF-8")),
    "chunked gzip": (chunked(gzip.compress(HTML)), OK + "\nTransfer-Encoding: chunked\nContent-Encoding: gzip"),
}


@pytest.mark.parametrize("name", ENCODINGS)
def test_encodings_are_removed(tmp_path, name):
    path = tmp_path / "a.warc.gz"
    path.write_bytes(response(*ENCODINGS[name]))
    (read,) = read_pages(path)
    assert read.body == HTML


SKIPPED = {
    "an image": (OK.replace("text/html", "image/png"), {}),
    "no content type": ("HTTP/1.1 200 OK\nServer: x", {}),
    "not found": (OK.replace("200 OK", "404 Not Found"), {}),
    "a redirect": (OK.replace("200 OK", "301 Moved"), {}),
    "a request": (OK, {"WARC-Type": "request"}),
    "a revisit": (OK, {"WARC-Type": "revisit"}),
    "without address": (OK, {"WARC-Target-URI": ""}),
    "without id": (OK, {"WARC-Record-ID": ""}),
}


@pytest.mark.parametrize("name", SKIPPED)
def test_skipped_but_what_follows_is_read(tmp_path, name):
    path, (http, warc) = tmp_path / "a.warc.gz", SKIPPED[name]
    path.write_bytes(response(HTML, http, warc) + response(HTML, OK.replace("text/html", "application/xhtml+xml")))
    (read,) = read_pages(path)
    assert read.content_type == "application/xhtml+xml"


def test_dates_become_utc_and_brackets_go(tmp_path):
    path = tmp_path / "a.warc.gz"
    odd = {"WARC-Date": "2024-01-02T03:04:05+02:00", "WARC-Target-URI": "<https://site.example/>"}
    path.write_bytes(response(HTML, OK, odd) + response(HTML, OK, {"WARC-Date": "yesterday"}))
    first, second = read_pages(path)
    assert (first.date, first.url) == ("2024-01-02T01:04:05Z", "https://site.example/")
    assert second.date == ""


@pytest.mark.parametrize("date", ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-12:00"])
def test_a_date_outside_of_time_is_none(tmp_path, date):
    path = tmp_path / "a.warc.gz"
    path.write_bytes(response(HTML, OK, {"WARC-Date": date}))
    (read,) = read_pages(path)
    assert (read.date, read.body) == ("", HTML)


def with_digest(digest: str) -> bytes:
    plain = gzip.decompress(response(HTML, OK))
    return re.sub(rb"(WARC-Block-Digest: )[^\r]*", rb"\1" + digest.encode(), plain)


BLOCK = OK.replace("\n", "\r\n").encode() + b"\r\n\r\n" + HTML
SHA1 = hashlib.sha1(BLOCK)
DIGESTS = {
    "base 32": (sha1_digest(BLOCK), 1),
    "lower case": (sha1_digest(BLOCK).lower(), 1),
    "upper case": (sha1_digest(BLOCK).upper(), 1),
    "hex": (f"sha1:{SHA1.hexdigest()}", 1),
    "other algorithm": (f"SHA-256:{hashlib.sha256(BLOCK).hexdigest().upper()}", 1),
    "unknown algorithm": ("blake9:abc", 1),
    "unknown form": ("sha1:abc", 1),
    "another block's": (sha1_digest(b"x").lower(), 0),
    "another block's in hex": (f"sha256:{hashlib.sha256(b'x').hexdigest()}", 0),
}


@pytest.mark.parametrize("compress", [bytes, gzip.compress], ids=["plain", "gzip"])
@pytest.mark.parametrize("name", DIGESTS)
def test_the_block_digest_is_checked_in_whatever_form(tmp_path, name, compress):
    path, (digest, pages) = tmp_path / "a.warc", DIGESTS[name]
    path.write_bytes(compress(with_digest(digest)))
    damage = []
    assert len(list(read_pages(path, damage.append))) == pages
    assert damage == [0] * (1 - pages)


def test_a_page_above_the_limit_is_cut_and_refused_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr(warc, "MAX_PAGE_BYTES", 100_000)
    monkeypatch.setattr(extract, "MAX_PAGE_BYTES", 100_000)
    noise = random.Random(0).randbytes(200_000)
    as_gzip = OK + "\nContent-Encoding: gzip"
    records = [(noise, OK), (gzip.compress(noise), as_gzip), (gzip.compress(bytes(10**6)), as_gzip), (HTML, OK)]
    path = tmp_path / "a.warc.gz"
    path.write_bytes(b"".join(response(*record) for record in records))
    damage = []
    *large, small = read_pages(path, damage.append)
    assert [len(p.body) for p in large] == [100_001] * 3
    assert (small.body, damage) == (HTML, [])
    config = dataclasses.replace(get_config().documents.extract, max_bytes=10**9)
    assert [extract.extract_text(p, config) for p in large] == [("", "html_too_large")] * 3


MEASURE = """
import resource, sys
from data_prep import warc
warc.MAX_PAGE_BYTES = 1_000_000
list(warc.read_pages(sys.argv[1]))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print([len(page.body) for page in warc.read_pages(sys.argv[2])])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the unit of ru_maxrss differs elsewhere")
def test_memory_is_bounded_whatever_a_file_unpacks_to(tmp_path):
    zeros = bytes(100_000_000)
    bomb = response(gzip.compress(zeros, 1), OK + "\nContent-Encoding: gzip")
    write_pages(tmp_path / "small.warc.gz", [page(0)])
    (tmp_path / "a.warc.gz").write_bytes(
        bomb + response(zeros, OK.replace("text/html", "video/mp4")) + response(zeros, OK) + response(HTML, OK)
    )
    command = [sys.executable, "-c", MEASURE, str(tmp_path / "small.warc.gz"), str(tmp_path / "a.warc.gz")]
    said = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]).stdout
    lengths, grown_kib = said.splitlines()
    assert lengths == str([1_000_001, 1_000_001, len(HTML)])
    assert int(grown_kib) < 30_000


def test_damage_is_told_once_a_place_with_its_offset(tmp_path):
    pages, path = [page(n) for n in range(4)], tmp_path / "a.warc.gz"
    write_pages(path, pages)
    whole = path.read_bytes()
    damage: list[int] = []
    list(read_pages(path, damage.append))
    assert damage == []
    starts = [found.start() for found in re.finditer(rb"\x1f\x8b\x08", whole)]
    path.write_bytes(whole[: starts[5] + 150] + b"\xff" * 40 + whole[starts[5] + 190 :])  # the second response
    assert list(read_pages(path, damage.append)) == filed([pages[0], *pages[2:]], path)
    assert damage in ([starts[4]], [starts[5]])
    for end in (starts[-2] + 100, starts[-2] + 380, starts[-1] + 20):  # breaks off within a response, and after it
        damage.clear()
        path.write_bytes(whole[:end])
        list(read_pages(path, damage.append))
        assert len(damage) == 1, end
        assert damage[0] >= starts[-3]
    damage.clear()
    undecodable = response(b"no gzip at all", OK + "\nContent-Encoding: gzip")
    path.write_bytes(response(HTML, OK) + undecodable + response(HTML, OK))
    assert len(list(read_pages(path, damage.append))) == 2
    assert damage == [len(response(HTML, OK))]


def test_a_hole_in_a_compressed_file_costs_the_page_it_hits_alone(tmp_path):
    pages, path = [page(n) for n in range(6)], tmp_path / "a.warc.gz"
    write_pages(path, pages)
    data = path.read_bytes()
    for hole in range(0, len(data) - 25, 97):
        path.write_bytes(data[:hole] + data[hole + 25 :])
        read = list(read_pages(path))
        assert set(read) <= set(filed(pages, path))
        assert len(read) >= 5


def test_a_hole_in_an_uncompressed_page_costs_that_page_alone(tmp_path):
    pages, path = [page(n) for n in range(6)], tmp_path / "a.warc"
    write_pages(path, pages)
    data = gzip.decompress(path.read_bytes())
    for number in range(6):
        hole = data.index(f"<p>page {number} ".encode()) + 50
        path.write_bytes(data[:hole] + data[hole + 25 :])
        assert list(read_pages(path)) == filed(pages[:number] + pages[number + 1 :], path)


def test_a_clipped_record_is_no_page(tmp_path):
    path = tmp_path / "a.warc.gz"
    write_pages(path, [page(0), page(1, bytes(range(256)) * 40)])
    data = path.read_bytes()
    path.write_bytes(data[: data.rindex(b"\x1f\x8b\x08") - 30])  # the last response ends early
    assert [p.url for p in read_pages(path)] == [page(0).url]


@pytest.mark.parametrize("content", [b"", b"hello\n" * 100, gzip.compress(b"hello")], ids=["empty", "text", "gzip"])
def test_no_warc_is_refused_by_name(tmp_path, content):
    path = tmp_path / "thing.warc.gz"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"thing\.warc\.gz holds no WARC record"):
        list(read_pages(path))


def test_missing_file_and_folder_are_refused(tmp_path):
    for path in (tmp_path / "missing.warc.gz", tmp_path):
        with pytest.raises(InputError, match=f"{path} cannot be read"):
            list(read_pages(path))


def test_a_place_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="cannot be written"):
        write_pages(tmp_path / "file" / "a.warc.gz", [page(0)])


@needs_samples
@pytest.mark.parametrize(
    ("name", "pages"),
    [
        ("warcfile.warc.gz", 16),
        ("sample-0000.warc.gz", 22),
        ("sample-0001.warc.gz", 15),
        ("whirlwind.warc.gz", 1),
        ("whirlwind.warc.wet.gz", 0),
        ("example-iana.org-chunked.warc", 1),
        ("clipped.warc.gz", 0),
        ("damaged/example-trunc.warc", 0),
        ("damaged/example-wget-bad-target-uri.warc.gz", 1),
        ("damaged/post-test.warc.gz", 0),
    ],
)
def test_samples(name, pages, tmp_path):
    read = list(read_pages(SAMPLES / name))
    assert len(read) == pages
    assert all(b"<" in p.body and p.url.startswith("http") and p.date.endswith("Z") for p in read)
    copy = tmp_path / "copy.warc.gz"
    write_pages(copy, read)
    assert list(read_pages(copy)) == filed(read, copy)
