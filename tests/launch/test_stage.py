"""What a command does with what it finds in a run folder, on a disk and in a bucket: it makes, resumes, keeps or
refuses. Files of users are kept, and a refusal changes nothing and names a remedy that works."""

import dataclasses
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet

from configs.experiment import Experiment
from data_prep.engine import Step, Unit, Workspace, run_step
from launch import pretrain
from launch.run_folder import markers, outputs
from launch.run_folder.user_inputs import SIZES
from launch.stages import command
from launch.stages.stage import Stage, run_stage
from lm.errors import InputError, UsageError
from lm.fields import with_values
from lm.run_paths import RunPaths
from lm.storage import Place, Url, write_atomically
from tests.commands import run_command
from tests.launch.toy_stages import (
    DONE_BEFORE,
    EXPERIMENT,
    REPORT,
    STAGES,
    TEXT,
    TRAIN,
    files_of,
    follow,
    interrupted,
    make_parts,
    run,
    with_shards,
)
from tests.object_store import serving, variables
from tests.run_files import REPOSITORY

DIRECT = dataclasses.replace(TEXT, direct=True)
KINDS = {
    "a stage": STAGES,
    "a direct stage": (DIRECT, dataclasses.replace(REPORT, after=(DIRECT,))),
    "training": (TRAIN,),
}
OURS = b"the user's"


class Folder:
    """A run folder in which each command runs on another machine."""

    def __init__(self, place: Place, kind: str, machines: Path):
        self.place, self.stages, self.machines = place, KINDS[kind], machines
        self.parts = "checkpoints" if kind == "training" else "text/deep"

    def make(self, number: int, stages: tuple[Stage, ...] | None = None) -> list[bool]:
        machine = self.machines / str(len([*self.machines.iterdir()]))
        machine.mkdir()
        return run(self.place, with_shards(number), stages=stages or self.stages, machine=machine)

    def kill(self) -> None:
        """Kill the first stage when a part is done."""
        one = lambda experiment, run: write_atomically(run / f"{self.parts}/0.txt", DONE_BEFORE.format(0, 2))
        with pytest.raises(KeyboardInterrupt):
            self.make(2, (interrupted(self.stages[0], after=one),))

    def note(self, kind: str) -> Place:
        return self.place / f"stages/{self.stages[0].name}.{kind}"

    def note_versions(self, **versions: object) -> None:
        found = json.loads(self.note("begun").read_text())
        del found["versions"]
        write_atomically(self.note("begun"), json.dumps(found | versions))


STATES: dict[str, Callable[[Folder], object]] = {
    "finished": lambda it: it.make(2),
    "without a marker": lambda it: (it.make(2), write_atomically(it.place / "log", "a note"), it.note("json").unlink()),
    "an output missing": lambda it: (it.make(2), (it.place / f"{it.parts}/1.txt").unlink()),
    "an output cut": lambda it: (it.make(2), write_atomically(it.place / f"{it.parts}/1.txt", "cut")),
    "a note in the log": lambda it: (it.make(2), write_atomically(it.place / "log", "a note")),
    "a damaged marker": lambda it: (it.make(2), write_atomically(it.note("json"), "{")),
    "the first stage made again": lambda it: (it.make(2), it.note("json").unlink(), it.make(3, it.stages[:1])),
    "killed": lambda it: it.kill(),
    "killed, a damaged note": lambda it: (it.kill(), write_atomically(it.note("begun"), "[]")),
    "killed, another library": lambda it: (it.kill(), it.note_versions(versions={"lxml": "1.2"})),
    "killed, no versions": lambda it: (it.kill(), it.note_versions()),
}
OTHER = "train_shards: 2 there, 3 asked for"
SINCE = "text: written again since, with other contents"
DAMAGED = r"is damaged \(.+\)\. To run the stage again, delete the file: "
NO_VERSIONS = "library versions have changed"
VERSIONS = rf"{NO_VERSIONS}[\s\S]*lxml: '1.2' when they were written, .*[\s\S]*lxml==1.2\)"
OF_A_STAGE: dict[str, tuple[list[bool | str], list[bool | str]]] = {
    "finished": ([False, False], [OTHER]),
    "without a marker": ([True, False], [True, SINCE]),
    "an output missing": ([True, False], [True, SINCE]),
    "an output cut": ([True, False], [True, SINCE]),
    "a damaged marker": ([DAMAGED], [DAMAGED]),
    "killed": ([True, True], [OTHER]),
    "killed, a damaged note": ([DAMAGED], [DAMAGED]),
    "killed, another library": ([VERSIONS], [OTHER]),
    "killed, no versions": ([NO_VERSIONS], [OTHER]),
    "the first stage made again": (["train_shards: 3 there, 2 asked for"], [False, SINCE]),
}
OF_TRAINING: dict[str, tuple[list[bool | str], list[bool | str]]] = {
    "finished": ([False], [OTHER]),
    "without a marker": ([True], [True]),
    "an output missing": (["1.txt is missing; it should have 14 bytes"], ["1.txt is missing"]),
    "an output cut": (["1.txt is 3 bytes; it should have 14 bytes"], ["1.txt is 3 bytes"]),
    "a damaged marker": ([DAMAGED], [DAMAGED]),
    "killed": ([True], [OTHER]),
    "killed, a damaged note": ([DAMAGED], [DAMAGED]),
    "a note in the log": ([False], [OTHER]),
}
"""{what is there, of 2 shards: (what each stage does for 2 shards, and for 3)}: it makes its outputs, or they are up to
date, or the command is refused with that message."""


