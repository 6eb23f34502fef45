"""A run folder in a bucket works like one on disk, also killed and resumed on another machine, bit for bit; unsupported
uses are rejected before any work."""

import dataclasses
import functools
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

from configs.experiment import parse_run
from data_prep.warc import write_pages
from launch.run_folder import bucket
from launch.scaling import Options, scale
from launch.stages.command import locked
from launch.stages.stage import Stage, run_stage
from lm.checkpoints.manifest import delete_unfinished, folders_of, saved_steps, steps_in, write_manifest
from lm.checkpoints.reading import whole_parameters
from lm.config import StartConfig
from lm.errors import InputError, UsageError
from lm.run_paths import TRAINING_LOGS, RunPaths
from lm.storage import StorageError, Url, local_copy, local_copy_of, write_atomically
from lm.storage.local_copy import COPIES
from lm.tokenizer import load, save, train_tokenizer
from lm.tokenizer.training import load_tokenizer
from tests.bucket_processes import TWO_HEADS, difference, flip, now_and_then, on_disk, outputs, start_on_machines
from tests.corpus import texts, web_pages
from tests.launch.toy_stages import EXPERIMENT, on_machine
from tests.launch.toy_stages import run as run_stages
from tests.object_store import HOPELESS, Request, Store, serving, variables
from tests.run_files import REPOSITORY, digests, finish, parameters
from tests.run_files import start as start_on_disk
from tests.train_runs import bits, told

NUMBERS = iter(range(1000))


@pytest.fixture(scope="module")
def server() -> Generator[Store]:
    with serving() as store, variables(store.environment() | {"GRISTMILL_LEASE_SECONDS": "0.5"}):
        yield store


@pytest.fixture
def run(server: Store, tmp_path) -> Generator[Url]:
    """The URL of a new run, on a machine of its own."""
    name = f"corpus-{next(NUMBERS)}"
    server.bucket(name)
    with variables({"GRISTMILL_CACHE": str(tmp_path / "cache")}):
        yield Url(f"s3://{name}/run")
    server.fail(lambda request: None)
    COPIES.clear()


def workdir_of(run: Url | str, *words: str) -> Path:
    """As a new process parses it."""
    COPIES.clear()
    return parse_run("launch.train", "", ["tests/configs.py", "--workdir", str(run), *words]).workdir


def stage(name: str, *after: Stage, text: str = "made", grows: bool = False, multi_process: bool = False) -> Stage:
    """Write the inputs and `text` into a file of a folder."""

    def make(experiment, run: Path) -> None:
        read = "".join((run / one.name / "file").read_text() for one in after)
        write_atomically(run / name / "file", read + text)
        write_atomically(run / name / f"only-{text}", "")

    return Stage(
        name=name, script=f"launch.{name}", after=after, settings=lambda experiment: {"text": text}, make=make,
        outputs=(name,), grows=grows, multi_process=multi_process,
    )  # fmt: skip


def on(machine: str, tmp_path: Path, run: Url, *stages: Stage) -> list[bool]:
    """The stages that a process of that machine built."""
    return run_stages(run, EXPERIMENT, stages=stages, machine=tmp_path / machine)


def test_folder_markers_of_a_console_change_nothing_and_nothing_unused_is_downloaded(run, server, tmp_path):
    """Zero bytes at `a/`, before the first command and after each."""
    first, second = stage("first"), stage("second", stage("first"))

    def marked() -> Url:
        names = ["", "stages", "first", "second", "second/only-made", "documents", "checkpoints", "log.jsonl"]
        for name in names:
            server.put(f"{run}/{name}/".replace("//", "/").replace(":/", "://"), b"")
        return run

    assert on("a", tmp_path, marked(), first) == [True]
    assert on("b", tmp_path, marked(), first, second) == [False, True]
    assert on("a", tmp_path, marked(), first, second) == [False, False]
    (run / "stages/first.json").unlink()
    assert on("c", tmp_path, marked(), first, second) == [True, False]
    assert (run / "second/file").read_text() == "mademade" and "documents" not in run.files()
    assert not list((tmp_path / "c").rglob("second/file"))


