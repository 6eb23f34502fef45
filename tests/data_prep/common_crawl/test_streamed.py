"""Streamed files of a crawl, and records selected by its index, give the same pages as local files."""

import dataclasses
import gzip
import io
import random
import re
import zlib
from collections import Counter
from collections.abc import Generator
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_prep.common_crawl import index as crawl_index
from data_prep.common_crawl.files import chosen
from data_prep.common_crawl.ranges import spans
from data_prep.config.pages import NO_CRAWL, CommonCrawlPages, CrawlIndex, PagesConfig
from data_prep.documents import Damage, WebPage
from data_prep.measure.row import row_of
from data_prep.sources import fetch_pages, input_files
from data_prep.sources.inputs import read_input
from data_prep.sources.manifest import InputFile
from data_prep.warc import byte_sources, write_pages
from lm.errors import InputError, UsageError
from lm.storage import StorageError, Url, objects, ranges, write_atomically
from tests.data_prep.loopback_crawl import CRAWL, Fault, LoopbackCrawl, serving
from tests.data_prep.loopback_index import closed_port
from tests.data_prep.pages import PROSE, demo_config, html, page
from tests.object_store import QUICK, variables
from tests.object_store import serving as serving_store

LANGUAGES = ("eng", "deu", "fra,eng", "eng,fra", None)
DOMAINS = ("alpha.example", "beta.example", "gamma.co.uk")
TABLE = f"cc-index/table/cc-main/warc/crawl={CRAWL}"


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.setenv("GRISTMILL_STORAGE_TIMEOUT", "30")
    monkeypatch.setattr(objects, "ROUND_SECONDS", 0.01)
    monkeypatch.setattr(byte_sources, "CHUNK", 1000)
    monkeypatch.setattr(ranges, "BLOCK", 3000)


@pytest.fixture(scope="module")
def warcs(tmp_path_factory) -> list[bytes]:
    """Three files of 40 pages."""
    folder, files = tmp_path_factory.mktemp("warcs"), []
    for number in range(3):
        pages = [
            page(html(PROSE, f"Page {n} of {number}."), url=f"http://www.{DOMAINS[n % 3]}/{number}/{n:02d}")
            for n in range(40)
        ]
        write_pages(folder / "a.warc.gz", pages)
        files.append((folder / "a.warc.gz").read_bytes())
    return files


def members(data: bytes) -> list[tuple[int, int, bytes]]:
    """(offset, length, contents) of the gzip members of a file."""
    found, offset = [], 0
    while offset < len(data):
        inflater = zlib.decompressobj(wbits=31)
        contents = inflater.decompress(data[offset:])
        length = len(data) - offset - len(inflater.unused_data)
        found.append((offset, length, contents))
        offset += length
    return found


def index_rows(files: dict[str, bytes]) -> list[dict]:
    """Rows of the columnar index for every response in the files."""
    rows = []
    for name, data in files.items():
        for offset, length, contents in members(data):
            head = contents.partition(b"\r\n\r\n")[0].decode()
            if "WARC-Type: response" not in head:
                continue
            url = head.partition("WARC-Target-URI: ")[2].split("\r\n")[0]
            host, _, path = url.removeprefix("http://").partition("/")
            number = int(path.rpartition("/")[2])
            rows.append(
                {
                    "url_surtkey": f"{','.join(reversed(host.split('.')))})/{path}", "url": url,
                    "url_host_registered_domain": host.removeprefix("www."),
                    "content_languages": LANGUAGES[number % len(LANGUAGES)],
                    "content_mime_detected": "application/pdf" if number == 7 else "text/html",
                    "fetch_status": 200, "warc_filename": name, "warc_record_offset": offset,
                    "warc_record_length": length,
                }
            )  # fmt: skip
    return sorted(rows, key=lambda row: row["url_surtkey"])


