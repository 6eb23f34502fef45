"""No user file in a run folder is lost, whatever is in the folder, whenever a run is killed, on any disk."""

import contextlib
import dataclasses
import json
import os
import random
import shutil
import sys
import tempfile
import threading
from collections.abc import Generator
from pathlib import Path

import pytest

from launch.run_folder import markers as notes
from launch.run_folder.checks import refuse_inputs_in_outputs, refuse_no_run
from launch.run_folder.reuse import LINKED_FROM, check_source
from launch.stages.command import locked
from launch.stages.stage import Stage, run_stage, take_before
from lm.config import MixtureSource
from lm.errors import InputError, UsageError
from lm.fields import with_values
from lm.storage import write_atomically
from tests.launch.toy_stages import (
    DONE_BEFORE,
    EXPERIMENT,
    REPORT,
    TEXT,
    TRAIN,
    interrupted,
    make_parts,
    outputs_of,
    run,
    with_shards,
)


def contents(folder: Path) -> list[bytes]:
    return sorted(path.read_bytes() for path in folder.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def expected(tmp_path_factory) -> dict[int, dict[str, bytes | str]]:
    """{shards.train_shards: the outputs}"""
    found = {}
    for number in (2, 3):
        workdir = tmp_path_factory.mktemp("expected")
        run(workdir, with_shards(number))
        found[number] = outputs_of(workdir)
    return found


PLACES = (
    "notes.txt", "my_plots/a.png", "text/own.txt", "text/deep/1.txt", "text/deep/own/b.txt", "text/all.txt", "text",
    "report", "report/my.png", "counts.json", "replaced-1", "replaced-1/text/own.txt", "report/index.html",
)  # fmt: skip
"""Where users put files, including over current and future outputs of a run."""


@pytest.mark.fast_rows
@pytest.mark.parametrize("seed", range(12))
def test_every_file_of_a_user_is_still_there_after_any_sequence_of_runs(tmp_path, seed):
    generator, theirs = random.Random(seed), []
    run(tmp_path)
    for number in range(12):
        match generator.choice(("put", "put", "run", "run", "make anew", "begin from")):
            case "put":
                path = tmp_path / generator.choice(PLACES)
                if path.is_dir() or any(parent.is_file() for parent in path.parents):
                    continue
                path.parent.mkdir(parents=True, exist_ok=True)
                if path.is_file() and path.read_bytes() in theirs:
                    continue  # they would overwrite their own file
                theirs.append(f"the user's file {number}".encode() * 9)
                path.write_bytes(theirs[-1])
            case "make anew":
                for marker in (tmp_path / "stages").glob("*.json"):
                    marker.unlink()
            case choice:
                source = None
                if choice == "begin from":
                    source = Path(tempfile.mkdtemp(dir=tmp_path.parent))
                    run(source, with_shards(3))
                for experiment in (EXPERIMENT, with_shards(generator.choice((2, 3)))):
                    try:
                        run(tmp_path, experiment, source)
                    except InputError as error:
                        assert " of another experiment" in str(error) or "needs text" in str(error)
        there = contents(tmp_path)
        assert [one for one in theirs if one not in there] == [], number


class KilledError(BaseException):
    """A simulated kill: nothing catches it."""


@contextlib.contextmanager
def killed_at(monkeypatch, moment: int) -> Generator[None]:
    """Raise before the file operation of that number, to simulate the end of the process."""
    done = 0

    def counted(real):
        def operation(*arguments, **options):
            nonlocal done
            done += 1
            if done >= moment:  # and no later operation runs
                raise KilledError
            return real(*arguments, **options)

        return operation

    with monkeypatch.context() as patch:
        for name in ("rename", "replace", "unlink", "rmdir", "mkdir", "link"):
            patch.setattr(os, name, counted(getattr(os, name)))
        patch.setattr(shutil, "copyfile", counted(shutil.copyfile))
        yield


def every_kill(monkeypatch, prepare, work, check) -> int:
    """Kill `work` before each of its file operations; each time a second call must succeed. Return the number of
    kills."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)  # a kill is not a power loss
    for moment in range(1, 1000):
        workdir = prepare()
        with contextlib.suppress(KilledError), killed_at(monkeypatch, moment):
            work(workdir)
            return moment - 1
        refuse_no_run(workdir)
        work(workdir)
        check(workdir)
    raise AssertionError("it never ends")


def test_a_folder_in_which_another_process_starts_a_run_is_always_recognized_as_a_run(tmp_path):
    def begin_and_finish_a_stage(stages: Path) -> None:
        stages.mkdir()
        (stages / "texts.seen").write_text("{}")
        (stages / "texts.begun").write_text("{}")
        (stages.parent / "texts").mkdir()
        (stages / "texts.json").write_text("{}")
        (stages / "texts.begun").unlink()

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # every system call of one thread may come between two of the other
    try:
        for number in range(300):
            workdir = tmp_path / str(number)
            workdir.mkdir()
            other = threading.Thread(target=begin_and_finish_a_stage, args=[workdir / "stages"])
            other.start()
            while other.is_alive():
                refuse_no_run(workdir)
            other.join()
    finally:
        sys.setswitchinterval(interval)


def test_a_kill_at_any_moment_of_a_rebuild_changes_nothing(tmp_path, monkeypatch, expected):
    """New outputs replace old ones, which include a user's file."""
    run(tmp_path / "old", with_shards(3))
    (tmp_path / "old/text/own.txt").write_text("the user's")
    for marker in (tmp_path / "old/stages").glob("*.json"):
        marker.unlink()
    prepare = lambda: Path(shutil.copytree(tmp_path / "old", Path(tempfile.mkdtemp(dir=tmp_path)) / "run"))

    def check(workdir: Path) -> None:
        assert outputs_of(workdir) == expected[2]
        assert b"the user's" in contents(workdir)
        assert not list((workdir / "stages").glob("*.begun"))
        assert run(workdir, with_shards(2)) == [False, False]

    work = lambda workdir: run(workdir, with_shards(2))
    assert every_kill(monkeypatch, prepare, work, check) > 40


def test_a_kill_while_stages_after_longer_training_are_rebuilt_causes_no_rejection(tmp_path, monkeypatch):
    """Outputs of the earlier training are out of date, but do not belong to another experiment."""

    def trained(steps: int) -> Stage:
        return dataclasses.replace(
            training(steps), settings=lambda experiment: {"steps": steps}, can_continue=lambda old, new, workdir: True
        )

    def follow(before: Stage, name: str) -> Stage:
        make = lambda experiment, run: write_atomically(run / f"{name}.json", "made")
        return Stage(name, f"launch.{name}", (before,), lambda e: {}, make, (f"{name}.json",))

    def stages(steps: int) -> list[Stage]:
        evaluate = follow(trained(steps), "evaluate")
        return [trained(steps), evaluate, follow(evaluate, "after")]

    for stage in stages(2):
        run_stage(stage, EXPERIMENT, tmp_path / "old")
    prepare = lambda: Path(shutil.copytree(tmp_path / "old", Path(tempfile.mkdtemp(dir=tmp_path)) / "run"))
    work = lambda workdir: [run_stage(stage, EXPERIMENT, workdir) for stage in stages(3)]
    check = lambda workdir: None
    assert every_kill(monkeypatch, prepare, work, check) > 20


def test_a_kill_at_any_moment_of_reuse_from_another_run_changes_nothing(tmp_path, monkeypatch, expected):
    source = tmp_path / "source"
    run(source, with_shards(3))
    before = contents(source)

    def check(workdir: Path) -> None:
        assert outputs_of(workdir) == expected[3] and contents(source) == before
        assert not list((workdir / "stages").glob("*.begun"))

    work = lambda workdir: run(workdir, with_shards(3), source)
    assert every_kill(monkeypatch, lambda: Path(tempfile.mkdtemp(dir=tmp_path)), work, check) > 40


def test_a_run_folder_may_be_a_link_and_a_dangling_link_is_rejected(tmp_path, expected):
    (tmp_path / "big").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "big")
    with locked(tmp_path / "run"):
        run(tmp_path / "run", with_shards(2))
    assert outputs_of(tmp_path / "big") == expected[2]
    (tmp_path / "lost").symlink_to(tmp_path / "unmounted")
    with pytest.raises(UsageError, match=r"--workdir .*lost is a link to .*unmounted"), locked(tmp_path / "lost"):
        pass


