"""The funnel computed from stored values equals that of a run with those thresholds, except for duplicates."""

import contextlib
import dataclasses
import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from configs.recipes import gristmill as recipe
from data_prep.config import ONE_PROCESS, DocumentsConfig
from data_prep.config.documents import DEDUP as STEPS_OF_DEDUP
from data_prep.documents import Document
from data_prep.extract import normalise
from data_prep.funnel.counts import TOP_DOMAINS, Counts, largest
from data_prep.funnel.report import FUNNEL, Written, read_counts
from data_prep.measure.row import text_schema
from data_prep.prepare import prepare_documents
from data_prep.quality.fasttext import FastTextFilter
from data_prep.quality.gopher import GopherQualityFilter
from data_prep.select.refilter import Recounted, changed_thresholds, changes, comparison, count_again
from data_prep.sources.inputs import Records
from data_prep.verdict import thresholds_of
from lm.errors import InputError
from lm.fields import with_values
from tests.data_prep.measured import CONFIG as MEASURED
from tests.data_prep.measured import RULES, real_rows, text_row, write_corpus

SCORED = FastTextFilter(min_score=0.0, model="not read again", label="hq")
CONFIG = dataclasses.replace(
    recipe.documents("demo", recipe.URL_FILTER_WITHOUT_LISTS, SCORED, measure_other_languages=True),
    steps=RULES,
    personal_data=MEASURED.personal_data,
)
SCHEMA = text_schema(CONFIG)
DEDUP = dataclasses.replace(CONFIG, steps=(*RULES, "exact_dedup", "minhash_dedup"))
OF_A_RUN = ("clean_text_bytes", "replaced")
"""Counts only of stages that write documents."""


def changed(section: str, **values) -> DocumentsConfig:
    return dataclasses.replace(CONFIG, **{section: dataclasses.replace(getattr(CONFIG, section), **values)})


def sharing(keep_share: float) -> DocumentsConfig:
    scored = dataclasses.replace(SCORED, keep_share=keep_share)
    return dataclasses.replace(CONFIG, steps=(*RULES, "fasttext"), fasttext=scored)


OTHERS = {
    "looser": changed("fineweb", max_short_lines=0.9, min_terminal_punctuation_lines=0.0),
    "stricter": changed("gopher_quality", min_words=150, max_mean_word_length=4.1),
    "no sentences asked for": changed("c4", min_sentences=0),
    "no line of C4 or FineWeb": dataclasses.replace(changed("c4", min_sentences=0), steps=("gopher_repetition", "c4")),
    "language": changed("language", min_score=0.8, languages=("de", "en")),
    "any language": changed("language", min_score=0.0, languages=()),
    "a share to keep": sharing(0.25),
}


@pytest.fixture(scope="module")
def texts(tmp_path_factory) -> Path:
    """Three files with every row of `real_rows` once, and copies of some."""
    rows = [row | {"fasttext_score": number * 37 % 100 / 100} for number, row in enumerate(real_rows(MEASURED))]
    copies = [row | {"id": f"{row['id']}-copy"} for row in rows[:20]]
    return write_corpus(tmp_path_factory.mktemp("run"), {"a": rows[:30], "b": rows[30:], "c": copies}, schema=SCHEMA)


def a_run(texts: Path, config: DocumentsConfig, out: Path) -> Written:
    prepare_documents(texts, config, out)
    return read_counts(out / FUNNEL)


def again(texts: Path, config: DocumentsConfig, out: Path) -> Counts:
    return with_domains(recounted(texts, config, out))


def recounted(texts: Path, config: DocumentsConfig, out: Path) -> Recounted:
    return count_again(texts, config, out / "scratch", lambda progress: None, ONE_PROCESS)


def with_domains(now: Recounted) -> Counts:
    return now.counts | {"domains": largest(now.counts["domains"], TOP_DOMAINS)}


def comparable(counts: Counts) -> Counts:
    return {key: value for key, value in counts.items() if key not in OF_A_RUN}


