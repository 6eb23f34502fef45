"""Laws of array jobs: all ranks together make what one process makes, whoever is killed, on a disk and in a bucket."""

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data_prep.config import ONE_PROCESS, EngineConfig
from data_prep.engine import array, run_step
from data_prep.engine.array import Note, rank_of, renewing
from lm.errors import InputError, UsageError
from lm.storage import Url
from tests.data_prep.engine.test_units import contents, records, step_of, texts
from tests.object_store import QUICK, serving, variables
from tests.run_files import HANG_SECONDS

REPOSITORY = Path(__file__).parents[3]
RANK = """
import json, sys
from pathlib import Path
from data_prep.config import EngineConfig
from data_prep.engine import run_step
from lm.errors import InputError
from lm.storage import place_of
from tests.data_prep.engine.test_array import slow_step

if __name__ == "__main__":
    folder, rank, world, inputs, log, options = json.loads(sys.argv[1])
    engine = EngineConfig(runner="array", rank=rank, world=world, **options)
    try:
        markers = run_step(slow_step(inputs, Path(log)), engine, place_of(folder))
        print(json.dumps({name: marker.counts for name, marker in markers.items()}))
    except InputError as error:
        print(type(error).__name__, error)
"""


def slow_step(inputs: dict[str, str], log: Path):
    return step_of(inputs, log)


