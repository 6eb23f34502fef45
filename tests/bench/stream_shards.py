"""How fast batches come from a bucket of many large shards, and what is requested for them.

    python -m tests.bench.stream_shards [--shards 60000] [--shuffle-block 128] [--tokens 200000000] [--delay 0.05]

Prints one JSON line: seconds from opening the shards to the first batch, tokens per second after it, bytes read as a
multiple of the stored bytes of the windows used, bytes of used windows per GET, open files, disk and memory. The bucket
is an S3 server of the benchmark's own on loopback, in another process, that waits --delay seconds before each answer;
all its shards have the bytes of one, of 1 GB, that the benchmark writes. The process may open 1,024 files.
"""

import argparse
import hashlib
import json
import multiprocessing
import resource
import tempfile
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar
from urllib.parse import parse_qs, urlsplit

import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter  # ty: ignore[import-not-found]

from lm.data.batches import BatchSource
from lm.data.records import MANIFEST, Manifest, SequenceRecord, Shard, Split, to_bytes
from lm.storage import Place, Url
from tests.object_store import NO_METADATA, variables

PAGE = 1000
"""Names of a page of a listing, as of S3."""


def write_shard(path: Path, records: int, length: int) -> Shard:
    """A shard of random tokens below 128,256 in documents of some 600 tokens."""
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
    """As much of S3 as a reader of shards needs."""

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
        """Says nothing."""


def serve(shard: Path, manifest: bytes, names: list[str], delay: float, ports) -> None:
    Server.shard, Server.manifest, Server.names, Server.delay = shard, manifest, names, delay
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    server.daemon_threads = True
    ports.send(server.server_address[1])
    server.serve_forever()


def manifest_of(shard: Shard, count: int, length: int) -> Manifest:
    """Of `count` shards like this one; their hashes are all different, since copies are refused."""
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
    return Manifest("none", 128_256, length, "uint32", {"train": total})


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def measure(arguments: argparse.Namespace, folder: Place, server: str, window_bytes: int) -> dict[str, object]:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    counts = lambda: json.loads(urllib.request.urlopen(f"{server}/counts").read())
    steps = max(arguments.tokens // (arguments.batch_size * arguments.context), 2)
    began = time.perf_counter()
    source = BatchSource(
        folder, "train", arguments.context, arguments.batch_size, 0, arguments.threads,
        shuffle_block=arguments.shuffle_block,
    )  # fmt: skip
    opened = time.perf_counter()
    batches = source.iterate(stop_step=steps)
    next(batches)
    first, files = time.perf_counter(), open_files()
    for step, _ in enumerate(batches):
        files = max(files, open_files()) if step % 16 == 0 else files
    seconds = time.perf_counter() - first
    gets, sent = counts()
    used = steps * arguments.batch_size * window_bytes
    of_requests = {
        "gets": gets, "bytes_read_per_byte_used": round(sent / used, 3), "bytes_used_per_get": round(used / gets),
    } if gets else {}  # fmt: skip
    return of_requests | {
        "open_seconds": round(opened - began, 2), "first_batch_seconds": round(first - began, 2),
        "tokens_per_second": round((steps - 1) * arguments.batch_size * arguments.context / seconds),
        "tokens": steps * arguments.batch_size * arguments.context,
        "most_open_files": files, "memory_mb_before": before // 1024,
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, default=60_000, help="(default: 60,000)")
    parser.add_argument("--records", type=int, default=95_000, help="of a shard (default: 95,000, about 1 GB)")
    parser.add_argument("--record-length", type=int, default=4096, help="(default: 4096)")
    parser.add_argument("--context", type=int, default=4096, help="(default: 4096)")
    parser.add_argument("--batch-size", type=int, default=64, help="(default: 64)")
    parser.add_argument("--shuffle-block", type=int, default=128, help="train.shuffle_block (default: 128)")
    parser.add_argument("--tokens", type=int, default=200_000_000, help="to read (default: 200,000,000)")
    parser.add_argument("--delay", type=float, default=0.05, help="seconds before each answer (default: 0.05)")
    parser.add_argument("--threads", type=int, default=1, help="loader threads (default: 1)")
    parser.add_argument("--disk", action="store_true", help="read from a disk: as many hard links to the shard")
    arguments = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024))
    with tempfile.TemporaryDirectory() as name:
        cache = Path(name) / "cache"
        shard = write_shard(Path(name) / "shard", arguments.records, arguments.record_length)
        manifest = manifest_of(shard, arguments.shards, arguments.record_length)
        names = [one.file for one in manifest.splits["train"].shards]
        ports, theirs = multiprocessing.Pipe()
        process = multiprocessing.get_context("spawn").Process(
            target=serve, args=(Path(name) / "shard", manifest.to_json().encode(), names, arguments.delay, theirs)
        )
        process.start()
        server = f"http://127.0.0.1:{ports.recv()}"
        window_bytes = shard.bytes * arguments.context // (shard.records * arguments.record_length)
        environment = {
            "AWS_ENDPOINT_URL": server, "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_REGION": "us-east-1", "GRISTMILL_CACHE": str(cache), **NO_METADATA,
        }  # fmt: skip
        try:
            folder: Place = Url("s3://b/tokens")
            if arguments.disk:
                folder = Path(name) / "tokens"
                folder.mkdir()
                (folder / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
                for one in names:
                    (folder / one).hardlink_to(Path(name) / "shard")
            with variables(environment):
                row = measure(arguments, folder, server, window_bytes)
        finally:
            process.kill()
            process.join()
        disk = sum(path.stat().st_size for path in cache.rglob("*") if path.is_file()) if cache.exists() else 0
    settings = {"bench": "stream_shards"} | {k: v for k, v in vars(arguments).items() if k != "tokens"}
    print(json.dumps(settings | {"shard_bytes": shard.bytes} | row | {"disk_bytes": disk}))


if __name__ == "__main__":
    main()
