"""No article is in both splits: not recrawled, under another URL, as a near-duplicate, or from another dump."""

import dataclasses
import functools
import itertools
import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_prep.config.deduplicate import TRACKING
from data_prep.documents import DOCUMENT_SCHEMA
from data_prep.shards.held_out import article_keys, canonical_url, is_drawn, read_index, union
from data_prep.shards.write import write_shards
from data_prep.urls import same_page_key
from lm.config import TokenizerConfig
from lm.data.records import document_tables, read_manifest
from lm.errors import InputError
from lm.tokenizer import train_bpe
from tests.data_prep.shards.test_write import CONFIG

WORDS = ["".join(letters) for letters in itertools.product("aeioklmnrs", repeat=3)]
TOKENIZER = train_bpe(["a theme"], TokenizerConfig(260, "cl100k", 1000))
QUARTER = dataclasses.replace(CONFIG, validation_fraction=0.25)
Rows = list[tuple[str, str | None, str]]
"""(id, URL, text)"""


def article(number: int, words: int = 80) -> str:
    return " ".join(random.Random(number).choices(WORDS, k=words))


def edited(text: str) -> str:
    """The text with another last word: its shingles have a similarity above 0.9."""
    return text.rpartition(" ")[0] + " otherwise"


def write_dump(folder: Path, rows: Rows, files: int = 2, row_group_size: int = 20) -> Path:
    fixed = {
        "dump": folder.name,
        "date": "",
        "file_path": "",
        "language": "en",
        "language_score": 1.0,
        "token_count": None,
    }
    folder.mkdir(parents=True)
    for file in range(files):
        table = [{"id": id, "url": url, "text": text, **fixed} for id, url, text in rows[file::files]]
        path = folder / f"{file}.parquet"
        pq.write_table(pa.Table.from_pylist(table, DOCUMENT_SCHEMA), path, row_group_size=row_group_size)
    return folder


def sides(documents: Path, out: Path, **change) -> dict[str, str]:
    """{id: split}"""
    write_shards(documents, TOKENIZER, out, dataclasses.replace(QUARTER, **change))
    return {row["id"]: row["split"] for table in document_tables(out) for row in pq.read_table(table).to_pylist()}


@pytest.mark.parametrize(
    "url",
    [
        "http://www.a.example/News/1?b=2&a=1", "https://a.example/news/1/?a=1&b=2#top", "HTTPS://A.Example:443/news/1?a=1&b=2&",
        "//a.example/%6Eews/1?b=2&a=1",
    ],
)  # fmt: skip
def test_spellings_of_a_url_are_normalised(url):
    assert canonical_url(url) == "a.example/news/1?a=1&b=2"
    assert is_drawn(url, "x", 0.3) == is_drawn("a.example/news/1?a=1&b=2", "y", 0.3)


def test_all_visits_of_a_page_are_in_the_same_split():
    """Addresses that are one page to url_dedup are drawn together and share a key, whatever their text."""
    came_from = ("", "?utm_source=mail", "?UTM_Medium=x&utm_source=y", "?fbclid=1#top", "?phpsessid=2")
    for number in range(200):
        visits = [f"https://a.example/{number}{visit}" for visit in came_from]
        assert len({same_page_key(url, TRACKING) for url in visits}) == 1
        assert len({is_drawn(url, article(n), 0.3) for n, url in enumerate(visits)}) == 1
        shared = functools.reduce(np.intersect1d, [article_keys(url, f"text {n}") for n, url in enumerate(visits)])
        assert len(shared) == 1
    assert canonical_url("https://a.example/1?id=1&utm_source=x") != canonical_url("https://a.example/1?id=2")
    assert canonical_url("https://a.example/\u00e9") == canonical_url("https://a.example/%C3%A9")
    # In any case: query parameters are sorted by their lower-case names.
    url = "https://a.example/News?B=1&a=2&ID=3&cat=x"
    assert canonical_url(url) == canonical_url(url.lower()) == canonical_url(url.upper())


def test_the_share_is_near_the_requested_one_and_a_larger_share_contains_a_smaller():
    urls = [f"https://a.example/{number}" for number in range(4000)]
    few, many = ({url for url in urls if is_drawn(url, "", fraction)} for fraction in (0.05, 0.3))
    assert few < many and 150 < len(few) < 250 and 1080 < len(many) < 1320
    without_url = [is_drawn(None, article(number), 0.3) for number in range(1000)]
    assert 250 < sum(without_url) < 350


