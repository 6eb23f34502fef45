"""WARC files with faults, for the tests and the slow proofs: one fault at a time, or arbitrary combinations."""

import contextlib
import dataclasses
import gzip
import random
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import brotli
import zstandard

from data_prep.documents import Damage, WebPage
from data_prep.warc import read_pages
from data_prep.warc.pages import KEPT, NOT_A_RESPONSE, NOT_A_SUCCESS, NOT_HTML, NOT_HTTP
from data_prep.warc.writer import record_bytes, record_id, records_of_page
from lm.errors import InputError

OK = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n"


def numbered_page(number: int, generator: random.Random) -> WebPage:
    """A unique page that compresses like text."""
    words = [generator.choice(WORDS) for _ in range(generator.randint(50, 1500))]
    url = f"https://site-{number}.example/{generator.randrange(10**9)}"
    return WebPage(
        url=url,
        id=record_id(url, "response"),
        date="2024-05-06T07:08:09Z",
        content_type="text/html; charset=utf-8",
        body=f"<html><p>page {number} {' '.join(words)}</p></html>".encode(),
        file_path="somewhere",
    )


WORDS = [random.Random(n).randbytes(3).hex() for n in range(800)]


@dataclass(frozen=True)
class Archive:
    """A WARC file whose records' offsets are known."""

    data: bytes
    pages: list[WebPage]
    places: list[tuple[int, int]]
    """Start and end offset of each page's response."""
    starts: list[int]
    """Offset of each record."""


def archive_of(pages: list[WebPage], compressed: bool) -> Archive:
    """The pages as `write_pages` writes them, compressed record by record or not at all."""
    data, places, starts = b"", [], []
    for page in pages:
        for kind, record in enumerate(records_of_page(page, "<urn:uuid:0>")):
            written = record if compressed else gzip.decompress(record)
            if kind == 1:
                places.append((len(data), len(data) + len(written)))
            starts.append(len(data))
            data += written
    return Archive(data, pages, places, starts)


@dataclass(frozen=True)
class Fault:
    """Bytes `start` to `end` of a file were replaced by `written`."""

    kind: str
    start: int
    end: int
    written: bytes

    def applied(self, data: bytes) -> bytes:
        return data[: self.start] + self.written + data[self.end :]

    def hits(self, place: tuple[int, int]) -> bool:
        """Whether the fault changes the bytes at `place`: an insertion right before or after it does not."""
        start, end = place
        return start < self.end and self.start < end if self.end > self.start else start < self.start < end


def single_fault(data: bytes, generator: random.Random) -> Fault:
    """One kind of real damage: to bits, bytes, sectors or transfers."""
    kind = generator.choice(["bit flip", "overwrite", "deletion", "insertion", "truncation", "zeros"])
    start = generator.randrange(len(data))
    some = generator.choice([1, 2, 7, 64, 512, 4096])
    end = min(start + some, len(data))
    match kind:
        case "bit flip":
            return Fault(kind, start, start + 1, bytes([data[start] ^ 1 << generator.randrange(8)]))
        case "overwrite":
            return Fault(kind, start, end, generator.randbytes(end - start))
        case "deletion":
            return Fault(kind, start, end, b"")
        case "insertion":
            return Fault(kind, start, start, generator.randbytes(some))
        case "truncation":
            return Fault(kind, start, len(data), b"")
        case _:
            return Fault(kind, start, end, bytes(end - start))


LAYOUTS = ("gzip", "plain", "one member", "blocks", "zstd", "one frame")


@dataclass(frozen=True)
class FuzzedFile:
    """A file with arbitrary faults, and the expected reports of them."""

    data: bytes
    pages: list[WebPage]
    """The pages that were intact before the faults."""
    places: list[tuple[int, int]]
    """Start and end offset of each page's record, as far as faults leave one."""
    bodies: set[bytes | None]
    """Other possible bodies: pages within pages, codings that can be removed; None if unknown."""
    layout: str


