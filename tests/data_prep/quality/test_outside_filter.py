"""A third-party filter needs one object and one line in a config; every command and page supports it."""

import dataclasses
import json
import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from configs.recipes import gristmill as recipe
from data_prep.config import Filter, Rule, Signal
from data_prep.config.documents import AFTER_DEDUP, DEDUP
from data_prep.config.filters import COLUMNS_TAKEN
from data_prep.measure.row import measure, text_schema
from data_prep.select.apply_filters import dropped_schema, kept_schema
from lm.errors import UsageError
from lm.fields import with_values
from tests.commands import run_command
from tests.data_prep.measured import prose
from tests.launch.run_folder import recorded_in

DOCUMENTS = recipe.documents("x", recipe.URL_FILTER_WITHOUT_LISTS)
MODULE = '''
from dataclasses import dataclass

from data_prep.config import Filter, Rule, Signal
from lm.fields import within


@dataclass(frozen=True)
class UpperCaseFilter(Filter):
    """Texts that shout."""

    max_share: float
    """Share of words in capitals."""

    name = "upper_case"
    title = "Capitals"
    summary = "Texts that shout are mostly advertisements."
    signals = (Signal("upper_case_words", "Words in capitals", "Share of words without a small letter."),)
    rules = (Rule("too_many_upper_case_words", "upper_case_words", "above", "max_share"),)

    def check_values(self):
        within(self, self.path(), 0, 1, "max_share")

    def measure(self, passage):
        return [sum(word.isupper() for word in passage.words) / max(len(passage.words), 1)]
'''
CONFIG = """
import dataclasses

import configs.demo
from configs.recipes import gristmill as recipe
from shouting import UpperCaseFilter


def get_config():
    documents = recipe.documents("demo", recipe.URL_FILTER_WITHOUT_LISTS, UpperCaseFilter(max_share=0.3))
    return dataclasses.replace(configs.demo.get_config(), documents=documents)
"""


@dataclasses.dataclass(frozen=True)
class OneTooMany(Filter):
    """A filter that measures two values for one signal."""

    name = "one_too_many"
    title = "One too many"
    summary = "A defect of the user's own."
    signals = (Signal("one_too_many_signal", "A signal", "A value."),)

    def measure(self, passage):
        return [0.5, 0.75]


def test_a_wrong_number_of_values_is_rejected_with_both_numbers():
    config = recipe.documents("demo", recipe.URL_FILTER_WITHOUT_LISTS, OneTooMany())
    said = r"one_too_many measured 2 values, \[0\.5, 0\.75\], but has 1 signals: one_too_many_signal"
    with pytest.raises(UsageError, match=said):
        measure(prose(60), config)


def shout(text: str, words: int) -> str:
    """Return `text` with its first words in capitals."""
    parts = text.split(" ")
    return " ".join([*map(str.upper, parts[:words]), *parts[words:]])


@dataclasses.dataclass(frozen=True)
class Outside:
    """A folder with the filter, a config that uses it, and pages, some with capitals."""

    folder: Path

    @property
    def run(self) -> Path:
        return self.folder / "run"

    def call(self, script: str, *options: str, code: int = 0) -> str:
        """Return the output of a command."""
        words: list[object] = [self.folder / "mine.py", *options]
        if "--help" not in options:
            words += ["--workdir", self.run, "--pages.tables", self.folder / "pages.jsonl"]
        done = run_command(f"launch.{script}", *words, environment=os.environ | {"PYTHONPATH": str(self.folder)})
        assert done.returncode == code, done.stderr
        return done.stdout + done.stderr


@pytest.fixture(scope="module")
def outside_run(tmp_path_factory) -> Outside:
    """A run with documents."""
    folder = tmp_path_factory.mktemp("outside")
    (folder / "shouting.py").write_text(MODULE)
    (folder / "mine.py").write_text(CONFIG)
    texts = [shout(prose(n), 0 if n < 20 else 60 if n < 24 else 200) for n in range(30)]
    lines = [json.dumps({"text": text, "url": f"https://a.example/{n}"}) for n, text in enumerate(texts)]
    (folder / "pages.jsonl").write_text("\n".join(lines))
    outside = Outside(folder)
    outside.call("fetch_pages")
    outside.call("extract_texts", "--engine.workers", "2")  # two processes, to which the filter must be sent
    (folder / "told").write_text(outside.call("prepare_documents", "--engine.workers", "1"))
    return outside


def test_dropped_documents_are_measured_and_counted_under_its_reason(outside_run: Outside):
    texts, dropped = (pq.read_table(next((outside_run.run / name).glob("*.parquet"))) for name in ("texts", "dropped"))
    assert all(0 <= value <= 1 for value in texts["upper_case_words"].to_pylist())
    rows = [row for row in dropped.to_pylist() if row["stage"] == "upper_case"]
    assert [row["url"] for row in rows] == [f"https://a.example/{n}" for n in range(24, 30)]
    assert {row["reason"] for row in rows} == {"too_many_upper_case_words"}
    assert all(row["upper_case_words"] > 0.3 for row in rows)
    funnel = json.loads((outside_run.run / "funnel.json").read_text())
    assert funnel["counts"]["reasons"]["upper_case/too_many_upper_case_words"][0] == 6
    line = next(one for one in funnel["thresholds"] if one["stage"] == "upper_case")
    assert (line["value"], line["option"]) == (0.3, "documents.upper_case.max_share")
    words = [line.split()[:3] for line in (outside_run.folder / "told").read_text().splitlines()]
    assert ["upper_case", "too_many_upper_case_words", "-6"] in words


