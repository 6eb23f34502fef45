"""The whole command, interrupted: it resumes, and its figures, page and text agree."""

import json
import signal
import time
from pathlib import Path

import pytest

from data_prep.warc import write_pages
from tests.corpus import web_pages
from tests.run_files import HANG_SECONDS, start
from tests.train_runs import rows

pytestmark = pytest.mark.slow
ASKED = (
    "--budget", "1e12", "--rungs", "3e3", "9e3", "2e4", "--tokens", "2048", "4096", "8192", "--held-out", "6e4",
    "--train.checkpoint-every", "2",
)  # fmt: skip


def rungs_of(workdir: Path) -> list[Path]:
    return sorted(path for path in (workdir / "scaling").iterdir() if path.is_dir())


def starts_of(rung: Path) -> int:
    return sum(row["event"] == "start" for row in rows(rung, "supervisor.jsonl"))


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory) -> tuple[Path, int, str, Path]:
    """(run folder, exit code, name of the interrupted rung, the pages) of a ladder after a stop signal."""
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
def ladder(interrupted) -> tuple[Path, str]:
    """(run folder, output) of the same command, resumed: ten trainings, each in its own process."""
    workdir, _, _, warc = interrupted
    process = start(workdir, warc, *ASKED, script="launch.scaling")
    output, _ = process.communicate(timeout=3 * HANG_SECONDS)
    assert process.returncode == 0 and "Traceback" not in output, output
    return workdir, output


def test_a_stopped_ladder_resumes_where_it_was(interrupted, ladder):
    workdir, code, rung, _ = interrupted
    assert code == 128 + signal.SIGTERM
    assert len(rungs_of(workdir)) == 10
    # At most one was running; if a rung ended just then, it was not started twice.
    assert {path.name for path in rungs_of(workdir) if starts_of(path) == 2} <= {rung}
    assert all(starts_of(path) in (1, 2) for path in rungs_of(workdir))
    attempts = json.loads((workdir / "scaling" / rung / "goodput.json").read_text())
    if len(attempts) == 2:
        assert attempts[1]["first_step"] > 0


def test_figures_page_and_text_agree(ladder):
    workdir, printed = ladder
    said = json.loads((workdir / "scaling/scaling.json").read_text())
    assert len(said["rungs"]) == 10 and not said["failed"]
    assert [row["held_out"] for row in said["rungs"]] == [False] * 9 + [True]
    last = said["rungs"][-1]
    assert f"predicted {last['predicted']['value']:.4f}" in printed and f"measured {last['loss']:.4f}" in printed
    assert last["error"] == pytest.approx(last["predicted"]["value"] / last["loss"] - 1)
    budget = said["budget"]
    assert 6 * budget["parameters"]["value"] * budget["tokens"]["value"] == pytest.approx(1e12)
    page = (workdir / "scaling/index.html").read_text()
    for row in said["rungs"]:
        metrics = (workdir / "scaling" / row["name"] / "metrics.jsonl").read_text().splitlines()
        losses = [one["validation_loss"] for one in map(json.loads, metrics) if "validation_loss" in one]
        assert row["loss"] == losses[-1] and row["name"] in page
