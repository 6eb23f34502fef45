"""Deduplication of random corpora with exact and near copies, from texts/ to documents/ and dropped/."""

import dataclasses
import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from configs.recipes import gristmill as recipe
from data_prep.config import ONE_PROCESS, DocumentsConfig, EngineConfig, MinHashConfig, UrlDedupConfig
from data_prep.config.deduplicate import TRACKING
from data_prep.dedup.clusters import make_node, repeats
from data_prep.dedup.keys import scope_of, text_key
from data_prep.dedup.minhash import band_keys
from data_prep.funnel.report import read_counts
from data_prep.prepare import prepare_documents
from data_prep.urls import same_page_key
from lm.errors import UsageError
from tests.data_prep.measured import plain_row, write_corpus
from tests.data_prep.pages import demo_config

REASONS = {"exact_dedup": "exact_duplicate", "minhash_dedup": "near_duplicate"}
FILES = ("a.parquet", "b.parquet", "c.parquet")


def random_corpus(seed: int, languages: tuple[str, ...] = ("en",), documents: int = 0) -> list[list[dict]]:
    """Rows of each file: some texts, copies with other white space, texts with one word changed, and copies of these.
    There are few dates, so that some are equal and copies are often older than their originals."""
    draw = random.Random(seed)
    texts: list[str] = []
    for number in range(documents or draw.randint(10, 30)):
        kind = draw.choice(("new", "copy", "changed", "changed", "short")) if texts else "new"
        words = draw.choice(texts).split() if texts else []
        if kind == "new":
            words = ["".join(draw.choices("abcdefgh", k=6)) for _ in range(40)]  # digits would all become 0
        elif kind == "changed":
            words[draw.choice((0, len(words) - 1))] = f"changed{chr(97 + number // 26)}{chr(97 + number % 26)}"
        elif kind == "short":  # no shingle: only exact copies are found
            words = [draw.choice(("one", "two")), "word"]
        texts.append(draw.choice((" ", "  ", "\n")).join(words))
    files: list[list[dict]] = [[] for _ in FILES]
    for number, text in enumerate(texts):
        row = plain_row(
            text, f"<urn:{number}>", dump=draw.choice(("x", "x", "x", "y")), url=f"http://a.example/{number}",
            date=f"202{draw.randrange(5)}-01-01T00:00:00Z", language=draw.choice(languages),
        )  # fmt: skip
        draw.choice(files).append(row)
    return files


@dataclass(frozen=True)
class Deduplicated:
    """A corpus with its kept and dropped rows by id."""

    rows: dict[str, dict]
    kept: dict[str, dict]
    dropped: dict[str, dict]
    """duplicate_of is an id if the document is in this corpus."""


def deduplicate(
    folder: Path, files: list[list[dict]], config: DocumentsConfig, engine: EngineConfig = ONE_PROCESS
) -> Deduplicated:
    named = {str(number): rows for number, rows in enumerate(files)}
    prepare_documents(write_corpus(folder, named), config, folder, engine=engine)
    kept, gone = (
        {row["id"]: row for name in named for row in pq.read_table(folder / where / f"{name}.parquet").to_pylist()}
        for where in ("documents", "dropped")
    )
    for row in gone.values():
        if row["duplicate_of"] and ".parquet:" in row["duplicate_of"]:
            file, _, place = row["duplicate_of"].partition(".parquet:")
            row["duplicate_of"] = files[int(file)][int(place)]["id"]
    assert len(kept) + len(gone) == sum(map(len, files))
    return Deduplicated({row["id"]: row for rows in files for row in rows}, kept, gone)


def clusters_of(rows: Iterable[dict], config: DocumentsConfig) -> dict[str, str]:
    """{id: id of the kept document} of each row, by joining every pair that shares a key."""
    parent = {row["id"]: row["id"] for row in rows}
    by_key: dict[bytes, str] = {}
    order = {row["id"]: make_node(row["date"], row["id"], 0, 0) for row in rows}

    def root(one: str) -> str:
        return one if parent[one] == one else root(parent[one])

    for row in rows:
        scope = scope_of(row, config)
        for key in (text_key(row["text"], scope), *(band_keys(row["text"], scope, config.minhash) or ())):
            ends = sorted((root(row["id"]), root(by_key.setdefault(key, row["id"]))), key=order.__getitem__)
            parent[ends[1]] = ends[0]
    return {one: root(one) for one in parent}


def minhash_config(**changes: Any) -> MinHashConfig:
    return dataclasses.replace(recipe.MINHASH, **changes)


@pytest.mark.fast_rows
@pytest.mark.parametrize("across", [False, True])
@pytest.mark.parametrize("by_language", [False, True])
def test_documents_are_compared_only_within_their_scope(tmp_path, across, by_language):
    config = demo_config(
        steps=("exact_dedup", "minhash_dedup"), across_dumps=across, minhash=minhash_config(by_language=by_language),
        language=dataclasses.replace(recipe.LANGUAGE, languages=("en", "de")),
    )  # fmt: skip
    for seed in range(2):
        found = deduplicate(tmp_path / str(seed), random_corpus(seed, ("en", "en", "de")), config)
        stays = clusters_of(found.rows.values(), config)
        assert {one: row["duplicate_of"] for one, row in found.dropped.items()} == {
            one: other for one, other in stays.items() if one != other
        }
        pairs = [(found.rows[one], found.rows[row["duplicate_of"]]) for one, row in found.dropped.items()]
        assert any(one["dump"] != other["dump"] for one, other in pairs) == across
        assert any(one["language"] != other["language"] for one, other in pairs) == (not by_language)


