"""Decontamination from texts/ to documents/: dropped and kept documents, reports, and reproducible bytes."""

import dataclasses
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from data_prep.config import DecontaminationConfig, DocumentsConfig
from data_prep.engine import tasks
from data_prep.prepare import prepare_documents
from lm.errors import UsageError
from tests.data_prep.measured import CONFIG, contents, plain_row, prose, write_corpus

BOILERPLATE = "All rights reserved by the owner of this site and nobody may copy any part of it."
EXAMPLES = [
    {
        "ctx_a": f"Scene {n}: {prose(500 + n).split('.')[0]}",
        "ctx_b": "then",
        "endings": [f"{prose(600 + n)[:150]} {word}" for word in "abcd"],
    }
    for n in range(6)
]
SHORT = {"ctx_a": "Nine words make a very short example", "ctx_b": "of", "endings": ["it", "it"]}
TOO_SHORT = {"ctx_a": "Three words", "ctx_b": "here", "endings": ["", ""]}
COMMON = {"ctx_a": BOILERPLATE, "ctx_b": "", "endings": ["So it is said."]}


def planted(number: int) -> str:
    """A document that contains the prompt of an example in other case and with other punctuation."""
    passage = f"{EXAMPLES[number]['ctx_a']} then {EXAMPLES[number]['endings'][1]}".upper().replace(" ", ",  ")
    return f"{prose(number)}\n“{passage}”\n{prose(number + 50)}"


TEXTS = {
    **{f"clean {n}": prose(100 + n) for n in range(8)},
    **{f"planted {n}": planted(n) for n in (0, 2)},
    "copy of planted 0": planted(0),  # dropped as a copy, which does not count as an occurrence of the n-gram
    **{f"boilerplate {n}": f"{prose(200 + n)}\n{BOILERPLATE}" for n in range(4)},
    "short": f"{prose(300)} NINE words make a very short example of it!",
    "one word short": f"{prose(301)} words make a very short example of it",
    "twelve words": prose(302) + "\n" + " ".join(prose(504).split()[:12]),
}


@pytest.fixture
def sets(tmp_path) -> Path:
    path = tmp_path / "hellaswag.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [*EXAMPLES, SHORT, TOO_SHORT, COMMON]))
    return path


@pytest.fixture
def texts(tmp_path) -> Path:
    rows = [plain_row(text, name) for name, text in TEXTS.items()]
    return write_corpus(tmp_path, {"a": rows[:9], "b": rows[9:12], "c": rows[12:], "d": []})


def config_of(sets: Path, max_corpus_documents: int = 3, **changed) -> DocumentsConfig:
    decontamination = DecontaminationConfig((str(sets),), max_corpus_documents=max_corpus_documents, **changed)
    return dataclasses.replace(CONFIG, steps=("exact_dedup", "decontamination"), decontamination=decontamination)


def made(texts: Path, config: DocumentsConfig, out: Path) -> dict[str, str]:
    """Return {id: reason, "" for kept documents} in order."""
    prepare_documents(texts, config, out)
    rows = [row for folder in ("documents", "dropped") for row in pq.read_table(out / folder).to_pylist()]
    return {row["id"]: row.get("reason") or "" for row in rows}


def test_only_documents_with_text_of_an_example_are_dropped(texts, sets, tmp_path):
    reasons = made(texts, config_of(sets), tmp_path / "out")
    dropped = {name: reason for name, reason in reasons.items() if reason}
    assert sorted(dropped.values()) == ["contaminated"] * 3 + ["exact_duplicate"]
    assert {name.removeprefix("copy of ") for name in dropped} == {"planted 0", "planted 2", "short"}
    counts = json.loads((tmp_path / "out/funnel.json").read_text())["counts"]
    assert counts["reasons"]["decontamination/contaminated"][0] == 3
    assert reasons["boilerplate 0"] == "" == reasons["twelve words"]


def test_reports_cover_each_set_and_each_document(texts, sets, tmp_path):
    made(texts, config_of(sets), tmp_path / "out")
    report = json.loads((tmp_path / "out/dropped/_decontamination.json").read_text())
    told = report["sets"]["hellaswag"]
    most = told.pop("most_frequent")
    assert told == {
        "examples": 9, "examples_too_short": 1, "examples_hit": 3, "documents": 3, "ngrams_too_frequent": 6 - 1,
    }  # fmt: skip
    assert {one["documents"] for one in most} == {4}
    assert all(one["ngram"] in BOILERPLATE.lower().replace(".", "") for one in most)
    lines = [json.loads(line) for line in (tmp_path / "out/dropped/_decontamination.jsonl").read_text().splitlines()]
    assert {line["document"].removeprefix("copy of "): line["examples"][0]["example"] for line in lines} == {
        "planted 0": 0, "planted 2": 2, "short": 6,
    }  # fmt: skip
    short = next(line for line in lines if line["document"] == "short")
    assert short["examples"][0]["ngram"] == "nine words make a very short example of it"
    assert (short["sets"], short["dropped"]) == (["hellaswag"], True)
    file, row = short["texts"].split(":")
    assert pq.read_table(texts / file)["id"][int(row)].as_py() == "short"


def test_boilerplate_is_dropped_without_a_bound_and_nothing_in_report_mode(texts, sets, tmp_path):
    reasons = made(texts, config_of(sets, max_corpus_documents=4), tmp_path / "strict")
    assert {name for name, reason in reasons.items() if reason} >= {f"boilerplate {n}" for n in range(4)}
    reasons = made(texts, config_of(sets, action="report"), tmp_path / "report")
    assert set(reasons.values()) == {"", "exact_duplicate"}
    assert len((tmp_path / "report/dropped/_decontamination.jsonl").read_text().splitlines()) == 3


def test_only_kept_copies_make_an_n_gram_frequent(texts, sets, tmp_path):
    one = config_of(sets, max_corpus_documents=1)
    assert made(texts, one, tmp_path / "deduplicated")["planted 2"] == "contaminated"
    without = made(texts, dataclasses.replace(one, steps=("decontamination",)), tmp_path / "with copies")
    assert without["planted 0"] == without["copy of planted 0"] == "" and without["planted 2"] == "contaminated"


def test_bytes_do_not_depend_on_the_number_of_files_merged_at_once(texts, sets, tmp_path, monkeypatch):
    made(texts, config_of(sets), tmp_path / "one")
    monkeypatch.setattr(tasks, "FILES_AT_ONCE", 2)
    made(texts, config_of(sets), tmp_path / "groups")
    one = contents(tmp_path / "one")
    assert one == contents(tmp_path / "groups") and "dropped/_decontamination.jsonl" in one
    steps = {path.name for path in (tmp_path / "groups/units").iterdir()}
    assert {"ngrams-1", "overlap-lines-1"} <= steps


def test_changed_sets_are_searched_again(texts, sets, tmp_path):
    out, config = tmp_path / "out", config_of(sets)
    assert made(texts, config, out)["clean 1"] == ""
    sets.write_text(json.dumps({"text": prose(101)}))
    assert made(texts, config, out)["clean 1"] == "contaminated"


def test_a_step_without_sets_is_rejected(sets):
    with pytest.raises(UsageError, match=r"decontamination\.sets is empty"):
        dataclasses.replace(config_of(sets), decontamination=DecontaminationConfig())
