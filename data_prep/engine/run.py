"""Runs a step: the units that are not done, on whatever engine; the same bytes on each."""

import contextlib
import functools
import shutil
from collections.abc import Callable
from pathlib import Path

from data_prep.config.engine import EngineConfig
from data_prep.engine.attempts import Attempts, names_in
from data_prep.engine.processes import run_in_processes
from data_prep.engine.progress import Progress
from data_prep.engine.units import (
    QUARANTINE,
    SCRATCH,
    UNITS,
    Marker,
    Step,
    Unit,
    delete_files,
    marker_of,
    quarantine_of,
    read_marker,
    try_unit,
)
from lm.storage import Place, writing


def run_step(
    step: Step, engine: EngineConfig, folder: Place, on_progress: Callable[[Progress], None] = lambda progress: None
) -> dict[str, Marker]:
    """Runs the step's units that are not done, in `folder`; {name of the unit: marker} of all that are, in the units'
    order. Units that fail `engine.attempts` times are set aside, and named.

    What earlier units left, that are none of the step's any more, is deleted at the end. Raises InputError where more
    units were set aside than engine.max_failed allows, when all others are done; at once what a unit raised that every
    other would (UsageError, a full disk, a missing package), and the first error where the first units all fail.
    """
    refuse_shared_names(step)
    if isinstance(folder, Path):
        folder = folder.absolute()  # workers may have another working folder
        with writing(folder):
            for part in (UNITS, QUARANTINE, SCRATCH):
                (folder / part / step.name).mkdir(parents=True, exist_ok=True)
            for leftover in (folder / SCRATCH / step.name).iterdir():
                leftover.unlink()
    attempts = Attempts(step, engine, folder, on_progress)
    attempts.report()
    if attempts.queue:
        run_left(attempts)
    attempts.report()
    clean_up(attempts)
    return attempts.result()


def refuse_shared_names(step: Step) -> None:
    assert len({unit.name for unit in step.units}) == len(step.units), f"{step.name}: two units share a name"


def run_left(attempts: Attempts) -> None:
    """Runs what is not done, by the engine of the config."""
    engine = attempts.engine
    if engine.runner == "processes" and engine.workers > 1:
        run_in_processes(attempts, engine.workers)
    else:
        run_here(attempts)


def run_here(attempts: Attempts) -> None:
    """In this process, one after another."""

    def on_rows(unit: Unit, rows: int) -> None:
        attempts.working[unit.name] = rows
        attempts.report_now_and_then()

    while unit := attempts.next():
        told = functools.partial(on_rows, unit)
        attempts.ended(unit, try_unit(attempts.step, unit, attempts.folder, attempts.engine, told))
        attempts.report_now_and_then()


def clean_up(attempts: Attempts) -> None:
    """Deletes what belongs to no unit of the step any more: outputs and markers of units that are gone, records of
    units that are done after all."""
    step, folder = attempts.step, attempts.folder
    for name in names_in(folder / QUARANTINE / step.name) - attempts.failed.keys():
        quarantine_of(step.name, name, folder).unlink(missing_ok=True)
    kept = {output for marker in attempts.done.values() for output in marker.outputs}
    for name in names_in(folder / UNITS / step.name) - attempts.done.keys():
        marker = read_marker(marker_of(step.name, name, folder))
        delete_files(folder, [output for output in marker.outputs if output not in kept] if marker else [])
        marker_of(step.name, name, folder).unlink(missing_ok=True)
    if isinstance(folder, Path):
        shutil.rmtree(folder / SCRATCH / step.name, ignore_errors=True)
        with contextlib.suppress(OSError):
            (folder / SCRATCH).rmdir()
