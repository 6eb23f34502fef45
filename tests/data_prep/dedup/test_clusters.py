"""The join finds the connected components of any graph in few rounds, for any order, runner and memory limit."""

import contextlib
import hashlib
import json
import random
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from data_prep.dedup import clusters, partitions, sorted_runs
from data_prep.dedup.clusters import Node, duplicates_in, find_duplicates, make_node, writing_pairs
from data_prep.dedup.partitions import Partitions
from lm.errors import InputError
from lm.storage import Url, write_atomically
from tests.object_store import QUICK, serving, variables

FILES = 3
Pairs = list[tuple[bytes, Node]]


def key(name: object) -> bytes:
    return hashlib.blake2b(repr(name).encode(), digest_size=16).digest()


def run_here(tasks, work, ran: list[int] | None = None) -> list[dict]:
    """Run the tasks whose outputs are missing one by one in this process."""
    missing = [task for task in tasks if not task.run_file.exists()]
    for task in missing:
        task.run_file.parent.mkdir(parents=True, exist_ok=True)
        counts_of(task).write_text(json.dumps(work(task, task.run_file) or {}))
    if ran is not None:
        ran.append(len(missing))
    return [json.loads(counts_of(task).read_text()) for task in tasks]


def counts_of(task) -> Path:
    return task.run_file.with_name(f"{task.run_file.name}.json")


def write_files(pairs: Iterable[tuple[bytes, Node]], folder: Path, files: int = FILES) -> list[Path]:
    """Write the pairs to the file of their node."""
    paths = [folder / f"{file}.pairs" for file in range(files)]
    with contextlib.ExitStack() as stack:
        add = [stack.enter_context(writing_pairs(path)) for path in paths]
        for name, node in pairs:
            add[node[1] >> 32]([name], node)
    return paths


def stays(result: Partitions, files: int = FILES) -> dict[tuple[int, int], tuple[int, int]]:
    """Return {(file, row) of a duplicate: (file, row) of the kept document}."""
    found = [duplicates_in(result, file) for file in range(files)]
    return {(file, row): kept for file, rows in enumerate(found) for row, kept in rows.items()}


def union_find(pairs: Pairs) -> dict[tuple[int, int], tuple[int, int]]:
    """The same by union-find."""
    parent: dict[Node, Node] = {node: node for _, node in pairs}

    def root(node: Node) -> Node:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    first: dict[bytes, Node] = {}
    for name, node in pairs:
        roots = sorted((root(node), root(first.setdefault(name, node))))
        parent[roots[1]] = roots[0]
    place = lambda node: (node[1] >> 32, node[1] & 0xFFFFFFFF)
    return {place(node): place(root(node)) for node in parent if root(node) != node}


def graph_pairs(edges: list[tuple[int, int]], rng: random.Random, files: int = FILES) -> Pairs:
    """One key per edge; nodes are numbered in an unrelated order."""
    numbers = {number for edge in edges for number in edge}
    nodes = {number: (rng.getrandbits(3), number % files << 32 | number) for number in numbers}
    pairs = [(key(index), nodes[end]) for index, edge in enumerate(edges) for end in edge]
    rng.shuffle(pairs)
    return pairs


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 12), st.integers(0, 25)), max_size=60),
    st.integers(4, 100),
    st.sampled_from([2, 64]),
    st.randoms(use_true_random=False),
)
def test_clusters_are_the_components(tmp_path_factory, memberships, rows_at_once, files_at_once, rng):
    folder = tmp_path_factory.mktemp("graph")
    nodes = [(rng.getrandbits(2), rng.randrange(FILES) << 32 | number) for number in range(26)]
    pairs = [(key(group), nodes[number]) for group, number in memberships]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(partitions, "FILES_AT_ONCE", files_at_once)
        result = find_duplicates(write_files(pairs, folder), folder / "steps", run_here, rows_at_once)
    assert stays(result) == union_find(pairs)


