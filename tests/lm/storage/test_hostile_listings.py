"""Listings by a hostile or odd server, of buckets and of the hub: each ends in one line that names the object and the
remedy, or in a listing without what is no file."""

import contextlib
import json
import threading
import time
from collections.abc import Callable, Generator, Iterator
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, urlsplit
from xml.sax.saxutils import escape

import pytest

from lm.checkpoints.addresses import Bucket
from lm.checkpoints.manifest import states_in
from lm.errors import InputError
from lm.storage import Url, fetched, local_folder, move_folder, objects, sizes_below
from lm.storage.local_copy import COPIES, LocalCopy
from tests.loopback_server import listening, send
from tests.object_store import QUICK, Store, variables

Page = list[tuple[str, int]]
"""(name, size in bytes) of each file."""
DATE = "Thu, 01 Jan 2026 00:00:00 GMT"
KINDS = ("s3", pytest.param("gs", marks=pytest.mark.slow), "hf")
FOLDERS = {"s3": "s3://bucket/run", "gs": "gs://bucket/run", "hf": "hf://datasets/owner/name/run"}


@contextlib.contextmanager
def serving_listing(kind: str, pages: Callable[[], Iterator[Page]]) -> Generator[Url]:
    """A folder at a server that lists these pages, and answers each file with one byte."""
    cursors: dict[str, Iterator[Page]] = {}
    ended: list[bool] = []

    def answer(request: BaseHTTPRequestHandler) -> None:
        path, asked = urlsplit(request.path).path, parse_qs(urlsplit(request.path).query)
        if "list-type" not in asked and "/tree/" not in path:
            if path.endswith("/run"):
                return send(request, 404, {"X-Error-Code": "EntryNotFound"}, b"")
            part = {"Content-Range": "bytes 0-0/1"} if "Range" in request.headers else {}
            return send(request, 206 if part else 200, {"ETag": '"e"', "Last-Modified": DATE} | part, b"x")
        token = asked.get("continuation-token", asked.get("cursor", [""]))[0]
        cursor = cursors[token] if token else pages()
        page, token = next(cursor, None) if not ended else None, f"{len(cursors)}"
        cursors[token] = cursor
        if kind == "hf":
            entries = [{"type": "file", "path": f"run/{name}", "size": size, "oid": "e"} for name, size in page or ()]
            address = f"{server}{path}?recursive=true&cursor={token}"
            more = {"Link": f'<{address}>; rel="next"'} if page is not None else {}
            return send(request, 200, more, json.dumps(entries).encode())
        content = "".join(
            f"<Contents><Key>{escape(f'run/{name}')}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
            f"<ETag>e</ETag><Size>{size}</Size></Contents>"
            for name, size in page or ()
        )
        more = "" if page is None else f"<NextContinuationToken>{token}</NextContinuationToken>"
        text = f"<ListBucketResult><IsTruncated>{str(page is not None).lower()}</IsTruncated>{content}{more}"
        return send(request, 200, {}, f"{text}</ListBucketResult>".encode())

    with listening(answer) as server:
        given = Store(server).environment() | {"HF_ENDPOINT": server, "HF_TOKEN": "none"}
        with variables(given | QUICK):
            yield Url(FOLDERS[kind])
            ended.append(True)
            for thread in [one for one in threading.enumerate() if one.name == "storage"]:
                thread.join()


def endless() -> Iterator[Page]:
    number = 0
    while True:
        yield [(f"file-{number + one:09d}", 1) for one in range(100)]
        number += 100


def empty_pages() -> Iterator[Page]:
    while True:
        time.sleep(0.01)
        yield []


def once(*names: str, size: int = 1) -> Callable[[], Iterator[Page]]:
    return lambda: iter([[(name, size) for name in names]])


LISTED = {
    "endless": (endless, r"cannot be listed: there are over 1,000 objects, such as 'file-0+1000', .* Give the address"),
    "endless empty pages": (empty_pages, r"cannot be listed: for 0.5 s, the server named no object. Give the address"),
    "a size of 2**63": (once("a", size=2**63), r"run/a is 9223372036854775808 bytes, .* Delete the object"),
    "above": (
        once("../a"),
        r"cannot be listed: .*\.\./a.* (Delete or rename this|Give the file or)",
    ),
    "a control character": (once("a\x7fb"), r"cannot be listed: .*a.{1,4}b.* (Delete or rename this|Give the file or)"),
    "an empty folder name": (once("a//b"), r"cannot be listed: .*a//b.* (Delete or rename this|Give the file or)"),
}
"""{case: (pages, message)} of listings that no command can use."""
STORED = {
    "a name of 300 bytes": (once("n" * 300), r"run/n+\.\.\. .* cannot be stored .* too long: .*Rename the object"),
    "a deep path": (once("a/" * 1500 + "x"), r"run/a/a/a.* cannot be stored .* too long: .*Rename the object"),
    "a file and a folder of one name": (once("a", "a/b"), r"run/a(/b)? cannot be stored .*Delete or rename the object"),
}
"""{case: (pages, message)} of listings that cannot be copied to a disk."""


