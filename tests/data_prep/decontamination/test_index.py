"""The index finds the same n-grams as a plain comparison of words; examples of common benchmarks are parsed."""

import bz2
import gzip
import json
import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.config import DecontaminationConfig
from data_prep.decontamination.examples import Example, example_files, read_examples
from data_prep.decontamination.index import Index, build_index, overlaps, read_index, write_index
from data_prep.dedup.words import hashed_words, words_of
from lm.errors import InputError, UsageError
from tests.loopback_server import serving_folder

SHARED = Path(__file__).parents[3] / "../shared/data/eval"
WORDS = ("The", "mill's", "stone", "turned,", "and", "“flour”", "fell", "23", "Été", "漢字仮名", "it’s", "x-y")
CONFIG = DecontaminationConfig(sets=("x",), ngram_words=4, min_words=2)
TEXTS = st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join)


def index_of(texts: list[str], config: DecontaminationConfig = CONFIG) -> Index:
    return build_index([Example("set", number, "", (text,)) for number, text in enumerate(texts)], config)


def runs(text: str, n: int) -> set[tuple[str, ...]]:
    words = words_of(text)
    return {tuple(words[start : start + n]) for start in range(len(words) - n + 1)}


def shared_ngrams(text: str, examples: list[str], config: DecontaminationConfig) -> set[tuple[str, ...]]:
    """Spans of the text that are n words of an example, or a whole shorter example, by plain comparison."""
    found = set()
    for example in examples:
        n = min(len(words_of(example)), config.ngram_words)
        if n >= config.min_words:
            found |= runs(example, n) & runs(text, n)
    return found


@given(examples=st.lists(TEXTS, max_size=4), texts=st.lists(TEXTS, max_size=5))
@settings(max_examples=150, deadline=None)
def test_overlaps_equal_those_of_a_plain_comparison(examples, texts):
    """Windows across two documents of a batch do not count."""
    index = index_of(examples)
    found = overlaps(texts, index)
    for number, text in enumerate(texts):
        ngrams = {tuple(index.ngram(ngram)) for ngram in found.get(number, [])}
        assert ngrams == shared_ngrams(text, examples, CONFIG)
    for ngram in range(len(index.hashes)):
        words = index.ngram(ngram)
        assert index.examples_of(ngram) == [
            number for number, text in enumerate(examples) if tuple(words) in shared_ngrams(text, [text], CONFIG)
        ]


def test_a_hash_collision_is_not_an_overlap():
    index = index_of(["one two three four"])
    other = index_of(["five six seven eight"])
    colliding = Index(
        other.hashes, index.text, index.start, index.words, index.offsets, index.examples, index.texts, index.names, ()
    )  # the hash of one n-gram, the words of another
    assert overlaps(["five six seven eight"], other) and not overlaps(["five six seven eight"], colliding)


def test_words_are_compared_without_case_punctuation_and_diacritics():
    same = [
        "Don't stop: the MILL-wheel, ÉTÉ (23)!",
        "don’t  stop the mill wheel été\n23",
        "dont stop the mill wheel e\u0301te\u0301 23",
    ]
    assert {tuple(words_of(text)) for text in same} == {("dont", "stop", "the", "mill", "wheel", "ete", "23")}
    assert all(np.array_equal(hashed_words(text), hashed_words(same[0])) for text in same)
    assert words_of("2 + 2 = 4") != words_of("2 + 2 = 5")
    assert words_of("水車が回る") == list("水車か回る")  # a voicing mark is a diacritic, as in MinHash


ROWS = {
    "hub HellaSwag": (
        {"ind": 7, "activity_label": "Milling", "ctx_a": "A man mills.", "ctx_b": "he", "endings": ["sits.", "runs."]},
        ("A man mills. he sits.", "A man mills. he runs."),
    ),
    "query and choices": (
        {"query": "Question: Who?\nAnswer:", "choices": ["the miller", "the smith"], "gold": 1},
        ("Who? the miller", "Who? the smith"),
    ),
    "hub ARC": (
        {"id": "A1", "question": "Who?", "choices": {"text": ["the miller", "he"], "label": ["A", "B"]}},
        ("Who? the miller", "Who? he"),
    ),
    "LAMBADA": ({"text": "He milled the corn"}, ("He milled the corn",)),
    "hub WinoGrande": (
        {"sentence": "Ann paid Eve as _ owed.", "option1": "Ann", "option2": "Eve", "answer": "1"},
        ("Ann paid Eve as Ann owed.", "Ann paid Eve as Eve owed."),
    ),
    "WinoGrande of lm-eval": (
        {"context_options": ["as Ann", "as Eve"], "continuation": "owed.", "gold": 1}, ("as Ann owed.", "as Eve owed."),
    ),
    "PIQA": ({"goal": "Mill it.", "sol1": "Turn it.", "sol2": "Eat it."}, ("Mill it. Turn it.", "Mill it. Eat it.")),
    "BLiMP": ({"sentence_good": "He mills.", "sentence_bad": "He mill.", "UID": "x"}, ("He mills.", "He mill.")),
    "GSM8K": ({"question": "How many?", "answer": "It is #### 4"}, ("How many? It is #### 4",)),
    "MMLU": ({"question": "How?", "choices": ["so so", "thus"], "answer": 1}, ("How? so so", "How? thus")),
    "TriviaQA": ({"question": "Who?", "answer": {"value": "Eve", "aliases": ["Eva"]}}, ("Who? Eve", "Who? Eva")),
}  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
def test_rows_of_common_benchmarks_need_no_options(tmp_path, name):
    row, texts = ROWS[name]
    (tmp_path / "one.jsonl").write_text(json.dumps(row) + "\n\n")
    (example,) = read_examples(example_files([str(tmp_path / "one.jsonl")]), ())
    assert (example.set, example.number, example.texts) == ("one", 0, texts)
    assert example.id == str(row.get("id", row.get("ind", "")))


