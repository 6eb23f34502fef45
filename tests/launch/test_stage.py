"""Every stage skips finished work, hides partial work, and rejects changed settings by name."""

import contextlib
import dataclasses
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from data_prep.config import EngineConfig
from data_prep.engine import Step, Unit, run_step
from launch import pretrain
from launch.run_folder import outputs
from launch.run_folder.markers import differences
from launch.run_folder.user_inputs import SIZES
from launch.stages import command
from launch.stages.stage import Stage, run_stage
from lm.errors import InputError, UsageError
from lm.run_paths import RunPaths
from lm.storage import write_atomically
from tests.commands import Ended, run_command
from tests.corpus import tiny_experiment

REPOSITORY = Path(__file__).parents[2]
EXPERIMENT = tiny_experiment()


def make_stage(calls, name="first", after=(), text="content", fail=False):
    def make(experiment, run):
        calls.append(name)
        write_atomically(run / name / "a.txt", text)
        if fail:
            raise InputError("no more")
        write_atomically(run / name / "b.txt", text)

    settings = lambda experiment: {"shards": experiment.shards}
    return Stage(name, f"launch.{name}", after, settings, make, outputs=(name,))


def test_finished_work_is_skipped_and_config_json_has_the_experiment(tmp_path):
    calls = []
    stage = make_stage(calls)
    assert run_stage(stage, EXPERIMENT, tmp_path) is True
    assert run_stage(stage, EXPERIMENT, tmp_path) is False
    assert calls == ["first"]
    assert json.loads((tmp_path / "config.json").read_text())["model"]["layers"] == EXPERIMENT.model.layers
    assert not RunPaths(tmp_path).begun("first").exists()


def test_a_field_that_only_changes_speed_changes_no_result(tmp_path):
    calls = []
    run_stage(make_stage(calls), EXPERIMENT, tmp_path)
    faster = dataclasses.replace(EXPERIMENT, shards=dataclasses.replace(EXPERIMENT.shards, encoder="gigatoken"))
    assert run_stage(make_stage(calls), faster, tmp_path) is False


def test_units_missing_from_a_stage_are_recorded_and_tried_again(tmp_path):
    """For any steps of the stage, also if it has no units."""
    failing = [True]

    def work(unit, space):
        if failing and unit.name == "a":
            raise ValueError("no")
        write_atomically(space.output(f"first/{unit.name}.txt"), unit.name)

    def make(experiment, run):
        units = tuple(Unit(name, name, 1, None) for name in "ab")
        run_step(Step("filtering", units, work), experiment.engine, run)

    stage = dataclasses.replace(make_stage([]), make=make, direct=True)
    with_engine = lambda **engine: dataclasses.replace(EXPERIMENT, engine=EngineConfig(max_failed=0.5, **engine))
    retrying = with_engine(retry_failed=True)
    run_stage(stage, with_engine(), tmp_path)
    marker = json.loads(RunPaths(tmp_path).marker("first").read_text())
    assert marker["continued_from"] == [{"without": ["filtering/a"]}]
    assert (tmp_path / "quarantine/filtering/a.json").is_file()
    assert run_stage(stage, with_engine(), tmp_path) is False
    failing.clear()
    assert run_stage(stage, retrying, tmp_path) is True
    assert (tmp_path / "first/a.txt").is_file() and not list(tmp_path.glob("quarantine/*/*"))
    assert json.loads(RunPaths(tmp_path).marker("first").read_text())["continued_from"] == []
    assert run_stage(stage, retrying, tmp_path) is False


def counted(calls, failing=None):
    """A stage of two units with a folder of intermediate files, which it does not delete itself."""

    def work(unit, space):
        calls.append(unit.name)
        write_atomically(space.output(f"first/{unit.name}.txt"), unit.name)
        write_atomically(space.output(f"parts/{unit.name}.keys"), unit.name)

    def make(experiment, run):
        units = tuple(Unit(name, str(experiment.shards.train_shards), 1, None) for name in "ab")
        run_step(Step("filtering", units, work), experiment.engine, run)
        run_step(Step("join-0123456789ab", units[:1], work), experiment.engine, run)
        if failing:
            raise InputError(failing)

    stage = dataclasses.replace(make_stage([]), make=make, direct=True, libraries=())
    return dataclasses.replace(stage, intermediate=("parts",))


def test_no_stage_deletes_files_that_an_unfinished_later_stage_needs():
    """An up-to-date stage deletes its intermediate folders, although a later one may be half done."""
    stages = [script.STAGE for script in pretrain.SCRIPTS]
    for earlier, later in itertools.combinations(stages, 2):
        for folder, needed in itertools.product(earlier.intermediate, (*later.intermediate, *later.outputs)):
            assert not outputs.below(needed, folder), f"{earlier.name} deletes {needed} of {later.name}"