@pytest.fixture(scope="module")
def store() -> Generator[None]:
    with serving() as server, variables(server.environment() | {"GRISTMILL_LEASE_SECONDS": "0.5"}):
        server.bucket("corpus")
        yield


def rows() -> Iterator[ParameterSet]:
    """In a bucket, all rows of a direct stage, and those of another stage that is not killed: it works on a disk."""
    for place, kind in (("disk", "a stage"), ("disk", "training"), ("bucket", "a stage"), ("bucket", "a direct stage")):
        for state, both in (OF_TRAINING if kind == "training" else OF_A_STAGE).items():
            for number, outcomes in zip((2, 3), both, strict=True):
                if kind == "a direct stage" and outcomes in ([VERSIONS], [NO_VERSIONS]):
                    outcomes = [True, True]  # it only reports them
                quick = place == "disk" or (state, number) in (("finished", 3), ("an output cut", 2), ("killed", 2))
                if (place, kind) != ("bucket", "a stage") or "killed" not in state:
                    name, marks = f"{place}-{kind}-{state}-{number}", () if quick else pytest.mark.slow
                    yield pytest.param(place, kind, state, number, outcomes, id=name, marks=marks)


def advised(folder: Folder, number: int) -> list[bool]:
    """Run the command again until it is no longer refused, each time after its advice."""
    for _ in folder.stages:
        try:
            return folder.make(number)
        except UsageError as refusal:
            follow(refusal)
    raise AssertionError("the advice did not help")


@pytest.mark.fast_rows(20)
@pytest.mark.parametrize(("where", "kind", "state", "number", "outcomes"), [*rows()])
def test_a_command_makes_resumes_keeps_or_refuses(request, tmp_path, where, kind, state, number, outcomes):
    (tmp_path / "machines").mkdir()
    place = tmp_path / "it's my run"
    if where == "bucket":
        request.getfixturevalue("store")
        place = Url(f"s3://corpus/{tmp_path.name}/run")
    folder = Folder(place, kind, tmp_path / "machines")
    STATES[state](folder)
    write_atomically(place / f"{folder.parts}/own.txt", OURS)
    resumes = "killed" in state and outcomes in ([True], [True, True])
    for stage, outcome in zip(folder.stages, outcomes, strict=False):
        before = files_of(place)
        if isinstance(outcome, bool):
            assert folder.make(number, (stage,)) == [outcome]
            assert outcome or files_of(place) == before
            continue
        with pytest.raises(InputError, match=outcome) as refusal:
            folder.make(number, (stage,))
        assert files_of(place) == before and str(tmp_path / "machines") not in str(refusal.value)
        follow(refusal.value)
        advised(folder, number)
    assert folder.make(number) == [False] * len(folder.stages)
    there = files_of(place)
    assert OURS in there.values() and not [name for name in there if name.endswith(".begun")]
    assert kind != "training" or state not in ("a note in the log", "without a marker") or b"a note" in there.values()
    assert json.loads(there["config.json"])["shards"]["train_shards"] == number
    parts = {f"{folder.parts}/{part}.txt": f"part {part} " * number for part in range(3)}
    if resumes:
        parts[f"{folder.parts}/0.txt"] = DONE_BEFORE.format(0, 2)
    elif "killed" in state and where == "disk":  # nothing was deleted; units in a bucket check their addresses
        assert DONE_BEFORE.format(0, 2).encode() in there.values()
    elif "killed" in state:
        del parts[f"{folder.parts}/0.txt"]
    assert {name: there[name] for name in parts} == {name: text.encode() for name, text in parts.items()}
    if kind != "training":
        made = {file for file in there if any(outputs.below(file, name) for name in ("text", "counts.json", "report"))}
        wanted = {*(f"text/deep/{part}.txt" for part in range(3)), "text/all.txt", "counts.json", "report/index.html"}
        assert made - {"text/deep/own.txt"} == wanted and there["report/index.html"] == f"{number} times".encode()