def training(steps: int, by: str = "") -> Stage:
    def make(experiment, run):
        (run / "checkpoints").mkdir(exist_ok=True)
        (run / "log").write_text(by)
        for step in range(len(list((run / "checkpoints").glob("[0-9]*"))), steps):
            (run / f"checkpoints/{step}").mkdir()
            (run / f"checkpoints/{step}/model").write_text(f"{by}{step}")

    return dataclasses.replace(TRAIN, make=make)


@pytest.mark.parametrize("name", ["notes.txt", "documents/a.parquet", "config.json", ".hidden", "stages/notes.md"])
def test_a_non_empty_folder_without_a_run_is_rejected_and_unchanged(tmp_path, name):
    workdir = tmp_path / "folder"
    write_atomically(workdir / name, "the user's")
    with pytest.raises(UsageError, match=r"--workdir .* is not empty .* Give a folder that is empty"), locked(workdir):
        pass
    assert [path for path in workdir.rglob("*") if path.is_file()] == [workdir / name]


def test_a_run_starts_in_an_empty_folder_or_next_to_logs_and_user_files_may_be_added(tmp_path):
    for name in ("", "slurm-17.out", "supervisor.jsonl", "heartbeat-1.json", "run.log"):
        workdir = tmp_path / f"run-{name}"
        workdir.mkdir()
        if name:
            (workdir / name).write_text("a line")
        with locked(workdir):
            run(workdir)
        (workdir / "notes.txt").write_text("notes")
        with locked(workdir):
            pass
        shutil.copytree(workdir, tmp_path / f"copy-{name}", ignore=shutil.ignore_patterns(".*"))
        with locked(tmp_path / f"copy-{name}"):
            pass


