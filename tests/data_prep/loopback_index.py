"""A package index on loopback for tests, in the layouts of PEP 503 (HTML) and PEP 691 (JSON)."""

import contextlib
import hashlib
import json
import socket
import threading
from collections import Counter
from collections.abc import Generator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class LoopbackIndex:
    """Serve `files` of the project "sample"; `fail` and `cut` are the numbers of responses to spoil first."""

    def __init__(self, files: dict[str, bytes], as_json: bool = True):
        self.files, self.as_json = files, as_json
        self.fail = 0
        """Responses with 503 before the first good one."""
        self.cut = 0
        """Files truncated half-way before the first complete one."""
        self.requests: Counter[str] = Counter()
        self.logins: list[str | None] = []
        self.url = ""

    def project_page(self) -> tuple[str, bytes]:
        if self.as_json:
            files = [
                {"filename": name, "url": f"/files/{name}", "hashes": {"sha256": hashlib.sha256(data).hexdigest()}}
                for name, data in self.files.items()
            ]
            page = {"meta": {"api-version": "1.0"}, "name": "sample", "files": files}
            return "application/vnd.pypi.simple.v1+json", json.dumps(page).encode()
        links = "".join(f'<a href="/files/{name}#sha256={"0" * 64}">{name}</a>' for name in self.files)
        return "text/html", f"<!DOCTYPE html><html><body>{links}</body></html>".encode()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        self.requests[request.path] += 1
        self.logins.append(request.headers.get("Authorization"))
        name = request.path.removeprefix("/files/")
        if self.fail:
            self.fail -= 1
            send(request, 503, "text/plain", b"busy")
        elif request.path == "/simple/sample/":
            send(request, 200, *self.project_page())
        elif request.path.startswith("/files/") and name in self.files:
            data, self.cut = self.files[name], self.cut - 1
            send(request, 200, "application/octet-stream", data, len(data) // 2 if self.cut >= 0 else None)
        else:
            send(request, 404, "text/plain", b"no such thing")


def send(request: BaseHTTPRequestHandler, status: int, kind: str, body: bytes, sent: int | None = None) -> None:
    request.send_response(status)
    request.send_header("Content-Type", kind)
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    request.wfile.write(body[:sent])


@contextlib.contextmanager
def serving(index: LoopbackIndex) -> Generator[LoopbackIndex]:
    class Handler(BaseHTTPRequestHandler):
        disable_nagle_algorithm = True

        def do_GET(self):
            index.answer(self)

        def log_message(self, format, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        index.url = f"http://127.0.0.1:{server.server_port}/simple/"
        try:
            yield index
        finally:
            server.shutdown()
            thread.join()


def closed_port() -> int:
    """A port without a listener."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]
