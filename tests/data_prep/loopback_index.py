"""A package index on loopback for tests, in the layouts of PEP 503 (HTML) and PEP 691 (JSON)."""

import contextlib
import hashlib
import json
import socket
from collections import Counter
from collections.abc import Generator
from http.server import BaseHTTPRequestHandler

from tests.loopback_server import listening, send


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
            send(request, 503, {}, b"busy")
        elif request.path == "/simple/sample/":
            kind, page = self.project_page()
            send(request, 200, {"Content-Type": kind}, page)
        elif request.path.startswith("/files/") and name in self.files:
            data, self.cut = self.files[name], self.cut - 1
            send(request, 200, {"Content-Length": str(len(data))}, data[: len(data) // 2 if self.cut >= 0 else None])
        else:
            send(request, 404, {}, b"no such thing")


@contextlib.contextmanager
def serving(index: LoopbackIndex) -> Generator[LoopbackIndex]:
    with listening(index.answer) as address:
        index.url = f"{address}/simple/"
        yield index


def closed_port() -> int:
    """A port without a listener."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]