def inputs(**changes):
    sections = {"warc": "pages", "tables": "pages", "load": "tokenizer", "mixture": "train"}
    return with_values(EXPERIMENT, {f"{sections[name]}.{name}": value for name, value in changes.items()})


def test_inputs_in_output_folders_are_rejected_before_any_work(tmp_path):
    workdir = tmp_path / "own"
    (workdir / "pages").mkdir(parents=True)
    (workdir / "pages/crawl.warc.gz").write_text("a crawl")
    (tmp_path / "link").symlink_to(workdir / "pages")
    for option, value in (
        ("warc", (f"{workdir}/pages/*.warc.gz",)),
        ("warc", (f"{tmp_path}/**/*.warc.gz",)),
        ("warc", (f"{tmp_path}/link/crawl.*",)),
        ("tables", (f"{workdir}/pages/*",)),
        ("load", f"{workdir}/tokenizer"),
        ("mixture", (MixtureSource(f"{workdir}/tokens", 1.0),)),
        ("mixture", (MixtureSource(f"{workdir}/parts/x", 1.0),)),
        ("warc", (f"{workdir}/scratch/x.warc.gz",)),
    ):
        with pytest.raises(UsageError, match=rf"{option}.*this run writes.*--workdir"):
            refuse_inputs_in_outputs(inputs(**{option: value}), workdir)
    for option, value in (
        ("warc", (f"{workdir}/data/*.warc.gz", f"{workdir}/*.warc.gz", f"{tmp_path}/nothing/**/*")),
        ("load", "gpt2"),
        ("load", f"{tmp_path}/other/tokenizer"),
        ("mixture", (MixtureSource(f"{tmp_path}/other/tokens", 1.0),)),
    ):
        refuse_inputs_in_outputs(inputs(**{option: value}), workdir)
    assert contents(workdir) == [b"a crawl"]


