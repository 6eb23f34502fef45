"""A loopback server for tests with the layout of Common Crawl's server and injectable network faults."""

import contextlib
import gzip
import hashlib
import re
import threading
from collections import defaultdict
from collections.abc import Generator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler

from tests.loopback_server import listening, start

CRAWL = "CC-MAIN-2024-10"
SEGMENT = f"crawl-data/{CRAWL}/segments/1707947473347.0"


@dataclass(frozen=True)
class Fault:
    """A fault of one response; the faults of a path are used one per request."""

    status: int | None = None
    """Respond with this status and no file."""
    headers: dict[str, str] = field(default_factory=dict)
    """Additional or replaced headers."""
    cut: int | None = None
    """Close the connection after this number of bytes of the body."""
    ignore_range: bool = False
    """Send the whole file instead of the requested range, or, with `shift`, another range."""
    shift: int = 0
    """Send the range that begins this number of bytes earlier."""
    ignore_condition: bool = False
    """Send the range although If-Range names another version."""
    told_length: int | None = None
    """Content-Length, whatever the length of the body."""
    chunked: bool = False
    """Use chunked encoding, without a length."""
    replace: bytes | None = None
    """Replace the file permanently."""
    body: bytes | None = None
    """Send this once instead of the file."""
    stall: bool = False
    """Send half of the body, then nothing until the server stops."""


class LoopbackCrawl:
    """Serve `files` {path: bytes} with ETags like those of S3; `faults` {path: list of Fault} are injected."""

    def __init__(self, files: dict[str, bytes]):
        self.files = files
        self.faults: dict[str, list[Fault]] = defaultdict(list)
        self.always: dict[str, Fault] = {}
        """Faults that are used for every request."""
        self.etag = lambda data: f'"{hashlib.md5(data).hexdigest()}"'
        self.requests: list[tuple[str, dict[str, str]]] = []
        """(path, headers) in order of arrival."""
        self.ended = threading.Event()
        self.lock = threading.Lock()
        self.url = ""

    @classmethod
    def of(cls, warcs: list[bytes], kind: str = "warc") -> "LoopbackCrawl":
        """A crawl of these files, with its list."""
        suffix = {"warc": "warc.gz", "wet": "warc.wet.gz"}[kind]
        paths = [f"{SEGMENT}/{kind}/CC-MAIN-20240220211055-20240221001055-{n:05d}.{suffix}" for n in range(len(warcs))]
        served = cls(dict(zip(paths, warcs, strict=True)))
        served.files[f"crawl-data/{CRAWL}/{kind}.paths.gz"] = gzip.compress("".join(f"{p}\n" for p in paths).encode())
        return served

    @property
    def paths(self) -> list[str]:
        return [path for path in self.files if "/segments/" in path]

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        path = request.path.lstrip("/")
        with self.lock:
            self.requests.append((path, dict(request.headers)))
            spoilt = self.faults[path] and request.command == "GET"
            fault = self.faults[path].pop(0) if spoilt else self.always.get(path, Fault())
            if fault.replace is not None:
                self.files[path] = fault.replace
        data = self.files.get(path)
        status = fault.status or (404 if data is None else 200)
        if status != 200 or data is None:
            body = b"<html>no</html>"
            start(request, status, {"Content-Length": str(len(body)), **fault.headers})
            request.wfile.write(b"" if request.command == "HEAD" else body)
            return
        self.send_file(request, data if fault.body is None else fault.body, fault)

    def send_file(self, request: BaseHTTPRequestHandler, data: bytes, fault: Fault) -> None:
        headers = {"ETag": self.etag(data), "Last-Modified": "Thu, 22 Feb 2024 10:00:00 GMT"}
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("Range", ""))
        condition = request.headers.get("If-Range")
        fresh = fault.ignore_condition or condition in (None, *headers.values())
        begin, end, status = 0, len(data), 200
        if asked and fresh and not fault.ignore_range:
            begin, status = int(asked[1]) - fault.shift, 206
            end = min(int(asked[2]) + 1, len(data)) if asked[2] else len(data)
            headers["Content-Range"] = f"bytes {begin}-{end - 1}/{len(data)}"
            if begin >= len(data):
                start(request, 416, {"Content-Range": f"bytes */{len(data)}", "Content-Length": "0"})
                return
        body = data[begin:end]
        told = len(body) if fault.told_length is None else fault.told_length
        headers |= {"Transfer-Encoding": "chunked"} if fault.chunked else {"Content-Length": str(told)}
        start(request, status, {k: v for k, v in {**headers, **fault.headers}.items() if v})
        if request.command == "HEAD":
            return
        body = body[: len(body) // 2 if fault.stall else fault.cut]
        if fault.chunked:
            body = b"%x\r\n%b\r\n" % (len(body), body) + (b"" if fault.cut is not None else b"0\r\n\r\n")
        request.wfile.write(body)
        if fault.stall:
            request.wfile.flush()
            self.ended.wait(3600)


@contextlib.contextmanager
def serving(crawl: LoopbackCrawl) -> Generator[LoopbackCrawl]:
    with listening(crawl.answer, crawl.ended.set) as address:
        crawl.url = f"{address}/"
        yield crawl
