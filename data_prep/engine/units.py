"""A unit of work, an input file or a range of hashes, run once: whatever engine runs it, it runs `run_unit`.

    units/<step>/<name>.json       the unit is done: {identity, counts, outputs: {name: [bytes, sha256]}, seconds, host,
                                   read: SHA-256 of the input file}
    quarantine/<step>/<name>.json  it failed each time: {identity, error, traceback, host, attempts, log, read}

Both are in the step's folder. The marker is written last: a unit is done if there is a marker of its identity, and the
outputs that it lists are there in their sizes.
"""

import contextlib
import dataclasses
import errno
import gc
import hashlib
import json
import os
import pickle
import shutil
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.config.engine import EngineConfig
from lm.errors import InputError, UsageError, shown
from lm.fields import identifying
from lm.storage import (
    Place,
    StorageError,
    Url,
    digest,
    inside,
    metered,
    objects,
    relative_name,
    size_of,
    stores,
    write_atomically,
    writing,
)

UNITS, QUARANTINE, SCRATCH = "units", "quarantine", "scratch"
DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG}
"""The disk takes no more, whichever unit writes. EIO is not one of them: it may be a bad sector of one input file."""
SECONDS_BETWEEN_COUNTS = 0.5
ATTEMPT = "attempt of "
"""Begins a line of a file `running_of`; the identity of the unit follows."""
RUNNING = ".running"
NO_RECORD = (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError, RecursionError)
"""Raised by reading a JSON file that is missing or damaged."""
Counts = dict[str, Any]


@dataclass(frozen=True)
class Unit[Input]:
    """One input file, or one range of hashes; picklable."""

    name: str
    """Unique in its step, the same whatever the other units; a file name, from which its outputs' names come."""
    identity: str
    """SHA-256 of all that decides its outputs: its input and the settings, never other units or versions of
    libraries."""
    bytes: int
    """About how much work it is."""
    input: Input
    """What `Step.work` needs, picklable and light."""


def no_digest(unit: Unit) -> str:
    """Of a step that reads no input files."""
    return ""


@dataclass(frozen=True)
class Step[Input]:
    """The same work on many units."""

    name: str
    """A file name: of the folders of markers."""
    units: tuple[Unit[Input], ...]
    work: Callable[[Unit[Input], "Workspace"], Counts | None]
    """Makes the unit's outputs and returns counts as JSON, "rows" for progress. Picklable, a pure function of the unit;
    called again if it was interrupted."""
    rows: str = "documents"
    """What progress calls them; "" where none are counted."""
    inputs: str = "files"
    """What progress calls the units."""
    told: str = ""
    """What progress calls the step, where that is not its name."""
    digest: Callable[[Unit[Input]], str] = no_digest
    """SHA-256 of the file that a unit reads, for its marker or record: another of the same name and size is noticed."""


@dataclass(frozen=True)
class Marker:
    """What a finished unit leaves."""

    identity: str
    counts: Counts
    outputs: dict[str, tuple[int, str]]
    """{name in the step's folder: (bytes, SHA-256)}."""
    seconds: float
    host: str
    read: str = ""
    """SHA-256 of the file that it read (`Step.digest`)."""

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self)) + "\n"

    @classmethod
    def of(cls, found: Any) -> "Marker | None":
        """Return the marker with these JSON values; None if they are not a marker."""
        try:
            outputs = {name: (int(size), str(sha256)) for name, (size, sha256) in found["outputs"].items()}
            counts, seconds = found["counts"], float(found["seconds"])
            if not isinstance(counts.get("rows", 0), int):
                return None
            return cls(found["identity"], counts, outputs, seconds, found["host"], found.get("read", ""))
        except (ValueError, ArithmeticError, KeyError, TypeError, AttributeError):
            return None


