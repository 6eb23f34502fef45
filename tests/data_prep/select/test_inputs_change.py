"""The stage "documents" when input files are added, removed or fail: other files keep their documents and finished
work."""

import dataclasses
import json
import random
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import pytest

from data_prep.config import (
    ONE_PROCESS,
    DecontaminationConfig,
    DedupIndexConfig,
    DocumentsConfig,
    EngineConfig,
    LineDedupConfig,
    SubstringDedupConfig,
)
from data_prep.dedup import clusters
from data_prep.engine import Unit, Workspace, tasks
from data_prep.prepare import first_step, prepare_documents
from lm.errors import InputError
from tests.data_prep.dedup.test_duplicates import FILES, random_corpus
from tests.data_prep.measured import contents, write_records, write_texts
from tests.data_prep.pages import demo_config

HALF = dataclasses.replace(ONE_PROCESS, max_failed=0.5)
DEDUP = ("url_dedup", "exact_dedup", "minhash_dedup")


def write_corpus(folder: Path, seed: int, names: tuple[str, ...] = FILES) -> list[list[dict]]:
    """Three files of texts/ with pages, texts and lines repeated within and across files."""
    corpus, draw = random_corpus(seed, documents=60), random.Random(seed)
    pages = [row for rows in corpus for row in rows]
    for row in pages:
        row["url"] = f"http://a.example/{draw.randrange(50)}"
        row["text"] += f"\nRead more about this mill number {draw.randrange(4)} on our other pages."
    for name, rows in zip(FILES, corpus, strict=True):
        if name in names:
            write_texts(folder / name, rows)
    write_records(folder, len(pages))
    return corpus


def all_steps(folder: Path) -> DocumentsConfig:
    """A config with every step that compares documents of several files."""
    (folder / "set.jsonl").write_text(json.dumps({"text": "some words of a test " * 9}))
    return dataclasses.replace(
        demo_config(),
        steps=(*DEDUP, "line_dedup", "substring_dedup", "decontamination"),
        line_dedup=LineDedupConfig(min_words=3, min_words_left=1, max_removed=1.0),
        substring_dedup=SubstringDedupConfig(length=20),
        decontamination=DecontaminationConfig(sets=(str(folder / "set.jsonl"),)),
        dedup_index=DedupIndexConfig(write=True),
    )


def prepare(texts: Path, out: Path, config: DocumentsConfig, engine: EngineConfig = HALF) -> None:
    prepare_documents(texts, config, out, engine=engine)


def outputs(out: Path) -> dict[str, object]:
    """Return kept and dropped documents, the index and the counts."""
    counts = json.loads((out / "funnel.json").read_text())["counts"]
    return contents(out, "dedup_index/**/*.*") | {"funnel.json": counts}


@pytest.fixture
def made(monkeypatch) -> dict[str, list[str]]:
    """{step: processed files}."""
    calls: dict[str, list[str]] = defaultdict(list)
    real = tasks.run_file

    def noting(unit: Unit, space: Workspace, **rest) -> dict:
        calls[space.scratch.name].append(unit.name)
        return real(unit, space, **rest)

    monkeypatch.setattr(tasks, "run_file", noting)
    return calls


def failing(step: str, file: str) -> Callable:
    real = tasks.run_file

    def run_file(unit: Unit, space: Workspace, **rest) -> dict:
        if (space.scratch.name, unit.name) == (step, file):
            raise ValueError("a bug")
        return real(unit, space, **rest)

    return run_file


@pytest.mark.slow
def test_a_file_that_fails_in_any_step_affects_no_documents_of_other_files(tmp_path, made, monkeypatch, capsys):
    config, texts = all_steps(tmp_path), tmp_path / "texts"
    write_corpus(texts, 0)
    prepare(texts, tmp_path / "whole", config)
    steps = [step for step, files in made.items() if "c" in files]
    assert len(steps) == 13 and first_step(config) == steps[0] == "addresses"
    write_corpus(tmp_path / "others", 0, FILES[:2])
    prepare(tmp_path / "others", tmp_path / "expected", config)
    expected, whole = outputs(tmp_path / "expected"), outputs(tmp_path / "whole")
    assert all(expected[f"documents/{name}"] != whole[f"documents/{name}"] for name in FILES[:2])
    out = tmp_path
    for step in steps:
        out = tmp_path / step
        with monkeypatch.context() as patch:
            patch.setattr(tasks, "run_file", failing(step, "c"))
            prepare(texts, out, config)
            assert outputs(out) == expected, step
            record = json.loads((out / "quarantine/addresses/c.json").read_text())
            assert record["error"] == ("" if step == "addresses" else f"{step}: ") + "ValueError: a bug"
            assert [path.parent.name for path in out.glob("quarantine/*/*")] == ["addresses"]
        made.clear()
        prepare(texts, out, config)  # not retried without a request, and nothing else runs again
        assert not made and outputs(out) == expected
    prepare(texts, out, config, dataclasses.replace(HALF, retry_failed=True))
    assert outputs(out) == whole and not list(out.glob("quarantine/*/*"))
    assert "The joins are repeated without c (filtering); see quarantine/addresses/." in capsys.readouterr().out


