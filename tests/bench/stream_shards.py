"""Batches from a bucket of many large shards, and the requests they cost.

    python -m tests.bench.stream_shards [--shards 60000] [--shuffle-block 128] [--tokens 200000000] [--delay 0.05]

Prints a JSON line: seconds from opening the shards to the first batch, tokens per second after it, bytes read per byte
used, bytes used per GET, open files, disk and memory. The bucket is an S3 server on loopback in another process that
waits --delay seconds before each answer; all shards have the bytes of one of 1 GB. The process may open 1,024 files.
"""

import hashlib
import json
import multiprocessing
import resource
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar
from urllib.parse import parse_qs, urlsplit

import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter  # ty: ignore[import-not-found]

from lm.data.batches import BatchSource
from lm.data.records import MANIFEST, Manifest, SequenceRecord, Shard, Split, to_bytes
from lm.storage import Place, Url
from tests.bench.runner import run_benchmark
from tests.object_store import NO_METADATA, variables

PAGE = 1000
"""Names per page of a listing, as in S3."""


def write_shard(path: Path, records: int, length: int) -> Shard:
    """A shard of random tokens below 128,256 in documents of about 600 tokens."""
    generator = np.random.default_rng(0)
    starts = np.arange(0, length, 600, dtype=np.uint32)
    tokens = generator.integers(0, 128_256, (64, length + 1), dtype=np.uint32)
    writer = ArrayRecordWriter(str(path), "group_size:1")
    for number in range(records):
        row = np.roll(tokens[number % 64], number)
        writer.write(to_bytes(SequenceRecord(row, length + 1, starts, number + np.arange(len(starts)))))
    writer.close()
    count = records * length + 1
    return Shard(path.name, records, path.stat().st_size, "", records, count, 4 * count)


class Server(BaseHTTPRequestHandler):
    """The subset of S3 needed by a reader of shards."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    shard: ClassVar[Path]
    manifest: ClassVar[bytes]
    names: ClassVar[list[str]]
    delay: ClassVar[float]
    gets: ClassVar[int] = 0
    sent: ClassVar[int] = 0
    lock: ClassVar[threading.Lock] = threading.Lock()

    def do_GET(self) -> None:
        path, query = urlsplit(self.path).path, parse_qs(urlsplit(self.path).query)
        if path == "/counts":
            return self.answer(json.dumps([Server.gets, Server.sent]).encode())
        time.sleep(self.delay)
        if "list-type" in query:
            return self.answer(self.listing(int(query.get("continuation-token", ["0"])[0])))
        if path.endswith(MANIFEST):
            return self.answer(self.manifest)
        first, last = map(int, self.headers["Range"].removeprefix("bytes=").split("-"))
        size = self.shard.stat().st_size
        with self.shard.open("rb") as file:
            file.seek(first)
            data = file.read(last + 1 - first)
        with self.lock:
            Server.gets, Server.sent = Server.gets + 1, Server.sent + len(data)
        return self.answer(data, 206, {"Content-Range": f"bytes {first}-{first + len(data) - 1}/{size}"})

    do_HEAD = do_GET  # noqa: N815

    def listing(self, start: int) -> bytes:
        size, end = self.shard.stat().st_size, start + PAGE
        rows = "".join(
            f"<Contents><Key>tokens/{name}</Key><Size>{size}</Size><ETag>&quot;1&quot;</ETag>"
            "<LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
            for name in self.names[start:end]
        )
        more = end < len(self.names)
        token = f"<NextContinuationToken>{end}</NextContinuationToken>" if more else ""
        return (
            f"<ListBucketResult><Name>b</Name><IsTruncated>{str(more).lower()}</IsTruncated>{token}{rows}"
            "</ListBucketResult>"
        ).encode()

    def answer(self, data: bytes, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send_response_only(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("ETag", '"1"')
        self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def log_message(self, format: str, *arguments: object) -> None:
        """Disable logging."""


def serve(shard: Path, manifest: bytes, names: list[str], delay: float, ports) -> None:
    Server.shard, Server.manifest, Server.names, Server.delay = shard, manifest, names, delay
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    server.daemon_threads = True
    ports.send(server.server_address[1])
    server.serve_forever()


def manifest_of(shard: Shard, count: int, length: int) -> Manifest:
    """A manifest of `count` shards like this one; their hashes all differ, because duplicates are rejected."""
    shards = tuple(
        Shard(
            f"train-{number:05d}-of-{count:05d}.array_record", shard.records, shard.bytes,
            hashlib.sha256(str(number).encode()).hexdigest(), shard.documents, shard.tokens, shard.text_bytes,
        )
        for number in range(count)
    )  # fmt: skip
    total = Split(
        count * shard.documents, count * shard.tokens, count * shard.text_bytes, count * shard.records, shards
    )
    return Manifest("none", 128_256, length, "uint32", {"train": total}, ())


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def measure(
    folder: Place, context: int, batch_size: int, threads: int, shuffle_block: int, steps: int
) -> dict[str, object]:
    """Read the batches of `steps` steps."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    source = BatchSource(folder, "train", context, batch_size, 0, threads, shuffle_block=shuffle_block)
    opened = time.perf_counter()
    batches = source.iterate(stop_step=steps)
    next(batches)
    first, files = time.perf_counter(), open_files()
    for step, _ in enumerate(batches):
        files = max(files, open_files()) if step % 16 == 0 else files
    seconds = time.perf_counter() - first
    return {
        "open_seconds": round(opened - began, 2), "first_batch_seconds": round(first - began, 2),
        "tokens_per_second": round((steps - 1) * batch_size * context / seconds),
        "tokens": steps * batch_size * context,
        "most_open_files": files, "memory_mb_before": before // 1024,
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }  # fmt: skip


