"""Array jobs: many processes that each run the same command on one run folder, on a shared disk or in a bucket.

The first to come freezes the list of units; each process then does those that are dealt to its rank, and waits at the
end of the step until all are settled, by looking at the names of markers. Each renews a note,
`workers/<rank>-of-<world>.json`, at most every 30 s: how far it is, and that it lives. What belongs to a rank whose
note has not changed for GRISTMILL_LEASE_SECONDS, or that has none, is done by those who wait. So a killed process
delays the others and stops nothing, and one that is started again goes on; one of another world deals otherwise, and
is not waited for. Two that do the same unit write the same bytes. No clock is compared with another's.
"""

import contextlib
import json
import math
import os
import threading
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from data_prep.config.engine import EngineConfig
from data_prep.engine.attempts import Attempts, Markers, clean_up, finished, judge, make_folders, names_in, run_here
from data_prep.engine.processes import run_in_processes
from data_prep.engine.progress import Progress
from data_prep.engine.units import (
    QUARANTINE,
    UNITS,
    Marker,
    Step,
    Unit,
    delete_files,
    marker_of,
    quarantine_of,
    read_marker,
    read_quarantine,
)
from lm.errors import InputError, UsageError
from lm.storage import Place, Url, write_atomically, write_once
from lm.storage.lease import lease_seconds

WORKERS = "workers"
"""Folder of the notes."""
LONGEST_PAUSE = 30.0
"""Seconds between two notes of a process, and between two looks at the markers of others."""
FIRST_PAUSE = 0.5
SILENT = 3.0
"""Seconds of waiting of which nothing is said."""
VARIABLES = (
    ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT", "SLURM_ARRAY_TASK_MIN"),
    ("JOB_COMPLETION_INDEX", "JOB_COMPLETIONS", ""),
)
"""Of Slurm and of Kubernetes: rank, how many there are, and the first rank, which is 0 where none is named."""


def rank_of(engine: EngineConfig, environment: Mapping[str, str] = os.environ) -> tuple[int, int]:
    """(rank, world) of this process: as the config says, else as Slurm or Kubernetes do. Raises UsageError."""
    for rank_name, world_name, first_name in VARIABLES:
        if engine.rank is None and environment.get(rank_name):
            rank = number_in(environment, rank_name) - number_in(environment, first_name)
            world = engine.world or number_in(environment, world_name)
            if 0 <= rank < world:
                return rank, world
            raise UsageError(
                f"{rank_name} is {environment[rank_name]}, but {world_name} is {environment.get(world_name) or 'unset'}"
                f" and engine.world {engine.world}: give --engine.world, with ranks from 0 to world - 1."
            )
    if engine.rank is None or engine.world is None:
        raise UsageError(
            f"A process of an array job needs a rank, but engine.rank is {engine.rank} and engine.world is "
            f"{engine.world}, and neither Slurm nor Kubernetes sets them. Give both, as --engine.rank 0 --engine.world "
            "8; for one process on this machine, use launch.pretrain."
        )
    return engine.rank, engine.world


def number_in(environment: Mapping[str, str], name: str) -> int:
    """The variable's value, 0 where it is not set. Raises UsageError."""
    try:
        return int(environment.get(name) or 0)
    except ValueError as error:
        raise UsageError(
            f"{name} is {environment[name]!r}, and no number. Give --engine.rank and --engine.world."
        ) from error


def job_of(engine: EngineConfig, environment: Mapping[str, str] = os.environ) -> str:
    """The name that tells this job from those before it. Raises UsageError where nobody says it."""
    if job := engine.job or environment.get("SLURM_ARRAY_JOB_ID", ""):
        return job
    raise UsageError(
        "engine.retry_failed is given, but no name of the job: its processes must know which failures are of a job "
        "before. Give all of them the same new one, as --engine.job retry-1."
    )


def run_in_array(
    step: Step, engine: EngineConfig, folder: Place, on_progress: Callable[[Progress], None]
) -> Mapping[str, Marker]:
    """Runs this rank's units, and returns when those of all ranks are settled. Raises as `run_step`."""
    rank, world = rank_of(engine)
    make_folders(step, folder)
    if engine.retry_failed:
        forget_failed(step, folder, job_of(engine))
        engine = replace(engine, retry_failed=False)  # what fails from now on is of this job
    freeze(step, folder)
    dealt = sorted(step.units, key=lambda unit: (-unit.bytes, unit.name))
    owner = {unit.name: number % world for number, unit in enumerate(dealt)}

    def run(units: list[Unit], note: Note) -> None:
        attempts = note.attempts = Attempts(replace(step, units=tuple(units)), engine, folder, on_progress, alone=False)
        attempts.report()
        if step.light:
            run_here(attempts)
        elif attempts.queue:
            run_in_processes(attempts, engine.workers)
        attempts.report()

    with renewing(Note(folder, rank, world, step.name)) as note:
        run(dealt[rank::world], note)
        settle(step, folder, rank, world, owner, lambda units: run(units[: 1 if step.light else engine.workers], note))
    done = names_in(folder / UNITS / step.name)
    failed = {}
    for name in sorted(names_in(folder / QUARANTINE / step.name) & {unit.name for unit in step.units} - done):
        record = read_quarantine(quarantine_of(step.name, name, folder))
        failed[name] = str(record["error"]) if record else ""
    # By each: later steps read what is there, and no rank is sure to come.
    clean_up(step, folder, done & {unit.name for unit in step.units}, failed.keys(), scratch=rank == 0)
    judge(step, failed, engine, folder, told=rank == 0)
    return Markers(step, folder, [unit.name for unit in step.units if unit.name in done])


