"""The whole pipeline as a user starts it, from WARC files to the report: also killed, and with several workers."""

import dataclasses
import json
import math
import re
import signal
import time
from pathlib import Path

import jax
import numpy as np
import pyarrow.parquet as pq
import pytest

from data_prep.warc import write_pages
from lm.evaluation.bits_per_byte import strided_windows
from lm.evaluation.held_out import batch_losses
from lm.tokenizer import load
from tests.commands import Ended, run_command
from tests.corpus import tiny_experiment, web_pages
from tests.launch.run_folder import recorded_in
from tests.run_files import digests, finish, parameters, restore_model, start
from viewer.page import key_of

STAGES = ("pages", "texts", "documents", "tokenizer", "shards", "train", "evaluate", "sample", "report")


@pytest.fixture(scope="module")
def warc(tmp_path_factory) -> Path:
    """48 pages in three WARC files: 40 tales, a copy of one of them, six too short, one German."""
    folder = tmp_path_factory.mktemp("warc")
    pages = web_pages(40)
    copy = dataclasses.replace(pages[3], url="https://copy.example/", id="<urn:copy>")
    short = [
        dataclasses.replace(pages[0], url=f"https://short.example/{i}", id=f"<urn:short:{i}>",
                            body=f"<html><body><p>Nothing to see here, number {i}.</p></body></html>".encode())
        for i in range(6)
    ]  # fmt: skip
    german = "<p>Der Müller brach früh auf, und auf seinem Wagen lagen zwei Säcke mit Korn für das Dorf.</p>" * 12
    german_page = dataclasses.replace(
        pages[0], url="https://de.example/", id="<urn:de>", body=f"<html><body>{german}</body></html>".encode()
    )
    for i, part in enumerate((pages[:20], [*pages[20:], copy], [*short, german_page])):
        write_pages(folder / f"{i}.warc.gz", part)
    return folder


@pytest.fixture(scope="module")
def finished(warc, tmp_path_factory) -> tuple[Path, str]:
    """(run folder, output) of an uninterrupted run."""
    workdir = tmp_path_factory.mktemp("runs") / "undisturbed"
    done = pretrain(workdir, warc)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stdout + done.stderr
    return workdir, done.stdout


def pretrain(workdir: Path, warc: Path, *options: str) -> Ended:
    words = ("tests/configs.py", "--workdir", workdir, "--pages.warc", f"{warc}/*.warc.gz", *options)
    return run_command("launch.pretrain", *words)


def test_the_summary_describes_the_run(finished):
    workdir, _ = finished
    summary = json.loads((workdir / "summary.json").read_text())
    assert summary["pages_read"] == 48
    assert summary["documents_kept"] == 40
    assert summary["documents_dropped"]["exact_duplicate"] == 1
    assert summary["documents_dropped"]["other_language"] == 1
    assert sum(summary["documents_dropped"].values()) == 8
    assert summary["vocab_size"] == 320
    assert summary["steps"] == 12
    assert summary["train_tokens"] > summary["validation_tokens"] > 0
    assert 0 < summary["validation_bits_per_byte"] < 8
    assert set(summary["seconds"]) >= {
        "pages",
        "texts",
        "documents",
        "tokenizer",
        "shards",
        "train",
        "evaluate",
        "sample",
    }
    for name in ("clean_text_bytes", "parameters", "train_tokens_per_second", "validation_loss", "gzip_bits_per_byte",
                 "xz_bits_per_byte", "zstd_bits_per_byte", "versions"):  # fmt: skip
        assert summary[name], name


def test_the_run_folder_is_complete(finished):
    workdir, printed = finished
    for pattern in (
        "config.json", "texts/*.parquet", "documents/*.parquet", "dropped/*.parquet",
        "funnel.json", "tokenizer/meta.json",
        "tokens/manifest.json",
        "tokens/train-00000-of-0000*.array_record", "tokens/val-00000-of-00001.array_record", "checkpoints/12",
        "metrics.jsonl", "tensorboard/*", "samples/step-00000006.json", "samples/final.json", "report/index.html",
    ):  # fmt: skip
        assert list(workdir.glob(pattern)), pattern
    assert not [*workdir.glob("stages/*.begun"), *workdir.glob("scratch"), *workdir.glob("parts")]
    assert list(re.findall(r"\[\d/9\] (\w+):", printed)) == list(STAGES)
    samples = json.loads((workdir / "samples/final.json").read_text())["samples"]
    assert [(row["prompt"], row["temperature"]) for row in samples] == [
        ("The miller", 0.0), ("The miller", 0.8), ("", 0.0), ("", 0.8)
    ]  # fmt: skip


