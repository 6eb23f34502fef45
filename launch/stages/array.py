"""The data stages as an array job: every process runs the same stages on one run folder, on a shared disk or in a
bucket (data_prep/engine/array.py).

A stage that is made by units is made by all processes, its files straight at their places. Any other is one unit: one
process makes it, with its workers, and the others wait. Its marker is a unit too, written when all is there, so that
other scripts find the stage as if one process had made it.
"""

import contextlib
import dataclasses
import fcntl
import fnmatch
import json
import secrets
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

from configs.experiment import Experiment
from configs.experiment.run_folder import experiment_json
from data_prep.config import EngineConfig
from data_prep.engine import Step, Unit, Workspace, identity_of, read_markers, run_step
from data_prep.engine.array import WORKERS, job_of, rank_of, renewing
from data_prep.engine.attempts import names_in
from data_prep.engine.run import noting_failed
from data_prep.engine.units import QUARANTINE, SCRATCH, UNITS
from launch.folder import own_files
from launch.folder.guard import LOGS, MARKS, PASSED_OVER, refuse_no_run
from launch.folder.links import CLAIM
from launch.folder.markers import ABSENT, differences, key_of, refuse_trained
from launch.stages.handed_on import Present, delete_handed_on
from launch.stages.stage import Stage, settings_of
from lm.errors import InputError, UsageError
from lm.run_paths import RunPaths
from lm.storage import Place, Url, relative_name, size_of, stores, write_atomically, write_once

KEPT_BESIDE = {UNITS, QUARANTINE, SCRATCH, WORKERS, RunPaths.parts}
"""Folders in which steps keep what is no output."""
BEGUN = f"{RunPaths.stages}/data.begun"
"""Says that the folder is a run's, before there is a marker."""


def run_stages(stages: Sequence[Stage], experiment: Experiment, place: Place) -> None:
    """Makes the stages that are not done, together with the other processes of the job. Raises as `run_step`, and
    UsageError where the folder is no run's, or holds what other settings made."""
    begin(place)
    markers: dict[str, dict[str, Any]] = {}
    rank, world = rank_of(experiment.engine)
    with ended_by_sigterm(), home_of(place) as home, renewing(Present(place, rank, world)) as present:
        try:
            for stage in stages:
                markers[stage.name] = make(stage, experiment, place, home, markers)
                present.passed.append(stage.name)
                present.write()
                delete_handed_on([stage], place, present)
        finally:
            present.ended = True
            with contextlib.suppress(InputError, OSError):
                present.write()
        delete_handed_on(stages, place, present, wait=True)
    if isinstance(place, Path) and rank == 0:
        shutil.rmtree(place / SCRATCH, ignore_errors=True)


def begin(place: Place) -> None:
    """Marks the folder as a run's."""
    if isinstance(place, Path):
        refuse_no_run(place)
        (place / RunPaths.stages).mkdir(parents=True, exist_ok=True)
    elif not (place / RunPaths.stages).files():
        tops = {name.split("/")[0] for name in place.files() if not any(fnmatch.fnmatch(name, mark) for mark in MARKS)}
        others = sorted(top for top in tops - PASSED_OVER if not any(fnmatch.fnmatch(top, log) for log in LOGS))
        if others and not (place / BEGUN).is_file():
            raise UsageError(
                f"--workdir {place} is not empty ({', '.join(others[:3])}), and is not the folder of a run. Nothing "
                "was changed. Give an address below which nothing is."
            )
    write_once(place / BEGUN, b"{}")


