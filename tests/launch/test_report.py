"""Figures of summary.json and the page "Report" come from the run's files, also for incomplete or diverged runs."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest

from configs.experiment import load_config
from lm.errors import InputError
from lm.run_paths import RunPaths
from tests.launch.run_folder import REPOSITORY, Rejection, make_document, write_json, write_run
from viewer.run_folder import read_run, summarize
from viewer.window.report import MOST_FILES, report_answer

HOSTILE = (
    '</script></style></textarea><script>document.title="owned"</script><img src=x onerror="x()"> {{ 7 * 7 }} &lt;b&gt;'
)
PROSE = "The wheel of the mill turns by day and by night, and grinds what the carts have brought. "
PACKAGE: dict[str, Any] = {
    "file": {"project": "mill-pages", "version": "1.0", "name": "mill_pages-1.0.tar.gz", "sha256": "ab" * 32},
    "licence": "MIT", "credit": "Pages on mills by A. Miller", "address": "https://mill.example/",
    "pages": 12, "html_bytes": 3_400_000,
}  # fmt: skip
METRICS = [
    *({"step": s, "loss": 6 - s / 20, "gradient_norm": 1.0, "learning_rate": 1e-3, "tokens_per_second": 100.0 + s}
      for s in range(10, 51, 10)),
    {"step": 50, "validation_loss": 3.6, "validation_bits_per_byte": 1.9},
]  # fmt: skip
SAMPLES = [{"step": s, "prompt": "The", "temperature": 0.8, "text": f"The mill at {s}"} for s in (25, 50)]
FINAL = [{"prompt": "In the", "temperature": t, "text": f"In the end of {t}"} for t in (0.0, 0.8)]
EXPERIMENT = load_config(REPOSITORY / "configs/demo.py")
CONFIG = EXPERIMENT.documents
KEPT = [make_document(i, PROSE * (i % 5 + 3) + f"Mill number {i}.") for i in range(12)]
DROPPED = [
    *(Rejection(make_document(100 + i, "Too short."), "gopher_quality", "gopher_short_document") for i in range(4)),
    Rejection(make_document(200, "", language=""), "extract", "no_text"),
]


def report_of(workdir: Path) -> dict[str, Any]:
    return json.loads(json.dumps(report_answer(read_run(workdir, CONFIG)), allow_nan=False))


@pytest.fixture(scope="module")
def full_run(tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("full")
    write_run(workdir, KEPT, DROPPED, [PACKAGE], metrics=METRICS, samples=SAMPLES, final=FINAL)
    return workdir


def test_the_summary_has_the_figures_of_the_run(full_run: Path):
    summary = summarize(read_run(full_run, CONFIG))
    expected = {
        "pages_read": 17, "documents_kept": 12, "documents_dropped": {"no_text": 1, "gopher_short_document": 4},
        "clean_text_bytes": sum(len(document.text) for document in KEPT), "vocab_size": 300, "steps": 50,
        "parameters": 3_456_789, "train_tokens_per_second": 130.0, "validation_loss": 3.1,
        "validation_bits_per_byte": 1.9, "gzip_bits_per_byte": 2.9, "xz_bits_per_byte": 2.7, "zstd_bits_per_byte": 2.8,
        "seconds": {"pages": 1.5, "shards": 2.0, "train": 65.0},
        "train_attempts": 2, "train_goodput": (30 * 2 / 3 + 15) / 65,
    }  # fmt: skip
    assert {key: summary[key] for key in expected} == expected
    assert list(summary["seconds"]) == ["pages", "shards", "train"]  # in the order of the path
    assert {"python", "jax", "flax", "optax", "orbax-checkpoint", "grain", "apache-beam"} <= summary["versions"].keys()
    assert summary["train_tokens"] > summary["validation_tokens"] > 0
    json.dumps(summary, allow_nan=False)


def test_task_scores_are_shown_over_training_and_for_the_final_model(tmp_path: Path):
    """From evaluators, also without a validation loss, and from lm-eval at two checkpoints."""
    lines = [{"step": 20, "hellaswag_acc": 0.25, "hellaswag_acc_norm": 0.3, "lambada_openai_perplexity": 5e6},
             {"step": 40, "hellaswag_acc": 0.375, "hellaswag_acc_norm": 0.4, "validation_loss": 3.0},
             {"step": 50, "lambada_openai_perplexity": 900.0}]  # fmt: skip
    figures = {"hellaswag_acc": 0.3125, "blimp_acc": 0.8125}
    write_run(tmp_path, KEPT, DROPPED, metrics=[*METRICS, *lines], evaluation=figures)
    for step, value in ((20, 0.5), (40, 0.6875)):
        write_json(RunPaths(tmp_path).harness_results(step), {"step": step, "results": {"copa": {"acc,none": value}}})
    run = read_run(tmp_path, CONFIG)
    found = {(one.task, one.figure): (one.points, one.final, one.guessing) for one in run.scores}
    assert found == {
        ("hellaswag", "acc"): (((20, 0.25), (40, 0.375)), 0.3125, 0.25),
        ("hellaswag", "acc_norm"): (((20, 0.3), (40, 0.4)), None, 0.25),
        ("lambada_openai", "perplexity"): (((20, 5e6), (50, 900.0)), None, None),
        ("blimp", "acc"): ((), 0.8125, 0.5),
        ("copa", "acc"): (((20, 0.5), (40, 0.6875)), None, None),
    }
    assert summarize(run)["blimp_acc"] == 0.8125
    report = report_of(tmp_path)["scores"]
    ends = {(one["task"], one["figure"]): one["ends"] for one in report}
    assert ends["hellaswag", "acc"] == [[20, 0.25], [40, 0.375]] and ends["blimp", "acc"] == []
    assert [one["task"] for one in report if one["by_harness"]] == ["copa"]


def test_missing_fields_of_a_training_row_are_null_in_the_summary(full_run: Path):
    run = read_run(full_run, CONFIG)
    lines = (
        {"step": 1, "loss": 5.0, "mfu": 0.2, "step_flops": 7},
        {"step": 2, "loss": 4.0, "mfu": 0.4, "train_flops": 14},
    )
    told = summarize(dataclasses.replace(run, curves=dataclasses.replace(run.curves, train=lines)))
    assert told["train_mfu"] == pytest.approx(0.3)
    assert (told["train_step_flops"], told["train_step_state_bytes"]) == (7, None)
    assert told["train_flops"] == 14


def test_the_report_has_the_figures_settings_and_sources_of_the_run(full_run: Path):
    report = report_of(full_run)
    expected = {
        "pages_read": 17, "documents_kept": 12, "parameters": 3_456_789, "validation_loss": 3.1, "steps": 50,
        "rates": {"gzip -9": 2.9, "xz -9e": 2.7, "zstd -19": 2.8, "this model": 1.9}, "parameter_dtype": "float32",
        "parameter_bytes": 4 * 3_456_789, "attempts": 2, "seconds": {"pages": 1.5, "shards": 2.0, "train": 65.0},
        "packages": [PACKAGE], "damage": [], "scores": [], "tokens_per_second": 130.0, "mfu": None,
    }  # fmt: skip
    assert {key: report[key] for key in expected} == expected
    saved = 2.9 - 1.9  # bits per byte
    assert report["breaks_even"] == pytest.approx(8 * 4 * 3_456_789 / saved)
    assert report["goodput"] == pytest.approx((30 * 2 / 3 + 15) / 65)
    assert report["settings"]["train"]["batch_size"] == EXPERIMENT.train.batch_size
    assert "packages" not in report["settings"]["pages"]
    assert report_of(full_run) == report


def test_only_some_input_files_are_listed(full_run: Path):
    run = read_run(full_run, CONFIG)
    files = [{"path": f"{n}.warc.gz", "bytes": 2} for n in range(MOST_FILES + 5)]
    report = report_answer(dataclasses.replace(run, pages={"files": files}))
    assert len(report["files"]) == MOST_FILES and report["files_in_all"] == len(files)
    assert report["files_bytes"] == 2 * len(files) and report["packages"] == []
    assert report["files"][0] == {"path": "0.warc.gz", "pages": None, "bytes": 2}


def test_an_incomplete_run(tmp_path: Path):
    write_run(tmp_path, KEPT[:1], [], vocab_size=257, metrics=[])
    report, summary = report_of(tmp_path), summarize(read_run(tmp_path, CONFIG))
    assert (report["steps"], report["tokens_read"], report["tokens_per_second"]) == (0, None, None)
    assert (summary["steps"], summary["train_tokens_per_second"], summary["documents_dropped"]) == (0, None, {})


def test_a_diverged_run_has_a_report(tmp_path: Path):
    metrics = [
        *METRICS,
        {"step": 60, "loss": math.nan, "learning_rate": 1e-3},
        {"step": 60, "validation_loss": math.inf},
    ]
    bad = {"validation_loss": math.nan, "validation_bits_per_byte": math.nan}
    write_run(tmp_path, KEPT, DROPPED, metrics=metrics, samples=SAMPLES, evaluation=bad)
    report = report_of(tmp_path)
    assert (report["validation_loss"], report["rates"]["this model"], report["breaks_even"]) == (None, None, None)
    summary = json.loads(json.dumps(summarize(read_run(tmp_path, CONFIG)), allow_nan=False))
    assert (summary["validation_loss"], summary["validation_bits_per_byte"]) == (None, None)


def test_a_missing_file_is_named_with_the_script_that_makes_it(tmp_path: Path):
    write_run(tmp_path, KEPT, DROPPED)
    (tmp_path / "evaluation.json").unlink()
    with pytest.raises(InputError, match=r"evaluation\.json.*launch\.evaluate"):
        read_run(tmp_path, CONFIG)
