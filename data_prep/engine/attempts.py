"""State of the units of a step: which are done, which failed, and which to try next."""

import contextlib
import functools
import re
import shutil
import time
from collections import deque
from collections.abc import Generator, Iterable, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from data_prep.config.engine import EngineConfig
from data_prep.engine.progress import OnProgress, Progress
from data_prep.engine.units import (
    ATTEMPT,
    QUARANTINE,
    RUNNING,
    SCRATCH,
    UNITS,
    Failure,
    Marker,
    Step,
    Unit,
    delete_files,
    in_folders_of,
    marker_of,
    quarantine,
    quarantine_of,
    read_marker,
    read_quarantine,
    read_record,
    running_of,
    sizes_of,
    try_unit,
)
from lm.errors import InputError, for_terminal, shown
from lm.storage import Place, Url

HOPELESS = 5
"""Number of different failed units after which a step stops if none is done: a bug or a setting is then the cause."""
SECONDS_BETWEEN_REPORTS = 0.5
LISTS = ("pickle", "submitted", "stopped")
"""Suffixes of the files that executors write for a step, such as units/texts.pickle. Deleted when the step is done."""
SINCE = re.compile(r"since (\d{1,12}\.?\d{0,12})$")
"""Matches the start of an attempt (seconds since the epoch) at the end of its line in the record of `running_of`."""
READERS = 16


