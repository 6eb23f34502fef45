"""WARC files we write are read back, by us and with FastWARC's checks; files of other crawlers are read too."""

import dataclasses
import gzip
import hashlib
import re
import zlib
from collections import Counter
from pathlib import Path

import brotli
import pytest
import zstandard
from fastwarc.warc import ArchiveIterator
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.documents import WebPage
from data_prep.warc import read_pages, read_texts, record_id, write_pages
from data_prep.warc.pages import page_of_response, pages_in
from data_prep.warc.record import sha1_digest
from data_prep.warc.writer import record_bytes, records_of_page
from lm.errors import InputError

SAMPLES = Path(__file__).parents[3] / "../shared/data/warc"
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


@settings(max_examples=30, deadline=None)
@given(bodies=st.lists(st.binary(max_size=300), max_size=4))
def test_any_bytes_round_trip(tmp_path_factory, bodies):
    path = tmp_path_factory.getbasetemp() / "any.warc.gz"
    pages = [page(n, body) for n, body in enumerate(bodies)]
    write_pages(path, pages)
    assert list(read_pages(path)) == filed(pages, path)


def test_records_and_digests_are_valid_in_fastwarc(tmp_path):
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


def test_the_same_pages_give_the_same_bytes_with_one_gzip_member_per_record(tmp_path):
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


def test_a_line_break_in_a_field_starts_no_header(tmp_path):
    path = tmp_path / "a.warc.gz"
    write_pages(path, [dataclasses.replace(page(0), content_type="text/html;\r\nContent-Encoding: gzip")])
    (read,) = read_pages(path)
    assert read.body == page(0).body


def response(body: bytes, http: str, warc: dict[str, str] | None = None) -> bytes:
    """A record in the format of another crawler."""
    headers = {
        "WARC-Type": "response",
        "WARC-Record-ID": "<urn:uuid:00000000-0000-0000-0000-000000000001>",
        "WARC-Date": "2024-01-02T03:04:05Z",
        "WARC-Target-URI": "https://site.example/",
    } | (warc or {})
    block = http.replace("\n", "\r\n").encode() + b"\r\n\r\n"
    return record_bytes({k: v for k, v in headers.items() if v}, "application/http; msgtype=response", block, body)


def pages_of(folder: Path, data: bytes, **options) -> list[WebPage]:
    """The pages in a file of these bytes."""
    (folder / "a.warc").write_bytes(data)
    return list(read_pages(folder / "a.warc", **options))


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
    "deflate without zlib's header": (zlib.compress(HTML, wbits=-15), OK + "\nContent-Encoding: deflate"),
    "zstd": (zstandard.compress(HTML), OK + "\nContent-Encoding: zstd"),
    "gzip in two members": (gzip.compress(HTML[:99]) + gzip.compress(HTML[99:]), OK + "\nContent-Encoding: x-gzip"),
    "br after gzip": (brotli.compress(gzip.compress(HTML)), OK + "\nContent-Encoding: gzip, br"),
    "stored decoded": (HTML, OK + "\nContent-Encoding: gzip"),
    "stored without chunks": (HTML, OK + "\nTransfer-Encoding: chunked"),
    "stored without either": (HTML, OK + "\nTransfer-Encoding: chunked\nContent-Encoding: br"),
    "folded": (gzip.compress(HTML), OK + "\ncontent-encoding:\n gzip"),
    "in capitals": (HTML, OK.replace("text/html", "TEXT/HTML; charset=UTF-8")),
    "chunked gzip": (chunked(gzip.compress(HTML)), OK + "\nTransfer-Encoding: chunked\nContent-Encoding: gzip"),
}


@pytest.mark.parametrize("name", ENCODINGS)
def test_encodings_are_removed(tmp_path, name):
    (read,) = pages_of(tmp_path, response(*ENCODINGS[name]))
    assert read.body == HTML


SKIPPED = {
    "an image": (OK.replace("text/html", "image/png"), {}),
    "HTML that the crawler calls a feed": (OK, {"WARC-Identified-Payload-Type": "application/rss+xml"}),
    "not found": (OK.replace("200 OK", "404 Not Found"), {}),
    "a redirect": (OK.replace("200 OK", "301 Moved"), {}),
    "a request": (OK, {"WARC-Type": "request"}),
    "a revisit": (OK, {"WARC-Type": "revisit"}),
}


NO_TYPE = "HTTP/1.1 200 OK\nServer: x"
PLAIN = "HTTP/1.1 200 OK\nContent-Type: text/plain; charset=koi8-r"
IDENTIFIED = {"WARC-Identified-Payload-Type": "text/html"}
BEGINS = {
    b"<!doctype html><p>a": True,
    b"\xef\xbb\xbf \r\n\t<HTML>": True,
    b"<head><title>": True,
    b"<body class=a>": True,
    b"<!-- a comment --><anything>": True,
    b"<p>a": True,
    b"<a href=b>": True,
    b"<pre>": False,
    b"<bodywork>": False,
    b"<?xml version='1.0'?><rss>": False,
    b"%PDF-1.7 <html>": False,
    b"plain words <html>": False,
    b"": False,
}


