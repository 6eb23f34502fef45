"""Input files by URL (s3://, gs://, hf://, https://) give the result of the same files on disk, or a clear error."""

import dataclasses
import gzip
import json
import os
import random
from collections import Counter
from collections.abc import Callable, Generator
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from configs.demo import get_config
from data_prep.config.pages import PagesConfig
from data_prep.sources import fetch_pages, input_files, listing, own_inputs
from data_prep.sources.inputs import read_input
from data_prep.sources.listing import matches
from data_prep.sources.manifest import InputFile
from data_prep.warc import byte_sources, write_pages
from launch.fetch_pages import STAGE
from lm.errors import InputError, UsageError
from lm.storage import StorageError, Url, objects, ranges, write_atomically
from lm.storage.hub import signed
from tests.data_prep.loopback_crawl import Fault, LoopbackCrawl
from tests.data_prep.loopback_crawl import serving as serving_files
from tests.data_prep.pages import html, named_files, page
from tests.loopback_hub import REPOSITORY, LoopbackHub
from tests.loopback_hub import serving as serving_hub
from tests.object_store import QUICK, Store, variables
from tests.object_store import serving as serving_store

PARAGRAPHS = [f"Sack number {n} was ground on day {n * 7}." for n in range(400)]


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """A folder with a file of each kind."""
    folder = tmp_path_factory.mktemp("files")
    for name in ("a", "b"):
        pages = [page(html(*PARAGRAPHS[n : n + 9]), url=f"http://{name}.example/{n}") for n in range(40)]
        write_pages(folder / f"crawl/sub/{name}.warc.gz", pages)
    rows = {"text": PARAGRAPHS, "id": [f"row {n}" for n in range(len(PARAGRAPHS))], "unused": PARAGRAPHS}
    (folder / "texts").mkdir()
    pq.write_table(pa.table(rows), folder / "texts/t.parquet", row_group_size=50)
    lines = "".join(json.dumps({"text": text}) + "\n" for text in PARAGRAPHS).encode()
    (folder / "texts/u.jsonl").write_bytes(lines)
    (folder / "texts/v.jsonl.gz").write_bytes(gzip.compress(lines, mtime=0))
    (folder / "texts/w.jsonl.zst").write_bytes(pa.compress(lines, codec="zstd", asbytes=True))
    (folder / "texts/x.txt").write_text("\n".join(PARAGRAPHS))
    return folder


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.setenv("GRISTMILL_STORAGE_TIMEOUT", "30")
    monkeypatch.setenv("GRISTMILL_STORAGE_RETRIES", "8")
    monkeypatch.setattr(objects, "ROUND_SECONDS", 0.01)
    monkeypatch.setattr(byte_sources, "CHUNK", 1000)
    monkeypatch.setattr(ranges, "BLOCK", 1500)


@pytest.fixture(scope="module")
def store() -> Generator[Store]:
    with serving_store() as server, variables(server.environment() | QUICK):
        for bucket in ("corpus", "other"):
            server.bucket(bucket)
        yield server


class Served(NamedTuple):
    """The files of the folder on a server."""

    crawl: tuple[str, ...]
    """The patterns of the archives."""
    texts: tuple[str, ...]
    fail: Callable[[], None]
    """From now on, some responses are errors, truncated or slow."""
    replace: Callable[[str, bytes], None]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(params=["s3", pytest.param("gs", marks=pytest.mark.slow), "hub", "web"])
