"""Small stages on a disk and in a bucket, to test what a command makes, resumes, keeps and refuses."""

import dataclasses
import json
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from configs.experiment import Experiment
from launch.run_folder import outputs
from launch.stages.command import locked
from launch.stages.stage import Stage, run_stage
from lm.fields import with_values
from lm.storage import Place, Url, local_folder, note_write, write_atomically
from lm.storage.local_copy import COPIES
from tests.corpus import tiny_experiment
from tests.object_store import variables

EXPERIMENT = tiny_experiment()
PLUG = "the plug was pulled"
DONE_BEFORE = "part {} of {}, done before"


def with_shards(number: int) -> Experiment:
    """The tiny experiment with another number of shards: the toys write that number into their outputs."""
    return with_values(EXPERIMENT, {"shards.train_shards": number})


def make_parts(folder: str) -> Callable[[Experiment, Place], None]:
    """Three parts, one after the other; like a stage, it resumes from existing parts of the same settings."""

    def make(experiment: Experiment, run: Place) -> None:
        number = experiment.shards.train_shards
        for part in range(3):
            path = run / f"{folder}/{part}.txt"
            if path.is_file() and path.read_text() == DONE_BEFORE.format(part, number):
                note_write(path if isinstance(path, Path) else str(path))
            else:
                write_atomically(path, f"part {part} " * number)

    return make


def make_text(experiment: Experiment, run: Place) -> None:
    make_parts("text/deep")(experiment, run)
    write_atomically(run / "text/all.txt", f"{experiment.shards.train_shards} times")
    write_atomically(run / "counts.json", json.dumps(experiment.shards.train_shards))


def make_report(experiment: Experiment, run: Place) -> None:
    write_atomically(run / "report/index.html", (run / "text/all.txt").read_text())


TEXT = Stage(
    "text", "launch.text", (), lambda e: {"shards": e.shards}, make_text, ("text", "counts.json"),
    libraries=("python", "lxml", "numpy"),
)  # fmt: skip
REPORT = Stage("report", "launch.report", (TEXT,), lambda e: {}, make_report, ("report",))
STAGES = (TEXT, REPORT)
TRAIN = Stage(
    "train", "launch.train", (), lambda e: {"shards": e.shards}, make_parts("checkpoints"), ("checkpoints",),
    grows=True, by_products=("log",),
)  # fmt: skip


def interrupted(stage: Stage, *, after: Callable[[Experiment, Place], object] | None = None) -> Stage:
    """The stage, killed after it has called `after`, by default its own function."""

    def make(experiment: Experiment, run: Place) -> None:
        (after or stage.make)(experiment, run)
        raise KeyboardInterrupt(PLUG)

    return dataclasses.replace(stage, make=make)


def begin(stage: Stage, experiment: Experiment, workdir: Path) -> None:
    """Leave what a stage leaves that is killed after its outputs were written."""
    with pytest.raises(KeyboardInterrupt):
        run_stage(interrupted(stage), experiment, workdir)


def run(
    place: Place, experiment: Experiment = EXPERIMENT, source: Path | None = None, stages: Sequence[Stage] = STAGES,
    machine: Path | None = None,
) -> list[bool]:  # fmt: skip
    """Which of the stages a command made; in a bucket, on the machine with this cache."""
    if isinstance(place, Path):
        return [run_stage(stage, experiment, place, source) for stage in stages]
    with on_machine(machine):
        workdir = local_folder(place)
        with locked(workdir):
            return [run_stage(stage, experiment, workdir, source) for stage in stages]


def on_machine(cache: Path | None):
    """The environment of a new process on the machine with this cache."""
    COPIES.clear()
    return variables({"GRISTMILL_CACHE": str(cache)})


def files_of(place: Place) -> dict[str, bytes | str]:
    """{name: contents, or the target of a link} of everything there; of a bucket without the lease."""
    if isinstance(place, Url):
        return {name: (place / name).read_bytes() for name in place.files() if name != ".lease"}
    paths = (path for path in sorted(place.rglob("*")) if path.is_symlink() or path.is_file())
    return {
        str(path.relative_to(place)): str(path.readlink()) if path.is_symlink() else path.read_bytes() for path in paths
    }


def outputs_of(place: Place, stages: Sequence[Stage] = STAGES) -> dict[str, bytes | str]:
    """The files below the outputs of the stages."""
    names = [name for stage in stages for name in stage.outputs]
    return {file: data for file, data in files_of(place).items() if any(outputs.below(file, one) for one in names)}


def follow(error: BaseException) -> None:
    """Delete the files that a message names at its end, as it advises."""
    verb, *places = shlex.split(str(error).rpartition(": ")[2])
    assert verb in ("rm", "delete"), str(error)
    for place in places:
        (Url(place) if verb == "delete" else Path(place)).unlink()