def test_the_report_follows_a_held_out_document_to_its_evaluation_losses(finished):
    """The crawled page, the written document, and the evaluation loss of each token."""
    workdir, _ = finished
    recorded = recorded_in(workdir / "report/index.html")
    followed = recorded["followed{}"]
    rows = recorded[key_of("score", {"tokens": followed["ids"]})]["tokens"]
    url = followed["url"]
    (document,) = (
        row for path in (workdir / "documents").glob("*.parquet") for row in pq.read_table(path).to_pylist()
        if row["url"] == url
    )  # fmt: skip
    splits = pq.read_table(workdir / "tokens/documents").to_pylist()
    assert [row["split"] for row in splits if row["url"] == url] == ["val"]
    assert document["text"].startswith(followed["text"]) and len(rows) == len(followed["ids"]) > 20
    marks = [piece["text"] for piece in followed["html"] if piece["kind"] == "kept"]
    assert marks and any("<nav>" in piece["text"] for piece in followed["html"])
    assert all(mark in document["text"] for mark in marks)

    experiment, tokenizer = tiny_experiment(), load(workdir / "tokenizer")
    model = restore_model(experiment.model, workdir / "checkpoints")
    ids = np.array([tokenizer.bos_id, *tokenizer.encode(document["text"])])[: len(rows) + 1]
    found, config = [], experiment.model
    windows = strided_windows(ids, np.zeros_like(ids), config.context_length, experiment.evaluate.stride, 16)
    for batch in windows:
        found += np.asarray(jax.jit(batch_losses)(model, batch))[np.asarray(batch.weights_BT) == 1].tolist()
    assert [row["bits"] for row in rows] == pytest.approx([nats / math.log(2) for nats in found], abs=1e-3)


def test_a_second_run_is_up_to_date(finished, warc):
    workdir, _ = finished
    times = lambda: {
        path: path.stat().st_mtime_ns for path in workdir.rglob("*") if path.is_file() and path.name != ".lock"
    }
    before = times()
    printed = pretrain(workdir, warc).stdout
    assert "Everything is up to date" in printed and printed.count("up to date") == len(STAGES) + 1
    assert times() == before


@pytest.mark.slow
def test_kill_9_in_four_stages_ends_in_the_same_bytes_and_bits(finished, warc, tmp_path):
    workdir, resumed = tmp_path / "killed", False
    for line in (r"\[2/9\]", r"\[3/9\]", r"step 6 .*sample", r"\[7/9\]"):
        process = start(workdir, warc)
        assert process.stdout
        seen = []
        for printed in process.stdout:
            seen.append(printed)
            if re.search(line, printed):
                break
        else:
            pytest.fail(f"the run ended without a line like {line}")
        while "step 6" in line and not (workdir / "checkpoints/4/manifest.json").exists():
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        resumed = resumed or "resuming from the checkpoint at step" in "".join(seen)
    finish(start(workdir, warc))
    assert resumed, "no run went on from a checkpoint: restarting from scratch would pass for it"
    assert digests(workdir) == digests(finished[0])
    assert parameters(workdir) == parameters(finished[0])


def test_shards_of_another_tokenizer_are_rejected_and_nothing_is_lost(finished, warc):
    workdir, _ = finished
    before = digests(workdir)
    done = pretrain(workdir, warc, "--tokenizer.vocab-size", "300")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "tokenizer.vocab_size: 320 there, 300 asked for" in done.stderr
    assert digests(workdir) == before


def test_a_corpus_without_surviving_documents_ends_with_the_funnel(tmp_path):
    pages = [dataclasses.replace(page, body=b"<html><p>Too short.</p></html>") for page in web_pages(3)]
    (tmp_path / "warc").mkdir()
    write_pages(tmp_path / "warc/0.warc.gz", pages)
    done = pretrain(tmp_path / "run", tmp_path / "warc")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert re.search(r"(gopher_short_document|low_language_score|no_text)\s+-?3", done.stderr), done.stderr
    assert not (tmp_path / "run/stages/documents.json").exists()
