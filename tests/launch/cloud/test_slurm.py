"""The batch script, run by bash as Slurm runs it: what it starts, and when it puts itself into the queue again."""

import signal
import subprocess
from pathlib import Path

import pytest

from launch.cloud import slurm
from lm.errors import UsageError
from tests.launch.cloud.programs import REPOSITORY, Programs

CONFIG = str(REPOSITORY / "configs/gpt2_124m.py")
SBATCH = """
import os, subprocess
code = subprocess.run(["bash", sys.argv[-1]], env=os.environ | {"SLURM_JOB_ID": "41"}).returncode
open("code", "w").write(str(code))
"""
SRUN = """
import os
os.execvp("bash", ["bash", "-c", open("body").read()])
"""


@pytest.fixture
def submit(monkeypatch, tmp_path):
    """Submits a job whose step does `body`; gives (exit code of the batch script, what was called)."""
    programs = Programs(tmp_path, monkeypatch)
    programs.add("sbatch", SBATCH)
    programs.add("srun", SRUN)
    for name in ("scontrol", "scancel"):
        programs.add(name)
    monkeypatch.chdir(tmp_path)

    def submit(body: str, *words: str) -> tuple[int, list[list[str]]]:
        Path("body").write_text(body)
        slurm.main([CONFIG, "run", "--topology", "h100:16", *words])
        return int(Path("code").read_text()), programs.calls()

    return submit


def test_the_step_runs_the_script_on_every_gpu(submit):
    code, (sbatch, srun) = submit(
        "exit 0", "--flag=--partition=gpu", "--train.steps", "900", "--workdir", "/scratch/a b"
    )
    assert code == 0
    assert sbatch == ["sbatch", "--partition=gpu", "runs/cloud/gpt2-124m.sbatch"]
    assert srun[srun.index(".venv/bin/python") :] == [
        ".venv/bin/python", "-m", "launch.supervise", "--stopped-code", "75", "launch.train", "configs/gpt2_124m.py",
        "--workdir", "/scratch/a b", "--train.steps", "900",
    ]  # fmt: skip


@pytest.mark.parametrize("ended", [0, 1, 2, 130, 143])
def test_what_is_done_or_failed_is_not_queued_again(submit, ended):
    code, calls = submit(f"exit {ended}")
    assert code == ended
    assert [call[0] for call in calls] == ["sbatch", "srun"]


def test_what_was_asked_to_end_and_saved_is_queued_again(submit):
    """SIGTERM reaches the step, as --signal sends it at the time limit, and not the script."""
    code, calls = submit('trap "exit 75" TERM; kill -TERM $$; sleep 60')
    assert code == 0
    assert calls[-1] == ["scontrol", "requeue", "41"]


def test_what_was_stopped_by_hand_is_not_queued_again_until_it_is_run_again(submit):
    code, calls = submit("touch runs/cloud/gpt2-124m.stop; exit 75")
    assert code == 75
    assert [call[0] for call in calls] == ["sbatch", "srun"]
    assert submit("exit 75")[1][-1][0] == "scontrol"


def test_what_is_cancelled_is_not_queued_again(submit):
    """scancel ends the script too."""
    code, calls = submit('kill -TERM $PPID; trap "exit 75" TERM; sleep 0.2; exit 75')
    assert code == -signal.SIGTERM
    assert [call[0] for call in calls] == ["sbatch", "srun"]


def test_a_node_is_asked_for_whole_where_all_of_its_gpus_are(capsys):
    def directives(topology: str, *words: str) -> set[str]:
        slurm.main([CONFIG, "run", "--topology", topology, "--dry-run", *words])
        lines = capsys.readouterr().out.splitlines()
        return {line.removeprefix("#SBATCH --") for line in lines if line.startswith("#SBATCH")}

    always = {"signal=TERM@300", "requeue", "open-mode=append"}
    assert always | {"nodes=2", "ntasks-per-node=8", "gpus-per-node=8", "cpus-per-task=8", "exclusive", "mem=0"} <= (
        directives("h100:16")
    )
    alone = directives("h100:8", "--time", "2-00:00:00")
    assert always | {"nodes=1", "ntasks-per-node=1", "cpus-per-task=64", "time=2-00:00:00"} <= alone
    part = directives("h100:2", "--cpus-per-gpu", "4")
    assert {"ntasks-per-node=1", "gpus-per-node=2", "cpus-per-task=8"} <= part and not {"exclusive", "mem=0"} & part


def test_stop_leaves_the_save_its_time_and_takes_away_what_waits(submit, monkeypatch):
    monkeypatch.setenv("LOGNAME", "someone")
    submit("exit 0")
    slurm.main([CONFIG, "stop", "--topology", "h100:16"])
    assert Path("runs/cloud/gpt2-124m.stop").is_file()
    waiting, running = submit("exit 0")[1][2:4]
    mine = ["scancel", "--name=gpt2-124m", "--user=someone"]
    assert (waiting, running) == ([*mine, "--state=PENDING"], [*mine, "--signal=TERM"])
    assert not Path("runs/cloud/gpt2-124m.stop").exists()


def test_tpus_are_refused(capsys):
    with pytest.raises(UsageError, match=r"v6e:2x4 are TPUs.*launch\.cloud\.tpu_vm"):
        slurm.main([CONFIG, "run", "--topology", "v6e:2x4", "--dry-run"])


def test_bash_reads_every_script(capsys):
    for topology in ("h100:1", "h100:8", "h100:1024"):
        slurm.main(
            [
                CONFIG,
                "run",
                "--topology",
                topology,
                "--dry-run",
                "--train.batch-size",
                "1024",
                "--train.micro-batches",
                "1",
            ]
        )
        text = capsys.readouterr().out.partition(":\n")[2]
        assert subprocess.run(["bash", "-n"], input=text, text=True).returncode == 0


@pytest.mark.parametrize("limit", ["", "1;rm", "12:00:00\n#SBATCH -A x", "1-2-3", "1:2:3:4", "\u0661"])
def test_a_time_limit_that_slurm_does_not_take_is_refused_before_the_script_is_written(limit, submit):
    with pytest.raises(UsageError, match=r"--time is .*Give a time limit of Slurm's: 90 \(minutes\)"):
        submit("exit 0", "--time", limit)
    assert not Path("runs").exists()


@pytest.mark.parametrize("limit", ["90", "24:00:00", "30:15", "2-12", "2-12:30", "2-12:30:00"])
def test_every_form_of_a_time_limit_is_written_into_the_script(limit, submit):
    assert submit("exit 0", "--time", limit)[0] == 0
    assert f"#SBATCH --time={limit}\n" in Path("runs/cloud/gpt2-124m.sbatch").read_text()
