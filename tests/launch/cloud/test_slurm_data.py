"""The array script of the data stages, run by bash as Slurm runs it."""

import subprocess
from pathlib import Path

import pytest

from launch.cloud import slurm_data
from lm.errors import UsageError
from tests.launch.cloud.programs import REPOSITORY, Programs, check, needs_checkers

CONFIG = str(REPOSITORY / "configs/fineweb.py")


def script_of(capsys, *words: str) -> str:
    slurm_data.main([CONFIG, "run", "--dry-run", *words])
    return capsys.readouterr().out.partition(":\n")[2].partition("# end of")[0]


def test_each_task_is_a_rank_with_a_worker_a_core(capsys):
    script = script_of(
        capsys, "--tasks", "200", "--at-once", "50", "--cpus", "4", "--workdir", "s3://b/a run", "--until", "texts"
    )
    directives = {line.removeprefix("#SBATCH --") for line in script.splitlines() if line.startswith("#SBATCH")}
    assert {"array=0-199%50", "cpus-per-task=4", "mem=8G", "requeue", "job-name=fineweb-data"} <= directives
    assert (
        ".venv/bin/python -m launch.data configs/fineweb.py --workdir 's3://b/a run' --until texts "
        "--engine.world 200 --engine.workers 4 &" in script
    )
    assert "array=0-15\n" in script_of(capsys)


@needs_checkers
def test_shellcheck_finds_nothing_in_the_array_script(capsys, tmp_path):
    (tmp_path / "job.sh").write_text(script_of(capsys, "--at-once", "2"))
    checked = check("shellcheck", str(tmp_path / "job.sh"))
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--time", "24:00:00\n#SBATCH --account=other"), "--time is '24:00:00"),
        (("--time", "a day"), "--time is 'a day'. Give a time limit of Slurm's"),
        (("--memory", "64 G"), "--memory is '64 G'. Give a whole number with K, M, G or T, such as 64G"),
        (("--memory", "4G\n"), "--memory is '4G"),
        (("--tasks", "0"), "--tasks is 0"),
        (("--name", "A"), "name of the job"),
        (("--pages.nothing", "1"), "no option"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_submitted(words, said):
    with pytest.raises(UsageError, match=said):
        slurm_data.main([CONFIG, "run", *words])


@pytest.mark.parametrize("code", [0, 1, 137])
def test_a_task_ends_with_its_command_and_is_queued_again_at_its_limit(code, capsys, tmp_path, monkeypatch):
    programs = Programs(tmp_path, monkeypatch)
    programs.add("scontrol")
    monkeypatch.chdir(tmp_path)
    python = tmp_path / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text(f"#!/bin/bash\n[ -e stay ] && kill -TERM $PPID && sleep 60\nexit {code}\n")
    python.chmod(0o755)
    script, environment = script_of(capsys), {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "3"}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert subprocess.run(["bash"], input=script, text=True).returncode == code
    assert programs.calls() == []
    Path("stay").touch()
    assert subprocess.run(["bash"], input=script, text=True).returncode == 0
    assert programs.calls() == [["scontrol", "requeue", "7_3"]]
