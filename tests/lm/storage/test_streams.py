"""Files of buckets, the hub and web servers are read exactly over failing connections, or an error is raised."""

import hashlib
import random
from collections.abc import Callable, Generator
from typing import NamedTuple

import pytest

from lm.errors import UsageError
from lm.storage import StorageError, Url, appearing, fetched, local_copy, objects, stores, write_atomically
from lm.storage.hub import named, signed
from lm.storage.ranges import Ranges, Stream
from tests.data_prep.loopback_crawl import Fault, LoopbackCrawl
from tests.data_prep.loopback_crawl import serving as serving_files
from tests.loopback_hub import REPOSITORY, LoopbackHub
from tests.loopback_hub import serving as serving_hub
from tests.object_store import Store, variables

BLOCK = 10_000
DATA = random.Random(1).randbytes(7 * BLOCK + 123)


class Served(NamedTuple):
    """A file, and how to spoil the next responses to requests for its bytes."""

    url: Url
    spoil: Callable[[list[Fault]], None]
    replace: Callable[[bytes], None]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.setenv("GRISTMILL_STORAGE_TIMEOUT", "30")
    monkeypatch.setenv("GRISTMILL_STORAGE_RETRIES", "3")


@pytest.fixture
def web() -> Generator[LoopbackCrawl]:
    with serving_files(LoopbackCrawl({"folder/file": DATA})) as server:
        yield server


@pytest.fixture
def hub(monkeypatch) -> Generator[LoopbackHub]:
    with serving_hub(LoopbackHub({"folder/file": DATA, "folder/small": b"few", "other": b"1"}, "secret")) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HF_TOKEN", "secret")
        yield server


def of_web(server: LoopbackCrawl) -> Served:
    def replace(data: bytes) -> None:
        server.files["folder/file"] = data

    return Served(Url(f"{server.url}folder/file"), server.faults["folder/file"].extend, replace)


def of_hub(server: LoopbackHub) -> Served:
    def replace(data: bytes) -> None:
        server.files["folder/file"] = data

    spoil = server.storage.faults[hashlib.sha256(DATA).hexdigest()].extend
    return Served(Url(f"hf://datasets/{REPOSITORY}/folder/file"), spoil, replace)


@pytest.fixture(params=["web", "hub"])
def served(request: pytest.FixtureRequest) -> Served:
    server = request.getfixturevalue(request.param)
    return of_web(server) if request.param == "web" else of_hub(server)