def test_only_the_named_fields_are_used(tmp_path):
    (tmp_path / "x.jsonl").write_text(json.dumps({"question": "No.", "q": "Who?", "why": "Why?", "a": ["Eve", "Ann"]}))
    fields = ("prompt=q", "prompt=why", "answer=a")
    (example,) = read_examples(example_files([str(tmp_path / "x.jsonl")]), fields)
    assert example.texts == ("Who? Why? Eve", "Who? Why? Ann")
    with pytest.raises(InputError, match=r"x\.jsonl, example 0, has no known text field: its fields are .*question, q"):
        list(read_examples(example_files([str(tmp_path / "x.jsonl")]), ("prompt=none",)))
    with pytest.raises(UsageError, match="fields has 'q'; give prompt=FIELD"):
        DecontaminationConfig(fields=("q",))


def test_files_of_every_format_and_sets_by_name(tmp_path):
    rows = [{"text": f"Row {n} of it"} for n in range(2)]
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    (tmp_path / "a.jsonl").write_bytes(lines)
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(lines))
    (tmp_path / "c.txt.bz2").write_bytes(bz2.compress(b"query\n1\none end\nother\nthird\nfourth\n"))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "d.v1.parquet")
    each = list(read_examples(example_files([str(tmp_path / "*")]), ()))
    assert [(one.set, one.number) for one in each] == [
        ("a", 0), ("a", 1), ("b", 0), ("b", 1), ("c", 0), ("d", 0), ("d", 1),
    ]  # fmt: skip
    assert each[4].texts[0] == "query one end"
    together = list(read_examples(example_files([f"mine={tmp_path}/*.jsonl*"]), ()))
    assert [(one.set, one.number) for one in together] == [("mine", number) for number in range(4)]
    with pytest.raises(UsageError, match=r"sets: '.*e\.jsonl' matches no file"):
        example_files([str(tmp_path / "e.jsonl")])
    (tmp_path / "e.jsonl").write_text('{"text": "fine"}\n{"text"')
    with pytest.raises(InputError, match=r"e\.jsonl, line 2, is no JSON"):
        list(read_examples(example_files([str(tmp_path / "e.jsonl")]), ()))


def test_a_set_on_a_web_server_is_downloaded(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "www").mkdir()
    (tmp_path / "www/far.jsonl").write_text('{"text": "Far away it stands"}')
    with serving_folder(tmp_path / "www") as address:
        for sets, name in (([f"{address}/far.jsonl"], "far"), ([f"near={address}/far.jsonl"], "near")):
            (example,) = read_examples(example_files(sets), ())
            assert (example.set, example.texts) == (name, ("Far away it stands",))
        with pytest.raises(InputError):
            example_files([f"{address}/nothing.jsonl"])


def test_a_saved_index_is_restored_and_counts_examples_that_are_too_short(tmp_path):
    index = index_of(["one two three four five", "one", "nine ten", ""])
    write_index(index, tmp_path)
    again = read_index(tmp_path)
    assert again.names == (("set", 0, ""), ("set", 1, ""), ("set", 2, ""), ("set", 3, ""))
    assert again.skipped == index.skipped == (1, 3)
    text = "one two three four, then nine ten."
    assert overlaps([text], again) == overlaps([text], index) and len(overlaps([text], again)[0]) == 2


@pytest.mark.skipif(not SHARED.is_dir(), reason="../shared has the evaluation sets")
def test_real_sets_are_parsed_and_their_examples_found():
    sets = [str(SHARED / name) for name in ("arc_easy.jsonl", "winogrande.jsonl")]
    examples = list(read_examples(example_files(sets), ()))
    index = build_index(examples, DecontaminationConfig(sets=tuple(sets)))
    assert len(examples) == 2376 + 1267 and len(index.skipped) < 40
    draw = random.Random(0)
    for number in draw.sample(sorted({*range(len(examples))} - {*index.skipped}), 50):
        text = max(examples[number].texts, key=len)
        (found,) = overlaps([f"Said before. {text} And after."], index).values()
        assert any(number in index.examples_of(ngram) for ngram in found)
