"""Work on many tasks or files, each with places for its results, as units of a step, whatever engine runs it. Many
small files become few by units too, so that what grows with the corpus passes through no one process."""

import dataclasses
import functools
import itertools
import json
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from data_prep.config.engine import EngineConfig
from data_prep.engine.attempts import manifest_of
from data_prep.engine.progress import Progress
from data_prep.engine.run import run_step
from data_prep.engine.units import (
    Counts,
    Marker,
    Step,
    Unit,
    Workspace,
    delete_files,
    identity_of,
    marker_of,
    quarantine_of,
    read_marker,
    read_quarantine,
)
from lm.errors import InputError
from lm.storage import Place, write_atomically, writing

FILES_AT_ONCE = 64
"""Files that one unit merges."""
File = tuple[str, str]
"""Name in the step's folder, SHA-256."""
OnProgress = Callable[[Progress], None]
DIGEST = re.compile("[0-9a-f]{12}")
"""In the name of a folder: of the keys that a join is of."""


def whole(engine: EngineConfig, units: int) -> EngineConfig:
    """The engine for a step that may lack no unit; a single unit needs no other process, nor the second it takes."""
    alone = units == 1 and engine.executor.this_machine
    return dataclasses.replace(engine, max_failed=0.0, workers=1 if alone else engine.workers)


def files_of(markers: Mapping[str, Marker], suffix: str = "") -> list[File]:
    """The outputs whose names end so, in the order of the units."""
    return [(name, sha) for one in markers.values() for name, (_, sha) in one.outputs.items() if name.endswith(suffix)]


@dataclass(frozen=True)
class MergeFiles:
    """Merges some files, the unit's input, to folder/<name of the unit>.merged."""

    folder: str
    merge: Callable[[Sequence[Path], Path, Path], int]
    """(files, the file to write, folder for scratch) -> rows"""

    def __call__(self, unit: Unit[tuple[str, ...]], space: Workspace) -> dict[str, int]:
        target = space.output(f"{self.folder}/{unit.name}.merged")
        return {"rows": self.merge([space.input(name) for name in unit.input], target, space.scratch)}


def merge_in_groups(
    name: str,
    files: Sequence[File],
    merge: Callable[[Sequence[Path], Path, Path], int],
    folder: Place,
    engine: EngineConfig,
    on_progress: OnProgress,
    at_once: int = FILES_AT_ONCE,
) -> Sequence[File]:
    """The files, or at most `at_once` that are merged of them, `at_once` to one and again, in parts/<name>. Raises as
    `run_step`."""
    for level in itertools.count(1):
        if len(files) <= at_once:
            return files
        units = [
            Unit(
                f"{level}-{number:06d}",
                identity_of(name, [sha256 for _, sha256 in group]),
                len(group),
                tuple(file for file, _ in group),
            )
            for number, group in enumerate(itertools.batched(files, at_once))
        ]
        step = Step(f"{name}-{level}", tuple(units), MergeFiles(f"parts/{name}", merge), "rows", "groups")
        files = files_of(run_step(step, whole(engine, len(units)), folder, on_progress))
    raise AssertionError("a count ended")


class Task(Protocol):
    """A dataclass."""

    @property
    def run_file(self) -> Place:
        """What it makes. Tells it from all other tasks."""
        ...


Run = Callable[[Sequence[Any], Callable[[Any], Counts | None]], list[Counts]]
"""Does some work on each task, unless its file is there; gives what the work counted, in the order of the tasks."""


@dataclass(frozen=True)
class TaskRunner:
    """A Run by the units of an engine. All files lie in `folder`, the folder of the step."""

    folder: Place
    engine: EngineConfig
    on_progress: OnProgress
    told: str
    """What progress calls the work."""
    identity: str = ""
    """What decides the files besides their names."""

    def __call__(self, tasks: Sequence[Task], work: Callable[[Any], Counts | None]) -> list[Counts]:
        """Raises as `run_step`; no task may be missing."""
        names = [relative(self.folder, task.run_file) for task in tasks]
        units = tuple(
            Unit(name.replace("/", "."), identity_of("task", self.identity, name), 1, task)
            for name, task in zip(names, tasks, strict=True)
        )
        # The first file, with all its folders, tells this step from others of the same work and of other digests.
        named = f"{self.told.replace(' ', '-')}.{names[0].replace('/', '.')}"
        told = f"{self.told}{self.detail(tasks[0].run_file.parent.name)}"
        step = Step(named, units, functools.partial(run_task, work=work), rows="", inputs="tasks", told=told)
        made = run_step(step, whole(self.engine, len(units)), self.folder, self.on_progress)
        return [made[unit.name].counts for unit in units]

    def detail(self, folder: str) -> str:
        """Which part of the work the tasks of that folder are; nothing where its name has a digest."""
        return "" if DIGEST.search(folder) else f", {folder.replace('-', ' ')}"