def test_parts_are_resumed_if_only_their_inputs_were_rebuilt(tmp_path):
    """The stage checks them one by one."""
    part = lambda experiment, run: write_atomically(run / "text2/0.txt", DONE_BEFORE.format(0, 2))
    follower = dataclasses.replace(
        TEXT, name="follower", after=(REPORT,), outputs=("text2",), make=make_parts("text2"), settings=lambda e: {}
    )
    run(tmp_path, with_shards(2))
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, with_shards(2), stages=(interrupted(follower, after=part),))
    key = json.loads((tmp_path / "stages/report.json").read_text())
    (tmp_path / "stages/report.json").write_text(json.dumps(key | {"key": "another"}))
    run(tmp_path, with_shards(2), stages=(follower,))
    assert (tmp_path / "text2/0.txt").read_text() == DONE_BEFORE.format(0, 2)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "3", '"x"', "{}", '{"key": 1, "settings": {}, "files": {}}', "\x00", "[" * 100_000,
             '{"key": "", "settings": [], "files": {}}', '{"key": "", "settings": {}, "files": null}'],
    ids=["empty", "cut", "list", "null", "number", "string", "no fields", "key", "zeros", "deep", "settings", "files"],
)  # fmt: skip
def test_a_damaged_record_of_a_stage_is_reported(tmp_path, text):
    """test_stage.py follows the advice."""
    for name in ("text.json", "text.begun"):
        (tmp_path / name).write_text(text)
        with pytest.raises(
            InputError, match=rf"{name} is damaged \(.+\)\. To run the stage again, delete the file: rm "
        ):
            notes.read_note(tmp_path / name)


def test_a_marker_without_its_files_is_damaged_and_the_record_of_an_attempt_has_none(tmp_path):
    for name in ("text.json", "text.begun"):
        (tmp_path / name).write_text('{"key": "", "settings": {}, "external_inputs": {}, "replaces": []}')
    assert notes.read_note(tmp_path / "text.begun")
    with pytest.raises(InputError, match="it has no 'continued_from'"):
        notes.read_note(tmp_path / "text.json")


def test_a_run_started_from_another_reuses_equal_stages_and_builds_the_rest(tmp_path, capsys, expected):
    source, workdir = tmp_path / "source", tmp_path / "run"
    run(source)
    (source / "text/own.txt").write_text("the user's, and no output")
    other = dataclasses.replace(REPORT, settings=lambda e: {"other": 1})
    assert run_stage(TEXT, EXPERIMENT, workdir, source) is True
    assert run_stage(other, EXPERIMENT, workdir, source) is True
    told = capsys.readouterr().out
    assert f"text: taken from {source}" in told and "report: taken" not in told
    assert not (workdir / "text/own.txt").exists()
    assert json.loads((workdir / "stages/text.json").read_text())["taken_from"] == str(source)
    assert run_stage(TEXT, EXPERIMENT, workdir) is False
    different = tmp_path / "different"
    run(different, with_shards(3), source)
    assert outputs_of(different) == expected[3]


def test_an_extended_run_is_not_mistaken_for_a_straight_one(tmp_path):
    source, workdir = tmp_path / "source", tmp_path / "run"
    run(source)
    assert run_stage(TEXT, EXPERIMENT, workdir, source) and (workdir / "config.json").is_file()
    marker = json.loads((source / "stages/text.json").read_text())
    (source / "stages/text.json").write_text(json.dumps(marker | {"continued_from": [{"steps": 800, "at": 800}]}))
    run_stage(TEXT, EXPERIMENT, tmp_path / "other", source)
    assert "taken_from" not in json.loads((tmp_path / "other/stages/text.json").read_text())


def test_large_files_are_linked_and_a_rebuild_does_not_change_the_other_run(tmp_path):
    def make(experiment, run):
        write_atomically(run / "text/large", bytes([experiment.shards.train_shards]) * LINKED_FROM)
        write_atomically(run / "text/small", "small")

    stage = dataclasses.replace(TEXT, make=make, outputs=("text",))
    source, workdir = tmp_path / "source", tmp_path / "run"
    run_stage(stage, EXPERIMENT, source)
    before = contents(source)
    run_stage(stage, EXPERIMENT, workdir, source)
    assert (workdir / "text/large").samefile(source / "text/large")
    assert not (workdir / "text/small").samefile(source / "text/small")
    (workdir / "stages/text.json").unlink()
    run_stage(stage, with_shards(3), workdir)
    assert contents(source) == before != contents(workdir)