def test_a_file_that_fails_after_the_joins_counts_towards_the_failure_limit(tmp_path, made, monkeypatch):
    config = demo_config(steps=("exact_dedup",))
    write_corpus(tmp_path / "texts", 1)
    with monkeypatch.context() as patch:
        patch.setattr(tasks, "run_file", failing("filtering", "c"))
        with pytest.raises(InputError, match=r"filtering: 1 of 3 units failed"):
            prepare(tmp_path / "texts", tmp_path / "out", config, ONE_PROCESS)
    made.clear()
    prepare(tmp_path / "texts", tmp_path / "out", config)  # continues without the file, as the message says
    assert "c" not in made["filtering"] and set(made) <= {"duplicates", "filtering"}


OF_A_FILE = ("addresses", "keys", "survivors", "line-keys", "line-edits", "overlaps", "contaminated", "filtering")


@pytest.mark.fast_rows
@pytest.mark.parametrize("steps", [("exact_dedup", "minhash_dedup"), (*DEDUP, "line_dedup", "decontamination")])
def test_only_added_or_removed_files_of_twenty_are_processed(tmp_path, made, steps):
    config, texts, out = dataclasses.replace(all_steps(tmp_path), steps=steps), tmp_path / "texts", tmp_path / "out"
    config = dataclasses.replace(config, dedup_index=DedupIndexConfig())
    rows = random_corpus(0, documents=30)[0]
    for number in range(20):
        mine = [
            row | {"id": f"<{number}-{place}>", "text": row["text"].replace(" ", f" {chr(97 + number) * 5} ")
                   + (f"\na line that file {chr(97 + number) * 3} has again and again" if place % 3 == 0 else "")}
            | {"url": f"http://{number}.example/{place}"}
            for place, row in enumerate(rows)
        ]  # fmt: skip
        write_texts(texts / f"{number:02d}.parquet", mine)
    write_records(texts, 20 * len(rows))
    prepare(texts, out, config)
    before = {path: path.stat().st_mtime_ns for path in (out / "documents").iterdir()}
    assert len(before) == 20
    for number in (0, 10, 19):
        name = f"{number:02d}"
        (texts / f"{name}.parquet").rename(tmp_path / name)
        made.clear()
        prepare(texts, out, config)
        assert made.keys().isdisjoint(OF_A_FILE), name
        assert not (out / f"documents/{name}.parquet").exists()
        (tmp_path / name).rename(texts / f"{name}.parquet")
        made.clear()
        prepare(texts, out, config)
        again = {step: made[step] for step in OF_A_FILE if step in made}
        assert again == {step: [name] for step in again} and len(again) == (8 if "line_dedup" in steps else 2)
    unchanged = {path for path, time in before.items() if path.stat().st_mtime_ns == time}
    assert len(unchanged) == 17
    prepare(texts, tmp_path / "fresh", config)
    assert outputs(out) == outputs(tmp_path / "fresh")


def test_a_file_may_be_removed_and_restored_before_the_stage_completes(tmp_path, monkeypatch):
    config = all_steps(tmp_path)
    write_corpus(tmp_path / "three", 2)
    write_corpus(tmp_path / "two", 2, FILES[1:])

    def interrupted(unit: Unit, space: Workspace, **rest) -> dict:
        if space.scratch.name == "filtering":
            raise KeyboardInterrupt
        return real(unit, space, **rest)

    real, out = tasks.run_file, tmp_path / "out"
    for texts in ("three", "two", "three"):
        with monkeypatch.context() as patch:
            patch.setattr(tasks, "run_file", interrupted)
            with pytest.raises(KeyboardInterrupt):
                prepare(tmp_path / texts, out, config)
        assert len(list((out / "parts").glob("exact_dedup-*"))) == 1  # joins of other keys are deleted from the disk
    prepare(tmp_path / "three", out, config)
    prepare(tmp_path / "three", tmp_path / "fresh", config)
    assert outputs(out) == outputs(tmp_path / "fresh")


def test_the_number_of_a_file_depends_only_on_its_name(monkeypatch):
    names = [f"{number:05d}.parquet" for number in range(2000)]
    ids = clusters.file_ids(names)
    assert len(set(ids.values())) == len(names) and all(0 <= id < clusters.INDEX_FILES for id in ids.values())
    some = random.Random(0).sample(names, 100)
    assert clusters.file_ids(some) == {name: ids[name] for name in some}
    monkeypatch.setattr(clusters, "INDEX_FILES", 8)  # names collide
    assert sorted(clusters.file_ids(names[:8]).values()) == list(range(8))
    assert clusters.file_ids(names[:8]) == clusters.file_ids(reversed(names[:8]))