def test_the_same_thresholds_give_the_counts_of_the_run_except_for_duplicates(texts, tmp_path):
    run, counts = a_run(texts, DEDUP, tmp_path).counts, again(texts, DEDUP, tmp_path)
    duplicates = {name: pair for name, pair in run["reasons"].items() if name.split("/")[0] in STEPS_OF_DEDUP}
    assert duplicates
    assert counts["reasons"] == {name: pair for name, pair in run["reasons"].items() if name not in duplicates}
    for place in (0, 1):
        assert counts["kept"][place] == run["kept"][place] + sum(pair[place] for pair in duplicates.values())
    assert (counts["rows"], counts["languages"]) == (run["rows"], run["languages"])


@pytest.mark.fast_rows
@pytest.mark.parametrize("name", OTHERS)
def test_other_thresholds_give_the_counts_of_a_fresh_run_without_deduplication(texts, tmp_path, name):
    """The texts are measured under CONFIG: none of these settings affects measurements."""
    config = OTHERS[name]
    if "c4" in config.steps:
        assert config.of_texts() == CONFIG.of_texts()
    counts = again(texts, config, tmp_path)
    assert comparable(counts) == comparable(a_run(texts, config, tmp_path).counts)
    assert counts["reasons"] != again(texts, CONFIG, tmp_path)["reasons"]
    if low := counts["reasons"].get("fasttext/fasttext_low_score"):
        assert counts["kept"][0] >= 0.25 * (counts["kept"][0] + low[0]) > counts["kept"][0] - 5


def test_thresholds_that_keep_nothing_give_a_result(texts, tmp_path):
    counts = again(texts, changed("gopher_quality", min_words=90_000), tmp_path)
    assert counts["kept"] == [0, 0]
    assert not (tmp_path / "scratch").exists()
    assert counts["lengths"] == {} and "kept" not in counts["examples"]


def test_a_damaged_file_is_named(texts, tmp_path):
    path = tmp_path / "texts/a.parquet"
    path.parent.mkdir()
    path.write_bytes((texts / "a.parquet").read_bytes()[:-50])
    with pytest.raises(InputError, match=r"a\.parquet is damaged"):
        again(path.parent, CONFIG, tmp_path)


def test_the_comparison_lists_changes_and_adds_up(texts, tmp_path):
    run = a_run(texts, DEDUP, tmp_path)
    config = dataclasses.replace(OTHERS["stricter"], steps=DEDUP.steps)
    now = recounted(texts, config, tmp_path)
    counts = now.counts
    told = comparison(run, changes(run, now.config), counts, config).splitlines()
    assert "  documents.gopher_quality.min_words: 50 in the run, now 150  (gopher_short_document)" in told
    table = [line.split() for line in told if line[-1:].isdigit()]
    pages, *dropped, passed = [row for row in table if row[0] in ("pages", "pass", *RULES, "language", "extract")]
    assert pages == ["pages", str(counts["rows"]), str(counts["rows"])]
    assert sum(int(row[3]) for row in dropped) == counts["rows"] - counts["kept"][0]
    assert all(len(row) == 4 or int(row[4]) == int(row[3]) - int(row[2]) != 0 for row in dropped)
    assert passed[:3] == ["pass", "all", "rules"] and int(passed[4]) == counts["kept"][0]
    assert int(passed[5]) == int(passed[4]) - int(passed[3])
    duplicates = sum(pair[0] for name, pair in run.counts["reasons"].items() if "dedup" in name)
    assert told[-1].startswith(f"{duplicates} of those that passed were duplicates in the run.")
    assert not any("dedup" in line for line in told)


def test_the_comparison_without_changes_and_without_a_run(texts, tmp_path):
    counts, thresholds = again(texts, CONFIG, tmp_path), thresholds_of(CONFIG)
    run = Written({}, list(thresholds), CONFIG.language.languages, Records(0, {}), counts)
    same = comparison(run, changed_thresholds(run.thresholds, thresholds, CONFIG), counts, CONFIG)
    assert same.startswith("The thresholds are the run's own.") and "+" not in same
    alone = comparison(None, [], counts, CONFIG)
    assert "in the run" not in alone and "pass all rules" in alone