@pytest.fixture(autouse=True)
def limits(monkeypatch, tmp_path):
    monkeypatch.setattr(objects, "MOST_OBJECTS", 1000)
    with variables({"GRISTMILL_CACHE": str(tmp_path / "cache")}):
        yield
    COPIES.clear()
    fetched.cache_clear()


@pytest.mark.parametrize("case", LISTED)
@pytest.mark.parametrize("kind", KINDS)
def test_an_unusable_listing_is_one_line(kind, case, monkeypatch):
    pages, message = LISTED[case]
    if pages is empty_pages:
        monkeypatch.setattr(objects, "PAGE_SECONDS", 0.5)
    with serving_listing(kind, pages) as folder:
        for use in (folder.files, lambda: fetched(folder)):
            with pytest.raises(InputError, match=message) as refused:
                use()
            assert len(str(refused.value)) < 1000 and folder.address in str(refused.value)


@pytest.mark.parametrize("case", STORED)
@pytest.mark.parametrize("kind", KINDS)
def test_a_listing_that_no_disk_can_store_is_one_line(kind, case):
    pages, message = STORED[case]
    with serving_listing(kind, pages) as folder:
        copy = LocalCopy(local_folder(folder, "reading"), folder)
        for use in (lambda: fetched(folder), lambda: copy.fetch((), ["*"])):
            with pytest.raises(InputError, match=message) as refused:
                use()
            assert len(str(refused.value)) < 1000


@pytest.mark.parametrize("pages", [endless, empty_pages])
@pytest.mark.parametrize("kind", KINDS[:2])
def test_an_endless_list_of_a_folder_of_checkpoints_is_one_line(kind, pages, monkeypatch):
    monkeypatch.setattr(objects, "PAGE_SECONDS", 0.5)
    with serving_listing(kind, pages) as folder, pytest.raises(InputError, match=r"cannot be listed: for 0.5 s"):
        states_in(folder)


def test_folder_markers_are_no_files(store: Store, bucket, tmp_path):
    """A console, s3fs and Hadoop create them, in each folder and after the last file was deleted."""
    run = bucket / "run"
    folders = ["", "checkpoints/", "checkpoints/12/", "documents/", "documents/a/", "empty/", "log.jsonl/"]
    markers = [f"run/{one}" for one in folders] + [f"run/{name}_$folder$" for name in ("checkpoints", "gone")]
    files = {"config.json": b"{}", "documents/a/b": b"1", "checkpoints/12/file": b"2", "zero": b""}
    for name in markers + [f"run/{name}" for name in files]:
        store.put(f"{bucket}/{name}", files.get(name[4:], b""))
    assert {name: (run / name).read_bytes() for name in run.files()} == files
    assert sizes_below(run) == {name: len(data) for name, data in sorted(files.items())}
    assert {name for name, one in run.children().items() if one is not None} == {"config.json", "zero"}
    assert {one.name for one in run.iterdir()} == {name.split("/")[0] for name in files}
    assert states_in(run / "checkpoints") == states_in(run / "nothing")
    assert not (run / "empty").is_dir() and not (run / "empty").is_file()

    copy = LocalCopy(local_folder(run, "reading"), run)
    assert sorted(copy.fetch((), ["*"])) == sorted(files)
    assert {name: (copy.folder / name).read_bytes() for name in files} == files
    folder = fetched(run)
    assert {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} == {*files}

    move_folder(run / "documents", bucket / "moved")
    assert {*(bucket / "moved").files()} == {"a/b"}
    scheme, _, path = run.address.partition("://")
    type("Of", (Bucket,), {"scheme": scheme, "protocol": (scheme,)})().rm(path, recursive=True)
    assert run.files() == {}


def test_a_folder_marker_with_contents_is_named(store: Store, bucket):
    store.put(f"{bucket}/run/a/", b"contents")
    with pytest.raises(InputError, match=r"run/a is listed, but there is no such object\. .*/run/a/, .*delete that"):
        fetched(bucket / "run")
