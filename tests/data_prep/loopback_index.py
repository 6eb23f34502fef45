"""A package index on loopback for tests, in the layouts of PEP 503 (HTML) and PEP 691 (JSON)."""

import hashlib
import json
import socket

from tests.data_prep.loopback_crawl import Fault, LoopbackCrawl

PROJECT = "simple/sample/"
"""The path of the project's page; its files are in files/."""


def index_of(files: dict[str, bytes], as_json: bool = True) -> LoopbackCrawl:
    """A server of the files of the project "sample". The HTML page has wrong hashes."""
    kind, page = "text/html", "".join(f'<a href="/files/{name}#sha256={"0" * 64}">{name}</a>' for name in files)
    if as_json:
        found = [
            {"filename": name, "url": f"/files/{name}", "hashes": {"sha256": hashlib.sha256(data).hexdigest()}}
            for name, data in files.items()
        ]
        kind = "application/vnd.pypi.simple.v1+json"
        page = json.dumps({"meta": {"api-version": "1.0"}, "name": "sample", "files": found})
    served = LoopbackCrawl({PROJECT: page.encode(), **{f"files/{name}": data for name, data in files.items()}})
    served.always[PROJECT] = Fault(headers={"Content-Type": kind})
    return served


def closed_port() -> int:
    """A port without a listener."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]
