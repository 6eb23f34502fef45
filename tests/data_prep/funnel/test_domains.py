"""The largest hosts of many counts files are those of one table of all hosts, and no step holds that table."""

import collections
import itertools
import random
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.config import ONE_PROCESS
from data_prep.engine.tasks import FileRunner
from data_prep.funnel import domains
from data_prep.funnel.domains import (
    TOP_DOMAINS,
    Domains,
    HostCounter,
    count_domains,
    host,
    host_ranges,
    merged,
    read_host_counts,
    read_range,
    write_host_counts,
)
from lm.storage import file_sha256

NAMES = st.sampled_from(["", *(f"host-{n}.example" for n in range(40)), "ü.example"])
HOSTS = st.lists(st.tuples(NAMES, st.integers(0, 9)))


def counted(counts_file: Path, documents: list[tuple[str, int]], hosts_at_once: int = 10_000) -> Path:
    counter = HostCounter(counts_file, hosts_at_once)
    for name, size in documents:
        counter.add(f"https://www.{name}/x" if name else "", size)
    counter.write()
    return counts_file


def named(counts_files: list[Path]) -> list[tuple[str, str]]:
    return [(path.name, file_sha256(path)) for path in counts_files]


def plainly(files: list[list[tuple[str, int]]]) -> Domains:
    """All hosts in one dict."""
    documents, sizes = collections.Counter(), collections.Counter()
    for name, size in (one for file in files for one in file):
        documents[name] += 1
        sizes[name] += size
    largest = sorted(documents, key=lambda name: (-sizes[name], name))[:TOP_DOMAINS]
    return Domains(tuple((name, documents[name], sizes[name]) for name in largest), len(documents))


@given(
    files=st.lists(HOSTS, min_size=1, max_size=9),
    at_once=st.integers(1, 50),
    files_at_once=st.integers(2, 10),
    hosts_in_range=st.integers(1, 100),
)
@settings(max_examples=30, deadline=None)
def test_the_domains_of_many_files_are_those_of_one_table(
    tmp_path_factory, files, at_once, files_at_once, hosts_in_range
):
    folder, seen = tmp_path_factory.mktemp("hosts"), []
    counts_files = [counted(folder / f"{n}.parquet", file, at_once) for n, file in enumerate(files)]
    assert count_domains(
        named(counts_files), FileRunner(folder, ONE_PROCESS, seen.append), files_at_once, hosts_in_range
    ) == plainly(files)
    assert not list(folder.rglob("*.partial"))
    assert {one.step for one in seen} >= ({"domains-1"} if len(files) > files_at_once else set())
    ranges = len(list((folder / "units/largest-domains").glob("*.json")))
    assert ranges == 1 or hosts_in_range < sum(len({name for name, _ in file}) for file in files)


def test_how_often_a_counter_spills_does_not_change_its_counts_file(tmp_path, monkeypatch):
    monkeypatch.setattr(domains, "FILES_AT_ONCE", 3)
    draw = random.Random(0)
    documents = [(f"host-{draw.randrange(300)}.example", draw.randrange(1000)) for _ in range(3000)]
    for name in ("whole", "spilled"):
        (tmp_path / name).mkdir()
    whole = counted(tmp_path / "whole/a.parquet", documents, 10_000)
    spilled = counted(tmp_path / "spilled/a.parquet", documents, 20)
    assert whole.read_bytes() == spilled.read_bytes()
    assert [path.name for path in (tmp_path / "spilled").iterdir()] == ["a.parquet"]


def test_ranges_of_hosts_are_of_like_size_and_leave_no_host_out(tmp_path, monkeypatch):
    """Of files of 200 hosts each, in row groups of 10."""
    monkeypatch.setattr("data_prep.parquet.ROWS_PER_GROUP", 10)
    files = [[(f"{n:03d}.{file % 2}.example", 1) for n in range(200)] for file in range(4)]
    counts_files = [counted(tmp_path / f"{n}.parquet", file) for n, file in enumerate(files)]
    ranges = host_ranges(counts_files, 100)
    assert ranges[0][0] == "" and ranges[-1][1] is None
    assert all(high == low for (_, high), (low, _) in itertools.pairwise(ranges))
    rows = [sum(len(list(read_range(path, *one))) for path in counts_files) for one in ranges]
    assert sum(rows) == 800 and len(rows) >= 6 and max(rows) < 200


def test_merged_counts_files_that_are_there_are_not_made_again(tmp_path):
    counts_files = [counted(tmp_path / f"{n}.parquet", [(f"host-{n}.example", n)]) for n in range(5)]
    run = FileRunner(tmp_path, ONE_PROCESS, lambda progress: None)
    first = count_domains(named(counts_files), run, files_at_once=2)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "parts/domains").iterdir()}
    lost = min(before)
    lost.unlink()
    assert count_domains(named(counts_files), run, files_at_once=2) == first
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "parts/domains").iterdir()}
    assert {path for path in before if before[path] != after[path]} == {lost}


def test_the_memory_does_not_grow_with_the_hosts(tmp_path):
    """Of 4 counts files, without a host in common: the peak for ten times the hosts is hardly a higher one."""

    def peak(hosts: int) -> int:
        counts_files = [tmp_path / f"{hosts}-{n}.parquet" for n in range(4)]
        for n, counts_file in enumerate(counts_files):
            write_host_counts(counts_file, ((f"{number:07d}.host-{n}.example", 1, number) for number in range(hosts)))
        tracemalloc.start()
        try:
            run = FileRunner(tmp_path, ONE_PROCESS, lambda progress: None)
            assert count_domains(named(counts_files), run).in_all == 4 * hosts
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(20_000) < 1.3 * peak(2_000)


def test_sums_are_of_each_host_once_and_in_order(tmp_path):
    one, other = [("a", 1, 5), ("c", 2, 6)], [("a", 10, 50), ("b", 3, 7)]
    assert list(merged([one, other, []])) == [("a", 11, 55), ("b", 3, 7), ("c", 2, 6)]
    write_host_counts(tmp_path / "counts.parquet", one)
    assert list(read_host_counts(tmp_path / "counts.parquet")) == one


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://www.a.example/x", "a.example"), ("http://A.example:80", "a.example"), ("http://[", ""), ("", ""),
        (None, ""),
    ],
)  # fmt: skip
def test_host(url: str | None, expected: str):
    assert host(url) == expected
