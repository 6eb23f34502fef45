"""Units as Slurm array jobs: the same bytes as one process, on a fake and on a real local Slurm.

Each command is a separate process, like Slurm jobs.
"""

import dataclasses
import functools
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

from data_prep.config import ONE_PROCESS, EngineConfig
from data_prep.engine import Step, Unit, Workspace, run_step
from lm.errors import InputError, UsageError
from lm.storage import Url
from tests import local_slurm
from tests.data_prep.engine.test_units import GROUP, contents, records, step_of, texts, work
from tests.object_store import QUICK, serving, variables
from tests.run_files import HANG_SECONDS, REPOSITORY
from tests.slurm_programs import StandIn
from tests.until import until

BAD = {"bad": "damaged text", "group": f"{GROUP} x"}
MAIN = """
import json, os, sys
from data_prep.config import EngineConfig
from data_prep.engine import run_step
from launch.stages.command import handle_cli_errors
from lm.storage import place_of
from tests.data_prep.engine.test_slurm import steps_of

if __name__ == "__main__":
    with handle_cli_errors("main"):
        kind, engine = sys.argv[1], json.loads(sys.argv[2])
        engine = EngineConfig(**engine | ({} if sys.argv[3:] else {"retry_failed": "retry" in kind}))
        for step in steps_of(kind):
            print(step.name, len(run_step(step, engine, place_of(os.environ.get("RUN", "run")))))
"""


def steps_of(kind: str) -> list[Step]:
    """The steps of a command."""
    named = lambda name, inputs: dataclasses.replace(step_of(inputs), name=name)
    if "two" in kind:
        more = {f"more-{name}": text for name, text in texts(6).items()}
        return [named("one", texts(20) | BAD), named("single", {"only": "text y"}), named("two", more)]
    if "gated" in kind:
        step = step_of(texts(40) | {f"gate-{number}": "x" * 100 for number in range(4)})
        return [dataclasses.replace(step, work=functools.partial(gated, gate=Path("gate").absolute()))]
    damaged = {"a": "damaged x", "b": "damaged y"} if "bad" in kind else {}
    return [step_of(damaged | (texts(4) if "good" in kind else {}))]


def gated(unit: Unit[str], space: Workspace, gate: Path) -> dict:
    """Write the unit's text; gate units first wait for a file."""
    until(lambda: not unit.name.startswith("gate") or gate.exists())
    return work(unit, space)


@dataclasses.dataclass
class Command:
    folder: Path
    environment: dict[str, str]

    def __call__(self, kind: str, *words: str, **engine) -> subprocess.CompletedProcess[str]:
        """Run the command by hand."""
        (self.folder / "main.py").write_text(MAIN)
        engine = {"runner": "slurm", "workers": 3, "max_failed": 0.5, "attempts": 2} | engine
        return subprocess.run(
            [sys.executable, "-W", "ignore", "main.py", kind, json.dumps(engine), *words],
            cwd=self.folder, env=os.environ | {"PYTHONPATH": str(REPOSITORY)} | self.environment,
            capture_output=True, text=True, timeout=HANG_SECONDS,
        )  # fmt: skip

    def log(self) -> str:
        """The output of the jobs that continue the command."""
        (path,) = self.folder.glob("runs/cloud/gristmill-????????.log")
        return path.read_text()

    def task_logs(self) -> str:
        return "".join(path.read_text() for path in self.folder.glob("runs/cloud/gristmill-????????.*.log"))


@pytest.fixture
def slurm(tmp_path) -> Generator[StandIn]:
    stand_in = StandIn(tmp_path / "slurm", max_array_size=2)
    yield stand_in
    stand_in.end()


@pytest.fixture
def command(slurm, tmp_path) -> Command:
    (tmp_path / "here").mkdir()
    return Command(tmp_path / "here", slurm.environment)


def made_alone(kind: str, folder: Path) -> dict[str, bytes]:
    """The outputs of a command's steps in one process, without bad units."""
    for step in steps_of(kind):
        units = tuple(unit for unit in step.units if unit.name not in BAD)
        run_step(dataclasses.replace(step, units=units), ONE_PROCESS, folder)
    return contents(folder)


def check_made(command: Command, tmp_path: Path) -> None:
    """Check that both steps of a command are complete."""
    assert contents(command.folder / "run") == made_alone("two", tmp_path / "alone")
    found = {path.stem: json.loads(path.read_text()) for path in command.folder.glob("run/quarantine/one/*.json")}
    attempts = {name: one["attempts"] for name, one in found.items()}
    assert attempts == {"bad": 2, "group": 3}  # a unit that died runs again with no other at the same time
    assert "one 20" in command.log() and command.log().rstrip().endswith("two 6")
    assert {path.name for path in (command.folder / "run/units").iterdir()} == {"one", "single", "two"}
    assert not list(command.folder.rglob("*.running"))