def settle(
    step: Step, folder: Place, rank: int, world: int, owner: dict[str, int], run: Callable[[list[Unit]], None]
) -> None:
    """Returns when every unit is done or set aside; meanwhile runs those of ranks that do not live."""
    seen: dict[int, tuple[object, float]] = {}
    pause, waiting = FIRST_PAUSE, Waiting(step, world)
    while True:
        settled = names_in(folder / UNITS / step.name) | names_in(folder / QUARANTINE / step.name)
        left = [unit for unit in step.units if unit.name not in settled]
        if not left:
            return
        now, versions = time.monotonic(), versions_in(folder / WORKERS)
        for number in {owner[unit.name] for unit in left}:
            version = versions.get(note_of(number, world))
            if number not in seen or seen[number][0] != version:
                seen[number] = version, now
        living = {number for number in seen if number != rank and now - seen[number][1] < lease_seconds()}
        orphans = [unit for unit in left if owner[unit.name] not in living]
        if orphans:
            first = rank * len(orphans) // world  # those who wait begin at different ones
            run(orphans[first:] + orphans[:first])
            pause = FIRST_PAUSE
        else:
            waiting.tell(sorted(living & {owner[unit.name] for unit in left}), len(left), versions)
            time.sleep(pause)
            pause = min(1.5 * pause, LONGEST_PAUSE)


def note_of(rank: int, world: int) -> str:
    return f"{rank}-of-{world}.json"


class Waiting:
    """What is said of it while a process has nothing to do: once that it waits, and for whom."""

    def __init__(self, step: Step, world: int):
        self.step, self.world, self.since = step, world, time.monotonic()
        self.told = False
        self.others: dict[str, object] | None = None
        """{note of a rank of another world: version} when this began."""

    def tell(self, ranks: list[int], units: int, versions: Mapping[str, object]) -> None:
        others = {name: one for name, one in versions.items() if not name.endswith(f"-of-{self.world}.json")}
        self.others = others if self.others is None else self.others
        if alive := sorted(name for name in others if self.others.get(name) not in (None, others[name])):
            print(
                f"{self.step.told or self.step.name}: {WORKERS}/{alive[0]} is renewed, but this process has "
                f"engine.world {self.world}: some units are done twice. Give all processes of a job the same world.",
                flush=True,
            )
            self.others = others | dict.fromkeys(alive)
        if not self.told and time.monotonic() - self.since >= SILENT:
            self.told = True
            named = ", ".join(map(str, ranks[:5])) + (", …" if len(ranks) > 5 else "")
            print(
                f"{self.step.told or self.step.name}: waiting for {units:,} of {len(self.step.units):,} units, of rank "
                f"{named}. What gives no sign of life for {lease_seconds():g} s is done here.",
                flush=True,
            )


def versions_in(folder: Place) -> dict[str, object]:
    """{name: what changes whenever the file does}."""
    if isinstance(folder, Url):
        return {name: found.etag for name, found in folder.files().items()}
    found = {}
    for path in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):
            stat = path.stat()
            found[path.name] = stat.st_mtime_ns, stat.st_ino
    return found


def freeze(step: Step, folder: Place) -> None:
    """Writes the list of units, unless it stands: all processes must have the same. Raises UsageError where another
    list stands, and is not done.

    Where an earlier job has left markers, one process forgets what is none of the step's, and the others wait for that.
    """
    token, start = folder / UNITS / f"{step.name}.forgetting", time.monotonic()
    fewest = math.inf
    place = list_of(step.name, folder)
    listed = sorted([unit.name, unit.identity, unit.bytes] for unit in step.units)
    data = json.dumps({"units": listed}).encode()
    while (there := bytes_of(place)) != data:
        if there is None:
            left = names_in(folder / UNITS / step.name) | names_in(folder / QUARANTINE / step.name)
            if len(left) < fewest:  # that they become fewer is a sign of life
                fewest, start = len(left), time.monotonic()
            if left and not write_once(token, b"{}") and time.monotonic() - start < lease_seconds():
                time.sleep(FIRST_PAUSE)
                continue
            if bytes_of(place) is None:
                forget_others(step, folder)
                write_once(place, data)
            if left:
                token.unlink(missing_ok=True)
            continue
        if undone := undone_in(there, step, folder):
            other = json.loads(there)["units"]
            raise UsageError(
                f"{place} lists {len(other):,} units, of which {len(undone):,} are not done, but this process has "
                f"{len(listed):,}, which differ{told_difference(other, listed)}. All processes of a job must read the "
                "same inputs with the same config. If that job has ended, delete the list; what is done is kept."
            )
        place.unlink(missing_ok=True)