@dataclass(frozen=True)
class Failure:
    error: str
    """The exception, on one line, or what became of the process."""
    traceback: str = ""
    log: str = ""
    """What the worker process printed, its end."""
    host: str = dataclasses.field(default_factory=lambda: os.uname().nodename)
    ends_run: bool = False
    """Whether every other unit would fail of it too: impossible settings, a full disk, a package that is missing."""
    for_good: bool = False
    """Whether another attempt would end the same way."""
    died: bool = False
    """Whether the process was killed or crashed; not if it was ended for hanging."""
    exception: Exception | None = None
    """What was raised; None where a process was killed, or it cannot travel."""

    @classmethod
    def of(cls, error: Exception) -> "Failure":
        return cls(
            error=line_of(error),
            traceback="".join(traceback.format_exception(error)),
            ends_run=ends_run(error),
            for_good=isinstance(error, TooManyBytesError),
            exception=error,
        )

    def raised(self) -> Exception:
        """The exception, as it was where that is possible."""
        if self.exception:
            return self.exception
        return RuntimeError(f"{self.error}\n{self.traceback}") if self.traceback else InputError(self.error)

    def to_travel(self) -> "Failure":
        """The same for another process: a bug of ours tells where it was, which tracebacks do not."""
        error = self.exception
        if error is not None and not isinstance(error, InputError):
            error.add_note(self.traceback)
        try:  # an exception with arguments of its own may not come back
            pickle.loads(pickle.dumps(error))
        except Exception:
            error = None
        return dataclasses.replace(self, exception=error)


class TooManyBytesError(InputError):
    """A unit reads on and on."""


class WriteError(OSError):
    """An output could not be written, whatever its errno: the input of the unit is not the cause."""


class StoreWriteError(InputError):
    """A store did not take an output, marker or record, though that was tried again for minutes."""


@contextlib.contextmanager
def storing(place: Place) -> Generator[None]:
    """Raise InputError for an error of a disk in the block, StoreWriteError for one of a store."""
    try:
        with writing(place):
            yield
    except StorageError as error:
        if isinstance(error.__cause__, Exception) and objects.is_name(error.__cause__):
            raise  # only of this unit
        raise StoreWriteError(str(error)) from error