def fuzzed_file(seed: int) -> FuzzedFile:
    """Valid and odd records in one of six layouts, with up to five faults, garbage and wrong lengths."""
    generator = random.Random(seed)
    layout = generator.choice(LAYOUTS)
    pages, bodies, records = [], set(), []
    for number in range(generator.randint(1, 6)):
        page = numbered_page(number, generator)
        pages.append(page)
        records.extend((gzip.decompress(record), len(pages) - 1) for record in records_of_page(page, "<urn:uuid:0>"))
        if generator.random() < 0.5:
            record, body = odd_record(generator)
            bodies.add(body)
            records.append((record, None))
        if generator.random() < 0.2:
            inner = archive_of([numbered_page(100 + number, generator)], generator.random() < 0.5)
            bodies.add(inner.pages[0].body)
            records.append((response(inner.data, OK.replace("text/html", "application/warc")), None))
    data, spans = laid_out([record for record, _ in records], layout, generator)
    places = [(0, 0)] * len(pages)
    for (_, page), span, kind in zip(records, spans, kinds(records), strict=True):
        if page is not None and kind == b"response":
            places[page] = span
    for _ in range(generator.choice([0, 1, 1, 2, 5])):
        if not data:
            break
        fault = single_fault(data, generator) if generator.random() < 0.8 else spliced(data, spans, generator)
        data = fault.applied(data)
        places = [moved(place, fault) for place in places]
    return FuzzedFile(data, pages, places, bodies, layout)


def kinds(records: list[tuple[bytes, int | None]]) -> Iterator[bytes]:
    for record, _ in records:
        yield record.partition(b"WARC-Type: ")[2].partition(b"\r")[0]


def moved(place: tuple[int, int], fault: Fault) -> tuple[int, int]:
    """The new offsets of a span after the fault."""
    change = len(fault.written) - (fault.end - fault.start)
    start, end = (
        at if at <= fault.start else at + change if at >= fault.end else fault.start + len(fault.written)
        for at in place
    )
    return min(start, end), end


def spliced(data: bytes, spans: list[tuple[int, int]], generator: random.Random) -> Fault:
    """A wrong length, garbage between records, a duplicate record, or a false start of a record."""
    start = min(generator.choice(spans)[0], len(data))
    match generator.randrange(4):
        case 0:
            at = data.find(b"Content-Length: ", start)
            if at < 0:
                return Fault("nothing", 0, 0, b"")
            end = data.find(b"\r", at)
            return Fault("a lie", at + 16, end, str(generator.choice([0, 1, 10**4, 10**6, 10**10, 10**30])).encode())
        case 1:
            return Fault("garbage", start, start, generator.randbytes(generator.choice([1, 10, 1000])))
        case 2:
            first, last = generator.choice(spans)
            return Fault("twice", start, start, data[first:last])
    heads = [
        b"WARC/1.0\r\n",
        b"WARC/1.1\r\nWARC-Type: response\r\nContent-Length: 99\r\n\r\n",
        b"\x1f\x8b\x08\0",
        b"\r\n" * 9,
    ]
    return Fault("a head", start, start, generator.choice(heads) * generator.choice([1, 2, 50]))


def laid_out(records: list[bytes], layout: str, generator: random.Random) -> tuple[bytes, list[tuple[int, int]]]:
    """The records in a file, and the span of each."""
    level = generator.choice([0, 1, 6])
    packed: list[bytes]
    match layout:
        case "plain":
            packed = records
        case "gzip":
            packed = [gzip.compress(record, level, mtime=0) for record in records]
        case "zstd":
            packed = [zstandard.ZstdCompressor(write_checksum=True).compress(record) for record in records]
        case _:
            whole = b"".join(records)
            if layout == "one member":
                data = gzip.compress(whole, level, mtime=0)
            elif layout == "one frame":
                data = zstandard.ZstdCompressor(write_checksum=True).compress(whole)
            else:
                data = b"".join(
                    gzip.compress(whole[at : at + 5000], level, mtime=0) for at in range(0, len(whole), 5000)
                )
            return data, [(0, len(data))] * len(records)
    spans, at = [], 0
    for piece in packed:
        spans.append((at, at + len(piece)))
        at += len(piece)
    return b"".join(packed), spans


def response(body: bytes, http: str, extra: dict[str, str] | None = None) -> bytes:
    """An uncompressed response record, its HTTP headers as given."""
    headers = {
        "WARC-Type": "response",
        "WARC-Record-ID": "<urn:uuid:00000000-0000-0000-0000-00000000000f>",
        "WARC-Date": "2024-01-02T03:04:05Z",
        "WARC-Target-URI": "https://odd.example/",
    }
    record = record_bytes(headers | (extra or {}), "application/http; msgtype=response", f"{http}\r\n".encode(), body)
    return gzip.decompress(record)


