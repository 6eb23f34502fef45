"""The most memory that reading one input file takes, whatever its size: a large Parquet file in one row group, a large
WARC, a record of 64 MB, the longest lines of JSON; from a disk and over HTTP, each in a process of its own.

    python -m tests.bench.memory [--scale 0.1] [--rows 2000] [--only parquet warc ...]

At scale 1 the Parquet file has 10 GB in one row group, the WARC 5 GB. All of each file is read; the first --rows go
through everything that the stage texts does (rows_of_input). Prints one JSON line a file and place: {"file", "place",
"bytes", "rows", "peak_mb", "before_mb", "seconds"}; exit code 1 where a peak is above 1,500 MB. Files are written to a
temporary folder as they are needed, and deleted.
"""

import argparse
import contextlib
import http.server
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Generator, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from data_prep.documents import WebPage
from data_prep.sources.local import own_files
from data_prep.warc import write_pages
from tests.data_prep.pages import PROSE, demo_config

MOST_MB = 1500
DISTINCT = 1000
"""Texts that are repeated."""


def texts() -> list[str]:
    """Of 2 to 200 kB, from a few sentences and random digits that no codec makes small."""
    rng = random.Random(0)
    paragraph = lambda: f"{PROSE} {rng.randbytes(rng.randrange(200, 1500)).hex()}"
    return ["\n".join(paragraph() for _ in range(rng.choice([1, 2, 4, 8, 40]))) for _ in range(DISTINCT)]


def write_parquet(path: Path, size: int) -> None:
    """One row group of `size` bytes, neither compressed nor by a dictionary. Its columns are the same few chunks many
    times over, and are written one after the other: neither needs the memory of the file."""
    some = texts()
    times = max(1, size // sum(map(len, some)))
    columns = {"text": some, "url": ["http://a.example/"] * DISTINCT}
    chunked = {name: pa.chunked_array([pa.array(values)] * times) for name, values in columns.items()}
    ids = [pa.array([f"{number}/{n}" for n in range(DISTINCT)]) for number in range(times)]
    table = pa.table({"text": chunked["text"], "id": pa.chunked_array(ids), "url": chunked["url"]})
    pq.write_table(table, path, row_group_size=len(table), compression="none", use_dictionary=False)
    assert pq.ParquetFile(path).num_row_groups == 1


def write_warc(path: Path, size: int) -> None:
    some = [
        f"<!DOCTYPE html><html><body><p>{text}</p></body></html>".replace("\n", "</p><p>").encode() for text in texts()
    ]
    pages = lambda: (
        WebPage(f"http://a.example/{n}", f"<urn:uuid:{n}>", "2024-01-01T00:00:00Z", "text/html", body, "")
        for n, body in enumerate(some)
    )
    write_pages(path, pages())
    once = path.read_bytes()
    with path.open("wb") as file:  # of gzip members, which may stand behind one another
        for _ in range(max(1, size // len(once))):
            file.write(once)


def write_record(path: Path, size: int) -> None:
    """One page of as many bytes as a page may have."""
    begin, end = b"<!DOCTYPE html><html><body>", b"</body></html>"
    paragraph = f"<p>{PROSE}</p>\n".encode()
    body = begin + paragraph * ((size - len(begin) - len(end)) // len(paragraph)) + end
    page = WebPage("http://a.example/", "<urn:uuid:1>", "2024-01-01T00:00:00Z", "text/html", body, "")
    write_pages(path, [page, page])


def write_lines(path: Path, size: int) -> None:
    """Lines of up to 31 MB of text, the longest that is read."""
    with path.open("w") as file:
        while file.tell() < size:
            for length in (10, 1_000, 31_000_000):
                file.write(json.dumps({"text": (PROSE + "\n") * (length // len(PROSE) + 1)}) + "\n")


WRITERS = {
    "parquet": (write_parquet, "a.parquet", 10 * 10**9),
    "warc": (write_warc, "a.warc.gz", 5 * 10**9),
    "record": (write_record, "b.warc.gz", 63_900_000),
    "lines": (write_lines, "a.jsonl", 2 * 10**9),
}
"""{kind: (writer, name, bytes at scale 1)}; a record is as large at any scale."""


class Handler(http.server.SimpleHTTPRequestHandler):
    """Files by ranges, which the standard library's handler does not know."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        path = Path(self.translate_path(self.path))
        size = path.stat().st_size
        start, end = 0, size - 1
        if found := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            start, end = int(found[1]), min(int(found[2] or end), end)
        self.send_response(206 if found else 200)
        self.send_header("Content-Length", str(end - start + 1))
        self.send_header("Content-Range", f"bytes {start}-{end}/{size}")
        self.send_header("ETag", f'"{size}"')
        self.end_headers()
        with path.open("rb") as file, contextlib.suppress(ConnectionError):
            file.seek(start)
            left = end - start + 1
            while self.command == "GET" and left and (piece := file.read(min(left, 1 << 20))):
                self.wfile.write(piece)
                left -= len(piece)

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, format, *args):
        pass


@contextlib.contextmanager
def serving(folder: Path) -> Generator[str]:
    handler = lambda *given: Handler(*given, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


def peak() -> int:
    """Megabytes that this process has had resident at most."""
    status = Path("/proc/self/status").read_text()  # getrusage tells of the parent before exec, too
    return int(status.partition("VmHWM:")[2].split()[0]) // 1024


def measure(option: str, name: str, rows: int) -> dict[str, float]:
    """Reads the file, in this process."""
    from data_prep.measure.row import row_of
    from data_prep.sources.inputs import read_input

    (file,) = own_files(*(((name,), ()) if option == "warc" else ((), (name,))), "text")
    config = demo_config()
    before, begun, count = peak(), time.perf_counter(), 0
    for found in read_input(file):
        if count < rows:
            row_of(found, file, config)
        count += 1
    return {
        "bytes": file.bytes, "rows": count, "before_mb": before, "peak_mb": peak(),
        "seconds": round(time.perf_counter() - begun, 1),
    }  # fmt: skip


def measured(kinds: list[str], scale: float, rows: int) -> Iterator[dict]:
    environment = os.environ | {"NO_PROXY": "127.0.0.1"}
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder)) as address:
        for kind in kinds:
            write, name, size = WRITERS[kind]
            path = Path(folder) / name
            writing = (
                f"from tests.bench.memory import *; WRITERS[{kind!r}][0](Path({str(path)!r}), {int(size * scale)})"
            )
            if kind == "record":
                write(path, size)
            else:  # what the writer needs is not this process's
                subprocess.run([sys.executable, "-c", writing], check=True)
            for place in (str(path), f"{address}/{name}"):
                option = "warc" if name.endswith(".warc.gz") else "tables"
                program = f"from tests.bench.memory import *; print(json.dumps(measure({option!r}, {place!r}, {rows})))"
                done = subprocess.run(
                    [sys.executable, "-c", program], env=environment, check=True, stdout=subprocess.PIPE, text=True
                )
                yield {
                    "file": kind,
                    "place": place.partition(":")[0] if ":" in place else "disk",
                    **json.loads(done.stdout),
                }
            path.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--only", nargs="*", default=list(WRITERS), choices=WRITERS)
    given = parser.parse_args()
    worst = 0
    for line in measured(given.only, given.scale, given.rows):
        print(json.dumps(line), flush=True)
        worst = max(worst, line["peak_mb"])
    sys.exit(worst > MOST_MB)


if __name__ == "__main__":
    main()