def line_of(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return shown(text if isinstance(error, InputError) else f"{type(error).__name__}: {text}", quotes=False)


def ends_run(error: BaseException) -> bool:
    """Whether every other unit would fail of the same cause."""
    chain, causes = error, []
    while chain is not None and chain not in causes:
        causes.append(chain)
        chain = chain.__cause__ or chain.__context__
    disk = any(isinstance(one, WriteError) or (isinstance(one, OSError) and one.errno in DISK_ERRORS) for one in causes)
    return disk or isinstance(error, UsageError | ImportError | StoreWriteError)


def identity_of(*parts: object) -> str:
    """SHA-256 of the parts as JSON; of configs without what decides no byte (lm.fields.identifying)."""
    return hashlib.sha256(json.dumps(identifying(parts), sort_keys=True).encode()).hexdigest()


class Workspace:
    """Where the work on one unit reads and writes: the step's folder on a disk; for a bucket, a folder of this machine,
    whose outputs are uploaded at the end."""

    def __init__(
        self, folder: Place, root: Path, scratch: Path, max_bytes: int, on_rows: Callable[[int], None] = lambda _: None
    ):
        self.folder, self.root, self.scratch = folder, root, scratch
        self.outputs: dict[str, Path] = {}
        self.rows = self.bytes = self.read = self.unpacked = 0
        self.max_bytes, self.on_rows = max_bytes, on_rows
        self.told_at = 0.0

    def input(self, name: str) -> Path:
        """A file of the step's folder, to read: brought here, whole, from a bucket. Raises FileNotFoundError."""
        path = self.root / name
        if isinstance(self.folder, Url) and not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            stores.download(str(self.folder / name), path)
        return path

    def place(self, name: str) -> Place:
        """A file of the step's folder, to read by ranges where it lies."""
        return self.folder / name

    def output(self, name: str) -> Path:
        """Where to write an output, whole or not at all (lm.storage.appearing, with `scratch`)."""
        path = self.outputs[name] = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def count(self, rows: int = 0, bytes: int = 0) -> None:
        """Notes that so many more rows were made of so many bytes of contents. Raises TooManyBytesError."""
        self.rows += rows
        self.bytes += bytes
        self.refuse_more_than_may_be(self.bytes, "of contents were read")
        now = time.monotonic()
        if rows and now - self.told_at >= SECONDS_BETWEEN_COUNTS:
            self.told_at = now
            self.on_rows(self.rows)

    def meter(self, read: int, unpacked: int) -> None:
        """Count bytes of the input as stored, and as unpacked (lm.storage.metered). Raises TooManyBytesError."""
        self.read += read
        self.unpacked += unpacked
        self.refuse_more_than_may_be(self.read, "were read")
        self.refuse_more_than_may_be(self.unpacked, f"were unpacked from {self.read:,}")

    def refuse_more_than_may_be(self, bytes: int, told: str) -> None:
        if bytes > self.max_bytes:
            raise TooManyBytesError(
                f"{bytes:,} bytes {told}, more than engine.max_unit_bytes = {self.max_bytes:,}, and there are "
                "more. Look whether the input has an end; if it is only large, raise --engine.max-unit-bytes."
            )

    def publish(self) -> dict[str, tuple[int, str]]:
        """Uploads the outputs to a bucket; what they are. Raises FileNotFoundError for one that was not written."""
        found = {name: digest(path) for name, path in sorted(self.outputs.items())}
        if isinstance(self.folder, Url):
            for name, path in self.outputs.items():
                stores.upload(path, str(self.folder / name))
        return found


@contextlib.contextmanager
def workspace(step: Step, folder: Place, max_bytes: int, on_rows: Callable[[int], None]) -> Generator[Workspace]:
    """The place of one unit's work; what a bucket's needed here is deleted afterwards."""
    if isinstance(folder, Path):
        scratch = folder / SCRATCH / step.name
        scratch.mkdir(parents=True, exist_ok=True)
        yield Workspace(folder, folder, scratch, max_bytes, on_rows)
        return
    root = Path(tempfile.mkdtemp(prefix=f"gristmill-{step.name}-"))
    try:
        (root / SCRATCH).mkdir()
        yield Workspace(folder, root, root / SCRATCH, max_bytes, on_rows)
    finally:
        shutil.rmtree(root, ignore_errors=True)


class RareCollections:
    """Inside, Python looks for cycles 50 times as seldom, and only among new objects: that saves a tenth of the time of
    a page. The settings are the process's: of units in several threads the first to begin changes them, the last to end
    restores them."""

    def __init__(self) -> None:
        self.lock, self.inside, self.before = threading.Lock(), 0, gc.get_threshold()

    def __enter__(self) -> None:
        with self.lock:
            if not self.inside:
                self.before = gc.get_threshold()
                gc.freeze()
                gc.set_threshold(min(50 * self.before[0], MOST_THRESHOLD), *self.before[1:])
            self.inside += 1

    def __exit__(self, *raised: object) -> None:
        with self.lock:
            self.inside -= 1
            if not self.inside:
                gc.set_threshold(*self.before)
                gc.unfreeze()


MOST_THRESHOLD = 2**31 - 1
"""That Python takes."""
RARE_COLLECTIONS = RareCollections()


def run_unit(
    step: Step, unit: Unit, folder: Place, engine: EngineConfig, on_rows: Callable[[int], None] = lambda _: None
) -> Marker:
    """Do the work, write the marker, and delete what an earlier making of the unit left under other names. Raises as
    the work."""
    start, path = time.perf_counter(), marker_of(step.name, unit.name, folder)
    before = read_marker(path)
    with workspace(step, folder, engine.max_unit_bytes, on_rows) as space:
        read = step.digest(unit)  # before the work: a file that is replaced meanwhile is told by the next run
        with metered(space.meter), RARE_COLLECTIONS:
            counts = step.work(unit, space) or {}
        with storing(folder):
            outputs = space.publish()
            seconds = round(time.perf_counter() - start, 3)
            marker = Marker(unit.identity, counts, outputs, seconds, os.uname().nodename, read)
            if isinstance(path, Path):
                path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, marker.to_json(), space.scratch if isinstance(folder, Path) else None)
    delete_files(folder, beside(outputs, before.outputs.keys() - outputs.keys()) if before else ())
    return marker


