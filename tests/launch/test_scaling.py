"""Laws of a ladder that is trained: once, through interruptions, and what fails takes nothing with it."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data_prep.warc import write_pages
from tests.corpus import web_pages
from tests.run_files import HANG_SECONDS, REPOSITORY, finish, start

pytestmark = pytest.mark.slow
ASKED = (
    "--budget", "1e12", "--rungs", "3e3", "9e3", "2e4", "--tokens", "2048", "4096", "8192", "--held-out", "6e4",
    "--train.checkpoint-every", "2",
)  # fmt: skip


def rungs_of(workdir: Path) -> list[Path]:
    return sorted(path for path in (workdir / "scaling").iterdir() if path.is_dir())


def starts_of(rung: Path) -> int:
    rows = [json.loads(line) for line in (rung / "supervisor.jsonl").read_text(encoding="utf-8").splitlines()]
    return sum(row["event"] == "start" for row in rows)


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory) -> tuple[Path, int, str, Path]:
    """(run folder, exit code, name of the rung that was interrupted, the pages) of a ladder that was asked to end."""
    warc, workdir = tmp_path_factory.mktemp("warc"), tmp_path_factory.mktemp("runs") / "ladder"
    write_pages(warc / "0.warc.gz", web_pages(40))
    process = start(workdir, warc, *ASKED, script="launch.scaling")
    try:
        deadline = time.monotonic() + HANG_SECONDS
        while not (saved := list(workdir.glob("scaling/*-steps32-*/checkpoints/[0-9]*/manifest.json"))):
            assert process.poll() is None and time.monotonic() < deadline, process.communicate()[0]
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=HANG_SECONDS)
    finally:
        process.kill()
    return workdir, process.returncode, saved[0].parents[2].name, warc


@pytest.fixture(scope="module")
def ladder(interrupted) -> tuple[Path, str, Path]:
    """(run folder, what was printed, the pages) of the same command, which went on."""
    workdir, _, _, warc = interrupted
    return workdir, finish(start(workdir, warc, *ASKED, script="launch.scaling")), warc


def test_a_ladder_that_is_asked_to_end_goes_on_where_it_was(interrupted, ladder):
    workdir, code, rung, _ = interrupted
    assert code == 128 + signal.SIGTERM
    assert len(rungs_of(workdir)) == 10
    # At most one was at work; a rung that ended just then was not started twice.
    assert {path.name for path in rungs_of(workdir) if starts_of(path) == 2} <= {rung}
    assert all(starts_of(path) in (1, 2) for path in rungs_of(workdir))
    attempts = json.loads((workdir / "scaling" / rung / "goodput.json").read_text(encoding="utf-8"))
    if len(attempts) == 2:
        assert attempts[1]["first_step"] > 0


def test_figures_page_and_text_say_the_same(ladder):
    workdir, printed, _ = ladder
    said = json.loads((workdir / "scaling/scaling.json").read_text(encoding="utf-8"))
    assert len(said["rungs"]) == 10 and not said["failed"]
    assert [row["held_out"] for row in said["rungs"]] == [False] * 9 + [True]
    last = said["rungs"][-1]
    assert f"predicted {last['predicted']['value']:.4f}" in printed and f"measured {last['loss']:.4f}" in printed
    assert last["error"] == pytest.approx(last["predicted"]["value"] / last["loss"] - 1)
    budget = said["budget"]
    assert 6 * budget["parameters"]["value"] * budget["tokens"]["value"] == pytest.approx(1e12)
    page = (workdir / "scaling/index.html").read_text(encoding="utf-8")
    for row in said["rungs"]:
        metrics = (workdir / "scaling" / row["name"] / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        losses = [one["validation_loss"] for one in map(json.loads, metrics) if "validation_loss" in one]
        assert row["loss"] == losses[-1] and row["name"] in page


def test_what_is_trained_is_not_trained_again(ladder):
    workdir, _, warc = ladder
    before = (workdir / "scaling/scaling.json").read_bytes(), [starts_of(path) for path in rungs_of(workdir)]
    again = finish(start(workdir, warc, *ASKED, script="launch.scaling"))
    assert again.count(", trained before") == 10
    assert ((workdir / "scaling/scaling.json").read_bytes(), [starts_of(path) for path in rungs_of(workdir)]) == before


def refused(workdir: Path, warc: Path, *options: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "launch.scaling", "tests/configs.py", "--workdir", str(workdir)]
    done = subprocess.run(
        [*command, "--pages.warc", f"{warc}/*.warc.gz", *ASKED, *options], cwd=REPOSITORY, text=True,
        capture_output=True, timeout=HANG_SECONDS,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def copy(ladder, tmp_path) -> tuple[Path, Path]:
    workdir, _, warc = ladder
    return Path(shutil.copytree(workdir, tmp_path / "copy")), warc


def test_a_rung_that_fails_is_named_and_the_others_are_fitted(copy):
    workdir, warc = copy
    lost = rungs_of(workdir)[0]
    (lost / "metrics.jsonl").unlink()
    code, said = refused(workdir, warc)
    assert code == 1 and "1 of 10 rungs failed" in said and "has None as the validation loss" in said
    made = json.loads((workdir / "scaling/scaling.json").read_text(encoding="utf-8"))
    assert [row["name"] for row in made["failed"]] == [lost.name] and len(made["rungs"]) == 9


def test_rungs_of_other_settings_and_of_other_text_are_refused(copy):
    workdir, warc = copy
    code, said = refused(workdir, warc, "--train.optimizer.beta1", "0.8")
    assert code == 2 and "train.optimizer.beta1: 0.9 there, 0.8 asked for" in said
    assert "There are 0 measurements" in said
    rung = rungs_of(workdir)[0]
    marker = json.loads((rung / "stages/shards.json").read_text(encoding="utf-8"))
    (rung / "stages/shards.json").write_text(json.dumps(marker | {"key": "f" * 64}), encoding="utf-8")
    code, said = refused(workdir, warc)
    assert code == 1 and f"was trained on other tokens ({'f' * 12})" in said


def test_more_text_than_there_is_and_no_budget_are_refused_before_anything_is_trained(copy):
    workdir, warc = copy
    code, said = refused(workdir, warc, "--tokens", "2048", "4096", "5e8")
    assert code == 2 and "takes 500,000,000 tokens, but the corpus has" in said and "--epochs" in said
    code, said = refused(workdir, warc, "--budget", "0")
    assert code == 2 and "--budget is 0" in said
    assert len(rungs_of(workdir)) == 10
