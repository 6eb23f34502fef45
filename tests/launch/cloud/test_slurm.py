"""The batch script under a real Slurm of two nodes (tests/local_slurm.py), with a program instead of the run."""

import os
import subprocess
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

from tests import local_slurm
from tests.launch.cloud.files import REPOSITORY, commands_in, comments_in, dry_run

SMALLER = ["--gpus-per-node=0", "--cpus-per-task=1", "--ntasks-per-node=2", "--time=5"]
"""Options of sbatch that override the script's: this machine has no GPUs, and few cores."""
STOP = Path("runs/cloud/gpt2-124m.stop")


@pytest.fixture(scope="module")
def slurm() -> Generator[local_slurm.Cluster]:
    if reason := local_slurm.why_not():
        pytest.skip(reason)
    with local_slurm.running() as cluster:
        yield cluster


@pytest.fixture
def submit(slurm, tmp_path, monkeypatch, capsys) -> Callable[[str], str]:
    """Submit the script by its own command, with a run of that body in bash; return the job ID."""
    monkeypatch.chdir(REPOSITORY)
    text = dry_run(capsys, "slurm", "h100:16", "--sample.prompts", "It's")
    monkeypatch.chdir(tmp_path)
    for folder in (".venv/bin", STOP.parent):
        Path(folder).mkdir(parents=True)
    STOP.with_suffix(".sbatch").write_text(text)

    def submit(body: str) -> str:
        Path(".venv/bin/python").write_text(f'#!/bin/bash\ntrap "exit 75" TERM\necho "${{@: -1}}" >> starts\n{body}\n')
        Path(".venv/bin/python").chmod(0o755)
        sbatch, path = commands_in(text)["submit"]
        return slurm.ask(sbatch, "--parsable", *SMALLER, path).strip()

    return submit


def starts() -> int:
    """Return the number of processes that were started with the words of the run."""
    return Path("starts").read_text().count("It's\n") if Path("starts").exists() else 0


@pytest.mark.slow
@pytest.mark.parametrize("code", [0, 2, 3])
def test_a_finished_or_failed_run_is_not_requeued(code, submit, slurm):
    job = submit(f"exit {code}")
    slurm.wait_for(lambda: not slurm.jobs())
    assert starts() == 4 and f"ExitCode={code}:0" in slurm.ask("scontrol", "show", "job", job)


@pytest.mark.slow
def test_a_stopped_run_is_requeued_until_it_is_stopped_by_hand(submit, slurm):
    trains = "for ((;;)); do sleep 0.1; done"
    stop = comments_in(STOP.with_suffix(".sbatch").read_text()).partition("\nstop: ")[2].partition("\n")[0]
    job = submit(trains)
    slurm.wait_for(lambda: starts() == 4)
    slurm.ask("scancel", "--signal=TERM", job)  # as Slurm does before the time limit
    slurm.wait_for(lambda: slurm.ask("squeue", "--noheader", "--format=%T", f"--job={job}").strip() == "PENDING")
    # Otherwise Slurm would wait for two minutes: credentials must differ by seconds.
    slurm.ask("scontrol", "update", f"JobId={job}", "StartTime=now+3")
    for processes in (8, 12):
        slurm.wait_for(lambda processes=processes: starts() == processes)
        assert not STOP.exists()
        subprocess.run(["bash", "-c", stop], env=os.environ | slurm.environment | {"USER": "root"}, check=True)
        slurm.wait_for(lambda: not slurm.jobs())
        assert STOP.exists() and starts() == processes
        if processes == 8:  # submitted again, it ignores the old .stop
            submit(trains)