def test_a_chain_of_jobs_runs_all_steps_with_the_bytes_of_one_process(slurm, command, tmp_path):
    begun = command("two", slurm_options="--partition=cpu")
    assert begun.returncode == 0 and begun.stderr == ""
    assert "one: 22 units are submitted to Slurm as array 1, 2; then job 3 continues" in begun.stdout
    slurm.wait()
    check_made(command, tmp_path)
    jobs = slurm.submitted()
    assert [job.get("--array") for job in jobs] == ["0-1", "0-0", None] * 2
    assert [job.get("--dependency") for job in jobs] == [None, None, "afterany:1:2", None, None, "afterany:4:5"]
    assert [job["--cpus-per-task"] for job in jobs] == ["1"] * 6
    assert {job["--partition"] for job in jobs} == {"cpu"} and "--requeue" in jobs[0]
    (name,) = {job["--job-name"] for job in jobs}
    assert f"scancel --name={name}" in begun.stdout
    assert all(not any(codes) for codes in slurm.codes())


@pytest.mark.slow
def test_an_idle_array_ends_the_chain_and_lists_of_other_runs_are_not_read(slurm, command, tmp_path):
    """The same command, started by hand, then completes all units."""
    slurm.hold()
    assert command("good").returncode == 0
    listed, mark = command.folder / "run/units/step.pickle", tmp_path / "mark"
    listed.write_bytes(pickle.dumps(functools.partial(Path.touch, mark)))
    for runner in ({"runner": "slurm"}, {"runner": "processes"}):
        second = command("good", **runner)
        assert second.returncode == 1 and "0 units are done, and Slurm's queue has the jobs 1, 2, 3" in second.stderr
        assert "scancel 1 2 3" in second.stderr
    slurm.release()
    slurm.wait()
    assert len(slurm.jobs()) == 3 and not mark.exists() and slurm.codes()[2] == [1]
    assert "is not the list that was submitted" in command.task_logs()
    (line,) = command.log().splitlines()
    assert "array jobs 1, 2 have ended, but no unit finished or failed" in line and "runs/cloud/gristmill-" in line
    assert command("good").returncode == 0
    slurm.wait()
    assert contents(command.folder / "run") == made_alone("good", tmp_path / "alone")


@pytest.mark.slow
def test_if_all_units_fail_the_chain_ends_with_the_first_error_and_quarantines_none(slurm, command):
    assert command("all bad").returncode == 0
    slurm.wait()
    assert len(slurm.jobs()) == 2 and slurm.codes()[1] == [1]
    assert command.log().startswith("main: ") and "is damaged." in command.log()
    assert not list(command.folder.rglob("quarantine/step/*.json"))


@pytest.mark.slow
def test_failed_units_are_retried_once_in_a_chain(slurm, command):
    made = []
    for kind in ("bad and good, retry", "bad and good, retry"):
        assert command(kind).returncode == 0
        slurm.wait()
        made.append([job["--wrap"].endswith("--engine.retry-failed False") for job in slurm.submitted()])
        assert set(records(command.folder / "run")) == {"a", "b"}
    assert [sum(retried) for retried in made] == [1, 2] and command.log().count("step 4") == 2


@pytest.mark.slow
def test_a_run_folder_may_be_in_a_bucket(command, slurm, tmp_path):
    with serving() as store:
        store.bucket("bucket")
        command.environment |= store.environment() | QUICK | {"RUN": "s3://bucket/run"}
        begun = command("good")
        assert begun.returncode == 0, begun.stderr
        slurm.wait()
        with variables(store.environment() | QUICK):
            found = {name: Url(f"s3://bucket/run/{name}").read_bytes() for name in Url("s3://bucket/run").files()}
    assert command.log().splitlines() == ["step 4"]
    assert {name.removeprefix("out/"): data for name, data in found.items() if name.startswith("out/")} == made_alone(
        "good", tmp_path / "alone"
    )
    assert {name.rpartition("/")[0] for name in found} == {"out", "units/step"}


def test_rejected_jobs_are_reported_in_one_line_and_leave_no_job_queued(slurm, command):
    slurm.refuse("--dependency")
    refused = command("two")
    assert refused.returncode == 1 and len(refused.stderr.splitlines()) == 1
    assert "sbatch fails: sbatch: error: Batch job submission failed: Invalid account" in refused.stderr
    slurm.wait()
    assert all((job / "cancelled").exists() for job in slurm.jobs()) and len(slurm.jobs()) == 2


