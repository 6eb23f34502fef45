"""Files of a crawl come whole and right over a network that fails in every way, or not at all."""

import dataclasses
import gzip
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from itertools import pairwise
from pathlib import Path

import pytest

from data_prep.common_crawl.files import chosen, crawl_files
from data_prep.config.pages import NO_CRAWL, CommonCrawlPages, PagesConfig
from data_prep.sources import fetch_pages, input_files
from lm.errors import InputError, UsageError
from lm.storage import http
from lm.storage.http import seconds_asked
from tests.data_prep.loopback_crawl import CRAWL, Fault, LoopbackCrawl, serving
from tests.data_prep.loopback_index import closed_port

REPOSITORY = Path(__file__).parents[3]


def noise(seed: int, size: int) -> bytes:
    """A gzip file of about `size` bytes."""
    return gzip.compress(random.Random(seed).randbytes(size), 1, mtime=0)


WARCS = [noise(n, 40_000 + n) for n in range(5)]


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setenv("GRISTMILL_STORAGE_TIMEOUT", "1")
    monkeypatch.setenv("GRISTMILL_STORAGE_RETRIES", "2")
    monkeypatch.setattr(http, "FIRST_PAUSE", 0.01)


@pytest.fixture
def crawl():
    with serving(LoopbackCrawl.of(list(WARCS))) as served:
        yield served


def config(server: LoopbackCrawl, **changes) -> CommonCrawlPages:
    quick = {"downloads": 2, "download": True}
    addresses = {"address": server.url, "crawls_address": f"{server.url}collinfo.json"}
    return dataclasses.replace(NO_CRAWL, **{"crawl": CRAWL, "files": 1, **quick, **addresses, **changes})


def told(fault: Fault | list[Fault]) -> str:
    """Of a fault only what differs from none; of bytes, which may hold a time, only how many."""
    if isinstance(fault, list):
        return ", then ".join(map(told, fault))
    changed = {k: v for k, v in dataclasses.asdict(fault).items() if v != getattr(Fault(), k)}
    return " ".join(f"{k}={f'{len(v)} bytes' if isinstance(v, bytes) else str(v)[:40]}" for k, v in changed.items())


def fetch(server: LoopbackCrawl, out: Path, lines: list[str] | None = None, **changes) -> list[bytes]:
    files = crawl_files(config(server, **changes), out, [].append if lines is None else lines.append)
    return [file.path.read_bytes() for file in files]


def left_in(out: Path) -> list[str]:
    return sorted(path.name for path in (out / "pages").iterdir())


def test_the_files_come_in_the_lists_order_and_the_manifest_names_them_by_their_place_in_the_crawl(crawl, tmp_path):
    pages = PagesConfig(common_crawl=config(crawl, files=3, first_file=1, downloads=3))
    lines = []
    manifest = fetch_pages(pages, tmp_path, lines.append)
    names = [path.rpartition("/")[2] for path in crawl.paths[1:4]]
    assert manifest["files"] == [
        {"path": f"pages/{name}", "name": path, "kind": "warc", "bytes": len(crawl.files[path]), "pages": None}
        for name, path in zip(names, crawl.paths[1:4], strict=True)
    ]
    assert [file.path.read_bytes() for file in input_files(tmp_path)] == WARCS[1:4]
    assert left_in(tmp_path) == sorted([*names, "manifest.json"])
    assert sum("is here" in line for line in lines) == 3
    assert all(headers["User-Agent"].startswith("gristmill") for _, headers in crawl.requests)


def test_wet_files_have_their_own_list(tmp_path):
    with serving(LoopbackCrawl.of(list(WARCS), "wet")) as crawl:
        (file,) = crawl_files(config(crawl, kind="wet"), tmp_path, [].append)
    assert (file.kind, file.path.read_bytes()) == ("wet", WARCS[0])
    assert file.name.endswith(".warc.wet.gz")


def test_a_cut_connection_is_gone_on_with_where_it_ended(crawl, tmp_path):
    path = crawl.paths[0]
    crawl.faults[path] = [Fault(cut=10_000), Fault(cut=5_000)]
    assert fetch(crawl, tmp_path) == WARCS[:1]
    end, etag = len(WARCS[0]) - 1, crawl.etag(WARCS[0])
    asked = [(headers.get("Range"), headers.get("If-Range")) for headers in crawl.asked(path) if "If-Range" in headers]
    assert asked == [(f"bytes={begin}-{end}", etag) for begin in (0, 10_000, 15_000)]
    assert len(left_in(tmp_path)) == 1


