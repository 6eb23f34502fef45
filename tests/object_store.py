"""A local S3 server (moto's), and a proxy in front of it that injects faults of networks and stores.

    with serving() as store:
        store.bucket("corpus")
        store.fail(lambda request: "503" if request.method == "PUT" else None)

The proxy also implements the parts of Google's XML protocol that differ from S3's (generations instead of ETags), and
the parts of Google's JSON protocol that TensorStore uses, so the same server answers gs://.
"""

import contextlib
import hashlib
import http.client
import json
import logging
import os
import re
import threading
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar, NamedTuple
from urllib.parse import parse_qsl, quote, unquote

FAULTS = ("500", "503", "cut", "cut reply", "lost reply", "stall")
"""Faults: a server error or SlowDown; a connection cut before the response, within its body, or after the request was
carried out; no response."""
NO_METADATA = {
    "AWS_METADATA_ENDPOINT": "http://127.0.0.1:9", "GCE_METADATA_HOST": "127.0.0.1:9",
    "GCE_METADATA_ROOT": "127.0.0.1:9", "GCE_METADATA_IP": "127.0.0.1:9",
}  # fmt: skip
"""The metadata server for credentials of cloud machines, which no test may ask."""
QUICK = {"GRISTMILL_STORAGE_TIMEOUT": "30", "GRISTMILL_STORAGE_RETRIES": "2"}
"""No request takes this long, even on a busy machine; permanent failures still end soon."""
IMPATIENT = {"GRISTMILL_STORAGE_TIMEOUT": "2", "GRISTMILL_STORAGE_RETRIES": "20"}
"""For a request without a response, among others that a busy machine may answer late."""
HOPELESS = {"GRISTMILL_STORAGE_TIMEOUT": "6", "GRISTMILL_STORAGE_RETRIES": "0"}
"""For requests that all fail at once: pauses between retries are short if little time is allowed."""


GOOGLE_JSON = re.compile(r"(?:/upload)?/storage/v1/b/([^/]+)/o/?([^?]*)(?:\?(.*))?")


class Request(NamedTuple):
    method: str
    path: str
    """With its query."""
    number: int
    """Number among all requests of the server, from 0."""


@dataclass
class Store:
    """The server, through the proxy."""

    address: str
    fault: Callable[[Request], str | None] = lambda request: None
    requests: list[Request] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    released: threading.Event = field(default_factory=threading.Event)
    """Release all stalled requests."""
    downloaded: dict[str, int] = field(default_factory=dict)
    """{path of an object: number of its bytes that were sent}."""
    etags: dict[str, str] = field(default_factory=dict)
    """{generation: ETag}."""

    def environment(self) -> dict[str, str]:
        """Variables for clients to find it."""
        return {
            "AWS_ENDPOINT_URL": self.address, "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_REGION": "us-east-1", "GOOGLE_BASE_URL": self.address, "GOOGLE_BEARER_TOKEN": "token",
            **NO_METADATA,
        }  # fmt: skip

    def fail(self, fault: Callable[[Request], str | None]) -> None:
        """From now on, each request has the fault that `fault` returns; None for no faults."""
        self.fault = fault

    def fail_once(self, kind: str, pattern: str) -> None:
        """The next request whose "METHOD /path?query" matches the pattern has the fault."""
        left = [kind]

        def fault(request: Request) -> str | None:
            matches = re.search(pattern, f"{request.method} {request.path}")
            with self.lock:
                return left.pop() if matches and left else None

        self.fail(fault)

    def seen(self, request: str, path: str) -> Request:
        with self.lock:
            self.requests.append(Request(request, path, len(self.requests)))
            return self.requests[-1]

    def bucket(self, name: str) -> None:
        """Make an empty bucket, and delete objects of an earlier server of this process in one of that name: moto's
        servers share their state."""
        from moto.core import DEFAULT_ACCOUNT_ID
        from moto.s3.models import s3_backends

        backend = s3_backends[DEFAULT_ACCOUNT_ID]["aws"]
        if name in backend.buckets:
            backend.buckets[name].keys.clear()
            backend.delete_bucket(name)
        connection = http.client.HTTPConnection(self.address.removeprefix("http://"))
        connection.request("PUT", f"/{name}")
        assert connection.getresponse().status == 200
        connection.close()

    def put(self, address: str, data: bytes) -> None:
        """Write an object, also under a key that obstore refuses, such as the folder marker `a/`."""
        from moto.core import DEFAULT_ACCOUNT_ID
        from moto.s3.models import s3_backends

        bucket, _, key = address.partition("://")[2].partition("/")
        s3_backends[DEFAULT_ACCOUNT_ID]["aws"].put_object(bucket, key, data)