def test_messages_name_the_address(run, tmp_path):
    with pytest.raises(InputError, match=f"in {run}, which is missing"):
        on("a", tmp_path, run, stage("third", stage("second", stage("first"))))
    with pytest.raises(InputError, match=f"no checkpoint in {run}/checkpoints.*--workdir {run}"):
        whole_parameters([copy.folder / "checkpoints" for copy in COPIES.values()])


def read_books(workdir: Path) -> Path:
    """As process 1."""
    with bucket.held(folder := bucket.process_folder(workdir, 1), 1):
        return folder


def read_logs(workdir: Path) -> Path:
    folder = read_books(workdir)
    bucket.fetch(folder, (), TRAINING_LOGS)
    return folder


READ = {
    "books": ("config.json", read_books),
    "books, to read": ("config.json", bucket.to_read),
    "logs": ("metrics.jsonl", read_logs),
}  # fmt: skip


@pytest.mark.fast_rows(2)
@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("books", "replace"), ("logs", "delete"), ("books", "delete"), ("logs", "replace"),
        ("books, to read", "replace"),
    ],
)  # fmt: skip
def test_another_process_rereads_files_that_process_0_changes_meanwhile(run, server, tmp_path, change, what):
    """The change comes between the listing, or the first bytes, and the last byte, in each of the first three reads."""
    on("a", tmp_path, run, stage("first"))
    write_atomically(run / "metrics.jsonl", "{}")
    (name, read), changed = READ[what], []

    def fault(request: Request) -> str | None:
        if re.search(rf"GET .*/{name}", f"{request.method} {request.path}") and len(changed) < 3:
            changed.append(f"version {len(changed)}")
            if change == "replace":
                write_atomically(run / name, changed[-1])
            else:
                (run / name).unlink()

    server.fail(fault)
    folder = read(workdir_of(run))
    assert changed == (["version 0", "version 1", "version 2"] if change == "replace" else ["version 0"])
    there = {file.relative_to(folder).as_posix() for file in folder.rglob("*.json*")}
    known = {"stages/first.json", "config.json", name} if what == "logs" else {"stages/first.json", name}
    assert there == known - ({name} if change == "delete" else set())
    if change == "replace":
        assert (folder / name).read_text() == "version 2"
    changed.clear()
    with (
        pytest.MonkeyPatch.context() as patch,
        pytest.raises(StorageError, match=r"was replaced while it was|is listed, but there is no such"),
    ):
        patch.setattr(local_copy, "READS", 1)
        write_atomically(run / name, "another")
        read(workdir_of(run))


WRITTEN = ("first/file", "first/only-made", "config.json", "stages/first.files", "stages/first.json")


@pytest.mark.fast_rows(2)
@pytest.mark.parametrize(("at", "again"), [(WRITTEN[0], "a"), (WRITTEN[4], "b"), *((at, "b") for at in WRITTEN[:4])])
def test_a_stage_with_a_failed_upload_is_absent_until_the_next_attempt(run, server, tmp_path, at, again):
    server.fail(lambda request: "500" if request.method == "PUT" and request.path.endswith(at) else None)
    with variables(HOPELESS), pytest.raises(InputError, match=f"{at} cannot be written: .*500"):
        on("a", tmp_path, run, stage("first"))
    server.fail(lambda request: None)
    assert "stages/first.json" not in run.files()
    assert on(again, tmp_path, run, stage("first")) == [True]
    assert set(WRITTEN) < set(run.files())
    assert on("c", tmp_path, run, stage("second", stage("first"))) == [True]