class Rank:
    """A process of an array job, in a working folder and caches of its own."""

    def __init__(self, place: object, rank: int, world: int, inputs: dict[str, str], home: Path, **options):
        self.home = home / f"rank-{rank}-{time.monotonic_ns()}"
        (self.home / "log").mkdir(parents=True)
        told = json.dumps([str(place), rank, world, inputs, str(self.home / "log"), options])
        names = {"XDG_CACHE_HOME": "cache", "TMPDIR": ".", "HOME": "."}
        environment = os.environ | {name: str(self.home / path) for name, path in names.items()}
        environment |= {"GRISTMILL_LEASE_SECONDS": "2", "PYTHONPATH": str(REPOSITORY)}
        self.process = subprocess.Popen(
            [sys.executable, "-c", RANK, told], cwd=self.home, env=environment, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def begun(self) -> set[str]:
        return {path.name.rpartition(".")[0] for path in (self.home / "log").iterdir()}

    def kill_when_begun(self, units: int) -> None:
        deadline = time.monotonic() + HANG_SECONDS
        while len(self.begun()) < units and time.monotonic() < deadline and self.process.poll() is None:
            time.sleep(0.01)
        self.process.send_signal(signal.SIGKILL)

    def ended(self) -> str:
        said, _ = self.process.communicate(timeout=HANG_SECONDS)
        return said.strip()


@contextlib.contextmanager
def job(*ranks: Rank):
    try:
        yield ranks
    finally:
        for rank in ranks:
            rank.process.kill()
            rank.process.communicate()


def test_ranks_together_make_what_one_process_makes(tmp_path):
    inputs = texts(30) | {"bad": "damaged text", "crash": "crash text"}
    run_step(step_of(inputs), EngineConfig(workers=2, max_failed=0.1), tmp_path / "alone")
    ranks = [Rank(tmp_path / "run", rank, 2, inputs, tmp_path, max_failed=0.1) for rank in range(2)]
    with job(*ranks):
        said = [rank.ended() for rank in ranks]
    assert contents(tmp_path / "run") == contents(tmp_path / "alone")
    assert set(records(tmp_path / "run")) == {"bad", "crash"}
    counts = {name: {"rows": 3} for name in texts(30)}
    assert [json.loads(one.splitlines()[-1]) for one in said] == [counts, counts]
    assert "2 of 32 units failed" in said[0] and "failed" not in said[1]  # told once
    assert not ranks[0].begun() & ranks[1].begun()  # nothing was done twice
    notes = [json.loads(path.read_text()) for path in sorted((tmp_path / "run/workers").iterdir())]
    assert [(note["rank"], note["world"], note["step"]) for note in notes] == [(0, 2, "step"), (1, 2, "step")]


@pytest.mark.slow
def test_a_rank_that_never_comes_is_done_by_those_who_wait(tmp_path):
    inputs = texts(12)
    with job(Rank(tmp_path / "run", 1, 3, inputs, tmp_path)) as (rank,):
        assert len(json.loads(rank.ended())) == 12
    assert rank.begun() == set(inputs)


def test_one_process_forgets_what_an_earlier_job_has_left_while_the_others_wait(tmp_path, monkeypatch):
    monkeypatch.setenv("GRISTMILL_LEASE_SECONDS", "0.1")
    monkeypatch.setattr(array, "FIRST_PAUSE", 0.01)
    engine = EngineConfig(runner="array", rank=0, world=1)
    run_step(light(texts(4)), engine, tmp_path)
    whole, lists = contents(tmp_path), tmp_path / "units/step.list.json"
    for name in ("0001", "0002"):
        (tmp_path / f"out/{name}.txt").unlink()
    lists.unlink()
    (tmp_path / "units/step.forgetting").write_text("{}")  # of one that was killed over it
    run_step(light(texts(4)), engine, tmp_path)
    assert contents(tmp_path) == whole and lists.is_file() and not (tmp_path / "units/step.forgetting").exists()
    seen: list[str] = []
    monkeypatch.setattr("data_prep.engine.array.forget_others", lambda step, folder: seen.append(step.name))
    (tmp_path / "units/step.forgetting").write_text("{}")
    frozen, looks = lists.read_bytes(), iter([None, None])
    monkeypatch.setattr(array, "bytes_of", lambda place: next(looks, frozen) if place == lists else None)
    run_step(light(texts(4)), engine, tmp_path)  # another has frozen it meanwhile
    assert not seen


def test_who_still_forgets_when_the_list_stands_deletes_nothing_of_what_was_made_since(tmp_path):
    run_step(light(texts(4)), EngineConfig(runner="array", rank=0, world=1), tmp_path)
    whole, late = contents(tmp_path), light({name: f"{text} before" for name, text in texts(4).items()})
    array.forget_others(late, tmp_path)
    assert contents(tmp_path) == whole and len(list((tmp_path / "units/step").iterdir())) == 4


def light(inputs: dict[str, str]):
    return dataclasses.replace(step_of(inputs), light=True)


def test_what_is_taken_away_is_deleted_also_where_rank_0_never_comes(tmp_path, monkeypatch, capsys):
    """Else later steps would read it."""
    monkeypatch.setenv("GRISTMILL_LEASE_SECONDS", "0.3")
    monkeypatch.setattr("data_prep.engine.array.SILENT", 0.0)
    run_step(light(texts(4)), EngineConfig(runner="array", rank=0, world=1), tmp_path)
    fewer = light(texts(3) | {"0001": "text changed"})
    markers = run_step(fewer, EngineConfig(runner="array", rank=1, world=2), tmp_path)
    assert list(markers) == ["0000", "0001", "0002"]
    assert contents(tmp_path).keys() == {"0000.txt", "0001.txt", "0002.txt"}
    run_step(light(texts(5)), EngineConfig(runner="array", rank=0, world=2), tmp_path)
    assert "step: waiting for 2 of 5 units, of rank 1." in capsys.readouterr().out


def test_a_living_rank_of_another_world_is_not_waited_for(tmp_path, monkeypatch, capsys):
    """It deals the units otherwise: each would wait for what the other takes for its."""
    monkeypatch.setenv("GRISTMILL_LEASE_SECONDS", "0.6")
    (tmp_path / "workers").mkdir()
    with renewing(Note(tmp_path, 1, 3, "step")):
        assert len(run_step(light(texts(4)), EngineConfig(runner="array", rank=0, world=2), tmp_path)) == 4
    assert "workers/1-of-3.json is renewed, but this process has engine.world 2" in capsys.readouterr().out


def test_processes_that_read_other_inputs_are_refused_until_the_list_is_done(tmp_path, monkeypatch):
    monkeypatch.setenv("GRISTMILL_LEASE_SECONDS", "0.1")
    engine = EngineConfig(runner="array", rank=0, world=1)
    first = step_of(texts(3) | {"again": "settings this cannot be"})
    with pytest.raises(UsageError, match="this cannot be"):
        run_step(first, engine, tmp_path)
    with pytest.raises(UsageError, match=r"lists 4 units, of which \d are not done, .*has 5.*first in 0003"):
        run_step(step_of(texts(5)), engine, tmp_path)
    (tmp_path / "units/step.list.json").unlink()
    assert len(run_step(step_of(texts(5)), engine, tmp_path)) == 5
    assert len(run_step(step_of(texts(6) | {"0000": "text changed"}), engine, tmp_path)) == 6
    assert contents(tmp_path)["0000.txt"] == b"changed"


def test_what_jobs_before_set_aside_is_tried_again_once_a_job(tmp_path, monkeypatch):
    log = tmp_path / "log"
    log.mkdir()
    monkeypatch.setattr(array, "FIRST_PAUSE", 0.01)
    step = dataclasses.replace(step_of(texts(3) | {"bad": "damaged text"}, log), light=True)  # needs no other process

    def attempts(**options) -> int:
        for path in log.glob("bad.*"):
            path.unlink()
        run_step(step, EngineConfig(runner="array", rank=0, world=1, max_failed=0.5, **options), tmp_path)
        return len(list(log.glob("bad.*")))

    assert attempts() == 3 and attempts() == 0
    with pytest.raises(UsageError, match=r"no name of the job.*--engine\.job"):
        attempts(retry_failed=True)
    assert [attempts(retry_failed=True, job=job) for job in ("1", "1", "2")] == [3, 0, 3]
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "77")
    assert [attempts(retry_failed=True), attempts(retry_failed=True, job="1")] == [3, 0]
    (tmp_path / "units/step.retry-3.begun").touch()  # whoever wrote it was killed
    monkeypatch.setenv("GRISTMILL_LEASE_SECONDS", "0.1")
    assert attempts(retry_failed=True, job="3") == 3 and set(records(tmp_path)) == {"bad"}
    with pytest.raises(UsageError, match=r"engine\.job is 'a/b'"):
        EngineConfig(job="a/b")


