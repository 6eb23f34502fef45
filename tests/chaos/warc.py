"""Hostile WARC files: time and memory are bounded, and the records around are read."""

import gzip
import multiprocessing
import random
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import brotli
import zstandard

from data_prep.warc import read_pages
from tests.chaos.runner import Figures, Trial
from tests.damaged_warcs import (
    OK,
    archive_of,
    numbered_page,
    response,
)

MB = 10**6
MAX_SECONDS, MAX_MEMORY_MB = 2.0, 512


def head_of(length: int, stated: int | None = None) -> bytes:
    """WARC and HTTP headers of a page of `length` bytes, or of the given false length."""
    empty = response(b"", OK)
    http = empty[empty.index(b"HTTP/") :].rstrip(b"\r\n") + b"\r\n\r\n"
    lines = empty[: empty.index(b"HTTP/")].split(b"\r\n")
    lines = [line for line in lines if not line.startswith((b"WARC-Block", b"WARC-Payload", b"Content-Length"))]
    lines.insert(1, b"Content-Length: %d" % (length + len(http) if stated is None else stated))
    return b"\r\n".join(lines) + http


def member(pieces: Iterator[bytes] | list[bytes]) -> Iterator[bytes]:
    """One gzip member, in pieces."""
    compressor = zlib.compressobj(1, zlib.DEFLATED, 31)
    for piece in pieces:
        yield compressor.compress(piece)
    yield compressor.flush()


def hostile_files() -> Iterator[tuple[str, Iterator[bytes] | list[bytes], str]]:
    """Yield name, content and expected damage of files with a good record, a huge record, and a good record."""
    zeros, noise = bytes(MB), random.Random(1).randbytes(MB)
    page = lambda body, coding: gzip.compress(response(body, OK + coding), 1)
    encoded = "Content-Encoding: {}\r\n".format
    yield "a 1000:1 gzip member", member([head_of(1000 * MB), *[zeros] * 1000, b"\r\n\r\n"]), "record_too_large"
    yield (
        "a 1000:1 zstd frame",
        [zstandard.compress(head_of(1000 * MB) + zeros * 1000 + b"\r\n\r\n")],
        "record_too_large",
    )
    yield "a 1 GB record in gzip", member([head_of(1000 * MB), *[noise] * 1000, b"\r\n\r\n"]), "record_too_large"
    yield "a 1 GB record in gzip that says 1 TB", member([head_of(0, 10**12), *[noise] * 1000]), "cut_off"
    yield "a 1 GB record", [head_of(1000 * MB), *[noise] * 1000, b"\r\n\r\n"], "record_too_large"
    yield "a 1 GB record that says 1 TB", [head_of(0, 10**12), *[noise] * 1000, b"\r\n\r\n"], "cut_off"
    yield (
        "a 1 GB record that says 500 MB",
        [head_of(0, 5 * 10**8), *[noise] * 1000, b"\r\n\r\n"],
        "wrong_content_length",
    )
    yield "a header line of 100 MB in gzip", member([b"WARC/1.1\r\nX-A: ", *[b"a" * MB] * 100]), "bad_warc_header"
    yield "a header line of 100 MB", [b"WARC/1.1\r\nX-A: ", *[b"a" * MB] * 100, b"\r\n\r\n"], "bad_warc_header"
    yield "an HTTP header line of 50 MB", member([response(b"x", OK + "X-A: " + "a" * 50 * MB)]), "bad_http_header"
    yield "a page of 200 MB in gzip", [page(b"".join(member([zeros] * 200)), encoded("gzip"))], "record_too_large"
    yield "a page of 200 MB in Brotli", [page(brotli.compress(zeros * 200), encoded("br"))], "record_too_large"
    yield "a page of 1 GB in zstd", [page(zstandard.compress(zeros * 1000), encoded("zstd"))], "record_too_large"
    yield "a page of 9 M chunks", [page(b"1\r\na\r\n" * 9 * MB, "Transfer-Encoding: chunked\r\n")], "undecodable_body"
    yield "a page of 1 M gzip members", [page(gzip.compress(b"") * MB, encoded("gzip"))], "undecodable_body"
    yield "100 MB of empty lines", [b"\n" * 100 * MB], "no_record_here"
    head = b"WARC/1.1\r\nWARC-Type: response\r\nWARC-Record-ID: <a:b>\r\n%sContent-Length: 60000000\r\n\r\n"
    digest = b"WARC-Block-Digest: sha1:" + b"a" * 32 + b"\r\n"
    yield "100,000 heads that say 60 MB", [head % b"" * 100_000, *[zeros] * 100], "wrong_content_length"
    yield "10,000 heads with digests that say 60 MB", [head % digest * 10_000, *[zeros] * 100], "wrong_content_length"
    yield "20,000 such heads in gzip", member([head % b"" * 20_000, *[zeros] * 200]), "wrong_content_length"
    yield "300,000 heads of gzip", [b"\x1f\x8b\x08\0\0\0\0\0\0\3" * 300_000], "damaged_gzip_member"


def measure(path: str, results: multiprocessing.Queue) -> None:
    """CPU seconds and megabytes of reading the file, including start-up, and the counts. Linux only."""
    counts: Counter[str] = Counter()
    for _ in read_pages(path, counts=counts):
        pass
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    results.put((time.process_time(), int(status["VmHWM"].split()[0]) / 1024, dict(counts)))


def hostile(trial: Trial) -> Iterator[Figures]:
    """Files with one hostile record between two good ones, each read in its own process: bounded time and memory."""
    path, context = trial.folder / "hostile.warc", multiprocessing.get_context("spawn")
    for name, content, reason in hostile_files():
        good = archive_of([numbered_page(0, random.Random(0))], compressed=True).data
        good = good if "gzip" in name or "page" in name else gzip.decompress(good)
        if "zstd frame" in name:
            good = zstandard.compress(good)
        with path.open("wb") as file:
            for piece in (good, *content, good):
                file.write(piece)
        results = context.Queue()
        process = context.Process(target=measure, args=(str(path), results))
        process.start()
        seconds, memory, counts = results.get(timeout=120)
        process.join()
        passed = seconds <= MAX_SECONDS and memory <= MAX_MEMORY_MB and counts["kept"] >= 2 and reason in counts
        others = {name: count for name, count in counts.items() if name not in ("kept", "not_a_response")}
        yield {"file": name, "passed": passed, "cpu_seconds": round(seconds, 2), "memory_mb": round(memory), **others}
