"""Data stages in a bucket: units read and write at the run's URL, with the same outputs as on disk."""

import contextlib
import dataclasses
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from configs.experiment import Experiment, parse_run
from data_prep.config import EngineConfig
from data_prep.engine.tasks import DIGEST
from data_prep.warc import write_pages
from launch.pretrain import SCRIPTS
from launch.run_folder.outputs import is_not_output
from launch.run_folder.reuse import check_source
from launch.stages.stage import Stage, run_stage
from lm.errors import InputError, UsageError
from lm.fields import with_values
from lm.storage import Place, Url, local_folder, write_atomically
from lm.storage.local_copy import COPIES
from tests.corpus import tiny_experiment, web_pages
from tests.launch.toy_stages import files_of, on_machine
from tests.launch.toy_stages import run as run_stages
from tests.object_store import QUICK, Store, serving, variables
from tests.run_files import HANG_SECONDS, REPOSITORY

STAGES = tuple(script.STAGE for script in SCRIPTS[:5])
"""pages, texts, documents, tokenizer, shards."""
DATA = ("texts", "documents", "dropped", "tokenizer", "tokens", "funnel.json")


@pytest.fixture(scope="module")
def server() -> Generator[Store]:
    with serving() as store, variables(store.environment() | QUICK | {"GRISTMILL_LEASE_SECONDS": "10"}):
        store.bucket("bucket")
        yield store


@pytest.fixture
def run(server: Store, tmp_path) -> Url:
    return Url(f"s3://bucket/{tmp_path.name}")


def write_warcs(folder: Path, files: int, pages: int) -> list[Path]:
    every = web_pages(files * pages)
    paths = [folder / f"{number}.warc.gz" for number in range(files)]
    for number, path in enumerate(paths):
        write_pages(path, every[number * pages : (number + 1) * pages])
    return paths


def experiment_of(inputs: Sequence[Path], steps: tuple[str, ...] = ("exact_dedup",), **engine) -> Experiment:
    values = {"pages.warc": tuple(map(str, inputs)), "documents.steps": steps, "shards.validation_fraction": 0.2}
    return with_values(tiny_experiment(), {**values, "engine": EngineConfig(**engine)})


def make(
    experiment: Experiment, place: Place, stages: Sequence[Stage] = STAGES, cache: Path | None = None
) -> list[bool]:
    """The stages that were built, on a machine that has this cache."""
    return run_stages(place, experiment, stages=stages, machine=cache)


def digests(run: Place, *folders: str) -> dict[str, str]:
    """{name: SHA-256} of the files in these folders, without intermediate files of steps."""
    return {
        name: hashlib.sha256(data).hexdigest() for name, data in files_of(run).items()
        if isinstance(data, bytes) and name.split("/")[0] in folders and not is_not_output(name)
    }  # fmt: skip


def books(run: Place) -> dict[str, tuple[str, set[str]]]:
    """{stage: (key, its files)}."""
    markers = {one.name: json.loads((run / f"stages/{one.name}.json").read_text()) for one in STAGES}
    return {name: (marker["key"], set(marker["files"])) for name, marker in markers.items()}


def test_a_run_in_a_bucket_equals_one_on_disk_and_is_not_copied_here(run, tmp_path):
    experiment = experiment_of(write_warcs(tmp_path / "warc", 3, 6), steps=("exact_dedup", "line_dedup"))
    disk = tmp_path / "run"
    assert make(experiment, disk) == make(experiment, run, cache=tmp_path / "a") == [True] * 5
    assert digests(run, *DATA) == digests(disk, *DATA) and books(run) == books(disk)
    here = {path.name for path in (tmp_path / "a").rglob("*") if path.is_file()}
    assert not [name for name in here if name.endswith((".parquet", ".array_record"))]
    names = {part for name in run.files() for part in name.split("/")}
    assert "parts" not in names and not [name for name in names if DIGEST.search(name)]  # markers of joins
    assert make(experiment, run, cache=tmp_path / "b") == [False] * 5  # on another machine