@pytest.mark.parametrize(("name", "call", "finished"), [("keep_only", 1, False), ("delete_folder", 2, True)])
def test_a_kill_at_the_end_of_a_stage_loses_no_unit(tmp_path, monkeypatch, name, call, finished):
    """A week of work is not repeated because the process died while it deleted or wrote the last files."""
    calls, real, times = [], getattr(outputs, name), itertools.count(1)

    def killed(*given):
        if next(times) == call:
            raise KeyboardInterrupt
        return real(*given)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(outputs, name, killed)
        run_stage(counted(calls), EXPERIMENT, tmp_path)
    assert (tmp_path / "parts").exists()
    assert run_stage(counted(calls), EXPERIMENT, tmp_path) is not finished
    assert calls == ["a", "b", "a"] and not (tmp_path / "parts").exists()


def test_intermediate_files_and_markers_of_joins_are_deleted(tmp_path):
    (tmp_path / "run/units/join-ba9876543210").mkdir(parents=True)
    run_stage(counted([]), EXPERIMENT, tmp_path / "run")
    assert not (tmp_path / "run/parts").exists()
    assert {path.name for path in (tmp_path / "run/units").iterdir()} == {"filtering"}
    assert not (tmp_path / "run/quarantine").exists()


def test_a_stage_with_only_intermediate_work_is_rejected_with_other_settings(tmp_path):
    with pytest.raises(InputError, match="the plug"):
        run_stage(counted([], failing="the plug was pulled"), EXPERIMENT, tmp_path)
    shutil.rmtree(tmp_path / "first")
    other = dataclasses.replace(EXPERIMENT, shards=dataclasses.replace(EXPERIMENT.shards, train_shards=1))
    with pytest.raises(UsageError, match=r"train_shards: \d there, 1 asked for"):
        run_stage(counted([]), other, tmp_path)


def test_a_file_that_appears_during_a_stage_is_not_counted_as_its_output(tmp_path):
    inner = make_stage([])

    def make(experiment, run):
        inner.make(experiment, run)
        (run / "first/own.txt").write_text("the user's")
        (run / "first/a.txt.0123456789abcdef.partial").write_text("half copied from scratch/, by a killed worker")

    run_stage(dataclasses.replace(inner, make=make), EXPERIMENT, tmp_path)
    kept = tmp_path / "replaced-1/first/own.txt"
    assert kept.read_text() == "the user's" and not list(tmp_path.rglob("*.partial"))
    assert set(json.loads(RunPaths(tmp_path).marker("first").read_text())["files"]) == {"first/a.txt", "first/b.txt"}


def test_a_stage_without_its_outputs_is_not_finished(tmp_path):
    stage = dataclasses.replace(make_stage([]), make=lambda experiment, run: None)
    with pytest.raises(FileNotFoundError, match="the stage first did not write it"):
        run_stage(stage, EXPERIMENT, tmp_path)
    assert not RunPaths(tmp_path).marker("first").exists()


def test_partial_work_is_invisible(tmp_path):
    with pytest.raises(InputError):
        run_stage(make_stage([], fail=True), EXPERIMENT, tmp_path)
    with pytest.raises(InputError, match=r"needs first .* First run: python -m launch\.first"):
        run_stage(make_stage([], "second", after=(make_stage([]),)), EXPERIMENT, tmp_path)
    assert run_stage(make_stage([]), EXPERIMENT, tmp_path) is True
    assert (tmp_path / "first/b.txt").exists()


def test_another_experiments_work_is_rejected_with_both_values_and_kept(tmp_path):
    run_stage(make_stage([]), EXPERIMENT, tmp_path)
    other = dataclasses.replace(EXPERIMENT, shards=dataclasses.replace(EXPERIMENT.shards, validation_fraction=0.4))
    config = (tmp_path / "config.json").read_bytes()
    with pytest.raises(UsageError, match=r"shards\.validation_fraction: 0\.2 there, 0\.4 asked for"):
        run_stage(make_stage([]), other, tmp_path)
    assert (tmp_path / "first/a.txt").read_text() == "content"
    assert (tmp_path / "config.json").read_bytes() == config


def test_outputs_later_than_a_rebuilt_stage_are_rejected(tmp_path):
    first = make_stage([])
    second = make_stage([], "second", after=(first,))
    run_stage(first, EXPERIMENT, tmp_path)
    run_stage(second, EXPERIMENT, tmp_path)
    RunPaths(tmp_path).marker(first.name).unlink()
    other = dataclasses.replace(EXPERIMENT, shards=dataclasses.replace(EXPERIMENT.shards, train_shards=1))
    run_stage(first, other, tmp_path)
    with pytest.raises(UsageError, match="first: written again since"):
        run_stage(second, other, tmp_path)


