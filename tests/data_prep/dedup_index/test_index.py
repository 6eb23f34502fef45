"""Deduplication against an index equals one run over both dumps, for any location and partitioning of the index."""

import dataclasses
import functools
import itertools
import json
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.config import DedupIndexConfig, DocumentsConfig
from data_prep.dedup.clusters import INDEX_FILES, writing_pairs
from data_prep.dedup.partitions import Partition
from data_prep.dedup.sorted_runs import LAST_KEY, read_blocks, runs_in
from data_prep.dedup_index import joins
from data_prep.dedup_index.format import HEADER, Index, KeyFile, open_index, open_indices
from lm.errors import InputError, UsageError
from tests.data_prep.dedup.test_clusters import run_here
from tests.data_prep.dedup.test_duplicates import Deduplicated, deduplicate, minhash_config, random_corpus
from tests.data_prep.measured import contents
from tests.data_prep.pages import demo_config

STEPS = ("url_dedup", "exact_dedup", "minhash_dedup")
REASONS = {"url_seen_before", "exact_seen_before", "near_seen_before"}
Rows = list[list[dict]]


def two_dumps(seed: int) -> tuple[Rows, Rows]:
    """Files of an earlier and a later dump with the same random texts and few addresses."""
    draw = random.Random(seed)
    dumps: tuple[Rows, Rows] = ([[], []], [[], [], []])
    for rows in random_corpus(seed, documents=60):
        for row in rows:
            later = draw.random() < 0.5
            year = 2025 + draw.randrange(3) if later else 2020 + draw.randrange(4)
            row |= {"dump": "B" if later else "A", "date": f"{year}-01-01T00:00:00Z"}
            row["url"] = f"http://a.ex/{draw.randrange(80)}" + draw.choice(("", "/", "#x"))
            draw.choice(dumps[later]).append(row)
    return dumps


def config_of(steps: tuple[str, ...] = STEPS, against: tuple[Path, ...] = (), **changes: Any) -> DocumentsConfig:
    index = DedupIndexConfig(against=tuple(map(str, against)), write=changes.pop("write", True))
    index = dataclasses.replace(index, key_bytes=changes.pop("key_bytes", 8))
    url = dataclasses.replace(demo_config().url_dedup, keep="first")
    return demo_config(steps=steps, dedup_index=index, **{"url_dedup": url} | changes)


@pytest.mark.fast_rows
@pytest.mark.parametrize(
    ("steps", "key_bytes", "corpora"),
    [
        (STEPS, 8, 1), (STEPS[2:], 16, 1), (STEPS, 16, 6), (STEPS[:1], 8, 6), (STEPS[1:2], 16, 6), (STEPS[1:], 8, 6),
    ],
)  # fmt: skip
def test_two_runs_with_an_index_keep_the_documents_of_one_run_of_both_dumps(tmp_path, steps, key_bytes, corpora):
    """This includes copies of documents that the earlier run dropped."""
    reasons: set[str] = set()
    for seed in range(corpora):
        earlier, later = two_dumps(seed)
        at = lambda name, seed=seed: tmp_path / f"{seed}-{name}"
        both = deduplicate(at("both"), [*earlier, *later], config_of(steps, write=False, across_dumps=True))
        deduplicate(at("a"), earlier, config_of(steps, key_bytes=key_bytes))
        found = deduplicate(at("b"), later, config_of(steps, (at("a"),)))
        assert {*found.kept} == {one for one in both.kept if both.rows[one]["dump"] == "B"}
        name = open_index(str(at("a"))).name
        for one, row in found.dropped.items():
            seen = row["reason"] in REASONS
            index, _, original = row["duplicate_of"].rpartition("#")
            assert index == (name if seen else "")
            assert both.dropped[one]["duplicate_of"] == original
            reasons.add(row["reason"])
    assert {reason for reason in reasons if reason in REASONS} == {
        {"url_dedup": "url_seen_before", "exact_dedup": "exact_seen_before", "minhash_dedup": "near_seen_before"}[step]
        for step in steps
    }