@pytest.mark.slow
def test_user_files_stay_in_a_bucket_and_stages_of_another_run_are_reused(run, tmp_path):
    warcs = write_warcs(tmp_path / "warc", 2, 6)
    make(experiment_of(warcs), tmp_path / "run", STAGES[:2])
    write_atomically(run / "texts/notes", b"the user's")
    write_atomically(run / "documents/notes", b"the user's")
    write_atomically(run / "stages/data.files", b"{}")
    assert run_stages(run, experiment_of(warcs), tmp_path / "run", STAGES, tmp_path / "cache") == [True] * 5
    for name, steps in (("texts", None), ("documents", ())):
        marker = json.loads((run / f"stages/{name}.json").read_text())
        assert f"{name}/0.parquet" in marker["files"] and f"{name}/notes" not in marker["files"]
        assert ("taken_from" in marker) == (steps is None)
    assert (run / "texts/notes").read_bytes() == (run / "replaced-1/documents/notes").read_bytes() == b"the user's"
    experiment = experiment_of(warcs[:1])
    for name in ("texts", "documents", "tokenizer", "shards"):
        (run / f"stages/{name}.json").unlink()
    make(experiment, run, STAGES[:3], tmp_path / "other")
    names = {name for name in run.files() if name.startswith(("texts/", "documents/", "replaced-"))}
    assert {"replaced-2/texts/notes", "replaced-1/documents/notes", "documents/0.parquet"} <= names
    assert "documents/1.parquet" not in names and "texts/notes" not in names


def test_a_run_starts_from_one_in_a_bucket(run, tmp_path):
    warcs, new = write_warcs(tmp_path / "warc", 3, 6), tmp_path / "new"
    make(experiment_of(warcs[:2]), run, STAGES[:3], tmp_path / "a")
    with on_machine(tmp_path / "b"):
        source = parse_run("", "", ["tests/configs.py", "--from", str(run)]).source
        assert source is not None
        with pytest.raises(UsageError, match=rf"--from and --workdir are both {run}"):
            check_source(source, local_folder(run))
        with pytest.raises(UsageError, match=rf"--from {run}/no is not a run folder"):
            check_source(local_folder(run / "no", "reading"), new)
        check_source(source, new)
        assert [run_stage(stage, experiment_of(warcs[:2]), new, source) for stage in STAGES[:3]] == [True] * 3
    for name in ("pages", "texts", "documents"):
        assert json.loads((new / f"stages/{name}.json").read_text())["taken_from"] == str(run)
    assert digests(new, *DATA) == digests(run, *DATA)
    before = (new / "units/texts/0.json").read_text()
    (new / "stages/documents.json").unlink()
    make(experiment_of(warcs), new, STAGES[:3])  # an added input only builds its own unit
    assert (new / "units/texts/0.json").read_text() == before and (new / "texts/2.parquet").is_file()


def test_a_command_that_lost_the_run_stops_writing(run, tmp_path):
    experiment = experiment_of(write_warcs(tmp_path / "warc", 2, 6))

    def taken_over(stage: Stage) -> Stage:
        """Another machine takes the lease before the stage's first unit."""

        def work(*arguments) -> None:
            with contextlib.suppress(InputError):
                while True:  # until this machine has seen it; moto may let a beat that has begun replace it
                    write_atomically(run / ".lease", b'{"holder": "another", "held": true}')
                    COPIES[local_folder(run)].may_write()
                    time.sleep(0.01)
            stage.make(*arguments)

        return dataclasses.replace(stage, make=work)

    told = pytest.raises(InputError, match=r"Another process .* is working in|was taken over by another process")
    with told, variables({"GRISTMILL_LEASE_SECONDS": "0.2"}):
        make(experiment, run, [STAGES[0], taken_over(STAGES[1])], tmp_path / "cache")
    assert not [name for name in run.files() if name.startswith(("texts/", "units/"))]


TOGETHER = """
import json, sys
from pathlib import Path
from launch.stages.command import handle_cli_errors, locked
from lm.storage import Url, local_folder
from launch.stages.stage import run_stage
from tests.launch.test_data_stages import STAGES, experiment_of

if __name__ == "__main__":
    run = local_folder(Url(sys.argv[2])) if "://" in sys.argv[2] else Path(sys.argv[2])
    experiment = experiment_of([Path(path) for path in sys.argv[3:]])
    with handle_cli_errors("main"), locked(run):
        print([run_stage(stage, experiment, run) for stage in STAGES[: int(sys.argv[1])]])
"""


@pytest.mark.parametrize(
    ("place", "times", "stages"),
    [("disk", 2, 2), *(pytest.param(place, 6, 5, marks=pytest.mark.slow) for place in ("disk", "bucket"))],
)
def test_only_one_of_two_commands_started_together_builds_the_data(place, times, stages, run, tmp_path):
    """The other fails with one line, or finds everything done."""
    warcs = write_warcs(tmp_path / "warc", 2, 6)
    make(experiment_of(warcs), tmp_path / "expected", STAGES[:stages])
    expected = digests(tmp_path / "expected", *DATA)
    for number in range(times):
        workdir = run / str(number) if place == "bucket" else tmp_path / f"run-{number}"
        command = [sys.executable, "-c", TOGETHER, str(stages), str(workdir), *map(str, warcs)]
        both = [
            subprocess.Popen(
                command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                env=os.environ | {"GRISTMILL_CACHE": str(tmp_path / f"cache-{machine}")},
            )
            for machine in "ab"
        ]  # fmt: skip
        said = [one.communicate(timeout=HANG_SECONDS)[0] for one in both]
        codes = sorted(one.returncode for one in both)
        assert codes in ([0, 0], [0, 1]) and "Traceback" not in "".join(said), said
        assert codes == [0, 0] or sum("is working in" in one for one in said) == 1, said
        assert digests(workdir, *DATA) == expected