@pytest.mark.parametrize("rows_at_once", [64, 1 << 20])
def test_a_long_path_takes_logarithmically_many_rounds(tmp_path, rows_at_once):
    pairs = graph_pairs([(number, number + 1) for number in range(1000)], random.Random(0))
    result = find_duplicates(write_files(pairs, tmp_path), tmp_path / "steps", run_here, rows_at_once)
    assert stays(result) == union_find(pairs)
    rounds = len(list((tmp_path / "steps").glob("*-small-star")))
    assert rounds <= (1 if rows_at_once > 1000 else 11)  # the last round finds no change


def test_the_first_fetched_sorts_first_and_an_unknown_date_last():
    dates = [
        "1969-12-31T00:00:00Z", "2013-05-18T05:50:17Z", "2013-05-18T08:50:18+03:00", "2013-05-18 05:50:19.5",
        "2013-05-19", "9999-12-31T23:59:59Z", "yesterday",
    ]  # fmt: skip
    nodes = [make_node(date, "id", 0, 0) for date in dates]
    assert nodes == sorted(nodes) and len(set(nodes)) == len(nodes)
    assert make_node("", "id", 0, 0) == nodes[-1]
    assert make_node("2013-05-18T05:50:17Z", "id", 7, 9) < make_node("2013-05-18T05:50:17Z", "id", 8, 0)


def test_files_without_documents_have_no_duplicates(tmp_path):
    assert stays(find_duplicates(write_files([], tmp_path), tmp_path / "steps", run_here)) == {}
    assert stays(find_duplicates([], tmp_path / "none", run_here)) == {}


def test_a_damaged_file_is_named(tmp_path):
    paths = write_files(graph_pairs([(0, 1)], random.Random(0)), tmp_path)
    paths[1].write_bytes(paths[1].read_bytes()[:50])
    with pytest.raises(InputError, match=r"1\.pairs cannot be read: .* Delete"):
        find_duplicates(paths, tmp_path / "steps", run_here)


# A key of many rows


def star(key_rows: int, rng: random.Random) -> Pairs:
    """One key that `key_rows` documents share, and as many keys of two documents each, some also with the first key."""
    nodes = [(rng.getrandbits(20), rng.randrange(FILES) << 32 | number) for number in range(2 * key_rows)]
    pairs = [(key("boilerplate"), node) for node in nodes[:key_rows]]
    pairs += [(key(number), nodes[rng.randrange(2 * key_rows)]) for number in range(key_rows) for _ in range(2)]
    rng.shuffle(pairs)
    return pairs


def test_a_key_of_many_rows_is_never_in_memory_at_once(tmp_path, monkeypatch):
    """2,500 documents with one key in partitions of 400 rows."""
    held = []
    real = sorted_runs.sorted_rows
    monkeypatch.setattr(sorted_runs, "sorted_rows", lambda rows: held.append(rows.shape[1]) or real(rows))
    monkeypatch.setattr(sorted_runs, "SAMPLE_ROWS", 16)
    pairs = star(2500, random.Random(4))
    monkeypatch.setattr(clusters, "PAIRS_AT_ONCE", 500)
    result = find_duplicates(write_files(pairs, tmp_path), tmp_path / "steps", run_here, rows_at_once=100)
    assert max(held) <= 6 * 100
    assert stays(result) == union_find(pairs)


@pytest.mark.fast_rows
@pytest.mark.parametrize("keys", [1, 3])
def test_the_sizes_of_clusters_do_not_depend_on_the_memory_limit(tmp_path, keys):
    """With several keys per document, a duplicate is found in several blocks of a partition."""
    draw = random.Random(0)
    nodes = [(draw.getrandbits(60), number % FILES << 32 | number) for number in range(90)]
    pairs = [(key(draw.choice((0, 0, 0, *range(40)))), node) for node in nodes for _ in range(keys)]
    paths, found = write_files(pairs, tmp_path), []
    for rows in (5, 1 << 20):
        result = find_duplicates(paths, tmp_path / f"{rows}", run_here, rows)
        sizes = clusters.count_clusters(result, tmp_path / f"{rows}-sizes", run_here, rows)
        found.append(
            {(file, row): size for file in range(FILES) for row, size in clusters.sizes_in(sizes, file).items()}
        )
        assert found[-1] == {place: 1 + number for place, number in Counter(stays(result).values()).items()}
    assert found[0] == found[1] and max(found[0].values()) > 5