def try_unit(
    step: Step, unit: Unit, folder: Place, engine: EngineConfig, on_rows: Callable[[int], None] = lambda _: None
) -> Marker | Failure:
    try:
        return run_unit(step, unit, folder, engine, on_rows)
    except Exception as error:
        return Failure.of(error)


def marker_of(step: str, unit: str, folder: Place) -> Place:
    return folder / UNITS / step / f"{unit}.json"


def running_of(step: str, unit: str, folder: Place) -> Place:
    """Attempts of a unit that have not ended or died: a line with ATTEMPT each, then the stacks of a process that
    hung."""
    return folder / UNITS / step / (unit + RUNNING)


def quarantine_of(step: str, unit: str, folder: Place) -> Place:
    return folder / QUARANTINE / step / f"{unit}.json"


def read_marker(path: Place) -> Marker | None:
    """None where there is none, or a damaged one. Raises InputError for an output outside of the step's folder."""
    try:
        marker = Marker.of(json.loads(path.read_bytes()))
    except NO_RECORD:
        return None
    for name in marker.outputs if marker else ():
        relative_name(name, path)
    return marker


def is_done(unit: Unit, marker: Marker | None, folder: Place) -> bool:
    """Whether the marker is of the unit as it is now, and its outputs are there."""
    if marker is None or marker.identity != unit.identity:
        return False
    return all(size_of(folder / name) == size for name, (size, _) in marker.outputs.items())


def sizes_of(places: Iterable[Place]) -> dict[Place, int]:
    """{place: bytes} of the files that are there, and perhaps others; in a bucket by one listing of each folder."""
    found: dict[Place, int] = {}
    for folder in {one.parent for one in places if isinstance(one, Url)}:
        found |= {folder / name: one.size for name, one in folder.files().items()}
    for path in (one for one in places if isinstance(one, Path)):
        with contextlib.suppress(OSError):  # of a name that is too long, too
            if path.is_file():
                found[path] = path.stat().st_size
    return found


def set_aside(step: Step, unit: Unit, failure: Failure, attempts: int, folder: Place) -> None:
    read = ""
    with contextlib.suppress(OSError):  # it may have failed since it is gone
        read = step.digest(unit)
    record = {
        "identity": unit.identity, "error": failure.error, "traceback": failure.traceback, "host": failure.host,
        "attempts": attempts, "log": failure.log, "read": read,
    }  # fmt: skip
    path = quarantine_of(step.name, unit.name, folder)
    with writing(path):
        write_atomically(path, json.dumps(record, indent=1) + "\n")


def read_quarantine(path: Place) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_bytes())
    except NO_RECORD:
        return None
    return found if isinstance(found, dict) and {"identity", "error"} <= found.keys() else None


def beside(outputs: Iterable[str], names: Iterable[str]) -> list[str]:
    """Those of the names that are in a folder of one of the outputs: a marker that lists others is not a run's."""
    folders = {output.rpartition("/")[0] for output in outputs}
    return [name for name in names if name.rpartition("/")[0] in folders]


def delete_files(folder: Place, names: "Any") -> None:
    """Delete outputs, as far as they are there. Raises InputError for a name that leads out of the folder."""
    places = [inside(folder, name, folder / UNITS) for name in names]
    if isinstance(folder, Url):
        stores.delete(map(str, places))
        return
    for place in places:
        place.unlink(missing_ok=True)


def delete_all(folder: Place) -> None:
    if isinstance(folder, Path):
        shutil.rmtree(folder, ignore_errors=True)
    else:
        delete_files(folder, list(folder.files()))