def test_no_training_document_of_a_run_matches_a_held_out_one(tmp_path):
    """The same article under another URL, nearly the same under a third, without a URL, and the same URL with another
    text; 300 articles of each."""
    rows: Rows = []
    for n in range(300):
        rows += [
            (f"{n}-first", f"https://a.example/{n}", article(n)),
            (f"{n}-again", f"http://www.a.example/{n}/#x", article(10_000 + n)),
            (f"{n}-copied", f"https://b.example/{n}", article(n).replace(" ", "\n")),
            (f"{n}-edited", f"https://c.example/{n}", edited(article(n))),
            (f"{n}-bare", None, article(n)),
        ]
    random.Random(0).shuffle(rows)
    found = sides(write_dump(tmp_path / "dump", rows), tmp_path / "tokens")
    of = {id: (url, text) for id, url, text in rows}
    held, trained = (
        union(article_keys(*of[id]) for id, split in found.items() if split == side) for side in ("val", "train")
    )
    assert not len(np.intersect1d(held, trained))
    alike = ("first", "copied", "edited", "bare")
    apart = [n for n in range(300) if {"train", "val"} <= {found[f"{n}-{kind}"] for kind in alike}]
    assert len(apart) <= 3  # at similarity 0.97, they share no band once in a thousand times
    assert 0.2 < sum(split == "val" for split in found.values()) / len(found) < 0.3
    manifest = read_manifest(tmp_path / "tokens")
    assert manifest.withheld_documents == sum(split == "withheld" for split in found.values()) > 0
    counted = {name: split.documents for name, split in manifest.splits.items()}
    assert counted == {name: sum(split == name for split in found.values()) for name in ("train", "val")}


def test_another_dump_excludes_held_out_articles_from_training(tmp_path):
    """Each article again with another id: under its URL rewritten, under another URL, edited. The last index of a chain
    of dumps is sufficient."""
    first: Rows = [(f"{n}", f"https://a.example/{n}", article(n)) for n in range(200)]
    kinds = {
        "second": lambda n: (f"https://b.example/{n}", article(n)),
        "third": lambda n: (f"http://www.a.example/{n}/", article(20_000 + n)),
        "fourth": lambda n: (f"https://c.example/{n}", edited(article(n))),
    }
    splits = {"first": sides(write_dump(tmp_path / "first", first), tmp_path / "first-tokens")}
    before = tmp_path / "first-tokens/held_out_keys.parquet"
    for name, make in kinds.items():
        rows: Rows = [(f"{n}", *make(n)) for n in range(200)]
        out = tmp_path / f"{name}-tokens"
        splits[name] = sides(write_dump(tmp_path / name, rows), out, held_out_index=(str(before),))
        before = out / "held_out_keys.parquet"
    held = {id for id, split in splits["first"].items() if split == "val"}
    assert 30 < len(held) < 70
    for name in kinds:
        trained = {id for id, split in splits[name].items() if split == "train"}
        assert len(held & trained) <= (1 if name == "fourth" else 0)
        assert len(trained) > 60
    alone = sides(tmp_path / "second", tmp_path / "alone")
    assert held & {id for id, split in alone.items() if split == "train"}  # the index makes the difference


def test_splits_do_not_depend_on_the_files(tmp_path):
    rows: Rows = [(f"{n}", f"https://a.example/{n}", article(n % 150)) for n in range(300)]
    mixed = random.Random(1).sample(rows, len(rows))
    one = sides(write_dump(tmp_path / "one", rows, files=3), tmp_path / "one-tokens")
    other = sides(write_dump(tmp_path / "other", mixed, files=5, row_group_size=7), tmp_path / "other-tokens")
    assert one == other
    indices = [tmp_path / f"{name}-tokens/held_out_keys.parquet" for name in ("one", "other")]
    assert indices[0].read_bytes() == indices[1].read_bytes()


def test_the_index_has_the_keys_of_the_held_out_documents(tmp_path):
    rows: Rows = [(f"{n}", f"https://a.example/{n}" if n % 3 else None, article(n)) for n in range(120)]
    sides(write_dump(tmp_path / "dump", rows), tmp_path / "tokens")
    expected = union(article_keys(url, text) for _, url, text in rows if is_drawn(url, text, 0.25))
    np.testing.assert_array_equal(read_index(tmp_path / "tokens/held_out_keys.parquet"), expected)


def test_an_index_of_another_rule_is_rejected(tmp_path):
    path = tmp_path / "keys.parquet"
    pq.write_table(pa.table({"key": pa.array([1], pa.uint64())}), path)
    with pytest.raises(InputError, match=r'has keys of the rule "none"; this version uses "url'):
        read_index(path)
    path.write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"keys\.parquet is not a held-out index"):
        read_index(path)