# Run files


@given(st.lists(st.lists(st.integers(0, 40), max_size=60), max_size=4), st.integers(0, 40), st.integers(0, 40))
@example([[5, 5, 7]], 5, 5)
@settings(max_examples=60, deadline=None)
def test_a_range_of_a_run_file_has_its_rows(tmp_path_factory, runs, low, last):
    path = tmp_path_factory.mktemp("runs") / "a.runs"
    rows = [np.array([[k, k % 3, i, i % 5] for i, k in enumerate(keys)], np.uint64).reshape(-1, 4).T for keys in runs]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sorted_runs, "SAMPLE_ROWS", 4)
        sorted_runs.write_run_file(path, rows)
        found = sorted_runs.runs_of([path])
        assert sum(run.rows for run in found) == sum(map(len, runs))
        everything = np.concatenate([np.empty((4, 0), np.uint64), *rows], axis=1)
        inside = everything[:, (everything[0] >= low) & (everything[0] <= last)]
        blocks = list(sorted_runs.read_blocks(found, low, last, 7))
        assert all(block.shape[1] <= 7 for block in blocks)
        read = np.concatenate([np.empty((4, 0), np.uint64), *blocks], axis=1)
        np.testing.assert_array_equal(sorted_runs.sorted_rows(read), sorted_runs.sorted_rows(inside))


def test_a_range_in_a_bucket_is_one_request_per_run(tmp_path):
    """Plus one for the index."""
    rng = np.random.default_rng(0)
    path = tmp_path / "a.runs"
    sorted_runs.write_run_file(path, [rng.integers(0, 2**64, (4, 20_000), np.uint64) for _ in range(3)])
    asked, place = [], Url("s3://runs/a.runs")
    with serving() as store, variables(store.environment() | QUICK), pytest.MonkeyPatch.context() as patch:
        store.bucket("runs")
        write_atomically(place, path.read_bytes())
        real = Url.read_range
        patch.setattr(Url, "read_range", lambda url, start, end: asked.append(end - start) or real(url, start, end))
        runs = sorted_runs.runs_of([place])
        assert asked == [2**16]
        low, last = 2**62, 2**62 + 2**58
        there = list(sorted_runs.read_blocks(runs, low, last, 10_000))
    here = list(sorted_runs.read_blocks(sorted_runs.runs_of([path]), low, last, 10_000))
    assert len(asked) == 1 + 3 and max(asked[1:]) <= 3 * 32 * sorted_runs.SAMPLE_ROWS
    np.testing.assert_array_equal(np.concatenate(there, axis=1), np.concatenate(here, axis=1))


def test_a_run_file_missing_from_the_bucket_is_named(tmp_path):
    with serving() as store, variables(store.environment() | QUICK):
        store.bucket("runs")
        write_atomically(Url("s3://runs/pairs/a.runs"), b"")
        gone = Url("s3://runs/pairs/b.runs")
        with pytest.raises(InputError, match=r"b\.runs cannot be read: it is not there"):
            find_duplicates([gone], tmp_path, run_here)


@pytest.mark.parametrize("cut", [0, 20, 100, 5000])
def test_a_truncated_run_file_is_named(tmp_path, cut):
    path = tmp_path / "a.runs"
    sorted_runs.write_run_file(path, [np.arange(4000, dtype=np.uint64).reshape(4, -1)])
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(InputError, match=r"a\.runs cannot be read: .* Delete the folder"):
        sorted_runs.runs_of([path])