@pytest.mark.slow
def test_of_many_ranks_each_retries_nothing_that_failed_in_this_job(tmp_path):
    inputs = texts(10) | {f"bad-{number}": "damaged text" for number in range(4)}
    folder = tmp_path / "run"
    run_step(step_of(inputs), EngineConfig(max_failed=0.5), folder)
    ranks = [Rank(folder, rank, 3, inputs, tmp_path, retry_failed=True, job="1", max_failed=0.5) for rank in range(3)]
    with job(*ranks):
        said = [json.loads(rank.ended().splitlines()[-1]) for rank in ranks]
    assert all(set(one) == set(texts(10)) for one in said)
    tried = [path.name for rank in ranks for path in (rank.home / "log").iterdir()]
    assert sorted(tried) == sorted(f"bad-{number}.{attempt}" for number in range(4) for attempt in range(3))


def test_more_failures_than_are_allowed_end_every_rank(tmp_path):
    engine = EngineConfig(runner="array", rank=0, world=1)
    with pytest.raises(
        InputError, match=r"(?s)1 of 4 units failed.*give --engine.retry-failed True and a new --engine.job; take"
    ):
        run_step(step_of(texts(3) | {"bad": "damaged text"}), engine, tmp_path)
    assert len(contents(tmp_path)) == 3


SLURM = {"SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_COUNT": "4", "SLURM_ARRAY_TASK_MIN": "5"}


@pytest.mark.parametrize(
    ("engine", "environment", "expected"),
    [
        (EngineConfig(rank=2, world=3), SLURM, (2, 3)),
        (EngineConfig(), SLURM, (2, 4)),
        (EngineConfig(), {"JOB_COMPLETION_INDEX": "0", "JOB_COMPLETIONS": "9"}, (0, 9)),
        (EngineConfig(world=9), {"JOB_COMPLETION_INDEX": "8"}, (8, 9)),
        (EngineConfig(rank=2), {}, "engine.world is None"),
        (EngineConfig(), {"JOB_COMPLETION_INDEX": "9"}, "JOB_COMPLETIONS is unset"),
        (EngineConfig(), SLURM | {"SLURM_ARRAY_TASK_ID": "9"}, "SLURM_ARRAY_TASK_ID is 9"),
        (EngineConfig(), SLURM | {"SLURM_ARRAY_TASK_COUNT": "four"}, "SLURM_ARRAY_TASK_COUNT is 'four', and no number"),
    ],
)
def test_the_rank_is_as_the_config_or_the_scheduler_says(engine, environment, expected):
    if isinstance(expected, tuple):
        assert rank_of(engine, environment) == expected
    else:
        with pytest.raises(UsageError, match=expected):
            rank_of(engine, environment)


@pytest.mark.slow
def test_three_workers_over_a_bucket_of_which_one_is_killed(tmp_path):
    inputs = texts(60)
    run_step(step_of(inputs), ONE_PROCESS, tmp_path / "alone")
    with serving() as store, variables(store.environment() | QUICK):
        store.bucket("bucket")
        folder = Url("s3://bucket/run")
        ranks = [Rank(folder, rank, 3, inputs, tmp_path) for rank in range(3)]
        with job(*ranks):
            ranks[1].kill_when_begun(5)
            said = [rank.ended() for rank in ranks]
        assert all(len(json.loads(said[rank])) == 60 for rank in (0, 2))
        assert {f"{name}.txt": (folder / f"out/{name}.txt").read_bytes() for name in inputs} == contents(
            tmp_path / "alone"
        )
        assert 5 <= len(ranks[1].begun()) < 20
        with job(Rank(folder, 1, 3, inputs, tmp_path)) as (again,):
            assert len(json.loads(again.ended())) == 60
        assert again.begun() == set()  # all was done