def test_it_runs_after_the_filters_of_the_recipe_and_before_deduplication():
    stages = recipe.documents("x", recipe.URL_FILTER_WITHOUT_LISTS, *outside()).stages
    assert stages[-8:] == ("fineweb", "outside", *DEDUP, *AFTER_DEDUP)


def test_its_threshold_is_an_option_with_help(outside_run: Outside):
    told = outside_run.call("prepare_documents", "--help", "documents.upper_case")
    assert "--documents.upper-case.max-share" in told and "Share of words in capitals." in told
    assert "--documents.upper-case.max-share" in outside_run.call("refilter", "--help")
    told = outside_run.call("prepare_documents", "--documents.upper-case.max-shar", "0.5", code=2)
    assert "--documents.upper-case.max-share FLOAT" in told
    assert "documents.upper_case.max_share is 2" in outside_run.call(
        "prepare_documents", "--documents.upper-case.max-share", "2", code=2
    )


def test_another_threshold_needs_no_new_measurement_and_is_explained_on_the_page(outside_run: Outside):
    told = outside_run.call("refilter", "--documents.upper-case.max-share", "0.1", "--engine.workers", "1")
    assert "documents.upper_case.max_share: 0.3 in the run, now 0.1  (too_many_upper_case_words)" in told
    funnel = recorded_in(outside_run.run / "refilter/index.html")["funnel{}"]
    (stage,) = [one for one in funnel["stages"] if one["stage"] == "upper_case"]
    assert (stage["title"], stage["about"]) == ("Capitals", "Texts that shout are mostly advertisements.")
    (reason,) = stage["reasons"]
    line = reason["threshold"]
    assert (reason["documents"], line["drops"], line["value"]) == (10, "above", 0.1)
    assert (line["title"], line["sentence"]) == ("Words in capitals", "Share of words without a small letter.")


def test_a_run_without_it_has_other_texts(outside_run: Outside):
    """Its signal is a column of texts/, so a recipe without it needs other texts."""
    done = run_command("launch.refilter", "configs/demo.py", "--workdir", outside_run.run)
    assert done.returncode == 2 and "upper_case" in done.stderr and "Traceback" not in done.stderr


def outside(**changes) -> tuple[Filter, ...]:
    """A filter with some class attributes replaced."""
    body = {
        "name": "outside", "title": "Outside", "summary": "One.", "signals": (Signal("outside_sign", "Sign", "One."),),
        "rules": (Rule("outside_reason", "outside_sign", "above", fixed=1),),
    }  # fmt: skip
    kind = dataclasses.dataclass(frozen=True)(type("OutsideFilter", (Filter,), body | changes))
    return (kind(),)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"name": "c4"}, "name 'c4'"),
        ({"name": "extract"}, "name 'extract'"),
        ({"name": "exact_dedup"}, "name 'exact_dedup'"),
        ({"name": "no name"}, "name 'no name'"),
        ({"signals": (Signal("words", "Words", "One."),)}, "signal 'words'"),
        ({"signals": (Signal("url", "URL", "One."),)}, "signal 'url'"),
        ({"signals": (Signal("outside_sign", "A", "One."), Signal("outside_sign", "B", "Two."))},
         "signal 'outside_sign'"),
        ({"rules": (Rule("outside_reason", "outside_sign", "above"), Rule("outside_reason", "outside_sign", "below"))},
         "reason 'outside_reason'"),
        ({"rules": (Rule("c4_no_lines", "outside_sign", "above"),)}, "reason 'c4_no_lines'"),
        ({"rules": (Rule("outside_reason", "another", "above"),)}, "uses 'another'.*signals: outside_sign"),
        ({"rules": (Rule("outside_reason", "outside_sign", "above", "max_sign"),)}, "field 'max_sign'.*fields: none"),
    ],
)  # fmt: skip
def test_incomplete_filters_and_name_clashes_are_rejected(changes, told):
    with pytest.raises(UsageError, match=told):
        recipe.documents("x", recipe.URL_FILTER_WITHOUT_LISTS, *outside(**changes))


def test_a_signal_with_the_name_of_another_column_is_rejected():
    counted = with_values(DOCUMENTS, {"minhash.cluster_sizes": True, "minhash.upsampling_weights": ((1, 1),)})
    labelled = with_values(counted, {"language.languages": ("deu_Latn",)})
    columns = {*text_schema(labelled).names, *dropped_schema(DOCUMENTS).names, *kept_schema(counted).names}
    assert columns - {signal.name for one in DOCUMENTS.all_filters for signal in one.signals} == COLUMNS_TAKEN