def test_a_missing_slurm_is_reported(command):
    command.environment = {"PATH": "/nowhere"}
    refused = command("two")
    assert refused.returncode == 2 and "scontrol cannot be run" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "options", ["--partition cpu", "-p=cpu", "--array=0-3", "--dep=afterok:1", "script.sh", "--", "--wrap=true", "--w"]
)
def test_reserved_and_invalid_sbatch_options_are_rejected(options):
    with pytest.raises(UsageError, match=r"engine\.slurm_options has "):
        EngineConfig(runner="slurm", slurm_options=options)
    with pytest.raises(UsageError, match=r"only slurm uses it"):
        EngineConfig(slurm_options="--mem=4G")


def test_training_commands_do_not_continue_in_jobs_of_one_core(tmp_path):
    from launch import pretrain, scaling  # imported only in this test: every job of the other tests imports this module
    from tests.corpus import tiny_experiment

    experiment = dataclasses.replace(tiny_experiment(), engine=EngineConfig(runner="slurm"))
    run: Callable
    for run in (pretrain.run, lambda *given: scaling.scale(*given, scaling.Options())):
        with pytest.raises(UsageError, match=r"engine\.runner is slurm.* launch\.pretrain CONFIG .*--until shards"):
            run(experiment, tmp_path)


def test_a_damaged_job_record_is_ignored(tmp_path):
    (tmp_path / "units").mkdir()
    for text in ("", "[]", "{}", '{"arrays": ["1; reboot"], "next": "", "left": 1, "lost": 1, "log": ""}', "[" * 10**5):
        (tmp_path / "units/step.submitted").write_text(text)
        assert len(run_step(step_of(texts(2)), ONE_PROCESS, tmp_path)) == 2


def test_squeue_must_confirm_that_no_job_is_left(tmp_path, monkeypatch):
    (tmp_path / "units").mkdir()
    jobs = {"arrays": ["1"], "next": "2", "left": 1, "lost": 0, "log": ""}
    (tmp_path / "units/step.submitted").write_text(json.dumps(jobs))
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(InputError, match=r"jobs 1, 2 of Slurm may be working .*delete .*step\.submitted"):
        run_step(step_of(texts(2)), ONE_PROCESS, tmp_path)


# A real Slurm


@pytest.fixture(scope="module")
def real() -> Generator[local_slurm.Cluster]:
    if reason := local_slurm.why_not():
        pytest.skip(reason)
    with local_slurm.running() as cluster:
        yield cluster


@pytest.mark.slow
def test_a_real_slurm_runs_all_steps_with_the_bytes_of_one_process(real, tmp_path):
    command = Command(tmp_path, real.environment)
    begun = command("two", workers=7, slurm_options="--time=30 --cpus-per-task=2")
    assert begun.returncode == 0, begun.stderr
    real.wait_for(lambda: not real.jobs())
    check_made(command, tmp_path)


@pytest.mark.slow
def test_cancelled_and_requeued_tasks_lose_no_unit(real, tmp_path, monkeypatch):
    """The units of the cancelled task are submitted again; neither counts as an attempt."""
    monkeypatch.chdir(tmp_path)  # for the gate
    command = Command(tmp_path, real.environment)
    begun = command("gated", workers=4)
    assert begun.returncode == 0, begun.stderr
    array = json.loads((tmp_path / "run/units/step.submitted").read_text())["arrays"][0]
    real.wait_for(lambda: len(list(tmp_path.rglob("*.running"))) == 4)
    real.ask("scancel", f"{array}_1")
    real.ask("scontrol", "requeue", f"{array}_2")
    real.wait_for(lambda: f"{array}_1" not in real.jobs())
    real.wait_for(lambda: real.ask("squeue", "--noheader", "--format=%T", f"--job={array}_2").strip() == "PENDING")
    real.ask("scontrol", "update", f"JobId={array}_2", "StartTime=now")  # Slurm waits for up to two minutes
    (tmp_path / "gate").touch()
    real.wait_for(lambda: not real.jobs())
    assert contents(tmp_path / "run") == made_alone("gated", tmp_path / "alone")
    assert not list(tmp_path.rglob("quarantine/step/*.json")) and not list(tmp_path.rglob("*.running"))
    assert command.log().count("continues this command") == 1 and command.log().rstrip().endswith("step 44")
    assert "CANCELLED" in command.task_logs() and "DUE TO JOB REQUEUE" in command.task_logs()