@pytest.mark.slow
@pytest.mark.parametrize("killed_before", ["first/file", "stages/first.json"])
def test_all_processes_rebuild_a_stage_if_process_0_was_killed_before_its_marker(run, server, tmp_path, killed_before):
    """Otherwise this process would report it as up to date, and the others would wait for it."""
    server.fail(lambda request: "500" if request.method == "PUT" and request.path.endswith(killed_before) else None)
    together = stage("first", multi_process=True)
    with variables(HOPELESS), pytest.raises(InputError, match=f"{killed_before} cannot be written: .*500"):
        on("a", tmp_path, run, together)
    server.fail(lambda request: None)
    (working,) = (path for path in (tmp_path / "a/runs").glob("run-*") if path.is_dir())
    assert (working / "stages/first.json").is_file()
    made = []
    for index in ("1", "0", "1", "0"):
        two = {"JAX_COORDINATOR_ADDRESS": "127.0.0.1:1", "NUM_PROCESSES": "2", "PROCESS_ID": index}
        with variables(two | {"GRISTMILL_CACHE": str(tmp_path / ("b" if index == "1" else "a"))}):
            workdir = workdir_of(run)
            folder = bucket.process_folder(workdir, int(index))
            with locked(folder):
                made.append(run_stage(together, EXPERIMENT, folder))
    assert made == [True, True, False, False]


def test_two_processes_with_one_index_use_separate_folders_and_a_kill_causes_no_rejection(run, tmp_path):
    on("a", tmp_path, run, stage("first"))
    for index in ("0", "1"):
        two = {"JAX_COORDINATOR_ADDRESS": "127.0.0.1:1", "NUM_PROCESSES": "2", "PROCESS_ID": index}
        with variables(two | {"GRISTMILL_CACHE": str(tmp_path / "b")}):
            folder = bucket.process_folder(workdir_of(run), int(index))
            folder.mkdir(parents=True)
            (folder / "config.json").write_text("")  # killed during the download
            with locked(folder):
                assert (folder / "config.json").read_bytes() == (run / "config.json").read_bytes()
                with pytest.raises(InputError, match=f"Another process .* is working in {run}"), locked(folder):
                    pass
                assert (folder / "stages/first.json").is_file()


def test_no_run_starts_at_a_url_with_other_objects_or_above_another_run(run, tmp_path):
    write_atomically(run / "a/notes/mine.txt", "mine")
    assert on("a", tmp_path, run / "b/inner", stage("first")) == [True]
    before = run.files()
    for place, name in (("a", "notes"), ("b", "inner")):
        with pytest.raises(UsageError, match=rf"--workdir {run}/{place} is not empty \({name}\), and is not a run fol"):
            on("a", tmp_path, run / place, stage("first"))
    assert run.files() == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--workdir", "ftp://host/run"], "begins with none of s3://, gs://"),
        (["--workdir", "https://host/run"], "https://host/run cannot be a run folder"),
        (
            ["--workdir", "s3://corpus"],
            r"s3://corpus is a whole bucket\. Give an address in it, such as s3://corpus/runs",
        ),
        (["--from", "s3://corpus"], r"--from s3://corpus is a whole bucket"),
    ],
)
def test_unsupported_uses_are_rejected(run, words, message):
    with pytest.raises(UsageError, match=message):
        parse_run("launch.train", "", ["tests/configs.py", *words])


def test_a_missing_bucket_is_named(run, tmp_path):
    with pytest.raises(InputError, match=r"there is no bucket gone\. Create it"):
        on("a", tmp_path, Url("s3://gone/run"), stage("first"))


def test_supervisors_on_successive_machines_append_to_one_log(run, tmp_path):
    """Each writes its first line before its command has accessed the bucket."""
    for number, machine in enumerate("aabab"):
        with variables({"GRISTMILL_CACHE": str(tmp_path / machine)}):
            workdir = workdir_of(run)
            workdir.mkdir(parents=True, exist_ok=True)
            with (workdir / "supervisor.jsonl").open("a", encoding="utf-8") as log:
                log.write(f'{{"time": {number}}}\n')
            with locked(workdir):
                pass
        times = [json.loads(line)["time"] for line in (run / "supervisor.jsonl").read_text().splitlines()]
        assert times == [*range(number + 1)]