def test_the_remedy_names_every_later_marker(tmp_path):
    first = make_stage([])
    second = make_stage([], "second", after=(first,))
    third = make_stage([], "third", after=(second,))
    apart = make_stage([], "apart")
    for stage in (first, second, third, apart):
        run_stage(stage, EXPERIMENT, tmp_path)
    other = dataclasses.replace(EXPERIMENT, shards=dataclasses.replace(EXPERIMENT.shards, train_shards=1))
    with pytest.raises(UsageError) as error:
        run_stage(first, other, tmp_path)
    remedy = str(error.value).rpartition("rm ")[2].split()
    assert remedy == [str(tmp_path / f"stages/{name}.json") for name in ("first", "second", "third")]
    for path in remedy:
        Path(path).unlink()
    for stage in (first, second, third):
        assert run_stage(stage, other, tmp_path) is True


@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_incomplete_outputs_are_rebuilt(tmp_path, damage):
    calls = []
    run_stage(make_stage(calls), EXPERIMENT, tmp_path)
    path = tmp_path / "first/b.txt"
    path.unlink() if damage == "missing" else path.write_text("con")
    assert run_stage(make_stage(calls), EXPERIMENT, tmp_path) is True
    assert path.read_text() == "content" and calls == ["first", "first"]


def test_a_torn_write_never_replaces_a_file(tmp_path):
    path = tmp_path / "x.json"
    write_atomically(path, "old")
    program = (
        "import os, signal, pathlib, sys\nfrom lm import storage\n"
        "os.fsync = lambda fd: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"storage.write_atomically(pathlib.Path({str(path)!r}), 'new' * 1000)"
    )
    ended = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, check=False)
    assert ended.returncode == -signal.SIGKILL
    assert path.read_text() == "old"


def training(events, steps=4, fail_after=None):
    """A stage that writes in place, one file a step, and resumes from the files that it finds."""

    def make(experiment, run):
        (run / "checkpoints").mkdir(exist_ok=True)
        first = len(list((run / "checkpoints").iterdir()))
        events.append(f"from {first}")
        for step in range(first, steps):
            if step == fail_after:
                raise InputError("the plug was pulled")
            (run / f"checkpoints/{step}").write_text(str(step))
        (run / "log").write_text("a line")

    settings = lambda experiment: {"train": experiment.train}
    return Stage("train", "launch.train", (), settings, make, ("checkpoints",), grows=True, by_products=("log",))


def with_seed(seed):
    return dataclasses.replace(EXPERIMENT, train=dataclasses.replace(EXPERIMENT.train, seed=seed))


def test_unfinished_work_of_another_experiment_is_rejected_and_the_remedy_works(tmp_path):
    events = []
    with pytest.raises(InputError, match="the plug"):
        run_stage(training(events, fail_after=2), EXPERIMENT, tmp_path)
    with pytest.raises(UsageError, match=r"train\.seed: 0 there, 5 asked for") as error:
        run_stage(training(events), with_seed(5), tmp_path)
    assert len(list((tmp_path / "checkpoints").iterdir())) == 2
    for path in str(error.value).rpartition("rm ")[2].split():
        Path(path).unlink()
    run_stage(training(events), with_seed(5), tmp_path)
    assert events == ["from 0", "from 0"]


def test_finished_training_is_never_deleted_because_of_a_file(tmp_path):
    events = []
    run_stage(training(events), EXPERIMENT, tmp_path)
    (tmp_path / "log").write_text("a line, and a note of the user's")
    assert run_stage(training(events), EXPERIMENT, tmp_path) is False
    (tmp_path / "checkpoints/1").unlink()
    with pytest.raises(InputError, match=r"checkpoints/1 is missing; it should have 1 bytes"):
        run_stage(training(events), EXPERIMENT, tmp_path)
    assert (tmp_path / "checkpoints/3").exists()
    for number in (1, 2):
        (tmp_path / "checkpoints/mark").write_text(str(number))
        RunPaths(tmp_path).marker(training(events).name).unlink()  # the remedy
        assert run_stage(training(events), EXPERIMENT, tmp_path) is True
    assert events == ["from 0"] * 3
    for number in (1, 2):  # nothing is deleted, neither the second time
        assert (tmp_path / f"replaced-{number}/checkpoints/mark").read_text() == str(number)
        assert (tmp_path / f"replaced-{number}/log").exists()