def stage_of_units(calls: list[str], then: Exception | None = None) -> Stage:
    """A stage of two units with a folder of intermediate files, which it does not delete itself."""

    def work(unit: Unit, space: Workspace) -> None:
        calls.append(unit.name)
        write_atomically(space.output(f"text/{unit.name}.txt"), unit.name)
        write_atomically(space.output(f"parts/{unit.name}.keys"), unit.name)

    def make(experiment: Experiment, run: Path) -> None:
        units = tuple(Unit(name, str(experiment.shards.train_shards), 1, None) for name in "ab")
        run_step(Step("filtering", units, work), experiment.engine, run)
        run_step(Step("join-0123456789ab", units[1:], work), experiment.engine, run)
        if then:
            raise then

    return dataclasses.replace(TEXT, make=make, outputs=("text",), direct=True, libraries=(), intermediate=("parts",))


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
        run_stage(stage_of_units(calls), EXPERIMENT, tmp_path)
    assert (tmp_path / "parts").exists()
    assert run_stage(stage_of_units(calls), EXPERIMENT, tmp_path) is not finished
    assert calls == ["a", "b", "b"] and not (tmp_path / "parts").exists()


def test_intermediate_files_and_markers_of_joins_are_deleted(tmp_path):
    (tmp_path / "units/join-ba9876543210").mkdir(parents=True)
    write_atomically(tmp_path / "stages/other.json", "{}")
    run_stage(stage_of_units([]), EXPERIMENT, tmp_path)
    assert {path.name for path in (tmp_path / "units").iterdir()} == {"filtering"}
    assert not (tmp_path / "parts").exists() and not (tmp_path / "quarantine").exists()


def test_a_stage_with_only_intermediate_work_is_rejected_with_other_settings(tmp_path):
    with pytest.raises(InputError, match="the plug"):
        run_stage(stage_of_units([], then=InputError("the plug")), EXPERIMENT, tmp_path)
    shutil.rmtree(tmp_path / "text")
    with pytest.raises(UsageError, match=r"train_shards: \d there, 1 asked for"):
        run_stage(stage_of_units([]), with_shards(1), tmp_path)


def test_a_file_that_appears_during_a_stage_is_not_counted_as_its_output(tmp_path, capsys):
    def make(experiment: Experiment, run: Path) -> None:
        TEXT.make(experiment, run)
        (run / "text/own.txt").write_text("the user's")
        (run / "text/all.txt.0123456789abcdef.partial").write_text("half copied from scratch/, by a killed worker")

    run_stage(dataclasses.replace(TEXT, make=make), EXPERIMENT, tmp_path)
    assert "text/own.txt was not written by this run" in capsys.readouterr().out
    assert (tmp_path / "replaced-1/text/own.txt").read_text() == "the user's" and not list(tmp_path.rglob("*.partial"))
    files = json.loads(RunPaths(tmp_path).marker("text").read_text())["files"]
    assert {*files} == {"counts.json", "text/all.txt", *(f"text/deep/{part}.txt" for part in range(3))}


def test_a_stage_without_its_outputs_is_not_finished(tmp_path):
    with pytest.raises(FileNotFoundError, match="the stage text did not write it"):
        run_stage(dataclasses.replace(TEXT, make=lambda experiment, run: None), EXPERIMENT, tmp_path)
    assert not RunPaths(tmp_path).marker("text").exists()


