"""Our words, rules and verdicts compared with stored ones of datatrove 0.10.1, and those of the recipe fineweb_2024
with stored ones of datatrove of April 2024 and NLTK 3.8.1, on the same texts.

KNOWN lists every difference by the name of its text; docs/recipes.md explains them. Any other difference is a bug in
our code. tests/fixtures/make_datatrove.py and make_datatrove_2024.py of commit 6e194231 wrote the files.
"""

import dataclasses
import functools
import hashlib
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pyarrow as pa
import pytest

from configs.demo import get_config
from configs.recipes import fineweb_2024, gristmill
from data_prep.config import DocumentsConfig, Rule
from data_prep.config.filters import breaks
from data_prep.measure.row import measure, text_schema
from data_prep.quality.c4 import C4Filter, clean
from data_prep.quality.gopher import GopherQualityFilter
from data_prep.text.marks import SIGNS_2024
from data_prep.text.nltk_words import nltk_words
from data_prep.text.words import split
from data_prep.verdict import Verdict, thresholds_of, verdicts
from tests.data_prep.dedup.test_minhash import PUNCTUATION_2024
from tests.data_prep.measured import TABLE, THRESHOLDS, fetch_punkt

FOLDER = Path(__file__).parents[2] / "fixtures/datatrove"
# A text may contain other line breaks.
HEADER, *TEXTS = map(json.loads, filter(None, (FOLDER / "texts.jsonl").read_bytes().decode().split("\n")))
HEADER_2024, *VERDICTS_2024 = map(json.loads, (FOLDER / "verdicts_2024.jsonl").read_text().splitlines())
STORED = {"0.10": TEXTS, "2024": VERDICTS_2024}
STAGES = ("gopher_repetition", "gopher_quality", "c4", "fineweb")


def fineweb_config(recipe: ModuleType = gristmill) -> DocumentsConfig:
    """The four quality filters of a recipe, and its language."""
    filters = {one.name: one for one in recipe.FILTERS}
    return dataclasses.replace(get_config().documents, steps=STAGES, language=recipe.LANGUAGE, **filters)


CONFIG = fineweb_config()
CONFIGS = {"0.10": CONFIG, "2024": fineweb_config(fineweb_2024)}
DATATROVE_REASONS = {rule.reason: rule.datatrove for _, rule in TABLE if rule.datatrove}
IDS = [rule.reason for _, rule in THRESHOLDS]
KNOWN = {
    "gopher_duplicate_5_grams": {"words joined"},  # datatrove counts "1 23" and "12 3" as the same n-gram
    "gopher_duplicate_6_grams": {"words joined"},
    "gopher_below_mean_word_length": {"no word"},  # a mean over no words is NaN in datatrove and passes; ours is 0
    "gopher_short_document": {"full-width one"},  # "１" counts as a digit here, and as punctuation in datatrove
    "c4_too_few_sentences": {"Khmer sentences"},  # datatrove knows only some sentence terminators of Unicode
    "fineweb_too_few_terminal_punctuation_lines": {
        "Khmer end",  # a terminator of datatrove that Unicode does not list
        "one dot leader",  # a terminator of Unicode that datatrove does not list
    },
}
"""{our reason: texts on which the two rules differ}."""
KNOWN_REASONS = {
    "0.10": {
        "gopher_quality": {"full-width one"},
        "c4": {
            "Khmer sentences",
            "lorem after curly",  # the first line determines the reason in datatrove; here "lorem ipsum" has priority
            "citations alone",  # nothing remains: a separate reason here; in datatrove the next filter drops it
        },
        "fineweb": KNOWN["fineweb_too_few_terminal_punctuation_lines"],
    },
    "2024": {"c4": {"lorem after curly"}},
}
"""{release: {filter: texts on which the reasons differ}}. Verdicts of 2024 never differ."""
KNOWN_VERDICTS = {"0.10": {"full-width one"}, "2024": set()}
"""{release: texts on which the verdicts of all filters in sequence differ, at least in the reason}."""
RELEASES = pytest.mark.parametrize("release", STORED)


@functools.cache
def measured(release: str, lines_are_dropped: bool) -> pa.Table:
    """Rows of texts/ for all TEXTS, with or without C4's removal of lines before the next filter."""
    if release == "2024":
        fetch_punkt()
    config = dataclasses.replace(CONFIGS[release], steps=("c4",) if lines_are_dropped else ())
    rows = [{"language": "en", "language_score": 1.0, **measure(text["text"], config)} for text in TEXTS]
    return pa.Table.from_pylist(rows, text_schema(config))


def verdicts_of(steps: tuple[str, ...], release: str = "0.10") -> list[Verdict]:
    return verdicts(measured(release, "c4" in steps), dataclasses.replace(CONFIGS[release], steps=steps))


def in_their_words(steps: tuple[str, ...], release: str) -> list[Verdict]:
    """The verdicts with datatrove's reasons."""
    names = DATATROVE_REASONS | ({"c4_no_lines": "too_few_sentences"} if release == "2024" else {})
    return [one and (one[0], names.get(one[1], one[1])) for one in verdicts_of(steps, release)]


def digest(words: tuple[str, ...]) -> str:
    return hashlib.blake2b("\x1f".join(words).encode("utf-8", "surrogatepass"), digest_size=6).hexdigest()


