"""Steps that edit texts, in the whole stage: changed and dropped documents, and their counts."""

import dataclasses
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from data_prep.config import (
    ONE_PROCESS,
    DecontaminationConfig,
    DocumentsConfig,
    LineDedupConfig,
    SubstringDedupConfig,
)
from data_prep.dedup import substrings
from data_prep.prepare import prepare_documents
from tests.data_prep.measured import CONFIG, contents, plain_row, prose, write_corpus, write_texts

MENU = "Read more about the mill on our pages."
PASSAGE = prose(77).replace("\n", " ")
EXAMPLE = prose(88).split("\n")[0]
TEXTS = {
    "first": f"{prose(1)}\n{MENU}\n{PASSAGE}",
    "line": f"{prose(2)}\n{MENU}",
    "passage": f"{prose(3)}\n{MENU}\n{prose(4)} {PASSAGE}",
    "mostly passage": f"{MENU}\nA few words of its own stand here. {PASSAGE}",
    "example": f"{prose(5)}\n{MENU}\n{EXAMPLE}",
    "clean": prose(6),
}
STEPS = ("exact_dedup", "line_dedup", "substring_dedup", "decontamination")


@pytest.fixture
def texts(tmp_path) -> Path:
    (tmp_path / "set.jsonl").write_text(json.dumps({"text": EXAMPLE}))
    rows = [
        plain_row(text, name, date=f"2026-01-0{number + 1}T00:00:00Z")
        for number, (name, text) in enumerate(TEXTS.items())
    ]
    return write_corpus(tmp_path, {"a": rows[3:], "b": rows[:3]})


def config_of(texts: Path, *steps: str) -> DocumentsConfig:
    sets = (str(texts.parent / "set.jsonl"),)
    return dataclasses.replace(
        CONFIG, steps=steps, line_dedup=LineDedupConfig(), substring_dedup=SubstringDedupConfig(),
        decontamination=DecontaminationConfig(sets=sets),
    )  # fmt: skip


def made(texts: Path, config: DocumentsConfig, out: Path) -> tuple[dict[str, str], dict[str, tuple[str, str]]]:
    """Return {id: text} of kept and {id: (stage, reason)} of dropped documents."""
    prepare_documents(texts, config, out)
    kept, dropped = (pq.read_table(out / folder).to_pylist() for folder in ("documents", "dropped"))
    return {row["id"]: row["text"] for row in kept}, {row["id"]: (row["stage"], row["reason"]) for row in dropped}


def test_each_step_gets_the_output_of_the_previous_step(texts, tmp_path):
    kept, dropped = made(texts, config_of(texts, *STEPS), tmp_path / "out")
    assert kept == {
        "first": TEXTS["first"], "line": prose(2), "passage": f"{prose(3)}\n{prose(4)}", "clean": prose(6),
    }  # fmt: skip
    assert dropped == {
        "mostly passage": ("substring_dedup", "repeated_substrings"), "example": ("decontamination", "contaminated"),
    }  # fmt: skip
    counts = json.loads((tmp_path / "out/funnel.json").read_text())["counts"]
    assert counts["clean_text_bytes"] == sum(len(text.encode()) for text in kept.values())
    assert counts["kept"] == [4, sum(len(TEXTS[name]) for name in kept)]
    rows = {row["id"]: row for row in pq.read_table(tmp_path / "out/dropped").to_pylist()}
    assert rows["example"]["text"] == f"{prose(5)}\n{EXAMPLE}"  # the input of the step
    assert rows["mostly passage"]["text"] == TEXTS["mostly passage"].removeprefix(f"{MENU}\n")


@pytest.mark.parametrize("step", ["line_dedup", "substring_dedup"])
def test_a_single_step_is_named_by_its_reason(texts, tmp_path, step):
    kept, _ = made(texts, config_of(texts, step), tmp_path / "out")
    assert (MENU in kept["line"]) == (step != "line_dedup")
    assert (PASSAGE in kept.get("passage", "")) == (step != "substring_dedup")


def test_a_failing_file_is_quarantined_and_does_not_affect_the_others(texts, tmp_path, monkeypatch):
    config, real = config_of(texts, *STEPS), substrings.write_substring_edits
    made(texts, config, tmp_path / "without")

    def failing(file, space, **rest) -> dict | None:
        if file.name == "z":
            raise ValueError("a bug")
        return real(file, space, **rest)

    monkeypatch.setattr(substrings, "write_substring_edits", failing)
    row = pq.read_table(texts / "a.parquet").to_pylist()[0] | {"id": "of z", "text": prose(9)}
    write_texts(texts / "z.parquet", [row])
    engine = dataclasses.replace(ONE_PROCESS, max_failed=0.9)
    out = tmp_path / "out"
    prepare_documents(texts, config, out, engine=engine)
    counts = {"funnel.json": b""}
    assert contents(out) | counts == contents(tmp_path / "without") | counts
    assert "a bug" in next((out / "quarantine").rglob("z.json")).read_text()