@pytest.mark.parametrize(
    "faults",
    [
        [Fault(status=503), Fault(status=500)],
        [Fault(status=429), Fault(status=403)],
        [Fault(status=502), Fault(status=504)],
        [Fault(stall=True)],
        [Fault(cut=0), Fault(cut=1)],
        [Fault(cut=9_000), Fault(ignore_range=True)],
        [Fault(cut=9_000), Fault(shift=100)],
        [Fault(told_length=50_000)],
        [Fault(cut=9_000), Fault(chunked=True)],
        [Fault(headers={"Content-Encoding": "gzip"})],
        [Fault(headers={"Content-Encoding": "gzip"}, cut=9_000)],
        [Fault(cut=9_000), Fault(headers={"Content-Range": "bytes of some sort"})],
    ],
    ids=told,
)
def test_the_file_is_right_in_the_end(crawl, tmp_path, faults):
    path = crawl.paths[0]
    crawl.faults[path] = list(faults)
    assert fetch(crawl, tmp_path) == [crawl.files[path]]
    assert not crawl.faults[path], "not every fault was met"
    assert len(left_in(tmp_path)) == 1


@pytest.mark.parametrize(
    "fault", [Fault(status=503), Fault(cut=0), Fault(told_length=99_999), Fault(stall=True)], ids=told
)
def test_a_lasting_fault_ends_with_what_is_kept_and_the_same_command_goes_on(crawl, tmp_path, fault):
    second = crawl.paths[1]
    crawl.always[second] = fault
    with pytest.raises(InputError, match="the same command goes on") as caught:
        fetch(crawl, tmp_path, files=2, downloads=1)
    assert second in str(caught.value)
    assert (tmp_path / "pages" / crawl.paths[0].rpartition("/")[2]).read_bytes() == WARCS[0]
    assert not (tmp_path / "pages" / second.rpartition("/")[2]).exists()
    crawl.always.clear()
    crawl.requests.clear()
    assert fetch(crawl, tmp_path, files=2) == WARCS[:2]
    assert {path for path, _ in crawl.requests} == {second}  # neither the list nor the whole file again


def test_an_interrupted_run_goes_on_within_a_file(crawl, tmp_path):
    path = crawl.paths[0]
    part = tmp_path / "pages" / (path.rpartition("/")[2] + ".part")
    crawl.always[path] = Fault(status=503)
    part.parent.mkdir()
    part.write_bytes(b"-" * 30_000)
    part.with_name(part.name + ".json").write_text(json.dumps([len(WARCS[0]), crawl.etag(WARCS[0]), None]))
    with pytest.raises(InputError, match=r"What has come is kept"):
        fetch(crawl, tmp_path)
    crawl.always.clear()
    assert fetch(crawl, tmp_path) == [b"-" * 30_000 + WARCS[0][30_000:]] and left_in(tmp_path) == [part.stem]


@pytest.mark.parametrize("told", ["{", "\xff", "[5, null, null]", json.dumps([len(WARCS[0]), '"another"', None]), None])
def test_a_part_of_another_version_is_not_gone_on_with(crawl, tmp_path, told):
    part = tmp_path / "pages" / (crawl.paths[0].rpartition("/")[2] + ".part")
    part.parent.mkdir()
    part.write_bytes(b"the begin of another file")
    if told:
        part.with_name(part.name + ".json").write_bytes(told.encode("latin-1"))
    assert fetch(crawl, tmp_path) == WARCS[:1]


def test_a_part_that_is_longer_than_the_file_is_not_taken_for_it(crawl, tmp_path):
    part = tmp_path / "pages" / (crawl.paths[0].rpartition("/")[2] + ".part")
    part.parent.mkdir()
    part.write_bytes(WARCS[0] + b"more")
    part.with_name(part.name + ".json").write_text(json.dumps([len(WARCS[0]), crawl.etag(WARCS[0]), None]))
    assert fetch(crawl, tmp_path) == WARCS[:1]


def test_a_file_that_is_replaced_while_it_comes_is_told_and_comes_whole_at_the_next_try(crawl, tmp_path):
    crawl.faults[crawl.paths[0]] = [Fault(cut=9_000), Fault(replace=WARCS[1])]
    with pytest.raises(InputError, match="was replaced while it was read"):
        fetch(crawl, tmp_path)
    assert fetch(crawl, tmp_path) == WARCS[1:2]


def test_a_wait_of_hours_ends_the_run_instead(crawl, tmp_path):
    crawl.faults[crawl.paths[0]] = [Fault(status=503, headers={"Retry-After": "7200"})]
    with pytest.raises(InputError, match=r"come back in 2\.0 hours"):
        fetch(crawl, tmp_path)


def test_retry_after_is_seconds_or_a_date_by_the_servers_clock():
    date = "Thu, 22 Feb 2024 10:00:00 GMT"
    assert seconds_asked("120", date) == 120
    assert seconds_asked("Thu, 22 Feb 2024 10:00:30 GMT", date) == 30
    assert seconds_asked("Thu, 22 Feb 2024 09:00:30 GMT", date) == 0
    assert [seconds_asked(value, date) for value in (None, "", "soon", "-3", "²")] == [None] * 5


def test_a_file_that_is_not_there_does_not_keep_the_others(crawl, tmp_path):
    gone = crawl.paths[1]
    del crawl.files[gone]
    crawl.files[f"crawl-data/{CRAWL}/warc.paths.gz"] = gzip.compress(
        "\n".join([crawl.paths[0], gone, crawl.paths[1]]).encode()
    )
    with pytest.raises(InputError, match="1 of 3 files are not on the server") as caught:
        fetch(crawl, tmp_path, files=3, downloads=1)
    assert gone in str(caught.value)
    assert len(left_in(tmp_path)) == 2
    assert len(crawl.asked(gone)) == 1