def test_a_stage_needs_finished_inputs_of_its_own_experiment_also_two_stages_back(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, stages=(interrupted(TEXT),))
    with pytest.raises(InputError, match=r"report needs text, counts\.json in .* First run: python -m launch\.text"):
        run(tmp_path, stages=(REPORT,))
    last = dataclasses.replace(REPORT, name="last", after=(REPORT,), outputs=("text2",), make=make_parts("text2"))
    run(tmp_path, with_shards(2))
    with pytest.raises(UsageError, match=r"has text, counts\.json of another experiment:\n.*train_shards: 2 there, 3"):
        run(tmp_path, with_shards(3), stages=(last,))
    assert run(tmp_path, with_shards(2), stages=(last,)) == [True]


def test_a_field_that_only_changes_speed_changes_no_result(tmp_path):
    run(tmp_path)
    assert run(tmp_path, with_values(EXPERIMENT, {"shards.encoder": "gigatoken"})) == [False, False]


def test_a_torn_write_never_replaces_a_file(tmp_path):
    path = tmp_path / "x.json"
    write_atomically(path, "old")
    program = (
        "import os, signal, pathlib, sys\nfrom lm import storage\n"
        "os.fsync = lambda fd: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"storage.write_atomically(pathlib.Path({str(path)!r}), 'new' * 1000)"
    )
    ended = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY)
    assert ended.returncode == -signal.SIGKILL
    assert path.read_text() == "old"


def test_unfinished_training_resumes_in_a_copy_without_hidden_files(tmp_path):
    one = lambda experiment, run: write_atomically(run / "checkpoints/0.txt", DONE_BEFORE.format(0, 2))
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run", with_shards(2), stages=(interrupted(TRAIN, after=one),))
    (tmp_path / "copy").mkdir()
    subprocess.run(f"cp -r {tmp_path}/run/* {tmp_path}/copy", shell=True, check=True)
    assert [run(tmp_path / "copy", with_shards(2), stages=(TRAIN,)) for _ in range(2)] == [[True], [False]]
    assert (tmp_path / "copy/checkpoints/0.txt").read_text() == DONE_BEFORE.format(0, 2)
    assert not list((tmp_path / "copy").glob("replaced*"))


def test_finished_training_only_needs_the_files_that_prove_it(tmp_path):
    stages = (dataclasses.replace(TRAIN, required_outputs=lambda workdir: ("checkpoints/2.txt",)),)
    run(tmp_path, stages=stages)
    (tmp_path / "checkpoints/0.txt").unlink()
    assert run(tmp_path, stages=stages) == [False]
    (tmp_path / "checkpoints/2.txt").unlink()
    with pytest.raises(InputError, match=r"checkpoints/2\.txt is missing"):
        run(tmp_path, stages=stages)


@pytest.mark.parametrize(
    ("script", "workdir", "words"),
    [
        ("write_shards", "locked", (f"process {os.getpid()}", "--workdir")),
        ("train", "file/run", ("cannot be written",)),
        ("train", "file", ("file is a file. Give a folder",)),
        ("train", "run", ("python -m launch.train_tokenizer", "unfinished")),
    ],
)
def test_a_command_that_cannot_work_there_says_why_in_a_line(tmp_path, script, workdir, words):
    (tmp_path / "file").write_text("the user's")
    with command.locked(tmp_path / "locked"):
        ended = run_command(f"launch.{script}", "configs/demo.py", "--workdir", tmp_path / workdir)
    assert ended.returncode in (1, 2) and "Traceback" not in ended.stderr + ended.stdout
    assert all(word in ended.stderr for word in words), ended.stderr
    with command.locked(tmp_path / "locked"):  # it was released
        assert (tmp_path / "file").read_text() == "the user's"


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


def test_differences_name_every_setting_and_the_first_input_files():
    sizes = {SIZES: {f"/crawl/{number}.gz": number for number in range(90_000)}}
    lines = markers.differences({"pages": {"warc": "a"}}, {"pages": {"warc": "b"}} | sizes)
    assert lines[0] == f"  {SIZES}./crawl/0.gz: None there, 0 asked for"
    assert lines[-2:] == ["  pages.warc: 'a' there, 'b' asked for", "  and 89,980 more input files"]
    assert len(lines) == 22