def test_a_ladder_is_rejected(run):
    with pytest.raises(UsageError, match=f"--workdir {run} is in a bucket, but a ladder"):
        scale(EXPERIMENT, bucket.to_read(workdir_of(run)), Options(budget=1e12))
    assert not list(run.files())


def test_a_run_replaces_a_config_argument(run, tmp_path):
    assert on("a", tmp_path, run, stage("first")) == [True]
    with on_machine(tmp_path / "b"):
        found = parse_run("launch.sample", "", [str(run)])
        assert found.experiment == EXPERIMENT
        copy = local_copy_of(found.workdir)
        assert copy is not None and copy.url == run
        with pytest.raises(UsageError, match="is not a run folder"):
            parse_run("launch.sample", "", [str(run.parent / "nothing")])


def test_a_checkpoint_and_a_tokenizer_in_a_bucket_are_read_like_local_ones(run, tmp_path):
    write_atomically(run / "checkpoints/8/model/array", "bits")
    write_atomically(run / "checkpoints/12/model/array", "others")
    folder = StartConfig(f"{run}/checkpoints/8").folder()
    assert (folder.name, (folder / "model/array").read_text()) == ("8", "bits")
    assert not (tmp_path / "cache").exists()
    for nothing in (f"{run}/checkpoints/9", str(run)):
        with pytest.raises(UsageError, match=rf"checkpoint = '{nothing}' is not the folder of a checkpoint, such as"):
            StartConfig(nothing).folder()
    with pytest.raises(UsageError, match=r"'hf://datasets/a/b/8': a checkpoint must be on a disk, in s3:// or gs://"):
        StartConfig("hf://datasets/a/b/8").folder()
    save(train_tokenizer(texts(10), EXPERIMENT.tokenizer), tmp_path / "tokenizer")
    for path in (tmp_path / "tokenizer").iterdir():
        write_atomically(run / "tokenizer" / path.name, path.read_bytes())
    config = dataclasses.replace(EXPERIMENT.tokenizer, load=f"{run}/tokenizer")
    assert load_tokenizer(config).fingerprint == load(tmp_path / "tokenizer").fingerprint
    with pytest.raises(InputError, match=f"{run}/nothing"):
        load_tokenizer(dataclasses.replace(config, load=f"{run}/nothing"))


@pytest.mark.parametrize("manifest", ["{", "[]", None])
def test_an_incomplete_checkpoint_of_a_killed_run_is_deleted_except_for_user_files(run, manifest):
    folder = run / "checkpoints"
    for name in ("4/model/a", "4/training/b", "4/notes", "4.unfinished", "notes", "8/model/a", "8/manifest.json"):
        write_atomically(folder / name, name)
    write_atomically(folder / "8.unfinished", "")  # its manifest was written just before the kill
    if manifest is not None:
        write_atomically(folder / "12/manifest.json", manifest)  # damaged, and not by a kill
    assert steps_in(folder) == [8] if manifest is None else [8, 12]
    delete_unfinished(folder)
    assert {*folder.files()} - {"12/manifest.json"} == {"4/notes", "notes", "8/model/a", "8/manifest.json"}
    assert steps_in(folder) == [8] if manifest is None else [8, 12]


def kept(folder: Url, *steps: int) -> None:
    """A checkpoint or snapshot of each step."""
    for step in steps:
        write_atomically(folder / f"{step}/model/array", str(step))
        write_manifest(folder / str(step), {"step": step})


def test_checkpoints_and_snapshots_are_read_at_the_url_and_leave_nothing_here(run, tmp_path):
    kept(run / "checkpoints", 4, 8)
    kept(run / "snapshots", 0, 2, 8, 9)
    write_atomically(run / "stages/train.json", "{}")
    paths = RunPaths(bucket.to_read(workdir_of(run)))
    assert saved_steps(paths) == [0, 2, 4, 8, 9]
    folders = folders_of(paths)
    assert whole_parameters(folders) == run / "checkpoints/8" == whole_parameters(folders, 8)
    assert whole_parameters(folders, 2) == run / "snapshots/2"
    with pytest.raises(UsageError, match=r"no checkpoint of step 3 in .* The steps there are 0, 2, 4, 8, 9\."):
        whole_parameters(folders, 3)
    write_atomically(run / "checkpoints/8/model/array", "9")
    with pytest.raises(InputError, match=rf"{run}/checkpoints/8 is damaged: .*array has the SHA-256"):
        whole_parameters(folders)
    assert not list(tmp_path.rglob("array"))