@contextlib.contextmanager
def ended_by_sigterm() -> Generator[None]:
    """SIGTERM, by which schedulers end a process, ends this one as an error does: what it brought to this machine is
    deleted."""

    def end(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def home_of(place: Place) -> Generator[Path]:
    """The run folder on this machine: itself, held against other commands; or a copy of what is read of a bucket's."""
    if isinstance(place, Url):
        with tempfile.TemporaryDirectory(prefix="gristmill-run-") as home:
            yield Path(home)
        return
    with RunPaths(place).lock.open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(f"A process that is no part of an array job is at work in {place}. Let it end.") from error
        yield place


def make(stage: Stage, experiment: Experiment, place: Place, home: Path, markers: dict[str, dict]) -> dict[str, Any]:
    """Makes the stage, unless it is done; its marker."""
    settings = settings_of(stage, experiment) | {f"<{one.name}>": markers[one.name]["key"] for one in stage.after}
    external, seen = own_files.recognised(place, json.loads(json.dumps(stage.external_inputs(experiment))))
    found = read_marker(stage, place)
    same = found and found["key"] == key_of(stage.name, settings, external, found["continued_from"])
    engine = experiment.engine
    job = job_of(engine) if engine.retry_failed else ""
    without = found and any("without" in one for one in found["continued_from"])
    retried = same and without and job and found["retried"] != job  # who comes late finds it retried
    if found and same and not retried:
        own_files.remember(place, seen)
        print(f"{stage.name}: up to date", flush=True)
        return found
    note = {"settings": settings, "external_inputs": external, "replaces": [], "retried": job}
    if found and (retried or may_follow(stage, found, note, markers)):
        refuse_trained(place, stage.name)
        note["replaces"] = [*found["replaces"], found["key"]]
    elif found:
        refuse_other(stage, found, settings | external, place)
    for one in stage.after:
        bring(markers[one.name]["files"], place, home)
    start = time.perf_counter()
    if stage.units or stage.anywhere:
        with noting_failed() as failed:
            # Such a stage writes to any place.
            stage.make(experiment, home if stage.units else place, place)  # ty: ignore[invalid-argument-type]
        note["continued_from"] = [{"without": sorted(failed)}] if failed else []
        files = lambda space: files_of_units(stage, place) if stage.units else files_of_outputs(stage, place)
    else:
        alone = dataclasses.replace(
            experiment, engine=dataclasses.replace(engine, runner="processes", rank=None, world=None)
        )
        note["continued_from"] = []
        files = lambda space: files_of_make(stage, alone, home, space, external)
    note["key"] = key_of(stage.name, settings, external, note["continued_from"])
    note["replaces"] = [key for key in note["replaces"] if key != note["key"]]
    own_files.remember(place, seen)
    finish(stage, note, place, engine, files, start, experiment_json(experiment))
    marker = read_marker(stage, place)
    if marker is None:
        raise InputError(f"{place / RunPaths.stages / stage.name}.json is gone. Run the same command again.")
    return marker


def may_follow(stage: Stage, found: dict[str, Any], note: dict[str, Any], markers: dict[str, dict]) -> bool:
    """Whether the stage, as it was found, only follows those before it, which were made again with units that failed
    before."""
    before = {f"<{one.name}>": markers[one.name] for one in stage.after}
    old, new = found["settings"], note["settings"]
    changed = [name for name in old.keys() | new.keys() if old.get(name) != new.get(name)]
    same_inputs = found["external_inputs"] == note["external_inputs"]
    return same_inputs and all(name in before and old.get(name) in before[name]["replaces"] for name in changed)


def finish(
    stage: Stage,
    note: dict[str, Any],
    place: Place,
    engine: EngineConfig,
    files: Callable[[Workspace], dict[str, int]],
    start: float,
    config_json: str,
) -> None:
    """Writes the marker, as a unit: by one process, which makes the `files` first, while the others wait."""

    def work(unit: Unit[None], space: Workspace) -> dict[str, Any]:
        made = files(space)
        done = note | {"seconds": round(time.perf_counter() - start, 3), "files": made}
        space.output(f"{RunPaths.stages}/{stage.name}.files").write_text(json.dumps(made))
        write_atomically(place / RunPaths.config_json, config_json, space.scratch)
        write_atomically(space.output(f"{RunPaths.stages}/{stage.name}.json"), json.dumps(done, indent=1))
        return {"files": len(made)}

    unit = Unit(stage.name, identity_of(note), 0, None)
    run_step(Step(f"stage-{stage.name}", (unit,), work, light=True), engine, place)


def files_of_units(stage: Stage, place: Place) -> dict[str, int]:
    """{name: bytes} of all that the stage's units have made."""
    found: dict[str, int] = {}
    for step in stage.units:
        for marker in read_markers(step, sorted(names_in(place / RunPaths.units / step)), place).values():
            found |= {name: size for name, (size, _) in marker.outputs.items()}
    return dict(sorted(found.items()))


def files_of_outputs(stage: Stage, place: Place) -> dict[str, int]:
    """{name: bytes} of the stage's outputs, without what its steps keep beside them."""
    found: dict[str, int] = {}
    for output in stage.outputs:
        where = place / output
        if size_of(where) is not None:
            found[output] = size_of(where) or 0
        elif isinstance(where, Url):
            found |= {f"{output}/{name}": one.size for name, one in where.files().items()}
        else:
            paths = [path for path in sorted(where.rglob("*")) if path.is_file() and path.name != CLAIM]
            found |= {f"{output}/{path.relative_to(where)}": path.stat().st_size for path in paths}
    return {name: size for name, size in found.items() if not KEPT_BESIDE & {*name.split("/")[1:-1]}}


def files_of_make(stage: Stage, experiment: Experiment, home: Path, space: Workspace, external: dict) -> dict[str, int]:
    """Makes a stage that has no units here, and moves what it made to its place; {name: bytes}."""
    out = space.scratch / f"{stage.name}-{secrets.token_hex(4)}"
    out.mkdir(parents=True)
    stage.make(experiment, home, out)
    own_files.note_replaced(out, external)
    found = {}
    for name in stage.outputs:
        for path in sorted((out / name).rglob("*")) if (out / name).is_dir() else [out / name]:
            if path.is_file():
                relative = str(path.relative_to(out))
                found[relative] = path.stat().st_size
                path.rename(space.output(relative))
    return found


def read_marker(stage: Stage, place: Place) -> dict[str, Any] | None:
    path = place / RunPaths.stages / f"{stage.name}.json"
    try:
        found = ABSENT | {"retried": ""} | json.loads(path.read_text(encoding="utf-8"))
        found["files"] = {relative_name(name, path): size for name, size in found["files"].items()}
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{path} is damaged ({error}). Bring it back, or begin another run.") from error
    return found


def refuse_other(stage: Stage, found: dict[str, Any], new: dict[str, Any], place: Place) -> None:
    """Raises UsageError unless only the inputs of the finished stage have changed, and nothing was made from it that
    does not follow unit by unit."""
    old = found["settings"] | found["external_inputs"]
    made = names_in(place / RunPaths.stages)
    before = {name.strip("<>") for name in found["settings"] if name.startswith("<")}
    if stage.inputs_alone(old, new) and made <= {stage.name, *stage.remade_with, *before}:
        return
    raise UsageError(
        f"What {place} holds as {', '.join(stage.outputs)} is of another experiment:\n"
        + "\n".join(differences(old, new))
        + f"\nNothing was changed. Choose another --workdir; or, to make it and all that follows from it again, delete "
        f"{place / RunPaths.stages / stage.name}.json and the markers of the stages after it."
    )


def bring(files: dict[str, int], place: Place, home: Path) -> None:
    """Copies files of a run in a bucket to this machine, unless they are here."""
    for name, size in files.items():
        path = home / name
        if isinstance(place, Url) and not (path.is_file() and path.stat().st_size == size):
            path.parent.mkdir(parents=True, exist_ok=True)
            stores.download(str(place / name), path)