@pytest.mark.parametrize("begin", BEGINS)
@pytest.mark.parametrize("http", [NO_TYPE, NO_TYPE + "\nContent-Type: "])
def test_the_type_of_an_untyped_page_is_detected_by_its_beginning(tmp_path, begin, http):
    assert [page.body for page in pages_of(tmp_path, response(begin, http))] == [begin] * BEGINS[begin]


@pytest.mark.parametrize("name", ["gzip", "deflate", "br", "zstd", "chunked", "chunked gzip"])
def test_the_type_of_an_untyped_page_is_detected_through_its_encodings(tmp_path, name):
    text = HTML + bytes(range(256)) * 40
    encode = {
        "gzip": gzip.compress, "deflate": zlib.compress, "br": brotli.compress, "zstd": zstandard.compress,
        "chunked": chunked, "chunked gzip": lambda data: chunked(gzip.compress(data)),
    }[name]  # fmt: skip
    http = ENCODINGS[name][1].replace("Content-Type: text/html", "Server: x")
    (read,) = pages_of(tmp_path, response(encode(text), http) + response(encode(b"GIF89a" + text), http))
    assert read.body == text


def test_an_untyped_body_that_cannot_be_decoded_is_not_a_damaged_page(tmp_path):
    counts = Counter()
    assert pages_of(tmp_path, response(b"no gzip", NO_TYPE + "\nContent-Encoding: gzip"), counts=counts) == []
    assert counts == {"not_html": 1}


@pytest.mark.parametrize(
    ("http", "content_type"),
    [
        (NO_TYPE, ""),
        (OK, "text/html"),
        (PLAIN, "text/html; charset=koi8-r"),
        (PLAIN.replace("text/plain; charset=koi8-r", "html"), "text/html"),
        (PLAIN.replace("text/plain", "application/xhtml+xml"), "application/xhtml+xml; charset=koi8-r"),
    ],
)
def test_the_type_identified_by_the_crawler_takes_precedence_over_the_servers(tmp_path, http, content_type):
    (read,) = pages_of(tmp_path, response(b"A page that begins with words. <p>", http, IDENTIFIED))
    assert read.content_type == content_type


def test_dates_become_utc_and_angle_brackets_are_removed(tmp_path):
    odd = {"WARC-Date": "2024-01-02T03:04:05+02:00", "WARC-Target-URI": "<https://site.example/>"}
    none = ("yesterday", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-12:00")
    undated = b"".join(response(HTML, OK, {"WARC-Date": date}) for date in none)
    first, *others = pages_of(tmp_path, response(HTML, OK, odd) + undated)
    assert (first.date, first.url) == ("2024-01-02T01:04:05Z", "https://site.example/")
    assert [(one.date, one.body) for one in others] == [("", HTML)] * 3


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
    "no base 32": ("sha1:" + "?" * 32, 0),
    "another block's": (sha1_digest(b"x").lower(), 0),
    "another block's in hex": (f"sha256:{hashlib.sha256(b'x').hexdigest()}", 0),
}


@pytest.mark.parametrize("compress", [bytes, gzip.compress], ids=["plain", "gzip"])
@pytest.mark.parametrize("name", DIGESTS)
def test_the_block_digest_is_verified_in_any_encoding(tmp_path, name, compress):
    path, (digest, pages) = tmp_path / "a.warc", DIGESTS[name]
    path.write_bytes(compress(with_digest(digest)))
    damages = []
    assert len(list(read_pages(path, damages.append))) == pages
    assert [(damage.offset, damage.reason) for damage in damages] == [(0, "wrong_block_digest")] * (1 - pages)


NO_WARC = {
    "empty": b"",
    "text": b"hello\n" * 100,
    "gzip": gzip.compress(b"hello"),
    "lz4": b"\x04\x22\x4d\x18" + bytes(99),
}


@pytest.mark.parametrize("kind", NO_WARC)
def test_other_file_types_are_rejected_by_name(tmp_path, kind):
    path = tmp_path / "thing.warc.gz"
    path.write_bytes(NO_WARC[kind])
    told = "it is compressed with lz4" if kind == "lz4" else "Give WARC files"
    with pytest.raises(InputError, match=rf"thing\.warc\.gz holds no WARC record.*{told}"):
        list(read_pages(path))