@pytest.fixture(scope="module")
def warc(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("warc")
    pages = web_pages(40)
    for i, part in enumerate((pages[:20], pages[20:])):
        write_pages(folder / f"{i}.warc.gz", part)
    return folder


def start(run: Url, warc: Path, machine: Path) -> subprocess.Popen:
    with on_machine(machine):
        return start_on_disk(run, warc)  # ty: ignore[invalid-argument-type]


def printed(*words: str) -> str:
    command = [sys.executable, "-m", *words]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, env=os.environ.copy())
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_run_in_a_bucket_killed_and_moved_ends_bit_for_bit_like_one_on_disk(run, server, warc, tmp_path):
    """Requests fail now and then, in every way that does not cost minutes. The process is killed when it marks a
    unit and then the shards as done, and when it publishes a checkpoint, and resumes on another machine."""
    disk = tmp_path / "disk"
    finish(start_on_disk(disk, warc))
    often = functools.partial(now_and_then, every=11)
    for at in (r"PUT .*units/texts/1\.json", r"PUT .*stages/shards\.json", r"PUT .*checkpoints/8/manifest\.json"):
        process = start(run, warc, tmp_path / "a")

        def fault(request: Request, at: str = at, process: subprocess.Popen = process) -> str | None:
            if re.search(at, f"{request.method} {request.path}"):
                process.kill()
                return "cut"
            return often(request)

        server.fail(fault)
        output, _ = process.communicate(timeout=600)
        assert process.returncode == -9, output
    server.fail(often)
    assert "stages/shards.json" in run.files()
    steps = {name.split("/")[1] for name in run.files() if re.fullmatch(r"checkpoints/\d+/manifest.json", name)}
    assert steps == {"4"}
    output = finish(start(run, warc, tmp_path / "b"))
    assert "resuming from the checkpoint at step 4" in output
    copy = on_disk(run, tmp_path / "copy")
    assert bits(copy, 12) == bits(disk, 12) and parameters(copy) == parameters(disk)
    assert told(copy) == told(disk)
    assert digests(copy).items() <= digests(disk).items()
    for name in (RunPaths.evaluation, RunPaths.final_samples):
        assert json.loads((run / name).read_text()) == json.loads((disk / name).read_text())
    (working,) = (path for path in (tmp_path / "b/runs").glob("run-*") if path.is_dir())
    assert (run / "metrics.jsonl").read_text() == (working / "metrics.jsonl").read_text()
    assert not [*working.rglob("ocdbt*")]
    server.fail(lambda request: None)
    for cache in ("b", "c"):
        with on_machine(tmp_path / cache):
            assert "--- 'The miller' at temperature 0\n" in printed("launch.sample", str(run), "--prompt", "The miller")
    with on_machine(tmp_path / "c"):
        assert "validation_loss" in printed("launch.evaluate", str(run), "--step", "8")
        printed("launch.export", str(run), str(tmp_path / "export"))
        assert (tmp_path / "export/model.safetensors").is_file()
        command = ["launch.train", "tests/configs.py", "--pages.warc", f"{warc}/*.warc.gz", "--from", str(run)]
        assert "train: taken from s3://" in printed(*command, "--workdir", f"{run.parent}/second")
        assert "train: up to date" in printed(*command[:4], "--workdir", f"{run.parent}/second")
    assert steps_in(run.parent / "second/checkpoints") == steps_in(run / "checkpoints")