def delete_other_digests(folder: Place) -> None:
    """Delete the folders next to `folder` whose names differ from its name only in the digest.

    They hold joins of other keys, which may fill a disk; in a bucket they stay until the stage ends. A folder is
    renamed first, so that a killed process leaves none that looks whole.
    """
    if not isinstance(folder, Path) or not folder.parent.is_dir():
        return
    name = re.compile(DIGEST.sub(DIGEST.pattern, re.escape(folder.name)) + r"(\.deleted)?")
    for other in [one for one in folder.parent.iterdir() if one != folder and name.fullmatch(one.name)]:
        gone = other.with_name(f"{other.name.removesuffix('.deleted')}.deleted")
        other.rename(gone)
        shutil.rmtree(gone)


def absolute(place: Place) -> Place:
    """The same place whatever the working folder is: units may be made elsewhere."""
    return place.absolute() if isinstance(place, Path) else place


def relative(folder: Place, place: Place) -> str:
    """The name of a file in the folder. Raises ValueError where it is not below it."""
    above, below = f"{folder}/", str(place)
    if not below.startswith(above):
        raise ValueError(f"{place} is not in {folder}")
    return below.removeprefix(above)


def run_task(unit: Unit[Any], space: Workspace, work: Callable[[Any], Counts | None]) -> Counts:
    """Does the work of a task, whose file is one of this machine, at its place when it ends."""
    place = space.output(relative(space.folder, unit.input.run_file))
    return work(dataclasses.replace(unit.input, run_file=place)) or {}


class InputFile(Protocol):
    """A file of an earlier stage and where its results go: a dataclass."""

    @property
    def name(self) -> str:
        """Without its suffix; of no other file."""
        ...

    @property
    def bytes(self) -> int: ...

    @property
    def identity(self) -> object:
        """What tells it from another file of that name."""
        ...


@dataclass(frozen=True)
class FileRunner:
    """Does some work on each of many files by the units of an engine. All results lie in `folder`."""

    folder: Place
    engine: EngineConfig
    on_progress: OnProgress
    failed: dict[str, str] = dataclasses.field(default_factory=dict)
    """{name of a file that failed: the first step in which it did}, of all steps that were run so far."""
    counts: dict[str, list[Counts]] = dataclasses.field(default_factory=dict)
    """{step that was run: what its work counted of each file that is done}."""

    def __call__[F: InputFile](
        self,
        step: str,
        files: Sequence[F],
        work: Callable[[F], Counts | None],
        outputs: Sequence[str],
        identity: object,
    ) -> tuple[list[F], list[dict[str, File]]]:
        """The files that are done, and of each {output: (name in the folder, SHA-256)}; others have failed and are
        named, or end the step (`run_step`). `outputs` are the fields of the file that hold the places of what is
        written; in `work` they are paths of this machine, and the field `note`, where there is one, takes the number of
        rows that were read. `identity` is what decides the outputs besides the file, or a function that tells it.
        """
        of = identity if callable(identity) else lambda file: identity
        units = tuple(Unit(one.name, identity_of(step, one.identity, of(one)), one.bytes, one) for one in files)
        made = run_step(
            Step(
                step, units, functools.partial(run_file, work=work, outputs=tuple(outputs)),
                told=step.replace("-", " "),
            ),
            self.engine, self.folder, self.on_progress,
        )  # fmt: skip
        done = [one for one in files if one.name in made]
        for one in files:
            if one.name not in made:
                self.failed.setdefault(one.name, step)
        self.counts[step] = [made[one.name].counts for one in done]
        written = [
            {field: (name, made[one.name].outputs[name][1])
             for field in outputs for name in [relative(self.folder, getattr(one, field))]}
            for one in done
        ]  # fmt: skip
        return done, written


def set_aside_in(step: str, file: str, failed_in: str, folder: Place) -> None:
    """Set a file aside in a `step` that it had passed, with the record of the later step in which it failed.

    What was made of it is deleted. Until the file or the settings change, or failed units are retried, `step` ends
    without the file.
    """
    record = read_quarantine(quarantine_of(failed_in, file, folder))
    marker = read_marker(marker_of(step, file, folder))
    if record is None or marker is None:
        raise InputError(f"{quarantine_of(failed_in, file, folder)} is gone, or damaged. Run the same command again.")
    record |= {"identity": marker.identity, "error": f"{failed_in}: {record['error']}"}
    place = quarantine_of(step, file, folder)
    with writing(folder):
        write_atomically(place, json.dumps(record, indent=1) + "\n")
        manifest_of(step, folder).unlink(missing_ok=True)
        marker_of(step, file, folder).unlink(missing_ok=True)
    delete_files(folder, marker.outputs)


def run_file(
    unit: Unit[Any], space: Workspace, work: Callable[[Any], Counts | None], outputs: tuple[str, ...]
) -> Counts:
    """Does the work on one file."""
    file = unit.input
    places = {name: space.output(relative(space.folder, getattr(file, name))) for name in outputs}
    notes = {"note": functools.partial(note_rows, space)} if hasattr(file, "note") else {}
    counts = work(dataclasses.replace(file, **places, **notes))
    return {"rows": space.rows, **(counts or {})}


def note_rows(space: Workspace, rows: int) -> None:
    """Notes that so many rows were read."""
    space.count(rows - space.rows)


def no_note(rows: int) -> None:
    """Takes a note and drops it."""


def here(place: Place) -> Path:
    """A file that a task writes, which is one of this machine."""
    assert isinstance(place, Path)
    return place