def test_unfinished_training_resumes_in_a_copy_without_hidden_files(tmp_path):
    events = []
    with pytest.raises(InputError, match="the plug"):
        run_stage(training(events, fail_after=2), EXPERIMENT, tmp_path / "run")
    (tmp_path / "copy").mkdir()
    subprocess.run(f"cp -r {tmp_path}/run/* {tmp_path}/copy", shell=True, check=True)
    assert run_stage(training(events), EXPERIMENT, tmp_path / "copy") is True
    assert run_stage(training(events), EXPERIMENT, tmp_path / "copy") is False
    assert events == ["from 0", "from 2"]
    assert not list((tmp_path / "copy").glob("replaced*"))


def test_finished_training_only_needs_the_files_that_prove_it(tmp_path):
    events = []
    stage = dataclasses.replace(training(events), required_outputs=lambda workdir: ("checkpoints/3",))
    run_stage(stage, EXPERIMENT, tmp_path)
    (tmp_path / "checkpoints/0").unlink()
    assert run_stage(stage, EXPERIMENT, tmp_path) is False
    (tmp_path / "checkpoints/3").unlink()
    with pytest.raises(InputError, match="checkpoints/3 is missing"):
        run_stage(stage, EXPERIMENT, tmp_path)


def test_a_single_stage_rejects_inputs_of_another_experiment(tmp_path):
    """Two stages back: the inputs of the stage were built from settings that the config no longer has."""
    first = make_stage([])
    second = dataclasses.replace(make_stage([], "second", after=(first,)), settings=lambda experiment: {})
    third = dataclasses.replace(make_stage([], "third", after=(second,)), settings=lambda experiment: {})
    run_stage(first, EXPERIMENT, tmp_path)
    run_stage(second, EXPERIMENT, tmp_path)
    other = dataclasses.replace(EXPERIMENT, shards=dataclasses.replace(EXPERIMENT.shards, validation_fraction=0.4))
    with pytest.raises(UsageError, match=r"has first of another experiment[\s\S]*validation_fraction: 0\.2 there"):
        run_stage(third, other, tmp_path)
    assert run_stage(third, EXPERIMENT, tmp_path) is True


def refused(ended: Ended, code: int, *words: str) -> None:
    assert ended.returncode == code, ended.stderr
    assert "Traceback" not in ended.stderr + ended.stdout
    assert all(word in ended.stderr + ended.stdout for word in words), ended.stderr


def test_two_processes_in_one_run_folder_are_rejected(tmp_path):
    with command.locked(tmp_path):
        ended = run_command("launch.write_shards", "configs/demo.py", "--workdir", str(tmp_path))
    refused(ended, 1, f"process {os.getpid()}", "--workdir")
    with contextlib.suppress(InputError), command.locked(tmp_path):
        return
    pytest.fail("the lock was not let go of")


def test_an_unwritable_run_folder(tmp_path):
    (tmp_path / "file").write_text("")
    refused(
        run_command("launch.train", "configs/demo.py", "--workdir", str(tmp_path / "file/run")), 1, "cannot be written"
    )


def test_a_run_folder_that_is_a_file_is_rejected(tmp_path):
    (tmp_path / "run").write_text("the user's")
    with (
        pytest.raises(UsageError, match=r"--workdir .*run is a file\. Give a folder"),
        command.locked(tmp_path / "run"),
    ):
        pass
    assert (tmp_path / "run").read_text() == "the user's"


def test_a_file_at_the_path_of_a_folder_is_named(tmp_path, capsys):
    (tmp_path / "samples").write_text("the user's")
    with pytest.raises(SystemExit) as ended, command.handle_cli_errors("launch.train"):
        (tmp_path / "samples").mkdir(exist_ok=True)
    assert ended.value.code == 1
    assert f"{tmp_path}/samples" in (said := capsys.readouterr().err) and "Move it away" in said


def test_a_rejected_command_leaves_no_folder(tmp_path):
    for folder in (tmp_path / "new", tmp_path):
        with pytest.raises(UsageError), command.locked(folder):
            raise UsageError("an impossible setting")
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]  # in the folder that existed before


def test_a_stage_without_its_predecessor_names_the_command(tmp_path):
    ended = run_command("launch.train", "configs/demo.py", "--workdir", str(tmp_path / "run"))
    refused(ended, 1, "python -m launch.train_tokenizer", "unfinished")


def test_differences_name_every_setting_and_the_first_input_files():
    sizes = {SIZES: {f"/crawl/{number}.gz": number for number in range(90_000)}}
    lines = differences({"pages": {"warc": "a"}}, {"pages": {"warc": "b"}} | sizes)
    assert lines[0] == f"  {SIZES}./crawl/0.gz: None there, 0 asked for"
    assert lines[-2:] == ["  pages.warc: 'a' there, 'b' asked for", "  and 89,980 more input files"]
    assert len(lines) == 22