def test_the_files_have_the_supported_versions_and_these_texts():
    assert HEADER["datatrove"].startswith("0.10.")
    assert (HEADER_2024["datatrove"], HEADER_2024["nltk"]) == ("05194d39", "3.8.1")
    names = [text["name"] for text in TEXTS]
    assert len({*names}) == len(names) >= 300 and [one["name"] for one in VERDICTS_2024] == names


def test_words_equal_those_of_spacy_and_nltk():
    for text in TEXTS:
        assert split(text["text"])[0] == text["words"].split(" "), text["name"]
    fetch_punkt()
    for text, one in zip(TEXTS, VERDICTS_2024, strict=True):
        assert digest(nltk_words(text["text"])) == one["words"], text["name"]


def test_the_signs_of_2024_are_datatroves():
    controls = "".join(map(chr, [*range(9), *range(11, 32), *range(127, 160)]))
    assert {*PUNCTUATION_2024, *controls} == SIGNS_2024


@RELEASES
@pytest.mark.parametrize("stage", STAGES)
def test_each_filter_gives_the_same_reason(stage, release):
    ours = [verdict and verdict[1] for verdict in in_their_words((stage,), release)]
    theirs = [text["filters"].get(stage) for text in STORED[release]]
    assert differing(ours, theirs) == KNOWN_REASONS[release].get(stage, set())
    assert release == "0.10" or [bool(one) for one in ours] == [bool(one) for one in theirs]
    assert sum(map(bool, theirs)) >= 10


@RELEASES
def test_all_filters_in_sequence_give_the_same_verdict(release):
    theirs = [text["chain"] and tuple(text["chain"]) for text in STORED[release]]
    assert differing(in_their_words(STAGES, release), theirs) == KNOWN_VERDICTS[release]


def differing(ours: list, theirs: list) -> set[str]:
    """Return the names of the texts with unequal values."""
    return {text["name"] for text, one, other in zip(TEXTS, ours, theirs, strict=True) if one != other}


@pytest.mark.parametrize(("stage", "rule"), THRESHOLDS, ids=IDS)
def test_each_rule_drops_the_same_texts_as_in_datatrove(stage: str, rule: Rule):
    """Some texts are on each side of the threshold, and some at it."""
    quality = dataclasses.replace(CONFIG.get(GopherQualityFilter), max_words=HEADER["long"])
    config = dataclasses.replace(CONFIG, gopher_quality=quality)
    values, dropped = broken_by(rule, config, (stage,))
    reason = DATATROVE_REASONS[rule.reason]
    theirs = [reason in text["broken"].get(stage, ()) for text in TEXTS]
    if reason == "gopher_too_many_ellipsis":  # which datatrove skips if there are too many hash signs
        theirs = [
            one or (own and "gopher_too_many_hashes" in text["broken"].get(stage, ()))
            for one, own, text in zip(theirs, dropped, TEXTS, strict=True)
        ]
    assert differing(dropped, theirs) == KNOWN.get(rule.reason, set())
    assert sum(theirs) >= 2
    at = [
        text["name"] for text, value in zip(TEXTS, values, strict=True) if value == rule.limit(getattr(config, stage))
    ]
    kept = {text["name"] for text, one in zip(TEXTS, theirs, strict=True) if not one}
    assert at and kept.issuperset(set(at) - KNOWN.get(rule.reason, set()))


def broken_by(rule: Rule, config: DocumentsConfig, steps: tuple[str, ...]) -> tuple[np.ndarray, list[bool]]:
    """The value of each text, and whether it breaks the rule."""
    config = dataclasses.replace(config, steps=steps)
    (threshold,) = (one for one in thresholds_of(config) if one.reason == rule.reason)
    values = measured("0.10", "c4" in steps)[rule.signal].to_numpy()
    return values, breaks(values, threshold.drops, threshold.value).tolist()


@pytest.mark.parametrize("rule", [rule for stage, rule in TABLE if stage == "fineweb"], ids=lambda rule: rule.reason)
def test_fineweb_rules_use_the_text_after_c4(rule: Rule):
    left = [text.get("left", text["text"]) for text in TEXTS]
    _, dropped = broken_by(rule, CONFIG, STAGES)
    ours = [one and bool(text) for one, text in zip(dropped, left, strict=True)]
    theirs = [DATATROVE_REASONS[rule.reason] in text["after_c4"] and bool(text.get("left", True)) for text in TEXTS]
    assert differing(ours, theirs) == KNOWN.get(rule.reason, set())


def test_c4_keeps_the_same_lines():
    ours = [clean(text["text"], CONFIG.get(C4Filter)).text for text in TEXTS]
    assert differing(ours, [text.get("left", text["text"]) for text in TEXTS]) == set()


def test_every_reason_is_the_verdict_on_some_text():
    """Except gopher_long_document: a text of 100,000 words would be larger than all others together."""
    found = {(stage, reason) for stage, reason in filter(None, verdicts_of(STAGES))}
    assert found >= {(stage, rule.reason) for stage, rule in THRESHOLDS if rule.reason != "gopher_long_document"}


def test_every_reason_has_a_name_in_datatrove():
    assert set(DATATROVE_REASONS) == {rule.reason for _, rule in TABLE} - {"c4_no_lines"}