def test_rules_enabled_in_only_one_of_the_two_are_reported():
    fewer = dataclasses.replace(CONFIG, steps=("gopher_repetition", "gopher_quality", "c4"))
    lines = changed_thresholds(list(thresholds_of(CONFIG)), thresholds_of(fewer), fewer)
    assert "  documents.fineweb.max_short_lines: 0.67 in the run, now not used  (fineweb_too_many_short_lines)" in lines
    assert len(lines) == 4


def test_other_languages_are_reported(texts, tmp_path):
    run, english = a_run(texts, CONFIG, tmp_path), CONFIG.language
    assert english.languages == ("en",)
    for languages, said in ((("de", "en"), "en in the run, now de, en"), ((), "en in the run, now all")):
        config = with_values(CONFIG, {"language.languages": languages})
        (line,) = changes(run, recounted(texts, config, tmp_path).config)
        assert line == f"  documents.language.languages: {said}  (other_language)"


def test_the_score_that_another_share_reaches_is_reported(texts, tmp_path):
    run = a_run(texts, sharing(0.25), tmp_path)
    assert changes(run, recounted(texts, sharing(0.25), tmp_path).config) == []
    now = recounted(texts, sharing(0.5), tmp_path).config
    (line,) = changes(run, now)
    before, after = run.thresholds[-2].value, now.get(FastTextFilter).min_score
    assert before > after and line == (
        f"  documents.fasttext.min_score: {before:.6g} in the run, now {after:.6g}  (fasttext_low_score)"
    )


UNUSUAL = [
    "\n".join([line] * 6)
    for line in (
        "[1] [2] [edit]",
        "{ [1] [2]",
        "Two words",
        "\u2028",
        "java[1]script and more",
        "The mill stands.",
        "The mill stands by the road ...",
        "漢字 仮名 交じり 文。",
        "\x0b\x0c [1] [2] [3]",
        "a [1] b",
    )
]


@pytest.mark.parametrize("steps", [(), ("c4",), ("c4", "fasttext"), (*RULES, "fasttext")])
def test_the_same_thresholds_give_the_counts_of_the_run_for_unusual_lines_too(tmp_path, steps):
    """Kept documents have a text: the run drops no document that passes by the stored values."""
    gopher = dataclasses.replace(CONFIG.get(GopherQualityFilter), min_words=1, min_stop_words=0, min_mean_word_length=1)
    scored = dataclasses.replace(SCORED, min_score=0.5, keep_share=0.5)
    config = dataclasses.replace(CONFIG, steps=steps, gopher_quality=gopher, fasttext=scored)
    measuring = dataclasses.replace(
        MEASURED, steps=tuple(step for step in steps if step in RULES), gopher_quality=gopher
    )
    found = [normalise(text.encode("utf-8", "ignore").decode()) for text in UNUSUAL]
    documents = [Document(text, f"<urn:{n}>", "d", "", "", "x", "en", 0.9) for n, text in enumerate(found)]
    rows = [
        text_row(document, measuring, "extract", "no_text")
        | {"fasttext_score": (7 * n % 10) / 10 if document.text else None}
        for n, document in enumerate(documents)
    ]
    write_corpus(tmp_path, {"a": rows}, schema=SCHEMA)
    with contextlib.suppress(InputError):  # nothing survives, which is reported after funnel.json is written
        a_run(tmp_path / "texts", config, tmp_path)
    assert comparable(again(tmp_path / "texts", config, tmp_path)) == comparable(read_counts(tmp_path / FUNNEL).counts)
    assert all(pq.read_table(tmp_path / "documents/a.parquet")["text"].to_pylist())


def test_duplicates_dropped_before_the_filters_are_reported_as_counted_under_the_rules(texts, tmp_path):
    config = with_values(DEDUP, {"minhash.before_filters": True})
    run, now = a_run(texts, config, tmp_path), recounted(texts, config, tmp_path)
    *table, last = comparison(run, changes(run, now.config), now.counts, config).splitlines()
    assert re.match(r"\d+ of those that passed the stage language were duplicates .* counted under the rules\.", last)
    assert any(line.startswith(RULES) and "+" in line for line in table)  # by no threshold
