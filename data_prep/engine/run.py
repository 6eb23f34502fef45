"""Run the units of a step that are not done. Every engine writes the same bytes."""

import contextlib
import dataclasses
import importlib
import json
from collections.abc import Callable, Generator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path

from data_prep.config.engine import EngineConfig
from data_prep.engine.attempts import Attempts, clean_up, manifest_of, read_manifest
from data_prep.engine.progress import OnProgress, Progress
from data_prep.engine.units import QUARANTINE, SCRATCH, UNITS, Marker, Step
from lm.errors import InputError, print_untrusted
from lm.storage import Place, write_atomically, writing

NAMED = 20
"""Maximum number of failed units that are printed."""


@dataclass
class Notes:
    """Names of failed units and of outputs, collected from all steps that run in a `noting` block."""

    check: Callable[[], None]
    """Called regularly while a step runs; an exception from it ends the step."""
    failed: set[str] = field(default_factory=set)
    """Failed units, as "step/unit". The results of the step lack them."""
    outputs: set[str] = field(default_factory=set)


NOTES: ContextVar[Notes | None] = ContextVar("NOTES", default=None)


@contextlib.contextmanager
def noting(check: Callable[[], None]) -> Generator[Notes]:
    """Collect the names of failed units and of outputs from all steps that run in the block. `check` is called
    regularly; an exception from it ends the step."""
    notes = Notes(check)
    before = NOTES.set(notes)
    try:
        yield notes
    finally:
        NOTES.reset(before)


def run_step(
    step: Step, engine: EngineConfig, folder: Place, on_progress: OnProgress = lambda progress: None
) -> Mapping[str, Marker]:
    """Run the units of `step` that are not done. Returns {unit name: marker} of all finished units, in the step's
    order; a marker has the counts and the outputs of its unit. Outputs and records are written to `folder`. Units that
    fail engine.attempts times are quarantined and printed. Outputs of units that the step no longer has are deleted.

    Raises InputError, after all other units are done, if the share of failed units exceeds engine.max_failed. Raises at
    once an error that every unit would have (UsageError, a full disk), and the first error if the first units all fail.
    """
    assert len({unit.name for unit in step.units}) == len(step.units), f"{step.name}: two units share a name"
    folder = folder.absolute() if isinstance(folder, Path) else folder  # workers may have another working folder
    notes = NOTES.get()

    def report(progress: Progress) -> None:
        if notes:
            notes.check()
        on_progress(progress)

    from data_prep.engine.slurm import refuse_submitted  # not at the top: slurm.py is the main module of array tasks

    refuse_submitted(step.name, folder)
    if isinstance(folder, Path):  # a bucket needs no folders
        with writing(folder):
            for part in (UNITS, QUARANTINE, SCRATCH):
                (folder / part / step.name).mkdir(parents=True, exist_ok=True)
        for leftover in (folder / SCRATCH / step.name).iterdir():
            leftover.unlink()
    attempts = Attempts(step, engine, folder, report)
    attempts.report()
    changed = bool(attempts.queue)
    if changed:
        manifest_of(step.name, folder).unlink(missing_ok=True)  # from now on it may be out of date
        importlib.import_module(engine.executor.module).run_units(attempts)
    attempts.report()
    clean_up(step, folder, attempts.done, attempts.failed.keys())
    made = {unit.name: attempts.done[unit.name] for unit in step.units if unit.name in attempts.done}
    if changed or read_manifest(step.name, folder) != made:
        place = manifest_of(step.name, folder)
        with writing(place):
            write_atomically(place, json.dumps({name: dataclasses.asdict(marker) for name, marker in made.items()}))
    if notes:
        notes.failed |= {f"{step.name}/{unit.name}" for unit in step.units if unit.name not in made}
        notes.outputs |= {str(folder / name) for marker in made.values() for name in marker.outputs}
    if attempts.failed:
        lines = [f"  {name}: {attempts.failed[name]}" for name in sorted(attempts.failed)[:NAMED]]
        lines += [f"  and {len(attempts.failed) - NAMED:,} more"] if len(attempts.failed) > NAMED else []
        counts = f"{step.name}: {len(attempts.failed):,} of {len(step.units):,} units failed:"
        summary = "\n".join([counts, *lines])
        if len(attempts.failed) > engine.max_failed * len(step.units):
            raise InputError(
                f"{summary}\nThat is more than engine.max_failed = {engine.max_failed:g} of them. All others are done. "
                f"Details: {folder / QUARANTINE / step.name}. Fix the cause and give --engine.retry-failed True, "
                "remove these inputs, or continue without them by a higher --engine.max-failed."
            )
        print_untrusted(f"{summary}\nThe others are done. Details: {QUARANTINE}/{step.name}/ in the run folder.")
    return made