def test_bytes_do_not_depend_on_the_location_of_the_index(tmp_path):
    earlier, later = two_dumps(3)
    deduplicate(tmp_path / "a", earlier, config_of())
    shutil.copytree(tmp_path / "a/dedup_index", tmp_path / "elsewhere")
    one = deduplicate(tmp_path / "b", later, config_of(against=(tmp_path / "a",)))
    deduplicate(tmp_path / "two/b", later, config_of(against=(tmp_path / "elsewhere",)))
    assert contents(tmp_path / "b", "dedup_index/**/*.*") == contents(tmp_path / "two/b", "dedup_index/**/*.*")
    assert any(row["reason"] in REASONS for row in one.dropped.values())


def test_the_first_index_with_the_key_is_named_and_chained_indices_keep_all_keys(tmp_path):
    """The index of the second dump also has the keys of documents that it dropped as already seen."""
    earlier, later = two_dumps(5)
    last = [[row | {"id": f"{row['id']}-again", "dump": "C", "date": "2030-01-01T00:00:00Z"} for row in later[0]]]
    last[0].append(last[0][0] | {"id": "new", "text": "Never seen.", "url": "http://new.ex/"})
    deduplicate(tmp_path / "a", earlier, config_of())
    b = deduplicate(tmp_path / "b", later, config_of(against=(tmp_path / "a",)))
    a_name, b_name = (open_index(str(tmp_path / name)).name for name in "ab")
    for number, (against, names) in enumerate(
        ((("a", "b"), {a_name, b_name}), (("b", "a"), {b_name}), (("b",), {b_name}))
    ):
        config = config_of(against=tuple(tmp_path / name for name in against), write=False)
        found = deduplicate(tmp_path / f"c{number}", last, config)
        assert {*found.kept} == {"new"}
        assert {row["duplicate_of"].partition("#")[0] for row in found.dropped.values()} == names
    assert any(row["reason"] in REASONS for row in b.dropped.values())


def test_an_index_with_other_settings_is_rejected_with_both_values(tmp_path):
    earlier, later = two_dumps(0)
    deduplicate(tmp_path / "a", earlier, config_of(STEPS[2:]))
    against = (tmp_path / "a",)
    with pytest.raises(UsageError, match=r"minhash\.bands = 14; this run has 9"):
        open_indices(config_of(STEPS[2:], against, minhash=minhash_config(bands=9)))
    with pytest.raises(UsageError, match=r"normalisation = 'datatrove_0_10'; this run has 'fineweb_2024'"):
        open_indices(config_of(STEPS[2:], against, minhash=minhash_config(normalisation="fineweb_2024")))
    with pytest.raises(UsageError, match=r"has no url keys, only exact, near"):
        open_indices(config_of(STEPS, against))
    with pytest.raises(InputError, match=r"no index.*--documents\.dedup-index\.write True"):
        open_index(str(tmp_path))
    open_indices(config_of(STEPS[1:2], against, minhash=minhash_config(bands=9)))  # no band is requested
    with pytest.raises(
        UsageError, match=r"dedup_index\.against is given, but documents\.steps has no deduplication step"
    ):
        config_of((), against, write=False)
    header = tmp_path / "a/dedup_index" / HEADER
    (key_file,) = (tmp_path / "a/dedup_index/keys/near").iterdir()
    key_file.write_bytes(key_file.read_bytes()[:-40])
    with pytest.raises(InputError, match=r"near/000000.parquet cannot be read"):
        deduplicate(tmp_path / "b", later, config_of(STEPS[2:], against))
    header.write_text(header.read_text().replace("version 1", "version 2"))
    with pytest.raises(InputError, match="version 2"):
        open_index(str(tmp_path / "a"))
    header.write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        open_index(str(tmp_path / "a"))