def main(
    shards: int = 60_000,
    records: int = 95_000,
    record_length: int = 4096,
    context: int = 4096,
    batch_size: int = 64,
    shuffle_block: int = 128,
    tokens: int = 200_000_000,
    delay: float = 0.05,
    threads: int = 1,
    disk: bool = False,
) -> Iterator[dict[str, object]]:
    """Args:
    records: Records per shard; the default is about 1 GB.
    delay: Seconds before each answer of the server.
    threads: Loader threads.
    disk: Read from a disk, with hard links to one shard.
    """
    settings = {name: value for name, value in locals().items() if name != "tokens"}
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024))
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        shard = write_shard(root / "shard", records, record_length)
        manifest = manifest_of(shard, shards, record_length)
        names = [one.file for one in manifest.splits["train"].shards]
        ports, theirs = multiprocessing.Pipe()
        process = multiprocessing.get_context("spawn").Process(
            target=serve, args=(root / "shard", manifest.to_json().encode(), names, delay, theirs)
        )
        process.start()
        server = f"http://127.0.0.1:{ports.recv()}"
        environment = {
            "AWS_ENDPOINT_URL": server, "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_REGION": "us-east-1", "GRISTMILL_CACHE": str(root / "cache"), **NO_METADATA,
        }  # fmt: skip
        try:
            folder: Place = Url("s3://b/tokens")
            if disk:
                folder = root / "tokens"
                folder.mkdir()
                (folder / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
                for one in names:
                    (folder / one).hardlink_to(root / "shard")
            steps = max(tokens // (batch_size * context), 2)
            with variables(environment):
                row = measure(folder, context, batch_size, threads, shuffle_block, steps)
                gets, sent = json.loads(urllib.request.urlopen(f"{server}/counts").read())
        finally:
            process.kill()
            process.join()
        cached = sum(path.stat().st_size for path in root.glob("cache/**/*") if path.is_file())
    if gets:
        used = steps * batch_size * shard.bytes * context // (shard.records * record_length)
        row |= {
            "gets": gets,
            "bytes_read_per_byte_used": round(sent / used, 3),
            "bytes_used_per_get": round(used / gets),
        }
    yield settings | {"shard_bytes": shard.bytes} | row | {"disk_bytes": cached}


if __name__ == "__main__":
    run_benchmark(main)