def test_a_single_stage_script_reuses_its_inputs(tmp_path):
    source, workdir = tmp_path / "source", tmp_path / "run"
    run(source)
    with pytest.raises(InputError, match="needs text"):
        run_stage(REPORT, EXPERIMENT, workdir)
    take_before(REPORT, EXPERIMENT, workdir, source)
    assert run_stage(REPORT, EXPERIMENT, workdir) is True


def test_training_is_reused_completely_with_its_logs_or_not_at_all(tmp_path):
    source, workdir = tmp_path / "source", tmp_path / "run"
    run_stage(training(3, "a"), EXPERIMENT, source)
    assert run_stage(training(3, "b"), EXPERIMENT, workdir, source) is True
    assert contents(workdir / "checkpoints") == [b"a0", b"a1", b"a2"] and (workdir / "log").read_text() == "a"
    run_stage(training(2, "b"), with_shards(5), tmp_path / "other", source)
    assert contents(tmp_path / "other/checkpoints") == [b"b0", b"b1"]


def test_snapshots_are_reused_with_the_checkpoints_and_moved_aside_with_them(tmp_path):
    def with_snapshots(by: str, fail: bool = False, steps: int = 2) -> Stage:
        inner = training(0 if fail else steps, by)

        def make(experiment, run):
            inner.make(experiment, run)
            (run / "snapshots/0").mkdir(parents=True, exist_ok=True)
            (run / "snapshots/0/model").write_text(by)
            (run / "snapshots/1").mkdir(exist_ok=True)
            for name in ("1.unfinished", "1/model"):
                (run / "snapshots" / name).write_text("half")
            if fail:
                raise InputError("the plug was pulled")

        return dataclasses.replace(
            inner, make=make, outputs=("checkpoints", "snapshots"), optional=("snapshots",),
            required_outputs=lambda workdir: ("checkpoints",), holds_work=lambda workdir: False,
        )  # fmt: skip

    source, workdir, other = tmp_path / "source", tmp_path / "run", tmp_path / "other"
    run_stage(with_snapshots("a"), EXPERIMENT, source)
    run_stage(with_snapshots("b"), EXPERIMENT, workdir, source)
    assert contents(workdir / "snapshots") == [b"a"] and contents(workdir / "checkpoints") == [b"a0", b"a1"]
    (workdir / "stages/train.json").unlink()
    run_stage(with_snapshots("c"), EXPERIMENT, workdir)
    assert (workdir / "replaced-1/snapshots/0/model").read_text() == "a"
    assert (workdir / "snapshots/0/model").read_text() == "c"
    with pytest.raises(InputError, match="plug"):
        run_stage(with_snapshots("d", fail=True), EXPERIMENT, other)
    run_stage(with_snapshots("e"), with_shards(5), other)  # with other settings, after an attempt without a checkpoint
    assert (other / "replaced-1/snapshots/0/model").read_text() == "d"


def test_a_source_that_is_no_run_damaged_in_use_or_the_run_itself_is_rejected(tmp_path):
    source, workdir = tmp_path / "source", tmp_path / "run"
    run(source)
    (tmp_path / "link").symlink_to(source)
    for place, words in ((tmp_path / "none", "is not there"), (tmp_path, "is not a run")):
        with pytest.raises(UsageError, match=f"--from .* {words}"):
            check_source(place, workdir)
    with pytest.raises(UsageError, match="--from and --workdir are both"):
        check_source(tmp_path / "link", source)
    with locked(source), pytest.raises(InputError, match=rf"process {os.getpid()}.*working in .*source"):
        check_source(source, workdir)
    check_source(source, workdir)
    (source / "text/all.txt").write_text("cut")
    with pytest.raises(InputError, match=r"--from .*text/all\.txt is 3 bytes; it should have \d+ bytes"):
        run(workdir, EXPERIMENT, source)
    assert not (workdir / "text").exists()