def test_missing_files_and_folders_are_rejected(tmp_path):
    for path in (tmp_path / "missing.warc.gz", tmp_path):
        with pytest.raises(InputError, match=f"{path} cannot be read"):
            list(read_pages(path))


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
        ("clueweb-quirk.warc.gz", 29),  # WARC 0.18, decoded bodies, payload digests as block digests
        ("damaged/example.warc", 1),
        ("damaged/example-bad-non-chunked.warc.gz", 1),  # one gzip member of many records
        ("damaged/example-bad.warc.gz.bad", 1),
        ("damaged/example-wrong-chunks.warc.gz", 0),  # a record over two members with a wrong block digest
        ("damaged/example-trunc.warc", 0),
        ("damaged/example-wget-bad-target-uri.warc.gz", 1),
        ("damaged/post-test.warc.gz", 0),
    ],
)
def test_samples(name, pages, tmp_path):
    read = list(read_pages(SAMPLES / name))
    assert len(read) == pages
    assert all(
        b"<" in p.body and p.url.startswith("http") and (p.date.endswith("Z") or "clueweb" in name) for p in read
    )
    copy = tmp_path / "copy.warc.gz"
    write_pages(copy, read)
    assert list(read_pages(copy)) == filed(read, copy)


@needs_samples
def test_the_texts_of_a_wet_file():
    counts = Counter()
    (text,) = read_texts(SAMPLES / "whirlwind.warc.wet.gz", counts=counts)
    assert text.content_type == "text/plain"
    assert text.body.decode().startswith("Escopete - Biquipedia")
    assert counts == {"not_a_text": 1, "kept": 1}


@needs_samples
def test_an_older_archive_is_rejected_with_the_fix():
    for name in ("example.arc", "example.arc.gz"):
        with pytest.raises(InputError, match="it looks like ARC"):
            list(read_pages(SAMPLES / "damaged" / name))


def frames(records: list[bytes]) -> bytes:
    return b"".join(zstandard.compress(record) for record in records)


def with_dictionary(records: list[bytes]) -> bytes:
    """As in archives of social networks: a compressed dictionary in a skippable frame at the beginning."""
    dictionary = zstandard.train_dictionary(2000, [record[at:] for record in records * 30 for at in range(0, 300, 30)])
    packed = zstandard.compress(dictionary.as_bytes())
    compressor = zstandard.ZstdCompressor(dict_data=dictionary)
    head = b"\x5d\x2a\x4d\x18" + len(packed).to_bytes(4, "little") + packed
    return head + b"".join(compressor.compress(record) for record in records)


LAYOUTS = {
    "gzip": lambda records: b"".join(map(gzip.compress, records)),
    "plain": b"".join,
    "one gzip member": lambda records: gzip.compress(b"".join(records)),
    "gzip members that end anywhere": lambda records: b"".join(
        gzip.compress(b"".join(records)[at : at + 700]) for at in range(0, len(b"".join(records)), 700)
    ),
    "zstd": frames,
    "one zstd frame": lambda records: zstandard.compress(b"".join(records)),
    "zstd with a dictionary": with_dictionary,
    "plain, then gzip": lambda records: b"".join(records[:3]) + b"".join(map(gzip.compress, records[3:])),
    "without the lines between records": lambda records: b"".join(record[:-4] for record in records),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_records_are_read_in_any_layout_and_without_an_id_named_by_position(tmp_path, name):
    path, pages, damages = tmp_path / "a.warc", [page(n) for n in range(4)], []
    records = [gzip.decompress(record) for p in pages for record in records_of_page(p, "<urn:x>")]
    path.write_bytes(LAYOUTS[name](records))
    assert list(read_pages(path, damages.append)) == filed(pages, path)
    path.write_bytes(LAYOUTS[name]([re.sub(rb"WARC-Record-ID: \S+\r\n", b"", record) for record in records]))
    found = list(read_pages(path, damages.append, name="crawl/a.warc"))
    assert [(one.url, one.body) for one in found] == [(one.url, one.body) for one in pages] and not damages
    ids = [one.id for one in found]
    assert len(set(ids)) == 4 and all(re.fullmatch(r"crawl/a\.warc/\d+(\+\d+)?", one) for one in ids)
    path = path.rename(tmp_path / "b.warc")
    assert [one.id for one in read_pages(path, name="crawl/a.warc")] == ids
    if name in ("gzip", "zstd"):  # like ranges of an archive
        data, offset = path.read_bytes(), int(ids[2].rpartition("/")[2])
        with (tmp_path / "c").open("wb+") as file:
            file.write(data[offset:])
            (again, *_) = pages_in(file, "crawl/a.warc", page_of_response, None, None, offset)
        assert again.id == ids[2]


def test_every_record_is_counted_by_its_outcome(tmp_path):
    path, counts = tmp_path / "a.warc.gz", Counter()
    records = [response(HTML, http, warc) for http, warc in SKIPPED.values()]
    bad = response(b"no gzip", OK + "\nContent-Encoding: gzip")
    path.write_bytes(b"".join([*records, bad, response(HTML, OK)]))
    list(read_pages(path, counts=counts))
    assert counts == {"not_html": 2, "not_a_success": 2, "not_a_response": 2, "undecodable_body": 1, "kept": 1}
