"""The recipe fineweb_2024 compared with stored results of datatrove (April 2024) and NLTK 3.8.1 on the same texts.

tests/fixtures/make_datatrove_2024.py writes the verdicts. Any difference that KNOWN does not list is a bug in our code.
"""

import dataclasses
import functools
import json

import pyarrow as pa
import pytest

from configs.recipes import fineweb_2024
from data_prep.measure.row import measure, text_schema
from data_prep.text.marks import SIGNS_2024
from data_prep.text.nltk_words import nltk_words
from data_prep.verdict import verdicts
from tests.data_prep.dedup.test_minhash import PUNCTUATION_2024
from tests.data_prep.measured import TABLE, fetch_punkt
from tests.data_prep.quality.test_datatrove import ROOT, STAGES, TEXTS, fineweb_config
from tests.fixtures.make_datatrove_2024 import digest

CONFIG = fineweb_config(fineweb_2024)
FILE = ROOT / "tests/fixtures/datatrove/verdicts_2024.jsonl"
HEADER, *VERDICTS = map(json.loads, FILE.read_text(encoding="utf-8").splitlines())
NAMES = {rule.reason: rule.datatrove or "too_few_sentences" for _, rule in TABLE}
KNOWN = {
    "c4": {"lorem after curly"}  # the first line determines the reason in datatrove; here "lorem ipsum" has priority
}
"""{filter: texts on which the reasons differ}. The verdicts never differ."""


@pytest.fixture(autouse=True, scope="module")
def punkt():
    fetch_punkt()


@functools.cache
def measured(lines_are_dropped: bool) -> pa.Table:
    """Rows of texts/ for all TEXTS, with or without C4's removal of lines before the next filter."""
    config = dataclasses.replace(CONFIG, steps=("c4",) if lines_are_dropped else ())
    rows = [{"language": "en", "language_score": 1.0, **measure(text["text"], config)} for text in TEXTS]
    return pa.Table.from_pylist(rows, text_schema(config))


def reasons(steps: tuple[str, ...]) -> list[tuple[str, str] | None]:
    """(filter, datatrove's reason) for each text."""
    found = verdicts(measured("c4" in steps), dataclasses.replace(CONFIG, steps=steps))
    return [verdict and (verdict[0], NAMES[verdict[1]]) for verdict in found]


def test_the_file_has_these_texts_and_the_supported_versions():
    assert (HEADER["datatrove"], HEADER["nltk"]) == ("05194d39", "3.8.1")
    assert [one["name"] for one in VERDICTS] == [text["name"] for text in TEXTS]


def test_the_signs_are_datatroves():
    controls = "".join(map(chr, [*range(9), *range(11, 32), *range(127, 160)]))
    assert {*PUNCTUATION_2024, *controls} == SIGNS_2024


def test_words_equal_those_of_nltk():
    for text, one in zip(TEXTS, VERDICTS, strict=True):
        assert digest(list(nltk_words(text["text"]))) == one["words"], text["name"]


@pytest.mark.parametrize("stage", STAGES)
def test_each_filter_gives_the_same_reason(stage: str):
    theirs = [one["filters"].get(stage) for one in VERDICTS]
    ours = [found and found[1] for found in reasons((stage,))]
    assert [bool(one) for one in ours] == [bool(one) for one in theirs]
    differing = {one["name"] for one, mine, their in zip(VERDICTS, ours, theirs, strict=True) if mine != their}
    assert differing == KNOWN.get(stage, set())
    assert sum(map(bool, theirs)) >= 10


def test_all_filters_in_sequence_give_the_same_verdict():
    theirs = [one["chain"] and tuple(one["chain"]) for one in VERDICTS]
    assert reasons(STAGES) == theirs