def list_of(step: str, folder: Place) -> Place:
    return folder / UNITS / f"{step}.list.json"


def undone_in(listed: bytes, step: Step, folder: Place) -> list[str]:
    """The units of a frozen list that are neither done nor set aside."""
    settled = names_in(folder / UNITS / step.name) | names_in(folder / QUARANTINE / step.name)
    return [name for name, *_ in json.loads(listed)["units"] if name not in settled]


def forget_failed(step: Step, folder: Place, job: str) -> None:
    """Deletes the records of units that jobs before this one set aside: the first process of the job does it, and the
    others wait for that. Who comes later, or is started again, deletes nothing more."""
    begun, ended = (folder / UNITS / f"{step.name}.retry-{job}.{word}" for word in ("begun", "ended"))
    first, start = write_once(begun, b"{}"), time.monotonic()
    while bytes_of(ended) is None:
        if first or time.monotonic() - start > lease_seconds():  # the first may have been killed
            failed = names_in(folder / QUARANTINE / step.name)
            listed = bytes_of(list_of(step.name, folder))
            if failed and listed and not undone_in(listed, step, folder):
                list_of(step.name, folder).unlink(missing_ok=True)  # what was mended has another identity
            for name in failed:
                quarantine_of(step.name, name, folder).unlink(missing_ok=True)
            write_once(ended, b"{}")
            return
        time.sleep(FIRST_PAUSE)


def told_difference(other: list, listed: list) -> str:
    """The first unit in which two lists differ."""
    names = sorted({name for name, *_ in other} ^ {name for name, *_ in listed})
    changed = sorted({one[0] for one in other if one not in listed} | {one[0] for one in listed if one not in other})
    return f" (first in {names[0] if names else changed[0]})"


def bytes_of(place: Place) -> bytes | None:
    try:
        return place.read_bytes()
    except FileNotFoundError:
        return None


def forget_others(step: Step, folder: Place) -> None:
    """Deletes markers and records of other identities, and markers whose outputs are gone, so that from now on their
    names tell what is settled; and the outputs, of which nobody would know any more. Ends where the list of units
    stands: another process has done it meanwhile, and what is there now is of this job."""
    identities = {unit.name: unit.identity for unit in step.units}
    there, whole = names_in(folder / UNITS / step.name) & identities.keys(), finished(step, folder)
    kept = {output for marker in whole.values() for output in marker.outputs}
    for name in there - whole.keys():
        marker = read_marker(marker_of(step.name, name, folder))
        if bytes_of(list_of(step.name, folder)) is not None:
            return
        delete_files(folder, marker.outputs.keys() - kept if marker else ())
        marker_of(step.name, name, folder).unlink(missing_ok=True)
    for name in names_in(folder / QUARANTINE / step.name) & identities.keys():
        record = read_quarantine(quarantine_of(step.name, name, folder))
        if bytes_of(list_of(step.name, folder)) is not None:
            return
        if record is None or record["identity"] != identities[name]:
            quarantine_of(step.name, name, folder).unlink(missing_ok=True)


class Note:
    """What a process says of itself, so that others see that it lives, and people how far it is."""

    def __init__(self, folder: Place, rank: int, world: int, step: str):
        self.place, self.rank, self.world, self.step = folder / WORKERS / note_of(rank, world), rank, world, step
        self.attempts: Attempts | None = None
        self.beats = 0

    def write(self) -> None:
        self.beats += 1
        said = {"rank": self.rank, "world": self.world, "host": os.uname().nodename, "process": os.getpid()}
        said |= self.told() | {"beat": self.beats}
        if isinstance(self.place, Path):
            self.place.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self.place, json.dumps(said), durable=False)

    def told(self) -> dict[str, Any]:
        done, rows = (len(self.attempts.done), self.attempts.rows) if self.attempts else (0, 0)
        return {"step": self.step, "units": done, "rows": rows}


@contextlib.contextmanager
def renewing[N: Note](note: N) -> Generator[N]:
    """Writes the note now, and again and again until the block ends."""
    ended = threading.Event()

    def renew() -> None:
        while not ended.wait(min(LONGEST_PAUSE, lease_seconds() / 3)):
            with contextlib.suppress(InputError, OSError):  # the next is tried all the same
                note.write()

    note.write()
    thread = threading.Thread(target=renew, daemon=True)
    thread.start()
    try:
        yield note
    finally:
        ended.set()
        thread.join()