@pytest.fixture
def crawl(warcs) -> Generator[LoopbackCrawl]:
    """A crawl whose index has two files of several row groups each, and one of another subset."""
    served = LoopbackCrawl.of(warcs)
    rows = index_rows({path: served.files[path] for path in served.paths})
    paths = [f"{TABLE}/subset=warc/part-{n:05d}.c000.gz.parquet" for n in range(2)]
    for number, path in enumerate(paths):
        written = io.BytesIO()
        half = rows[number * len(rows) // 2 : (number + 1) * len(rows) // 2]
        pq.write_table(pa.Table.from_pylist(half, schema=pa.Table.from_pylist(rows).schema), written, row_group_size=15)
        served.files[path] = written.getvalue()
    other = f"{TABLE}/subset=robotstxt/part-00000.c000.gz.parquet"
    served.files[f"crawl-data/{CRAWL}/cc-index-table.paths.gz"] = gzip.compress("\n".join([other, *paths]).encode())
    with serving(served):
        yield served


def config(server: LoopbackCrawl, **changes) -> CommonCrawlPages:
    return dataclasses.replace(NO_CRAWL, **{"crawl": CRAWL, "files": 3, "address": server.url, **changes})


def fetched(server: LoopbackCrawl, run: Path, **changes) -> list[InputFile]:
    fetch_pages(PagesConfig(common_crawl=config(server, **changes)), run, lambda line: None)
    return input_files(run)


def pages_in(files: list[InputFile]) -> tuple[list, Counter]:
    skipped: Counter[str] = Counter()
    return [one for file in files for one in read_input(file, skipped)], skipped


def test_streamed_files_give_the_pages_of_local_ones_and_write_nothing_to_disk(crawl, tmp_path):
    streamed = fetched(crawl, tmp_path / "run", files=2, first_file=1)
    assert [(one.name, one.kind, one.bytes) for one in streamed] == [
        (path, "warc", len(crawl.files[path])) for path in crawl.paths[1:]
    ]
    assert [path.name for path in (tmp_path / "run/pages").iterdir()] == ["manifest.json"]
    local = []
    for one in streamed:
        path = tmp_path / one.name.rpartition("/")[2]
        path.write_bytes(crawl.files[one.name])
        local.append(InputFile(path, one.name, "warc", one.bytes))
    faults = [Fault(cut=900), Fault(status=500), Fault(status=503), Fault(status=429, headers={"Retry-After": "0"})]
    for path in crawl.paths:
        crawl.faults[path] = [*faults, Fault(headers={"Content-Range": ""}), Fault(shift=-1)]
    assert pages_in(streamed) == pages_in(local)
    assert len(pages_in(local)[0]) == 80
    pages = read_input(streamed[0])
    next(iter(pages))
    crawl.files[crawl.paths[1]] = crawl.files[crawl.paths[0]]
    with pytest.raises(StorageError, match="was replaced while it was read"):
        list(pages)


def test_wet_files_have_a_separate_list(tmp_path):
    with serving(LoopbackCrawl.of([b"1", b"22"], "wet")) as crawl:
        files = fetched(crawl, tmp_path, kind="wet", files=2)
    assert [(one.kind, one.name.endswith(".warc.wet.gz"), one.bytes) for one in files] == [
        ("wet", True, 1), ("wet", True, 2),
    ]  # fmt: skip


def test_the_sizes_of_a_whole_crawl_need_few_requests(tmp_path):
    warcs = [gzip.compress(random.Random(n).randbytes(100)) for n in range(300)]
    with serving(LoopbackCrawl.of(warcs)) as crawl:
        files = fetched(crawl, tmp_path, files=300)
        assert len(crawl.requests) <= 18  # the list, and some sizes
        few = fetched(crawl, tmp_path / "few", files=2)
        assert [one.identity for one in few] == [one.identity for one in files[:2]]  # a prefix of the larger selection
    assert len(files) == 300 and all(one.estimated and 110 < one.bytes < 140 for one in files)


@pytest.mark.slow
def test_an_s3_address_works_too(warcs, tmp_path):
    with serving_store() as store, variables(store.environment() | QUICK):
        store.bucket("commoncrawl")
        served = LoopbackCrawl.of(warcs)
        for path, data in served.files.items():
            write_atomically(Url("s3://commoncrawl") / path, data)
        served.url = "s3://commoncrawl/"
        files = fetched(served, tmp_path)
        store.fail(lambda request: "503" if request.number % 3 == 0 else None)
        assert len(pages_in(files)[0]) == 120
        store.fail(lambda request: None)
        with pytest.raises(UsageError, match="There is no crawl CC-MAIN-2024-11"):
            fetched(served, tmp_path / "b", crawl="CC-MAIN-2024-11")


@pytest.mark.fast_rows
@pytest.mark.parametrize(
    ("wanted", "keep"),
    [
        ({"languages": ("eng",)}, lambda domain, number: number % 5 in (0, 3)),
        ({"languages": ("fra", "deu")}, lambda domain, number: number % 5 in (1, 2)),
        ({"domains": ("beta.example",)}, lambda domain, number: domain == "beta.example"),
        ({"domains": ("gamma.co.uk", "none.example")}, lambda domain, number: domain == "gamma.co.uk"),
        ({"domains": ("alpha.example",), "languages": ("eng",)},
         lambda domain, number: domain == "alpha.example" and number % 5 in (0, 3)),
        ({"max_pages": 10**6, "mime": ()}, lambda domain, number: True),
        ({"languages": ("eng", "deu", "fra"), "mime": ("application/pdf",)}, lambda domain, number: number == 7),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)  # fmt: skip
def test_selected_records_are_the_pages_of_the_whole_files(crawl, tmp_path, wanted, keep):
    index = dataclasses.replace(CrawlIndex(pages_per_unit=17), **wanted)
    units = fetched(crawl, tmp_path / "index", index=index, files=0)
    whole, _ = pages_in(fetched(crawl, tmp_path / "whole"))
    place = lambda one: (one.url.split("/")[2].removeprefix("www."), int(one.url.rpartition("/")[2]))
    any_type = "mime" in wanted
    expected = [one for one in whole if keep(*place(one)) and (any_type or place(one)[1] != 7)]
    assert expected and pages_in(units) == (expected, Counter())
    assert max(one.pages or 0 for one in units) <= 17 and len({one.identity for one in units}) == len(units)
    assert [one.name for one in units] == [f"{CRAWL}/index-{n:06d}" for n in range(len(units))]
    documents = demo_config()
    rows = [row_of(one, units[0], documents) for one in expected[:3]]
    archive = next(one for one in fetched(crawl, tmp_path / "whole") if one.name == expected[0].file_path)
    assert rows == [row_of(one, archive, documents) for one in expected[:3]]
    assert rows[0]["file_path"] in crawl.paths


def test_row_groups_without_a_wanted_page_are_not_read(crawl, monkeypatch, tmp_path):
    asked = []
    records_of = crawl_index.records_of
    monkeypatch.setattr(
        crawl_index, "records_of", lambda file, group, *rest: asked.append(group) or records_of(file, group, *rest)
    )
    fetched(crawl, tmp_path / "a", index=CrawlIndex(domains=("alpha.example",)))
    assert len(asked) == 3  # 40 pages of 120 sorted by address, in groups of 15
    with pytest.raises(UsageError, match=r"has no page of .*domains = \('zeta\.example',\)"):
        fetched(crawl, tmp_path / "b", index=CrawlIndex(domains=("zeta.example",)))
    assert len(asked) == 3


def test_the_first_pages_of_some_parts_of_the_index(crawl, tmp_path):
    some = fetched(crawl, tmp_path / "a", index=CrawlIndex(max_pages=25))
    assert sum(one.pages or 0 for one in some) == 25 == len(pages_in(some)[0])
    half = fetched(crawl, tmp_path / "b", index=CrawlIndex(max_pages=10**6, parts=1))
    assert 0 < sum(one.pages or 0 for one in half) <= 60


def test_adjacent_records_are_read_by_one_request(crawl, tmp_path):
    units = fetched(crawl, tmp_path, index=CrawlIndex(max_pages=10**6, mime=()))
    crawl.requests.clear()
    crawl.faults[crawl.paths[0]] = [Fault(cut=100), Fault(status=503)]
    assert len(pages_in(units)[0]) == 120
    assert len(crawl.requests) == 5  # one per file, and two that failed
    far = dataclasses.replace(units[0], ranges=(("a", ((0, 10), (20, 5), (10**6, 7), (10**6 + 7, 9 * 2**20))),))
    assert [(span.start, span.end) for span in spans(far)] == [
        (0, 25),
        (10**6, 10**6 + 7),
        (10**6 + 7, 10**6 + 7 + 9 * 2**20),
    ]


def test_a_damaged_record_is_named_by_its_archive_and_the_others_are_kept(crawl, tmp_path):
    (unit,) = fetched(crawl, tmp_path, index=CrawlIndex(max_pages=10**6, mime=()))
    name, records = unit.ranges[1]
    offset, length = records[5]
    data = bytearray(crawl.files[name])
    data[offset + length // 2] ^= 0xFF
    crawl.files[name] = bytes(data)
    found, _ = pages_in([unit])
    (damage,) = [one for one in found if not isinstance(one, WebPage)]
    assert isinstance(damage, Damage) and (damage.path, damage.offset) == (name, offset)
    assert len(found) == 120
    assert row_of(damage, unit, demo_config())["id"] == f"{name}#{offset}"


def test_an_unknown_crawl_and_more_files_than_in_the_crawl_are_rejected(crawl, tmp_path):
    with pytest.raises(UsageError, match=r"no crawl CC-MAIN-2024-11 .*paths\.gz does not exist.*collinfo\.json"):
        fetched(crawl, tmp_path, crawl="CC-MAIN-2024-11")
    with pytest.raises(UsageError, match=r"files is 9, but CC-MAIN-2024-10 has 3 WARC files, 2 of them"):
        fetched(crawl, tmp_path, files=9, first_file=1)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(gzip.compress(b"crawl-data/../../../etc/cron.d/x.gz\n"), id="parent folder"),
        pytest.param(gzip.compress(b"/etc/passwd\n"), id="absolute path"),
        pytest.param(gzip.compress(b"https://elsewhere.example/crawl-data/a/b.warc.gz\n"), id="another server"),
        pytest.param(gzip.compress("crawl-data/ä/b.warc.gz\n".encode()), id="not ASCII"),
        pytest.param(gzip.compress(b""), id="empty"),
        pytest.param(gzip.compress(b"crawl-data/a/b.warc.gz\n" * 99)[:-9], id="cut"),
    ],
)
def test_a_damaged_or_hostile_list_is_rejected_and_deleted(crawl, tmp_path, body):
    crawl.files[f"crawl-data/{CRAWL}/warc.paths.gz"] = body
    with pytest.raises(InputError, match=r"warc\.paths\.gz is (not a list|damaged)"):
        fetched(crawl, tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_an_unreachable_server_or_proxy_is_reported_with_the_proxy_setting(crawl, tmp_path, monkeypatch):
    monkeypatch.setenv("GRISTMILL_STORAGE_RETRIES", "2")
    with pytest.raises(InputError, match=r"connection refused(.|\n)*HTTPS_PROXY"):
        fetched(crawl, tmp_path, address=f"http://127.0.0.1:{closed_port()}")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{closed_port()}")
    with pytest.raises(InputError, match="HTTPS_PROXY"):
        fetched(crawl, tmp_path)
    assert not crawl.requests


def test_the_selection_of_files(crawl):
    paths = [f"file {n}" for n in range(1000)]

    def choose(**changes) -> list[str]:
        return chosen(paths, config(crawl, **changes))

    assert choose(files=2) == ["file 0", "file 1"]
    assert choose(files=4, choice="spread") == ["file 0", "file 250", "file 500", "file 750"]
    assert choose(files=2, choice="spread", first_file=900) == ["file 900", "file 950"]
    few, more = choose(files=5, choice="random", seed=7), choose(files=50, choice="random", seed=7)
    assert set(few) < set(more)
    assert all(paths.index(a) < paths.index(b) for a, b in pairwise(more))
    assert few != choose(files=5, choice="random", seed=8)
    assert few == ["file 93", "file 389", "file 771", "file 826", "file 850"]  # on every machine
    for choice in ("first", "spread", "random"):
        assert choose(files=1000, choice=choice) == paths


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"crawl": "2024-10"}, "'2024-10'"),
        ({"crawl": "../x"}, "'../x'"),
        ({"files": 0}, "files is 0, but crawl is CC-MAIN-2024-10"),
        ({"first_file": -1}, "first_file is -1"),
        ({"address": "gs://x"}, "gs://x"),
        ({"index": {"max_pages": 1}, "kind": "wet"}, "kind is wet"),
        ({"index": {"languages": ("en",)}}, "languages"),
        ({"index": {"domains": ("https://a.example",)}}, "domains"),
        ({"index": {"max_pages": -1}}, "max_pages"),
    ],
    ids=str,
)
def test_invalid_values_are_rejected(crawl, changes, told):
    with pytest.raises(UsageError, match=re.escape(told)):
        config(crawl, **changes | {"index": CrawlIndex(**changes.get("index", {}))})
