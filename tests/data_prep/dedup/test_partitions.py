"""Partitioned joins: every row is in exactly one partition, and for U files, U + 2^k U / 64 objects are read."""

import functools
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.config import DedupIndexConfig, LineDedupConfig
from data_prep.dedup import lines, partitions, sorted_runs
from data_prep.dedup.clusters import count_clusters, duplicates_in, find_duplicates, sizes_in, take_step, writing_pairs
from data_prep.dedup.partitions import Gather, Partition, Partitions, Rows, join
from data_prep.dedup_index.format import open_index
from data_prep.dedup_index.joins import write_index, write_matching_pairs
from tests.data_prep.dedup.test_clusters import key, run_here
from tests.data_prep.pages import demo_config


@given(
    st.lists(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 60)), max_size=60), max_size=7),
    st.integers(2, 20),
    st.integers(1, 3),
)
@settings(max_examples=40, deadline=None)
def test_every_row_is_in_its_partition_exactly_once(tmp_path_factory, files, rows_at_once, files_at_once):
    folder = tmp_path_factory.mktemp("join")
    blocks: dict[int, list[np.ndarray]] = {}

    def work(task: Partition, path: Path, rows: Rows) -> None:
        blocks[task.number] = list(rows())
        assert all(np.array_equal(*both) for both in zip(blocks[task.number], rows(), strict=True))
        for block in blocks[task.number]:
            assert block.shape[1] <= rows_at_once
            assert task.low <= block[0].min() and block[0].max() <= task.last
        path.touch()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(partitions, "FILES_AT_ONCE", files_at_once)
        patch.setattr(sorted_runs, "SAMPLE_ROWS", 4)
        paths, every = [], [np.empty((4, 0), np.uint64)]
        for number, drawn in enumerate(files):
            rows = np.array([[top << 62 | low, low, number, 0] for top, low in drawn], np.uint64).reshape(-1, 4).T
            paths.append(folder / f"{number}.pairs")
            sorted_runs.write_run_file(paths[-1], [rows[:, :30], rows[:, 30:]])
            every.append(rows)
        made, _ = join(paths, work, run_here, folder / "steps", rows_at_once)
    assert len(blocks) == 1 << made.bits and all(place.exists() for place in made.places)
    found = np.concatenate([np.empty((4, 0), np.uint64), *(one for some in blocks.values() for one in some)], axis=1)
    every = np.concatenate(every, axis=1)
    np.testing.assert_array_equal(sorted_runs.sorted_rows(found), sorted_runs.sorted_rows(every))


def test_large_files_are_gathered_by_more_tasks():
    paths = [Path(str(number)) for number in range(200)]
    sizes = [len(task.run_files) for task in partitions.gathers_of(paths, [10] * 200, 10_000, Path())]
    assert sizes == [64, 64, 64, 8]
    sizes = [len(task.run_files) for task in partitions.gathers_of(paths, [10] * 199 + [900], 100, Path())]
    assert sizes == [10] * 19 + [9, 1]


def test_positions_are_spread_evenly_and_restored():
    places = np.arange(2**31, 2**31 + 1000, dtype=np.uint64) << np.uint64(32)  # of files of an index
    keys = sorted_runs.spread(places)
    np.testing.assert_array_equal(sorted_runs.spread(keys, sorted_runs.INVERSE), places)
    assert np.bincount((keys >> np.uint64(61)).astype(int), minlength=8).max() < 140


OPENED: set[str] = set()
"""Objects in the watched folder opened for reading. Only the driver reads JSON files."""
WATCHED: dict[str, str] = {}


def note_open(event: str, arguments: tuple) -> None:
    path, mode = map(str, arguments[:2]) if WATCHED and event == "open" else ("", "")
    if mode.startswith("r") and path.startswith(WATCHED["folder"]) and not path.endswith(".json"):
        OPENED.add(path)


sys.addaudithook(note_open)


def told() -> int:
    """The number of objects opened since the last call."""
    number = len(OPENED)
    OPENED.clear()
    return number


class Counted:
    """Run tasks, and count the objects that each reads and may read."""

    def __init__(self):
        self.read = self.allowed = self.bits = 0

    def __call__(self, tasks, work) -> list[dict]:
        if isinstance(tasks[0], Gather):
            self.allowed += sum(len(task.run_files) for task in tasks)
        else:
            self.bits = tasks[0].bits
            self.allowed += len(tasks) * len(work.keywords["files"])
        counts = []
        for task in tasks:
            told()
            counts += run_here([task], work)
            self.read += told()
        return counts


@pytest.mark.fast_rows
@pytest.mark.parametrize(("files", "documents"), [(40, 20), (400, 10)])
def test_the_number_of_objects_read_by_joins(tmp_path, files, documents, monkeypatch):
    """One document of each file is a copy of a document in another file."""
    rows_at_once = 80
    monkeypatch.setattr(lines, "ROWS_AT_ONCE", rows_at_once)
    paths = [tmp_path / f"{file}.pairs" for file in range(files)]
    for file, path in enumerate(paths):
        with writing_pairs(path) as add:
            for row in range(documents):
                add([key(file * documents + row if row else file // 2)], (1, file << 32 | row))
    bits = math.ceil(math.log2(sum(path.stat().st_size for path in paths) / (3 * 32 * rows_at_once)))
    assert bits >= 2
    texts = {file: f"{file}.parquet" for file in range(len(paths))}
    config = demo_config(dedup_index=DedupIndexConfig(write=True))
    monkeypatch.setitem(WATCHED, "folder", str(tmp_path))
    run = Counted()

    def joined(join: Callable[[], Any], lookup: Callable[[Any, int], object] | None = None) -> Any:
        """Return the result of one join, which reads each file once and each gathered file once per partition, or of
        several, whose lookup reads one object for a file."""
        run.read = run.allowed = 0
        made = join()
        assert 0 < run.read <= run.allowed
        if lookup is None:
            assert run.bits == bits and run.allowed == files + 2**bits * math.ceil(files / 64)
        for file in range(files if lookup else 0):
            told()
            lookup(made, file)
            assert told() == 1
        return made

    joined(lambda: take_step("link", paths, tmp_path / "link", run, rows_at_once))
    result = joined(lambda: find_duplicates(paths, tmp_path / "steps", run, rows_at_once), duplicates_in)
    joined(lambda: count_clusters(result, tmp_path / "sizes", run, rows_at_once), sizes_in)
    joined(lambda: lines.join_lines(paths, LineDedupConfig(), tmp_path / "lines", run), rows_of_file)
    index = tmp_path / "index"
    joined(lambda: write_index(texts, {"exact": paths}, config, "", index, tmp_path / "parts", run, rows_at_once))
    opened, few = open_index(str(index)), 2 ** (bits - 2)
    run.read = 0
    work = functools.partial(write_matching_pairs, indices=[opened, opened], kinds=["exact"])
    join(paths, work, run, tmp_path / "met", 4 * rows_at_once)
    assert len(opened.keys["exact"]) == 2**bits and run.bits == bits - 2
    assert run.read <= files + few * math.ceil(files / 64) + 2 * 2**bits


def rows_of_file(made: Partitions, file: int) -> list[np.ndarray]:
    low, last = sorted_runs.keys_of_file(file)
    return list(sorted_runs.read_blocks(sorted_runs.runs_in(made.of(low)), low, last, 1000))