class Attempts:
    """State of one step while it runs: the queue of units (input files or ranges of hashes), their attempts and
    results."""

    def __init__(self, step: Step, engine: EngineConfig, folder: Place, on_progress: OnProgress):
        self.step, self.engine, self.folder, self.on_progress = step, engine, folder, on_progress
        self.done: dict[str, Marker] = {}
        self.failed: dict[str, str] = {}
        """{name of a quarantined unit: error}."""
        self.tried: dict[str, int] = {}
        """{name of a unit: attempts that failed in this command}."""
        self.lost: dict[str, int] = {}
        """{name of a unit: attempts that died in earlier commands}, at most engine.attempts - 1."""
        self.deaths: dict[str, int] = {}
        """{name of a unit: attempts whose process died}, in this and earlier commands."""
        self.suspects: set[str] = set()
        """Units with one attempt left because their processes died. They run last, each while no other unit runs."""
        self.working: dict[str, int] = {}
        """{name of a running unit: rows so far}."""
        self.queue: deque[Unit] = deque()
        self.last: dict[str, tuple[Unit, Failure]] = {}
        """{name of a failed unit without a quarantine record: (unit, its last failure)}."""
        self.first: Exception | None = None
        """Error of the first attempt that failed, with the name of its unit."""
        self.reported = 0.0
        self.sizes = {unit.name: unit.bytes for unit in step.units}
        self.rows = self.bytes_done = 0
        """Rows and input bytes of the units that are done."""
        self.load_state(engine.retry_failed)
        self.rows_found = self.rows
        self.bytes_found = self.bytes_done

    def load_state(self, retry: bool) -> None:
        """Read from the step's folder which units of work are done or quarantined, and queue the others. With `retry`,
        quarantined units are queued too."""
        there = files_in(self.folder / UNITS / self.step.name)
        self.done = finished_units(self.step, there, self.folder)
        self.rows = sum(marker.counts.get("rows", 0) for marker in self.done.values())
        self.bytes_done = sum(self.sizes[name] for name in self.done)
        left = [unit for unit in self.step.units if unit.name not in self.done]
        recorded = names_in(self.folder / QUARANTINE / self.step.name)
        for unit in left:
            if unit.name in recorded and not retry:
                record = read_quarantine(quarantine_of(self.step.name, unit.name, self.folder))
                if record and record["identity"] == unit.identity:
                    error = for_terminal(" ".join(str(record["error"]).split()))  # the record may come from a stranger
                    self.failed[unit.name] = shown(error, quotes=False)
        running = unit_names(there, RUNNING)
        self.count_running([unit for unit in left if unit.name in running and unit.name not in self.failed], retry)
        left = [unit for unit in left if unit.name not in self.failed]
        self.queue = deque(sorted(left, key=lambda unit: (unit.name in self.suspects, -unit.bytes)))

    def count_running(self, found: Sequence[Unit], retry: bool) -> None:
        """Count the attempts at the units `found` that died with an earlier command. They have left running records
        (`running_of`), which an attempt deletes when it ends. With `retry`, delete these records instead.

        After engine.attempts deaths, a unit gets a last attempt while no other unit runs, as another one may be the
        cause. If the command dies then too, the unit is quarantined.
        """
        if retry:
            delete_running(self.step, [unit.name for unit in found], self.folder)
            return
        with ThreadPoolExecutor(READERS) as pool:
            records = list(pool.map(self.record_of, found))
        for unit, record in zip(found, records, strict=True):
            lost = self.deaths[unit.name] = record.count(ATTEMPT + unit.identity)
            self.lost[unit.name] = min(lost, self.engine.attempts - 1)
            if lost >= self.engine.attempts:
                self.suspects.add(unit.name)
            if lost > self.engine.attempts:
                failure = Failure(f"its worker process or the whole command died in each of {lost} attempts")
                self.failed[unit.name] = failure.error
                quarantine(self.step, unit, failure, lost, self.folder)

    def next(self) -> Unit | None:
        """Return the next unit to try: the largest first, retries last. Returns None if no unit is left, or if the next
        one must wait: a unit in `suspects` runs only while no other does."""
        while self.queue:
            if self.suspects and self.working and ({self.queue[0].name, *self.working} & self.suspects):
                return None
            unit = self.queue.popleft()
            self.working[unit.name] = 0
            return unit
        return None

    def ended(self, unit: Unit, result: Marker | Failure) -> None:
        """Record the result of an attempt: the marker of a finished unit (its counts and outputs), or the failure.
        Raises an error that every unit would have (a full disk, a missing package). Raises the first error if no unit
        is done, and all units or HOPELESS (a number) of them have failed."""
        self.working.pop(unit.name, None)
        if isinstance(result, Marker):
            self.done[unit.name] = result
            self.rows += result.counts.get("rows", 0)
            self.bytes_done += unit.bytes
            self.write_records()
            return
        if result.ends_run:
            raise result.raised()
        if self.first is None:
            error = result.raised()
            named = InputError(f"{self.step.name}: {unit.name}: {error}")
            self.first = named if isinstance(error, InputError) else error
        self.tried[unit.name] = self.tried.get(unit.name, 0) + 1
        spent = result.permanent or self.attempts_of(unit.name) >= self.engine.attempts
        if not spent:
            self.queue.append(unit)
        elif result.died and unit.name not in self.suspects:  # another unit may be the cause
            self.suspects.add(unit.name)
            self.queue.append(unit)
        else:
            self.failed[unit.name] = result.error
            self.last[unit.name] = unit, result
        last = not self.queue and not self.working
        hopeless = not self.done and (last or len(self.tried) >= HOPELESS)
        if hopeless and not names_in(self.folder / UNITS / self.step.name):
            raise self.first
        if self.done or hopeless:
            self.write_records()

    def attempts_of(self, name: str) -> int:
        return self.tried.get(name, 0) + self.lost.get(name, 0)

    def requeue(self, unit: Unit) -> None:
        self.working.pop(unit.name, None)
        self.queue.append(unit)

    def record_of(self, unit: Unit) -> str:
        """Return a unit's running record (`running_of`), its unfinished attempts, as text; "" if unreadable."""
        with contextlib.suppress(OSError, InputError):
            return running_of(self.step.name, unit.name, self.folder).read_bytes().decode(errors="replace")
        return ""

    def death(self, unit: Unit, how: str, log: str = "", record: str | None = None) -> Failure:
        """Count an attempt whose process died, or was ended after engine.unit_hours, and return its Failure. `how` says
        how the process died, `log` is the end of its output. `record` is the result of `record_of` (None: read it)."""
        record = self.record_of(unit) if record is None else record
        last, _, stacks = record.rpartition(ATTEMPT)[2].partition("\n")
        since = SINCE.search(last)
        hung = bool(stacks) or (since is not None and time.time() - float(since[1]) >= self.engine.unit_hours * 3600)
        if hung:
            how = f"not done after engine.unit_hours = {self.engine.unit_hours:g}; its worker process was ended"
        self.deaths[unit.name] = self.deaths.get(unit.name, 0) + 1
        return Failure(how, traceback=stacks, log=log, died=not hung)

    @contextlib.contextmanager
    def forgetting_running(self) -> Generator[None]:
        """If the block raises, delete the running records (`running_of`) of all running units: their attempts end with
        this process, and must not count as deaths when the command is repeated."""
        try:
            yield
        except BaseException:
            delete_running(self.step, self.working, self.folder)
            raise

    def write_records(self) -> None:
        """Write the errors of failed units to quarantine/, so that later runs skip these units. Called only after
        another unit of the step is done: if all units fail, a bug may be the cause."""
        for name, (unit, failure) in self.last.items():
            quarantine(self.step, unit, failure, self.attempts_of(name), self.folder)
        self.last.clear()

    def report_now_and_then(self) -> None:
        if time.monotonic() - self.reported >= SECONDS_BETWEEN_REPORTS:
            self.report()

    def report(self) -> None:
        self.reported = time.monotonic()
        rows, bytes_done, sizes = self.rows, self.bytes_done, self.sizes
        making = sum(self.working.values())
        begun = sum(min(sizes[name], made * bytes_done // rows) for name, made in self.working.items()) if rows else 0
        self.on_progress(
            Progress(
                pages=rows + making,
                files_done=len(self.done),
                files=len(self.step.units),
                bytes_done=bytes_done + begun,
                bytes=sum(sizes.values()),
                pages_found=self.rows_found,
                bytes_found=self.bytes_found,
                step=self.step.label or self.step.name,
                unit=self.step.rows,
                inputs=self.step.inputs,
            )
        )


def manifest_of(step: str, folder: Place) -> Place:
    """Return the path of a step's manifest: one file with the markers (counts and outputs) of all finished units. It is
    deleted before any unit of the step is run again."""
    return folder / UNITS / step / "manifest"


def read_manifest(step: str, folder: Place) -> dict[str, Marker]:
    """Return {unit name: marker} of a step's finished units, read from one file (`manifest_of`); empty if that is
    missing or damaged. A marker has the unit's counts and outputs. Raises InputError if it lists an output outside of
    `folder`."""
    place = manifest_of(step, folder)
    return {name: marker for name, one in read_record(place).items() if (marker := Marker.of(one, place))}


def run_here(attempts: "Attempts") -> None:
    """Run all remaining units in this process, one after another."""

    def on_rows(unit: Unit, rows: int) -> None:
        attempts.working[unit.name] = rows
        attempts.report_now_and_then()

    while unit := attempts.next():
        report = functools.partial(on_rows, unit)
        attempts.ended(unit, try_unit(attempts.step, unit, attempts.folder, attempts.engine, report))
        attempts.report_now_and_then()


def clean_up(step: Step, folder: Place, done: Mapping[str, Marker], failed: Set[str]) -> None:
    """Delete what a finished step no longer needs: outputs and markers of units that are not in `done`, quarantine
    records of units not in `failed`, and files that killed processes left."""
    for name in names_in(folder / QUARANTINE / step.name) - failed:
        quarantine_of(step.name, name, folder).unlink(missing_ok=True)
    there = files_in(folder / UNITS / step.name)
    stale = sorted(unit_names(there) - done.keys())
    before = {name: read_marker(marker_of(step.name, name, folder)) for name in stale}
    outputs = {output for marker in before.values() if marker for output in marker.outputs}
    if outputs:
        ours = {output for marker in done.values() for output in marker.outputs}
        delete_files(folder, in_folders_of(ours, outputs - ours))
    for name in stale:
        marker_of(step.name, name, folder).unlink(missing_ok=True)
    delete_running(step, unit_names(there, RUNNING), folder)
    delete_files(folder, [f"{UNITS}/{step.name}.{suffix}" for suffix in LISTS])
    if isinstance(folder, Path):
        shutil.rmtree(folder / SCRATCH / step.name, ignore_errors=True)
        for empty in (folder / SCRATCH, folder / QUARANTINE / step.name, folder / QUARANTINE):
            with contextlib.suppress(OSError):
                empty.rmdir()


def delete_running(step: Step, names: Iterable[str], folder: Place) -> None:
    delete_files(folder, [f"{UNITS}/{step.name}/{name}{RUNNING}" for name in names])


def files_in(folder: Place) -> set[str]:
    """Return the names of the files directly in `folder`; empty if it does not exist."""
    if isinstance(folder, Url):
        return {name for name in folder.files() if "/" not in name}
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()


def unit_names(files: Iterable[str], ending: str = ".json") -> set[str]:
    """Return the names of the units that have a file with this suffix: {"a"} for "a.json" and "b.running"."""
    return {name.removesuffix(ending) for name in files if name.endswith(ending)}


def names_in(folder: Place) -> set[str]:
    return unit_names(files_in(folder))


def finished_units(step: Step, there: Set[str], folder: Place) -> dict[str, Marker]:
    """Return {unit name: marker} of the finished units: the marker has the unit's current identity, and the listed
    outputs exist with the listed sizes. `there` is the set of file names in the folder of markers."""
    marked = unit_names(there)
    units = [unit for unit in step.units if unit.name in marked]
    if not units:
        return {}
    listed = read_manifest(step.name, folder)
    find = lambda unit: listed.get(unit.name) or read_marker(marker_of(step.name, unit.name, folder))
    with ThreadPoolExecutor(READERS) as pool:
        pairs = zip(units, pool.map(find, units), strict=True)
    agreeing = {unit.name: marker for unit, marker in pairs if marker and marker.identity == unit.identity}
    sizes = sizes_of({folder / output for marker in agreeing.values() for output in marker.outputs})
    whole = lambda marker: all(sizes.get(folder / output) == size for output, (size, _) in marker.outputs.items())
    return {name: marker for name, marker in agreeing.items() if whole(marker)}