def test_before_the_filters_the_kept_document_may_be_a_bad_one(tmp_path):
    """The filter then drops it, so nothing of its cluster is left."""
    good = {row["id"]: row for rows in random_corpus(0) for row in rows}.popitem()[1]
    text = " ".join(one + other for one in "abcdefgh" for other in "vwxyz")
    bad = good | {"id": "bad", "text": text + " { lorem", "date": "2020-01-01T00:00:00Z", "c4_curly_brackets": 1.0}
    wrong = good | {"id": "wrong", "text": text, "date": "2019-01-01T00:00:00Z", "language": "fr"}
    rows = [good | {"id": "good", "text": text, "date": "2021-01-01T00:00:00Z", "c4_curly_brackets": 0.0}, bad, wrong]
    rows = [row | {"dump": "x", "c4_sentences": 9.0, "c4_characters": 99.0, "c4_lorem_ipsum": 0.0} for row in rows]
    other = [good | {"id": "other", "text": "one two", "c4_curly_brackets": 0.0, "c4_sentences": 9.0}]
    steps = ("c4", "exact_dedup", "minhash_dedup")
    after = demo_config(steps=steps)
    before = demo_config(steps=steps, minhash=minhash_config(before_filters=True))
    first = deduplicate(tmp_path / "after", [rows, other], after)
    assert {one: row["stage"] for one, row in first.dropped.items()} == {"bad": "c4", "wrong": "language"}
    second = deduplicate(tmp_path / "before", [rows, other], before)
    assert {one: row["stage"] for one, row in second.dropped.items()} == {
        "good": "minhash_dedup", "bad": "c4", "wrong": "language",
    }  # fmt: skip
    assert second.dropped["good"]["duplicate_of"] == "bad"
    stages = before.stages
    assert stages.index("language") < stages.index("minhash_dedup") < stages.index("c4") < len(stages) - 1


WEIGHTS = ((1, 1), (2, 2), (3, 3), (5, 5), (100, 8), (1000, 1))
"""FineWeb-2's (huggingface/fineweb-2, README.md)."""


def fetched_again(seed: int) -> list[list[dict]]:
    """A random corpus whose pages have few addresses, each in several spellings."""
    draw = random.Random(seed)
    files = random_corpus(seed)
    for rows in files:
        for row in rows:
            page = draw.randrange(9)
            row["url"] = draw.choice(
                (f"http://a.ex/{page}", f"https://www.a.ex/{page}/?utm_source=x", f"HTTP://A.ex/{page}#top")
            )
    return files


@pytest.mark.fast_rows(2)
@pytest.mark.parametrize("keep", ["first", "latest"])
@pytest.mark.parametrize("more", [(), ("exact_dedup", "minhash_dedup")])
def test_one_document_is_kept_of_a_page_fetched_again(tmp_path, keep, more):
    config = demo_config(steps=("url_dedup", *more), url_dedup=UrlDedupConfig(keep=keep))
    for seed in range(2):
        found = deduplicate(tmp_path / str(seed), fetched_again(seed), config)
        by_page: dict[tuple, list[dict]] = {}
        for row in found.rows.values():
            by_page.setdefault((row["dump"], same_page_key(row["url"], TRACKING)), []).append(row)
        assert len(by_page) < len(found.rows)
        for rows in by_page.values():
            dates = {row["id"]: row["date"] for row in rows}
            (stays,) = {one for one in dates if found.dropped.get(one, {}).get("reason") != "url_duplicate"}
            assert dates[stays] == (min if keep == "first" else max)(dates.values())
        for row in found.dropped.values():
            assert row["duplicate_of"] in found.kept, (row["id"], row["reason"])
        if more:
            refetched = {one for one, row in found.dropped.items() if row["reason"] == "url_duplicate"}
            near = clusters_of([row for one, row in found.rows.items() if one not in refetched], config)
            assert {*found.kept} == {*near.values()}


@pytest.mark.fast_rows(3)
@pytest.mark.parametrize(
    "steps", [("url_dedup", "exact_dedup", "minhash_dedup"), ("exact_dedup",), ("url_dedup",), ("minhash_dedup",)]
)
@pytest.mark.parametrize("before", [False, True])
def test_cluster_sizes_sum_to_the_number_of_documents(tmp_path, steps, before):
    minhash = minhash_config(cluster_sizes=True, upsampling_weights=WEIGHTS, before_filters=before)
    corpus = fetched_again(5)
    found = deduplicate(tmp_path, corpus, demo_config(steps=steps, minhash=minhash))
    expected = Counter(row["duplicate_of"] for row in found.dropped.values())
    assert len(found.kept) < len(found.rows)
    assert {one: row["cluster_size"] - 1 for one, row in found.kept.items()} == {
        one: expected[one] for one in found.kept
    }
    assert sum(row["cluster_size"] for row in found.kept.values()) == len(found.rows)
    assert {row["repeat"] for row in found.kept.values()} <= {1, 2, 3, 5}
    counts = read_counts(tmp_path / "funnel.json").counts
    kept, documents = (sum(pair[place] for pair in counts["cluster_sizes"].values()) for place in (0, 1))
    assert (kept, documents) == (len(found.kept), len(found.rows))


def test_a_document_is_repeated_by_the_largest_size_its_cluster_reaches():
    assert [repeats(size, WEIGHTS) for size in (1, 2, 3, 4, 5, 99, 100, 999, 1000, 10**6)] == [
        1, 2, 3, 3, 5, 5, 8, 8, 1, 1,
    ]  # fmt: skip
    for weights in (((2, 1),), ((1, 1), (1, 2)), ((1, 1), (5, 2), (3, 1)), ((1, 0),)):
        with pytest.raises(UsageError, match="upsampling_weights"):
            minhash_config(upsampling_weights=weights)
    with pytest.raises(UsageError, match="no deduplication step"):
        demo_config(steps=("c4",), minhash=minhash_config(cluster_sizes=True))