@pytest.mark.parametrize(
    "faults",
    [
        [],
        [Fault(status=500), Fault(status=503)],
        [Fault(status=429, headers={"Retry-After": "0"})],
        [Fault(cut=0), Fault(cut=1), Fault(cut=BLOCK - 1)],
        [Fault(cut=BLOCK // 2), Fault(status=502)],
        [Fault(stall=True)],
        [Fault(ignore_range=True), Fault(ignore_range=True)],
        [Fault(shift=-1)],
        [Fault(headers={"Content-Range": "bytes of some sort"})],
        [Fault(told_length=BLOCK + 9, cut=5)],
        [Fault(body=b"<html>Please log in to this hotel's network</html>")],
    ],
    ids=lambda faults: f"{len(faults)}-{'-'.join(str(f.status or f.cut or f.shift) for f in faults)}"[:40],
)
def test_a_stream_gives_every_byte_once_despite_faults(served: Served, faults, monkeypatch):
    if any(fault.stall for fault in faults):
        monkeypatch.setenv("GRISTMILL_STORAGE_TIMEOUT", "1.0")
    version = served.url.surely()
    served.spoil(faults)
    with Stream(served.url.address, version, block=BLOCK) as stream:
        pieces = []
        while piece := stream.read(3_333):
            assert len(piece) == 3_333 or stream.tell() == len(DATA)  # like a file: short only at its end
            pieces.append(piece)
    assert b"".join(pieces) == DATA


def test_an_error_page_at_the_continuation_of_a_cut_response_is_retried(served: Served):
    served.spoil([Fault(cut=5), Fault(status=416)])
    assert served.url.read_range(3, BLOCK) == DATA[3:BLOCK]


def test_a_stream_holds_few_blocks_and_requests_each_once(web: LoopbackCrawl):
    with Stream(of_web(web).url.address, of_web(web).url.surely(), block=BLOCK) as stream:
        while stream.read(2_000):
            assert len(stream.blocks) <= 3
            if stream.tell() >= 4_000:  # a small seek back is within the buffer
                stream.seek(-2_000, 1)
                assert stream.read(2_000) == DATA[stream.tell() - 2_000 : stream.tell()]
    ranges = [asked for _, headers in web.requests if (asked := headers.get("range", "")) > "bytes=0-0"]
    assert sorted(ranges, key=lambda one: int(one[6:].split("-")[0])) == [
        f"bytes={start}-{min(start + BLOCK, len(DATA)) - 1}" for start in range(0, len(DATA), BLOCK)
    ]


def test_far_seeks_are_read_again(served: Served):
    with Stream(served.url.address, served.url.surely(), block=BLOCK) as stream:
        for offset in (65_000, 0, 30_000, len(DATA) - 3, len(DATA) + 5, 9_999):
            stream.seek(offset)
            assert stream.read(4) == DATA[offset : offset + 4]


@pytest.mark.parametrize("other", [DATA[::-1], DATA[:-1], DATA[: BLOCK + 5]], ids=["same size", "shorter", "short"])
def test_a_file_replaced_during_a_read_is_not_mixed_with_the_new_one(served: Served, other):
    stream = Stream(served.url.address, served.url.surely(), block=BLOCK)
    random_access = served.url.open()
    assert stream.read(10) == DATA[:10]
    served.replace(other)
    if served.url.scheme == "hf":  # for some minutes the old version is read, at its own address
        assert random_access.seek(BLOCK) and random_access.read(BLOCK) == DATA[BLOCK : 2 * BLOCK]
        signed.cache_clear()
        random_access.seek(len(DATA))  # drop the buffer
    for file in (stream, random_access):
        with pytest.raises(StorageError, match=r"was replaced while it was read\. Run the command again\."):
            file.seek(0 if file is random_access else BLOCK * 3)
            file.read(BLOCK)


def test_a_listed_version_is_requested_without_a_head_request(web: LoopbackCrawl):
    served = of_web(web)
    version = served.url.surely()
    web.requests.clear()
    assert served.url.stream(version).read() == DATA
    assert len(web.requests) == 1
    served.replace(DATA + b"more")
    with pytest.raises(StorageError, match="was replaced"):
        served.url.stream(version).read(5)


def test_without_an_etag_date_and_size_identify_a_version(web: LoopbackCrawl):
    web.etag = lambda data: ""
    served = of_web(web)
    assert served.url.stream().read() == DATA
    stream = Stream(served.url.address, served.url.surely(), block=BLOCK)
    served.replace(DATA[:-1])
    with pytest.raises(StorageError, match="was replaced"):
        stream.read(5)


@pytest.mark.fast_rows(5)
@pytest.mark.parametrize("kind", ["500", "503", "cut", "cut reply", "lost reply", "stall"])
def test_a_stream_of_a_bucket_gives_every_byte_despite_faults(store: Store, bucket, kind, monkeypatch):
    write_atomically(bucket / "a", DATA)
    found = (bucket / "a").surely()
    if kind == "stall":
        monkeypatch.setenv("GRISTMILL_STORAGE_TIMEOUT", "3")
    objects.store.cache_clear()
    left = [kind] * (1 if kind == "stall" else 3)
    store.fail(lambda request: left.pop() if left and request.method == "GET" else None)
    with Stream((bucket / "a").address, found, block=BLOCK) as stream:
        assert stream.read() == DATA
    assert not left
    write_atomically(bucket / "a", DATA[::-1])
    with pytest.raises(StorageError, match="was replaced while it was read"):
        (bucket / "a").stream(found).read(10)


def test_permanent_failures_are_reported_with_url_cause_and_remedy(served: Served):
    served.spoil([Fault(status=500)] * 17)
    with pytest.raises(StorageError, match=r"folder/file cannot be read: 500 .*Tried 16 times.*HTTPS_PROXY"):
        served.url.read_bytes()


def test_a_missing_file_is_reported(served: Served):
    gone = served.url.with_name("gone")
    assert gone.found() is None and not gone.exists()
    with pytest.raises(FileNotFoundError):
        gone.stream()
    with pytest.raises(FileNotFoundError):
        gone.read_bytes()


def test_a_web_server_is_only_read_and_not_listed(web: LoopbackCrawl, tmp_path):
    url = of_web(web).url
    for action in (url.parent.files, url.unlink, lambda: write_atomically(url, b"x")):
        with pytest.raises(UsageError, match="over http:// files can only be read, each by its own address"):
            action()
    assert url.name == "file" and (url.parent / "file") == url and not url.parent.is_dir()
    assert Url("https://host/a/b.gz?key=a/b").name == "b.gz"
    stores.download(url.address, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == DATA


def test_the_size_is_that_of_the_first_byte_or_of_a_response_whose_body_is_not_read(web: LoopbackCrawl):
    web.files["empty"] = b""
    told = of_web(web).url.surely()
    assert told == (len(DATA), web.etag(DATA), None) and len(web.requests) == 1
    assert of_web(web).url.with_name("gone").found() is None and Url(f"{web.url}empty").surely().size == 0
    web.always["folder/file"] = Fault(ignore_range=True)
    assert of_web(web).url.surely() == told
    web.always["folder/file"] = Fault(ignore_range=True, chunked=True)
    with pytest.raises(StorageError, match=r"does not report the size of the file. Download it "):
        of_web(web).url.surely()
    web.always["folder/file"] = Fault(status=401)
    with pytest.raises(StorageError, match=r"cannot be read: 401 .*requires a login"):
        of_web(web).url.surely()
    web.always["folder/file"] = Fault(status=410)
    assert of_web(web).url.found() is None


def test_a_server_without_ranges_is_not_asked_for_the_end_of_a_long_file(web: LoopbackCrawl, monkeypatch):
    monkeypatch.setattr(objects, "SKIPPED_BYTES", 20_000)
    web.always["folder/file"] = Fault(ignore_range=True)
    assert Ranges(of_web(web).url.address, of_web(web).url.surely()).read(5) == DATA[:5]
    with pytest.raises(StorageError, match=r"does not support ranges.*first"):
        of_web(web).url.read_range(30_000, 30_005)


def test_the_hub_is_listed_and_written_whole(hub: LoopbackHub):
    root = Url(f"hf://datasets/{REPOSITORY}")
    assert list(root.files()) == ["folder/file", "folder/small", "other"]  # over several pages
    assert {name: one == (root / name).found() for name, one in root.files().items()} == dict.fromkeys(
        root.files(), True
    )
    assert (root / "folder").is_dir() and not (root / "none").exists()
    hub.spoilt = [("/commit/", 503), ("/tree/", 500)]
    write_atomically(root / "folder/new.json", b"{}")
    with appearing(root / "folder/newer.json") as partial:
        partial.write_bytes(b"[]")
    assert hub.files["folder/new.json"] == b"{}" and (root / "folder/newer.json").read_text() == "[]"
    assert sorted(one.name for one in (root / "folder").iterdir()) == ["file", "new.json", "newer.json", "small"]
    (root / "folder/new.json").unlink()
    (root / "folder/new.json").unlink()
    assert "folder/new.json" not in hub.files
    assert root.parent == root and (root / "a").parent == root


def test_the_hub_without_a_token_is_reported_with_the_remedy(hub: LoopbackHub):
    with variables({"HF_TOKEN": "another"}):
        for action in (lambda url: url.read_bytes(), lambda url: url.parent.files(), lambda url: url.found()):
            with pytest.raises(StorageError, match=r"401.*HF_TOKEN"):
                action(of_hub(hub).url)
    assert len(hub.requests) == 3  # permanent: no second request


def test_revisions_are_quoted_as_in_huggingface_hub():
    parts = lambda address: tuple(getattr(named(address), name) for name in ("type", "id", "revision", "path_in_repo"))
    assert parts("hf://datasets/a/b@v1.0/c/d") == ("dataset", "a/b", "v1.0", "c/d")
    assert parts("hf://datasets/a/b@refs/convert/parquet/c") == ("dataset", "a/b", "refs/convert/parquet", "c")
    assert parts("hf://datasets/a/b@refs%2Fpr%2F3/c") == ("dataset", "a/b", "refs/pr/3", "c")
    assert parts("hf://a/b/c.safetensors") == ("model", "a/b", None, "c.safetensors")


def test_all_listed_files_are_fetched(store: Store, bucket, monkeypatch, tmp_path):
    monkeypatch.setenv("GRISTMILL_CACHE", str(tmp_path))
    for name in ("run/8/a", "run/8/b/c", "run/9/a", "run/80"):
        write_atomically(bucket / name, name.encode())
    store.requests.clear()
    folder = fetched(bucket / "run/8")
    assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*")) == ["a", "b", "b/c"]
    assert fetched(bucket / "run/80").read_bytes() == b"run/80"
    assert (folder / "a").read_bytes() == b"run/8/a"  # files fetched earlier stay
    listed = [request.path for request in store.requests if "prefix=" in request.path]
    assert listed and all("prefix=run%2F8" in path or "prefix=run/8" in path for path in listed)


def test_files_of_the_hub_and_of_web_servers_are_fetched(served: Served, monkeypatch, tmp_path):
    monkeypatch.setenv("GRISTMILL_CACHE", str(tmp_path))
    assert fetched(served.url).read_bytes() == DATA


def test_a_file_replaced_after_its_listing_is_fetched_again(served: Served, monkeypatch, tmp_path):
    monkeypatch.setenv("GRISTMILL_CACHE", str(tmp_path))
    listed, times = local_copy.below, []

    def then_replace(url: Url):
        found = listed(url)
        times.append(url)
        if len(times) < 4:
            served.replace(DATA[: -len(times)])
        return found

    monkeypatch.setattr(local_copy, "below", then_replace)
    assert fetched.__wrapped__(served.url).read_bytes() == DATA[:-3] and len(times) == 4