class Proxy(BaseHTTPRequestHandler):
    """Forward requests, or apply faults."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # otherwise each response with a body waits 40 ms
    store: ClassVar[Store]
    behind: ClassVar[tuple[str, int]]

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):  # the client was killed
            super().handle()

    def answer(self) -> None:
        body = self.read_body()
        if in_json := GOOGLE_JSON.fullmatch(self.path):
            self.from_json(in_json[1], unquote(in_json[2] or ""), dict(parse_qsl(in_json[3] or "")))
        fault = self.store.fault(self.store.seen(self.command, self.path))
        if fault in ("500", "503"):
            code = "SlowDown" if fault == "503" else "InternalError"
            return self.send(int(fault), {}, f"<Error><Code>{code}</Code></Error>".encode())
        if fault == "stall":
            self.store.released.wait()
        if fault in ("stall", "cut"):
            return self.hang_up()
        status, headers, data = self.pass_on(body)
        if in_json and self.command == "PUT" and status == 200:
            data = json.dumps({"name": unquote(self.path.split("/", 2)[2]), "generation": headers["x-goog-generation"]})
            headers, data = {"Content-Type": "application/json"}, data.encode()
        if self.command == "GET" and status < 300 and "?" not in self.path:
            with self.store.lock:
                self.store.downloaded[self.path] = self.store.downloaded.get(self.path, 0) + len(data)
        if fault == "lost reply":
            return self.hang_up()
        return self.send(status, headers, data, cut=fault == "cut reply")

    def from_json(self, bucket: str, name: str, asked: dict[str, str]) -> None:
        """Convert to a request of the XML protocol: to read, write or delete an object."""
        if self.command == "POST":
            self.command, name = "PUT", asked["name"]
        self.path = f"/{bucket}/{quote(name)}"
        if (generation := asked.get("ifGenerationMatch")) is not None:
            self.headers["x-goog-if-generation-match"] = generation

    def read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def pass_on(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        headers = {name: value for name, value in self.headers.items() if name.lower() != "transfer-encoding"}
        google = {name.lower(): value for name, value in headers.items()}.get("x-goog-if-generation-match")
        if google is not None:
            condition = ("If-None-Match", "*") if google == "0" else ("If-Match", self.store.etags.get(google, "none"))
            headers |= dict([condition])
        for name in [name for name in headers if name.lower() == "x-goog-copy-source"]:
            headers["x-amz-copy-source"] = headers.pop(name)
        connection = http.client.HTTPConnection(*self.behind)
        path, mark, query = self.path.partition("?")
        path = quote(unquote(path))  # Google's client writes every - and / of a name as %2D and %2F
        connection.request(self.command, path + mark + query, body, headers | {"Content-Length": str(len(body))})
        reply = connection.getresponse()
        data, found = reply.read(), dict(reply.getheaders())
        connection.close()
        etag = {name.lower(): value for name, value in found.items()}.get("etag")
        if etag:
            generation = str(int(hashlib.md5(etag.encode()).hexdigest()[:12], 16))
            self.store.etags[generation] = etag
            found["x-goog-generation"] = generation
        return reply.status, found, data

    def send(self, status: int, headers: dict[str, str], data: bytes, cut: bool = False) -> None:
        self.send_response_only(status)
        length = headers.get("Content-Length", headers.get("content-length"))
        for name, value in headers.items():
            if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                self.send_header(name, value)
        self.send_header("Content-Length", length if self.command == "HEAD" and length else str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data[: len(data) // 2] if cut else data)
        if cut:
            self.hang_up()

    def hang_up(self) -> None:
        self.close_connection = True

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = answer  # noqa: N815

    def log_message(self, format: str, *arguments: object) -> None:
        """Disable logging."""


@contextlib.contextmanager
def serving() -> Generator[Store]:
    """The server, stopped at the end of the block. The environment is unchanged."""
    from moto.server import ThreadedMotoServer
    from werkzeug.serving import WSGIRequestHandler

    WSGIRequestHandler.disable_nagle_algorithm = True  # moto's
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # otherwise a line per request, if logging is configured
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    store = Store("")
    handler = type("Handler", (Proxy,), {"store": store, "behind": moto.get_host_and_port()})
    proxy = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    proxy.daemon_threads = True
    thread = threading.Thread(target=proxy.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    store.address = f"http://127.0.0.1:{proxy.server_address[1]}"
    try:
        yield store
    finally:
        store.released.set()
        proxy.shutdown()
        proxy.server_close()
        moto.stop()


@contextlib.contextmanager
def variables(values: dict[str, str]) -> Generator[None]:
    """Set these variables until the end of the block."""
    from lm.storage import objects

    before = dict(os.environ)
    os.environ.update(values)
    objects.store.cache_clear()
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
        objects.store.cache_clear()
