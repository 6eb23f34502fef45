"""A local server that answers as Hugging Face's hub does: resolve, tree, preupload, commit.

Files of more than `small` bytes are on another host, as on the hub, and reached by a signed URL.
"""

import base64
import contextlib
import hashlib
import json
import re
from collections.abc import Generator
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, unquote, urlsplit

from tests.data_prep.loopback_crawl import LoopbackCrawl
from tests.loopback_server import listening, send

REPOSITORY = "owner/name"


class LoopbackHub:
    """One data set, `repository`, with `files` {path: bytes} in its `revision`."""

    def __init__(
        self, files: dict[str, bytes], token: str = "", small: int = 1000, page: int = 2, repository: str = REPOSITORY,
        revision: str = "main",
    ):  # fmt: skip
        self.repository, self.revision = repository, revision
        self.files, self.token, self.small, self.page = files, token, small, page
        self.storage = LoopbackCrawl({})
        """The other host; its faults are keyed by SHA-256."""
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        """(method, path, headers)."""
        self.spoilt: list[tuple[str, int]] = []
        """(pattern of a path, status): each response is given once."""
        self.url = ""

    def etag(self, data: bytes) -> str:
        if len(data) > self.small:
            return hashlib.sha256(data).hexdigest()
        return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        path = unquote(urlsplit(request.path).path)
        self.requests.append((request.command, path, dict(request.headers)))
        if path.startswith("/stored/"):
            assert "Authorization" not in request.headers, "the hub's token was sent to another host"
            if request.command == "HEAD":  # the URL is signed for GET
                return send(request, 403, {}, b"")
            request.path = path.removeprefix("/stored/")
            # by contents, as on the hub: the target of a redirect still exists after the file was replaced
            self.storage.files |= {hashlib.sha256(data).hexdigest(): data for data in self.files.values()}
            return self.storage.answer(request)
        for number, (pattern, status) in enumerate(self.spoilt):
            if re.search(pattern, path):
                del self.spoilt[number]
                return send(request, status, {"Retry-After": "0"}, b"{}")
        if self.token and request.headers.get("Authorization") != f"Bearer {self.token}":
            return send(request, 401, {"X-Error-Code": "GatedRepo"}, b'{"error": "no"}')
        for pattern, handler in (
            (rf"/datasets/{self.repository}/resolve/{self.revision}/(.+)", self.resolve),
            (rf"/api/datasets/{self.repository}/tree/{self.revision}/?(.*)", self.tree),
            (rf"/api/datasets/{self.repository}/preupload/{self.revision}()", self.preupload),
            (rf"/api/datasets/{self.repository}/commit/{self.revision}()", self.commit),
        ):
            if found := re.fullmatch(pattern, path):
                return handler(request, found[1])
        return send(request, 404, {"X-Error-Code": "RepoNotFound"}, b'{"error": "none"}')

    def resolve(self, request: BaseHTTPRequestHandler, path: str) -> None:
        data = self.files.get(path)
        if data is None:
            return send(request, 404, {"X-Error-Code": "EntryNotFound"}, b"")
        if len(data) <= self.small:  # without ranges
            return send(request, 200, {"ETag": f'"{self.etag(data)}"'}, data)
        port = self.url.rpartition(":")[2]
        linked = {"X-Linked-Etag": f'"{self.etag(data)}"', "X-Linked-Size": str(len(data))}
        return send(request, 302, linked | {"Location": f"http://localhost:{port}/stored/{self.etag(data)}?key=1"}, b"")

    def tree(self, request: BaseHTTPRequestHandler, folder: str) -> None:
        inside = sorted(path for path in self.files if not folder or path.startswith(f"{folder}/"))
        if not inside:
            return send(request, 404, {"X-Error-Code": "EntryNotFound"}, b'{"error": "none"}')
        first = int(parse_qs(urlsplit(request.path).query).get("cursor", ["0"])[0])
        entries = []
        for path in inside[first : first + self.page]:
            data = self.files[path]
            entry = {"type": "file", "path": path, "size": len(data), "oid": "0" * 40}
            if len(data) > self.small:
                entry["lfs"] = {"oid": self.etag(data), "size": len(data), "pointerSize": 134}
            else:
                entry["oid"] = self.etag(data)
            entries.append(entry)
        address = f"{self.url}{urlsplit(request.path).path}?recursive=true&cursor={first + self.page}"
        more = {"Link": f'<{address}>; rel="next"'} if first + self.page < len(inside) else {}
        return send(request, 200, more, json.dumps(entries).encode())

    def preupload(self, request: BaseHTTPRequestHandler, _: str) -> None:
        asked = json.loads(request.rfile.read(int(request.headers["Content-Length"])))
        files = [{"path": one["path"], "uploadMode": "regular", "shouldIgnore": False} for one in asked["files"]]
        send(request, 200, {}, json.dumps({"files": files}).encode())

    def commit(self, request: BaseHTTPRequestHandler, _: str) -> None:
        for line in request.rfile.read(int(request.headers["Content-Length"])).splitlines():
            one = json.loads(line)
            if one["key"] == "file":
                self.files[one["value"]["path"]] = base64.b64decode(one["value"]["content"])
            if one["key"] == "deletedFile" and self.files.pop(one["value"]["path"], None) is None:
                return send(request, 404, {"X-Error-Code": "EntryNotFound"}, b'{"error": "none of this name"}')
        told = {"success": True, "commitOid": "1" * 40, "commitUrl": f"{self.url}/datasets/{REPOSITORY}/commit/1"}
        return send(request, 200, {}, json.dumps(told).encode())


@contextlib.contextmanager
def serving(hub: LoopbackHub) -> Generator[LoopbackHub]:
    with listening(hub.answer, hub.storage.ended.set) as hub.url:
        yield hub