def test_a_crawl_that_is_none_is_refused_with_those_most_like_it(crawl, tmp_path):
    with pytest.raises(UsageError, match=r"no crawl CC-MAIN-2024-11.*Most like it are: CC-MAIN-2024-1[08], "):
        fetch(crawl, tmp_path, crawl="CC-MAIN-2024-11")
    del crawl.files["collinfo.json"]
    with pytest.raises(UsageError, match=r"paths\.gz is not there\. Mend pages\.common_crawl\.crawl"):
        fetch(crawl, tmp_path, crawl="CC-MAIN-2024-11")


def test_more_files_than_there_are_is_refused_with_both_numbers(crawl, tmp_path):
    with pytest.raises(UsageError, match=r"files is 9, but CC-MAIN-2024-10 has 5 WARC files, 4 of them"):
        fetch(crawl, tmp_path, files=9, first_file=1)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(gzip.compress(b"crawl-data/../../../etc/cron.d/x.gz\n"), id="a path that climbs out"),
        pytest.param(gzip.compress(b"/etc/passwd\n"), id="an absolute path"),
        pytest.param(gzip.compress(b"https://elsewhere.example/crawl-data/a/b.warc.gz\n"), id="another server"),
        pytest.param(gzip.compress("crawl-data/ä/b.warc.gz\n".encode()), id="a letter beyond ASCII"),
        pytest.param(gzip.compress(b""), id="empty"),
        pytest.param(gzip.compress(b"crawl-data/a/b.warc.gz\n" * 99)[:-9], id="cut"),
    ],
)
def test_a_list_that_is_none_is_refused(crawl, tmp_path, body):
    crawl.files[f"crawl-data/{CRAWL}/warc.paths.gz"] = body
    with pytest.raises(InputError, match=r"warc\.paths\.gz (is no list|lists no file|is damaged)"):
        fetch(crawl, tmp_path)
    assert not (tmp_path / "pages").exists()
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_nobody_listening(tmp_path):
    with pytest.raises(InputError, match=r"connection refused(.|\n)*HTTPS_PROXY"):
        fetch(LoopbackCrawl({}), tmp_path, address=f"http://127.0.0.1:{closed_port()}")


def test_a_proxy_that_is_not_there(crawl, tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{closed_port()}")
    with pytest.raises(InputError, match="HTTPS_PROXY"):
        fetch(crawl, tmp_path)
    assert not crawl.requests


def test_a_full_disk_is_noticed_before_it_is_full(crawl, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9, free))
    free = 30_000
    with pytest.raises(InputError, match=r"still needs 0\.00 GB, but .* has 0\.00 GB free. Make room"):
        fetch(crawl, tmp_path, files=2)
    free = 50_000
    assert fetch(crawl, tmp_path, files=2) == WARCS[:2]


def test_a_folder_that_cannot_be_written(crawl, tmp_path):
    (tmp_path / "pages").write_text("in the way")
    with pytest.raises(InputError, match="cannot be written"):
        fetch(crawl, tmp_path)


def test_the_choice_of_files(crawl):
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
        ({"downloads": 0}, "downloads is 0"),
        ({"first_file": -1}, "first_file is -1"),
        ({"address": "s3://commoncrawl/"}, "s3://commoncrawl/"),
    ],
)
def test_impossible_values_are_refused(crawl, changes, told):
    with pytest.raises(UsageError) as caught:
        config(crawl, **changes)
    assert told in str(caught.value)


def test_ctrl_c_ends_a_stalled_download_at_once_and_the_same_command_goes_on(crawl, tmp_path):
    crawl.faults[crawl.paths[0]] = [Fault(stall=True)]
    environment = os.environ | {"GRISTMILL_STORAGE_TIMEOUT": "3600"}
    command = [
        *(sys.executable, "-m", "launch.fetch_pages", "configs/demo.py", "--workdir", str(tmp_path / "run")),
        *("--pages.common-crawl.crawl", CRAWL, "--pages.common-crawl.files", "2", "--documents.dump", CRAWL),
        *("--pages.common-crawl.address", crawl.url, "--pages.common-crawl.downloads", "2"),
        *("--pages.common-crawl.download", "True"),
    ]
    process = subprocess.Popen(
        command, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    pages = tmp_path / "run/pages"
    part, second = (pages / path.rpartition("/")[2] for path in crawl.paths[:2])
    part = part.with_name(part.name + ".part")
    deadline = time.monotonic() + 600
    while not (second.exists() and part.exists()) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=600)  # it would wait for the stalled download for an hour
    assert process.returncode == 130, output
    assert "the same command goes on" in output
    crawl.requests.clear()
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert {path for path, _ in crawl.requests} == {crawl.paths[0]}
    assert [file.path.read_bytes() for file in input_files(tmp_path / "run")] == WARCS[:2]
    assert "2 input files (warc)" in done.stdout