def hand_made(folder: Path, keys: dict[bytes, int], key_bytes: int, rows_at_once: int) -> Index:
    """An index of these 16-byte keys and positions, split into files of a few rows."""
    with writing_pairs(folder / "pairs") as add:
        for key, place in keys.items():
            add([key], (0, place))
    (folder / "keys/exact").mkdir(parents=True)
    bounds = [0, 2**62, 2**63, 2**64]
    files = []
    for number, (low, end) in enumerate(itertools.pairwise(bounds)):
        path = folder / "keys/exact" / f"{number:06d}.parquet"
        rows = functools.partial(read_blocks, runs_in(folder / "pairs"), low, end - 1, rows_at_once)
        joins.write_keys(Partition(0, 0, path), path, rows, (0, 1), key_bytes)
        files.append(KeyFile(path.name, low, end - 1))
    return Index(folder, "hand-made", key_bytes, {}, {"exact": tuple(files)}, ("a.parquet", "b.parquet"))


WORDS = [b"\0" * 8, b"\0" * 7 + b"\1", b"\x40" + b"\0" * 7, b"\x7f" + b"\xff" * 7, b"\xff" * 8]
KEYS = st.tuples(st.sampled_from(WORDS), st.sampled_from(WORDS)).map(b"".join)


@settings(max_examples=20, deadline=None)
@given(st.dictionaries(KEYS, st.integers(0, 99)), st.lists(st.tuples(KEYS, st.integers(1, 9))), st.integers(2, 40))
def test_the_join_finds_common_keys(tmp_path_factory, theirs, own, rows_at_once):
    for key_bytes in (8, 16):
        folder = tmp_path_factory.mktemp("join")
        index = hand_made(folder, theirs, key_bytes, rows_at_once)
        with writing_pairs(folder / "own") as add:
            for key, order in own:
                add([key], (order, order))
        work = functools.partial(joins.write_matching_pairs, indices=[index, index], kinds=["exact"])
        met, _ = joins.join([folder / "own"], work, run_here, folder / "met", rows_at_once)
        found = {
            tuple(int(n) for n in row)
            for one in met.places
            for block in read_blocks(runs_in(one), 0, LAST_KEY, 1 << 20)
            for row in block.T
        }
        expected = set()
        for key, order in own:
            places = [place for other, place in theirs.items() if other[:key_bytes] == key[:key_bytes]]
            words = int.from_bytes(key[:8]), int.from_bytes(key[8:])
            if places:
                expected |= {(*words, order, order)}
                expected |= {(*words, 0, min(places) + (file << 32)) for file in (INDEX_FILES, INDEX_FILES + 2)}
        assert found == expected


def test_only_the_wanted_range_of_keys_is_read(tmp_path, monkeypatch):
    """Row group statistics select it; of the rest only the footer is read."""
    monkeypatch.setattr(joins, "KEYS_IN_GROUP", 100)
    draw = np.random.default_rng(0)
    keys = {draw.bytes(16): number for number in range(5000)}
    index = hand_made(tmp_path, keys, 16, 1 << 20)
    read: list[int] = []
    real = pq.ParquetFile.read_row_group
    monkeypatch.setattr(
        pq.ParquetFile, "read_row_group", lambda *given, **named: read.append(1) or real(*given, **named)
    )
    low, last = 2**61, 2**61 + 2**58
    found = list(index.read_keys("exact", low, last))
    words = sorted(int.from_bytes(key[:8]) for key in keys if low <= int.from_bytes(key[:8]) <= last)
    assert [int(word) for some in found for word in some.first] == words and len(words) > 50
    assert len(read) <= len(words) // 100 + 2
    assert isinstance(index.keys["exact"][0], KeyFile) and json.dumps(index.keys)


def test_missing_rows_of_a_damaged_or_foreign_id_index_are_detected(tmp_path):
    earlier, _ = two_dumps(1)
    found: Deduplicated = deduplicate(tmp_path / "a", earlier, config_of())
    index = open_index(str(tmp_path / "a"))
    rows = [row["id"] for row in earlier[0]]
    stayed = [number for number, one in enumerate(rows) if one in found.kept]
    assert index.ids_of(0, stayed) == {number: rows[number] for number in stayed}
    with pytest.raises(InputError, match="is of another index: no id of row 1000"):
        index.ids_of(0, [*stayed, 1000])
    (tmp_path / "a/dedup_index/ids" / index.texts[0]).unlink()
    with pytest.raises(InputError, match=r"write the index of its run again"):
        index.ids_of(0, stayed)