def served(request: pytest.FixtureRequest, files: Path, tmp_path, monkeypatch) -> Generator[Served]:
    if request.param in ("s3", "gs"):
        store: Store = request.getfixturevalue("store")
        root = Url(f"{request.param}://corpus/{request.param}")
        store.fail(lambda request: None)
        for name, data in contents(files).items():
            write_atomically(root / name, data)

        def replace(name: str, data: bytes) -> None:
            store.fail(lambda request: None)
            write_atomically(root / name, data)

        kinds = ("500", "cut reply", "503", "lost reply", "cut")
        wrong = lambda request: kinds[request.number // 3 % 5] if request.number % 3 == 0 else None
        yield Served((f"{root}/crawl/**/*.warc.gz",), (f"{root}/texts",), lambda: store.fail(wrong), replace)
        store.fail(lambda request: None)
    elif request.param == "hub":
        with serving_hub(LoopbackHub(contents(files), "secret", small=2500)) as hub:
            monkeypatch.setenv("HF_ENDPOINT", hub.url)
            monkeypatch.setenv("HF_TOKEN", "secret")
            hub_root = f"hf://datasets/{REPOSITORY}"

            def fail() -> None:
                hub.spoilt = [("/resolve/", 500), ("/resolve/", 429), ("/resolve/", 503)]
                for data in hub.files.values():
                    hub.storage.faults[hub.etag(data)] = [Fault(cut=700), Fault(status=503)]

            yield Served((f"{hub_root}/crawl/**/*.warc.gz",), (f"{hub_root}/texts/*",), fail, hub.files.__setitem__)
    else:
        with serving_files(LoopbackCrawl(contents(files))) as web:
            names = sorted(contents(files))
            for kind in ("crawl", "texts"):
                lines = "".join(f"{web.url}{name}\n" for name in names if name.startswith(kind))
                (tmp_path / f"{kind}.list").write_text(f"# of {kind}\n\n{lines}")

            def fail() -> None:
                for name in names:
                    web.faults[name] = [Fault(cut=700), Fault(status=503), Fault(status=500), Fault(shift=-3)]

            lists = [(f"@{tmp_path / kind}.list",) for kind in ("crawl", "texts")]
            yield Served(*lists, fail, web.files.__setitem__)


def listed(run: Path, **given) -> list[InputFile]:
    fetch_pages(PagesConfig(**given), run, lambda line: None)
    return input_files(run)


def found_in(files: list[InputFile]) -> tuple[list, Counter]:
    skipped: Counter[str] = Counter()
    found = [dataclasses.asdict(one) for file in files for one in read_input(file, skipped)]
    for one in found:  # a list has the full paths of files
        one["file_path"] = one["file_path"].rpartition("/")[2]
        one["id"] = one["id"].rpartition("texts/")[2]
    return found, skipped


@pytest.mark.parametrize("kind", ["warc", pytest.param("tables", marks=pytest.mark.slow)])
def test_remote_files_give_the_result_of_local_ones_despite_failures(served: Served, files, tmp_path, kind):
    here = listed(tmp_path / "here", **{kind: (str(files / {"warc": "crawl", "tables": "texts"}[kind]),)})
    there = listed(tmp_path / "there", **{kind: served.crawl if kind == "warc" else served.texts})
    assert [(one.kind, one.bytes) for one in there] == [(one.kind, one.bytes) for one in here]
    web = [isinstance(one.path, Url) and one.path.scheme == "http" for one in there]
    assert [(bool(one.etag), one.estimated) for one in there] == [(not one, one) for one in web]
    served.fail()
    assert found_in(there) == found_in(here)
    assert len(found_in(here)[0]) == (80 if kind == "warc" else 4 * len(PARAGRAPHS) + 1)


def test_a_file_replaced_after_listing_is_rejected(served: Served, tmp_path):
    archives = listed(tmp_path / "a", warc=served.crawl)
    tables = listed(tmp_path / "b", tables=served.texts)
    for one, name in [
        (archives[0], "crawl/sub/a.warc.gz"),
        (tables[0], "texts/t.parquet"),
        (tables[1], "texts/u.jsonl"),
    ]:
        served.replace(name, bytes(one.bytes))
        if one.etag:  # web servers sent no ETag
            with pytest.raises(InputError, match=r"was replaced|is not a complete Parquet"):
                list(read_input(one))
    pages = read_input(archives[1])
    next(iter(pages))
    served.replace("crawl/sub/b.warc.gz", bytes(archives[1].bytes))
    signed.cache_clear()  # else the hub's old version is read for some minutes
    with pytest.raises(StorageError, match="was replaced while it was read"):
        list(pages)


def test_many_files_are_listed_instead_of_requested_one_by_one(store: Store, tmp_path):
    store.fail(lambda request: None)
    for number in range(30):
        write_atomically(Url("s3://other") / f"many/{number:02d}.jsonl", b'{"text": "a"}\n')
    (tmp_path / "list").write_text("".join(f"s3://other/many/{number:02d}.jsonl\n" for number in range(20)))
    for pattern, count in (("s3://other/many/*.jsonl", 30), (f"@{tmp_path / 'list'}", 20)):
        store.requests.clear()
        config = PagesConfig(tables=(pattern,))
        sizes, etags = own_inputs(config)
        assert len(listed(tmp_path / "run", tables=(pattern,))) == count
        assert len(store.requests) == 2  # one listing per pattern
        assert set(map(str, sizes)) == {f"s3://other/many/{number:02d}.jsonl" for number in range(count)}
        assert list(sizes.values()) == [sizes["s3://other/many/00.jsonl"]] * count
        assert sizes["s3://other/many/00.jsonl"] == 14 and len({*etags.values()}) == 1 and etags.keys() == sizes.keys()


def test_sizes_of_many_files_on_a_web_server_are_sampled(tmp_path):
    with serving_files(LoopbackCrawl({f"{n}.warc.gz": bytes(1000 + n) for n in range(200)})) as web:
        (tmp_path / "list").write_text("".join(f"{web.url}{n}.warc.gz\n" for n in range(200)))
        found = listed(tmp_path / "run", warc=(f"@{tmp_path / 'list'}",))
        assert len(web.requests) <= 16
        assert all(one.estimated and 1000 < one.bytes < 1200 and one.version is None for one in found)
        sizes, told_by = own_inputs(PagesConfig(warc=(f"@{tmp_path / 'list'}",)))
        assert set(sizes.values()) == {None} and not told_by
        identities = {one.name: one.identity for one in found}
        assert len(set(identities.values())) == 200
        (alone,) = listed(tmp_path / "alone", warc=(f"{web.url}7.warc.gz",))
        assert (alone.bytes, alone.identity) == (1007, identities["7.warc.gz"])  # the same without sampling
        with pytest.raises(UsageError, match=r"none\.warc\.gz does not exist"):
            listed(tmp_path / "none", warc=(f"{web.url}none.warc.gz",))


def test_paths_in_lists_of_common_crawl_are_relative_to_the_root_of_its_server(tmp_path):
    lines = ["crawl-data/CC-MAIN-2024-10/a/b.warc.gz", "crawl-data/CC-MAIN-2024-10/a/c.warc.gz"]
    paths = "".join(f"{line}\n" for line in lines)
    (tmp_path / "warc.paths.gz").write_bytes(gzip.compress(paths.encode()))
    with serving_files(LoopbackCrawl(dict.fromkeys(lines, b"WARC/1.0"))) as web:
        web.files["crawl-data/CC-MAIN-2024-10/warc.paths.gz"] = gzip.compress(paths.encode())
        found = named_files("pages.warc", [f"@{web.url}crawl-data/CC-MAIN-2024-10/warc.paths.gz"])
        assert found == {Url(f"{web.url}{line}"): line for line in lines}
    (tmp_path / "near.list").write_text("warc.paths.gz\n")
    assert named_files("pages.warc", [f"@{tmp_path / 'near.list'}"]) == {tmp_path / "warc.paths.gz": "warc.paths.gz"}


@pytest.mark.parametrize(
    ("pattern", "told"),
    [
        ("https://host/*.warc.gz", "a web server does not list its files"),
        ("s3://other/none/*.warc.gz", r"matches no file below s3://other/none"),
        ("s3://other/none", "is neither a file nor a folder"),
        ("ftp://host/a", "begins with none of"),
    ],
)
def test_invalid_patterns_are_rejected_by_name(store: Store, pattern, told):
    with pytest.raises(UsageError, match=told):
        named_files("pages.warc", [pattern])


def test_a_whole_bucket_is_a_folder(store: Store):
    """On Amazon's server, too, a request without a key returns a listing and not an object."""
    store.bucket("whole")
    write_atomically(Url("s3://whole/a/b.jsonl"), "{}")
    assert named_files("pages.tables", ["s3://whole/"]) == {Url("s3://whole/a/b.jsonl"): "a/b.jsonl"}


def test_a_missing_list_is_rejected(store: Store, tmp_path):
    for line in ("s3://other/gone.warc.gz", "gone.warc.gz", "# nothing"):
        (tmp_path / "list").write_text(f"{line}\n")
        with pytest.raises(UsageError, match=r"does not exist\. Correct the list|has no path or address"):
            named_files("pages.warc", [f"@{tmp_path / 'list'}"])
    (tmp_path / "list").write_text("ftp://host/a\n")
    with pytest.raises(UsageError, match=rf"the list {tmp_path}/list: 'ftp://host/a' is not the address"):
        named_files("pages.warc", [f"@{tmp_path / 'list'}"])
    with pytest.raises(InputError, match=r"the list .*none cannot be read"):
        named_files("pages.warc", [f"@{tmp_path / 'none'}"])


def test_a_list_of_several_gzip_members_is_read_completely_and_a_truncated_one_is_an_error(tmp_path):
    names = [f"{random.Random(n).getrandbits(64):x}.warc.gz" for n in range(400)]
    for name in names:
        (tmp_path / name).touch()
    half = lambda part: gzip.compress("".join(f"{name}\n" for name in part).encode())
    packed = half(names[:200]) + half(names[200:])
    (tmp_path / "list.gz").write_bytes(packed)
    assert sorted(named_files("pages.warc", [f"@{tmp_path / 'list.gz'}"]).values()) == sorted(names)
    for size in (len(packed) - 1, len(packed) * 3 // 4, len(packed) // 4):
        (tmp_path / "list.gz").write_bytes(packed[:size])
        with pytest.raises(InputError, match=r"the list .*list\.gz cannot be read"):
            named_files("pages.warc", [f"@{tmp_path / 'list.gz'}"])


def test_patterns_match_as_on_disk(tmp_path):
    names = ["a.gz", "b/a.gz", "b/c/a.gz", "b/.h/a.gz", ".h.gz", "b/c/d.txt", "bc/a.gz"]
    for name in names:
        write_atomically(tmp_path / name, "")
    for pattern in ("*.gz", "**/*.gz", "b/*", "b/**/a.gz", "b*/a.gz", "[ab]/?.gz", "**/c/*", "b/.h/*", "a.gz"):
        expected = {path.relative_to(tmp_path).as_posix() for path in tmp_path.glob(pattern) if path.is_file()}
        expected = {name for name in expected if "/." not in f"/{name}" or ".h" in pattern}
        assert {name for name in names if matches(name.split("/"), pattern.split("/"))} == expected, pattern


def test_the_identity_of_an_input_is_its_contents_and_not_its_place_or_time(files, tmp_path):
    (one,) = listed(tmp_path / "a", tables=(str(files / "texts/u.jsonl"),))
    copy = tmp_path / "elsewhere/u.jsonl"
    write_atomically(copy, (files / "texts/u.jsonl").read_bytes())
    os.utime(copy, (1, 1))
    (other,) = listed(tmp_path / "b", tables=(str(copy),))
    assert one.identity == other.identity and one.path != other.path
    assert dataclasses.replace(one, etag="x").identity == one.identity
    changes: list[dict] = [
        {"bytes": 5},
        {"contents": "x"},
        {"name": "n"},
        {"kind": "warc"},
        {"rows": (0, 1)},
        {"split": "s"},
    ]
    changes += [{"text_field": "t"}, {"ranges": (("a", ((0, 1),)),)}]
    assert len({dataclasses.replace(one, **change).identity for change in [{}, *changes]}) == len(changes) + 1


def test_the_stage_runs_again_if_a_file_in_a_store_was_replaced(store: Store):
    store.fail(lambda request: None)
    write_atomically(Url("s3://other/own.jsonl"), b'{"text": "a"}\n')
    experiment = dataclasses.replace(get_config(), pages=PagesConfig(tables=("s3://other/own.jsonl",)))
    before = STAGE.external_inputs(experiment)
    assert STAGE.external_inputs(experiment) == before
    write_atomically(Url("s3://other/own.jsonl"), b'{"text": "b"}\n')  # as long as before
    assert STAGE.external_inputs(experiment) != before


def test_reading_a_list_stops_at_the_maximum_number_of_files(tmp_path, monkeypatch):
    """A list of 200 kB had 100 million lines, and took 25 GB."""
    monkeypatch.setattr(listing, "MAX_LISTED", 1000)
    (tmp_path / "list.gz").write_bytes(gzip.compress(b"a\n" * 1001))
    with pytest.raises(InputError, match=r"list\.gz cannot be read: more than 1,000 lines"):
        named_files("pages.warc", [f"@{tmp_path / 'list.gz'}"])