def odd_record(generator: random.Random) -> tuple[bytes, bytes | None]:
    """A response whose body is encoded, validly or not, and the possible results; None if the coding allows any."""
    html = f"<p>odd {generator.random()} {' '.join(generator.choices(WORDS, k=300))}".encode()
    name = generator.choice(list(CODERS))
    coded, http, may_be = CODERS[name](html), OK + f"Content-Encoding: {name}\r\n", html
    if generator.random() < 0.5:
        http, coded = http + "Transfer-Encoding: chunked\r\n", chunked(coded, generator)
    if generator.random() < 0.5:
        coded = single_fault(coded, generator).applied(coded)
        if name in ("identity", "br") or not coded:
            may_be = None
    return response(coded, http, {"WARC-Target-URI": f"https://odd.example/{name}"}), may_be


def chunked(data: bytes, generator: random.Random) -> bytes:
    pieces, at = [], 0
    while at < len(data):
        size = generator.choice([1, 100, 1000])
        pieces.append(b"%x\r\n%s\r\n" % (len(data[at : at + size]), data[at : at + size]))
        at += size
    return b"".join([*pieces, b"0\r\n\r\n"])


CODERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda data: gzip.compress(data, mtime=0),
    "deflate": zlib.compress,
    "br": brotli.compress,
    "zstd": zstandard.ZstdCompressor(write_checksum=True).compress,
    "identity": bytes,
}


def faults_of(archive: Archive, fault: Fault, path: Path) -> dict[str, int]:
    """Read a copy with one fault and count; "lost" and "altered" must be 0, and the others too if it is compressed.

    In an uncompressed file no checksum covers the headers of records: they can be altered, or two of them joined.

    intact: responses that the fault does not touch. lost: intact responses that are not read. altered: outputs that
    are none of the pages. altered heads: the same, with the right body. unsaid: pages are missing without a report of
    damage; but a file that ends between two records looks complete.
    """
    path.write_bytes(fault.applied(archive.data))
    damages: list[Damage] = []
    read = [dataclasses.replace(page, file_path="somewhere") for page in read_pages(path, damages.append)]
    bodies = {page.body for page in archive.pages}
    strange = [page for page in read if page not in archive.pages]
    intact = [page for page, place in zip(archive.pages, archive.places, strict=True) if not fault.hits(place)]
    looks_whole = fault.kind == "truncation" and fault.start in archive.starts
    return {
        "intact": len(intact),
        "lost": sum(page not in read for page in intact),
        "altered": sum(page.body not in bodies for page in strange),
        "altered heads": sum(page.body in bodies for page in strange),
        "unsaid": int(len(read) < len(archive.pages) and not damages and not looks_whole),
    }


FILTERED = (NOT_A_RESPONSE, NOT_HTTP, NOT_A_SUCCESS, NOT_HTML)


def account_of(file: FuzzedFile, path: Path) -> dict[str, int]:
    """Read a fuzzed file and count errors; all counts must be 0.

    miscounted: files with kept + filtered + quarantined != seen. altered: bodies that were never written. unsaid:
    missing pages without a report of damage between the end of the previous page that was read and their end; but a
    file that ends between two records looks complete.
    """
    path.write_bytes(file.data)
    damages: list[Damage] = []
    counts: Counter[str] = Counter()
    read = []
    with contextlib.suppress(InputError):  # nothing in it looks like a record
        read.extend(read_pages(path, damages.append, counts))
    told = Counter(damage.reason for damage in damages) | Counter({name: counts[name] for name in FILTERED})
    bodies = {page.body for page in read}
    allowed = {page.body for page in file.pages} | file.bodies
    out = [place for page, place in zip(file.pages, file.places, strict=True) if page.body in bodies]
    unsaid = 0
    for page, (start, end) in zip(file.pages, file.places, strict=True):
        if page.body not in bodies and not start == end == len(file.data):
            before = max((damage.offset for damage in damages if damage.offset <= max(start, end - 1)), default=-1)
            unsaid += before < 0 or any(before < other < start for other, _ in out)
    return {
        "miscounted": int(counts != told | Counter({KEPT: len(read)})),
        "altered": sum(p.body not in allowed and not (None in file.bodies and "//odd." in p.url) for p in read),
        "unsaid": unsaid,
    }
