"""Work on many tasks or files, each with places for its results, as units of a step; whatever engine runs it."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from data_prep.config.engine import EngineConfig
from data_prep.engine.merging import File, OnProgress, whole
from data_prep.engine.run import run_step
from data_prep.engine.units import Step, Unit, Workspace, identity_of
from lm.storage import Place


class Task(Protocol):
    """A dataclass; it may have `outputs`, of which run_file is one, and which are there when its work is done."""

    @property
    def run_file(self) -> Place:
        """What it makes. Tells it from all other tasks."""
        ...


Run = Callable[[Sequence[Any], Callable[[Any], None]], None]
"""Does some work on each task, unless its file is there."""


@dataclass(frozen=True)
class TaskRunner:
    """A Run by the units of an engine. All files lie in `folder`, the folder of the step."""

    folder: Place
    engine: EngineConfig
    on_progress: OnProgress
    told: str
    """What progress calls the work."""

    def __call__(self, tasks: Sequence[Task], work: Callable[[Any], None]) -> None:
        """Raises as `run_step`; no task may be missing."""
        names = [relative(self.folder, task.run_file) for task in tasks]
        units = tuple(
            Unit(name.replace("/", "."), identity_of("task", name), 1, task)
            for name, task in zip(names, tasks, strict=True)
        )
        first = tasks[0].run_file  # tells this step from all others of the same work
        named = f"{self.told.replace(' ', '-')}.{first.parent.name}.{first.name}"
        step = Step(named, units, functools.partial(run_task, work=work), inputs="ranges")
        run_step(step, whole(self.engine, len(units)), self.folder, self.on_progress)


def relative(folder: Place, place: Place) -> str:
    """The name of a file in the folder. Raises ValueError where it is not below it."""
    above, below = f"{folder}/", str(place)
    if not below.startswith(above):
        raise ValueError(f"{place} is not in {folder}")
    return below.removeprefix(above)


def run_task(unit: Unit[Any], space: Workspace, work: Callable[[Any], None]) -> dict[str, int]:
    """Does the work of a task on files of this machine that are at their places when it ends."""
    task = unit.input
    place = space.output(relative(space.folder, task.run_file))
    local = dataclasses.replace(task, run_file=place)
    work(local)
    for output in getattr(local, "outputs", ()):
        if output.is_file():
            space.output(str(output.relative_to(space.root)))
    return {}


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

    def __call__[F: InputFile](
        self, step: str, files: Sequence[F], work: Callable[[F], None], outputs: Sequence[str], identity: object
    ) -> tuple[list[F], list[dict[str, File]]]:
        """The files that are done, and of each {output: (name in the folder, SHA-256)}; others have failed and are
        named, or end the step (`run_step`). `outputs` are the fields of the file that hold the places of what is
        written; in `work` they are paths of this machine, and the field `note`, where there is one, takes the number of
        rows that were read. `identity` is what decides the outputs besides the file, or a function that tells it.
        """
        of = identity if callable(identity) else lambda file: identity
        units = tuple(Unit(one.name, identity_of(step, one.identity, of(one)), one.bytes, one) for one in files)
        made = run_step(
            Step(step, units, functools.partial(run_file, work=work, outputs=tuple(outputs))),
            self.engine, self.folder, self.on_progress,
        )  # fmt: skip
        done = [one for one in files if one.name in made]
        written = [
            {field: (name, made[one.name].outputs[name][1])
             for field in outputs for name in [relative(self.folder, getattr(one, field))]}
            for one in done
        ]  # fmt: skip
        return done, written


def run_file(
    unit: Unit[Any], space: Workspace, work: Callable[[Any], None], outputs: tuple[str, ...]
) -> dict[str, int]:
    """Does the work on one file."""
    file = unit.input
    places = {name: space.output(relative(space.folder, getattr(file, name))) for name in outputs}
    notes = {"note": functools.partial(note_rows, space)} if hasattr(file, "note") else {}
    work(dataclasses.replace(file, **places, **notes))
    return {"rows": space.rows}


def note_rows(space: Workspace, rows: int) -> None:
    """Notes that so many rows were read."""
    space.count(rows - space.rows)


def no_note(rows: int) -> None:
    """Takes a note and drops it."""


def here(place: Place) -> Path:
    """A file that a task writes, which is one of this machine."""
    assert isinstance(place, Path)
    return place
