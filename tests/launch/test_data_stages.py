"""Data stages in a bucket: units read and write at the run's URL, with the same outputs as on disk."""

import contextlib
import dataclasses
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from pathlib import Path

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


@pytest.mark.slow
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
    back = Url(f"{run}-back")
    assert run_stages(back, experiment_of(warcs[:2]), new, STAGES[:3], tmp_path / "c") == [True] * 3
    assert digests(back, *DATA) == digests(run, *DATA) and "taken_from" in (back / "stages/texts.json").read_text()
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
    run = local_folder(Url(sys.argv[1])) if "://" in sys.argv[1] else Path(sys.argv[1])
    experiment = experiment_of([Path(path) for path in sys.argv[2:]])
    with handle_cli_errors("main"), locked(run):
        print([run_stage(stage, experiment, run) for stage in STAGES])
"""


@pytest.mark.slow
@pytest.mark.parametrize("place", ["disk", "bucket"])
def test_only_one_of_two_commands_started_together_builds_the_data(place, run, tmp_path):
    """The other fails with one line, or finds everything done."""
    warcs = write_warcs(tmp_path / "warc", 2, 6)
    make(experiment_of(warcs), tmp_path / "expected")
    expected = digests(tmp_path / "expected", *DATA)
    for number in range(6):
        workdir = run / str(number) if place == "bucket" else tmp_path / f"run-{number}"
        command = [sys.executable, "-c", TOGETHER, str(workdir), *map(str, warcs)]
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