@pytest.mark.slow
def test_processes_that_share_only_a_bucket_train_like_one_on_disk(run, server, warc, tmp_path):
    """Four processes are killed when process 0 publishes a checkpoint; two resume, and then reject damaged files. One
    request in twenty fails."""
    disk = tmp_path / "disk"
    finish(start_on_disk(disk, warc, *TWO_HEADS))
    with on_machine(tmp_path / "data"):
        finish(start_on_disk(run, warc, "--until", "shards", *TWO_HEADS))
    four = start_on_machines(run, warc, tmp_path / "four", 4, {"fsdp": 2, "tensor": 2}, *TWO_HEADS)

    def fault(request: Request) -> str | None:
        if re.search(r"PUT .*checkpoints/8/manifest\.json", f"{request.method} {request.path}"):
            for process in four:
                process.kill()
            return "cut"
        return now_and_then(request)

    server.fail(fault)
    said = outputs(four)
    assert [process.returncode for process in four] == [-9] * 4, "\n".join(said)
    files = run.files()
    assert {name.split("/")[1] for name in files if re.fullmatch(r"checkpoints/\d+/manifest.json", name)} == {"4"}
    owners = {part for name in files if name.startswith("checkpoints/8/") for part in name.split("/")}
    assert owners >= {f"ocdbt.process_{index}" for index in range(4)}
    assert not [path for path in (tmp_path / "four").rglob("*") if "ocdbt" in path.name]
    server.fail(now_and_then)
    two = start_on_machines(run, warc, tmp_path / "two", 2, {"fsdp": 2}, *TWO_HEADS)
    said = outputs(two)
    assert [process.returncode for process in two] == [0, 0], "\n".join(said)
    assert "resuming from the checkpoint at step 4" in said[0] and "step" not in said[1]
    assert difference(told(on_disk(run, tmp_path / "copy")), told(disk)) <= 1e-5
    flipped = Url(f"{run}/{next(name for name in run.files() if re.search('12/.*process_1/d/', name))}")
    flip(flipped, 0, 0)
    evaluated = start_on_machines(run, warc, tmp_path / "two", 2, {"fsdp": 2}, *TWO_HEADS, script="launch.evaluate")
    said = outputs(evaluated)
    assert [process.returncode for process in evaluated] == [1, 1], "\n".join(said)
    assert all(f"{flipped} has the SHA-256 " in one and "Traceback" not in one for one in said), "\n".join(said)


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2])
def test_a_killed_supervised_run_in_a_bucket_resumes_from_its_checkpoints(run, server, warc, tmp_path, count):
    """Supervisors of processes other than 0 see their own steps: otherwise these would give up at the third crash,
    wherever it happens."""
    if count > 1:
        with on_machine(tmp_path / "data"):
            finish(start_on_disk(run, warc, "--until", "shards", *TWO_HEADS))
    killed = []

    def fault(request: Request) -> str | None:
        if killed or not re.search(r"PUT .*checkpoints/8/manifest\.json", f"{request.method} {request.path}"):
            return None
        (heart,) = tmp_path.glob("machines/machine-0/cache/runs/run-*/heartbeat.json")
        killed.append(json.loads(heart.read_text())["process"])
        os.kill(killed[0], signal.SIGKILL)
        return "cut"

    server.fail(fault)
    mesh, script = ({"fsdp": 2}, "launch.train") if count > 1 else ({}, "launch.pretrain")
    machines = tmp_path / "machines"
    processes = start_on_machines(run, warc, machines, count, mesh, *TWO_HEADS, script=f"launch.supervise {script}")
    said = outputs(processes)
    assert [process.returncode for process in processes] == [0] * count, "\n".join(said)
    assert "resuming from the checkpoint at step " in said[0]
    for index in range(count):
        name = "supervisor-1.jsonl" if index else "supervisor.jsonl"
        (log,) = tmp_path.glob(f"machines/machine-{index}/cache/runs/run-*/{name}")
        rows = [json.loads(line) for line in log.read_text().splitlines()]
        assert [row["event"] for row in rows] == ["start", "crash", "start", "done"], rows
        assert count == 1 or 8 <= rows[1]["step"] <= rows[3]["step"] == 12, rows
    assert {"stages/train.json", "checkpoints/12/manifest.json"} <= {*run.files()}