def damage(place: Place) -> bytes:
    """Remove the start of the URLs from a Parquet file; return the old bytes."""
    whole = place.read_bytes()
    with place.open("rb") as file:
        index = pq.read_metadata(file)
    column = index.row_group(0).column(index.schema.names.index("url"))
    begin = column.dictionary_page_offset or column.data_page_offset
    write_atomically(place, whole[:begin] + bytes(40) + whole[begin + 40 :])
    return whole


@pytest.mark.slow
def test_units_missing_from_a_stage_are_in_its_key_and_built_on_request(server, tmp_path):
    """For documents, shards and texts, on disk and in a bucket; later stages are rebuilt."""
    warcs = write_warcs(tmp_path / "warc", 3, 6)

    def made(stages: Sequence[Stage], **engine) -> None:
        for where in places:
            make(experiment_of(warcs, max_failed=0.4, **engine), where, stages, tmp_path / f"{name}-cache")

    for name, inputs, units in (("documents", "texts", ["keys/1"]), ("shards", "documents", ["encode/1", "keys/1"])):
        places: list[Place] = [Url(f"s3://bucket/{name}-run"), tmp_path / f"{name}-run"]
        made(STAGES[: [one.name for one in STAGES].index(name)])
        whole = [damage(where / inputs / "1.parquet") for where in places]
        made(STAGES)
        marker = json.loads((places[0] / f"stages/{name}.json").read_text())
        assert marker["continued_from"] == [{"without": units}] and books(places[0]) == books(places[1])
        for where, data in zip(places, whole, strict=True):
            write_atomically(where / inputs / "1.parquet", data)
        before = books(places[0])
        made(STAGES)
        assert books(places[0]) == before  # only on request
        for _ in range(2):
            made(STAGES, retry_failed=True)
            after = books(places[0])
            assert after == books(places[1]) and after[name] != before[name] and after["shards"] != before["shards"]
            for folder in ("documents", "tokens"):
                assert digests(places[0], folder) == digests(places[1], folder)
                assert {"documents/1.parquet", "tokens/manifest.json"} & digests(places[0], folder).keys()


SMALL = (
    "--documents.steps", "gopher_quality", "exact_dedup", "--tokenizer.vocab-size", "400",
    "--shards.validation-fraction", "0.2", "--until", "shards", "--engine.workers", "2",
)  # fmt: skip


@pytest.mark.slow
def test_a_killed_command_in_a_bucket_resumes_on_another_machine_with_the_same_bytes(run, tmp_path):
    write_warcs(tmp_path / "warc", 9, 20)

    def start(home: Path, workdir: object) -> subprocess.Popen:
        """On a machine with its own home and caches."""
        home.mkdir()
        environment = os.environ | {name: str(home) for name in ("XDG_CACHE_HOME", "TMPDIR", "HOME")}
        options = ["--workdir", str(workdir), "--pages.warc", str(tmp_path / "warc"), *SMALL]
        command = [sys.executable, "-m", "launch.pretrain", str(REPOSITORY / "configs/demo.py"), *options]
        environment |= {"PYTHONPATH": str(REPOSITORY)}
        with (home / "said").open("w") as output:
            return subprocess.Popen(command, cwd=home, env=environment, stdout=output, stderr=subprocess.STDOUT)

    disk = start(tmp_path / "disk", tmp_path / "run")
    assert disk.wait(HANG_SECONDS) == 0, (tmp_path / "disk/said").read_text()
    first = start(tmp_path / "first", run)
    deadline = time.monotonic() + HANG_SECONDS
    while not (run / "units/texts").files() and time.monotonic() < deadline and first.poll() is None:
        time.sleep(0.1)
    first.send_signal(signal.SIGKILL)
    assert first.wait() == -signal.SIGKILL, (tmp_path / "first/said").read_text()
    second = start(tmp_path / "second", run)
    assert second.wait(HANG_SECONDS) == 0, (tmp_path / "second/said").read_text()
    assert digests(run, *DATA) == digests(tmp_path / "run", *DATA) and books(run) == books(tmp_path / "run")
