"""Units of work: an input file or a range of hashes. Every engine runs a unit with `run_unit`.

    units/<step>/<name>.json       the unit is done: {identity, counts, outputs: {name: [bytes, sha256]}, seconds, host,
                                   read: SHA-256 of the input file}
    quarantine/<step>/<name>.json  it failed each time: {identity, error, traceback, host, attempts, log, read}

Both are in the step's folder. The marker is written last: a unit is done if its marker has its identity, and the listed
outputs exist with the listed sizes.
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
    stores,
    write_atomically,
    writing,
)

UNITS, QUARANTINE, SCRATCH = "units", "quarantine", "scratch"
DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG}
"""Errors of a full or read-only disk, which every unit would have. Not EIO: it may be a bad sector of one file."""
SECONDS_BETWEEN_COUNTS = 0.5
USUAL_THRESHOLDS = gc.get_threshold()
ATTEMPT = "attempt of "
"""Prefix of a line of a running record (`running_of`), followed by the identity of the unit."""
RUNNING = ".running"

Counts = dict[str, Any]
OnRows = Callable[[int], None]
"""Receives the number of rows so far."""


@dataclass(frozen=True)
class Unit[Input]:
    """A piece of work that is done as a whole or not at all: one input file, or one range of hashes. Picklable."""

    name: str
    """File name, unique in its step and independent of the other units. Output names are derived from it."""
    identity: str
    """SHA-256 of everything that determines the outputs: input and settings, not other units or library versions."""
    bytes: int
    """Approximate size of the work; larger units run first."""
    input: Input
    """Input of `Step.work`; picklable and small."""


def no_digest(unit: Unit) -> str:
    """Return "", the default of `Step.digest`, for steps that read no input files."""
    return ""


@dataclass(frozen=True)
class Step[Input]:
    """A step of the pipeline: the same work on each of many units."""

    name: str
    """Name of the step, and of its folders in units/ and quarantine/."""
    units: tuple[Unit[Input], ...]
    work: Callable[[Unit[Input], "Workspace"], Counts | None]
    """Writes the unit's outputs and returns counts (JSON types), of which "rows" is shown as progress. It must be
    picklable and depend only on the unit. It is called again after an interruption."""
    rows: str = "documents"
    """Noun for rows in progress lines; "" if none are counted."""
    inputs: str = "files"
    """Noun for units in progress lines."""
    label: str = ""
    """Name of the step in progress lines; `name` if empty."""
    digest: Callable[[Unit[Input]], str] = no_digest
    """SHA-256 of the file that a unit reads, stored in its marker or quarantine record to detect a changed file."""


@dataclass(frozen=True)
class Marker:
    """Record that a unit of work is done, with its outputs and counts; stored as units/STEP/UNIT.json."""

    identity: str
    counts: Counts
    outputs: dict[str, tuple[int, str]]
    """{name in the step's folder: (bytes, SHA-256)}."""
    seconds: float
    """Duration of the unit."""
    host: str
    read: str = ""
    """SHA-256 of the input file (`Step.digest`)."""

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self)) + "\n"

    @classmethod
    def of(cls, found: Any, place: Place) -> "Marker | None":
        """Return the marker in `found`, the parsed JSON of the file `place`; None if `found` is not a marker. Raises
        InputError if the marker lists an output outside of the step's folder."""
        try:
            outputs = {name: (int(size), str(sha256)) for name, (size, sha256) in found["outputs"].items()}
            counts, seconds = found["counts"], float(found["seconds"])
            if not isinstance(counts.get("rows", 0), int):
                return None
            marker = cls(found["identity"], counts, outputs, seconds, found["host"], found.get("read", ""))
        except (ValueError, ArithmeticError, KeyError, TypeError, AttributeError):
            return None
        for name in outputs:
            relative_name(name, place)
        return marker


@dataclass(frozen=True)
class Failure:
    error: str
    """The exception on one line, or how the process died."""
    traceback: str = ""
    log: str = ""
    """The end of the worker's output."""
    host: str = dataclasses.field(default_factory=lambda: os.uname().nodename)
    ends_run: bool = False
    """Whether every other unit would fail in the same way: invalid settings, a full disk, a missing package."""
    permanent: bool = False
    """Whether another attempt would fail the same way."""
    died: bool = False
    """Whether the process was killed or crashed; False if it was ended for hanging."""
    exception: Exception | None = None
    """The exception; None if the process was killed or the exception cannot be pickled."""

    @classmethod
    def of(cls, error: Exception) -> "Failure":
        return cls(
            error=line_of(error),
            traceback="".join(traceback.format_exception(error)),
            ends_run=ends_run(error),
            permanent=isinstance(error, TooManyBytesError),
            exception=error,
        )

    def raised(self) -> Exception:
        """Return the original exception or, if it was not kept, one with its text."""
        if self.exception:
            return self.exception
        return RuntimeError(f"{self.error}\n{self.traceback}") if self.traceback else InputError(self.error)

    def picklable(self) -> "Failure":
        """Return a picklable copy. Pickling loses tracebacks, so the exception gets its traceback as a note, unless it
        is an InputError. An exception that cannot be pickled is dropped."""
        error = self.exception
        if error is not None and not isinstance(error, InputError):
            error.add_note(self.traceback)
        try:  # an exception with its own arguments may fail to unpickle
            pickle.loads(pickle.dumps(error))
        except Exception:
            error = None
        return dataclasses.replace(self, exception=error)


class TooManyBytesError(InputError):
    """A unit read or unpacked more than engine.max_unit_bytes."""


class WriteError(OSError):
    """An output could not be written. Whatever the errno, the input of the unit is not the cause, so the step stops."""


class StoreWriteError(InputError):
    """An object store did not accept an output, marker or record after minutes of retries."""


@contextlib.contextmanager
def storing(place: Place) -> Generator[None]:
    """Raise InputError for disk errors in the block, and StoreWriteError for errors of an object store. `place` is the
    path that is written, for messages."""
    try:
        with writing(place):
            yield
    except StorageError as error:
        if isinstance(error.__cause__, Exception) and objects.is_name(error.__cause__):
            raise  # caused by the name of this unit
        raise StoreWriteError(str(error)) from error


def line_of(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return shown(text if isinstance(error, InputError) else f"{type(error).__name__}: {text}", quotes=False)


def ends_run(error: BaseException) -> bool:
    """Return whether an error ends the step, because every other unit would fail too: a full disk, a missing module."""
    chain, causes = error, []
    while chain is not None and chain not in causes:
        causes.append(chain)
        chain = chain.__cause__ or chain.__context__
    disk = any(isinstance(one, WriteError) or (isinstance(one, OSError) and one.errno in DISK_ERRORS) for one in causes)
    return disk or isinstance(error, UsageError | ImportError | StoreWriteError)


def identity_of(*parts: object) -> str:
    """Return the SHA-256 of the parts as JSON, the identity of a unit. Config fields that do not affect the outputs are
    left out (lm.fields.identifying)."""
    return hashlib.sha256(json.dumps(identifying(parts), sort_keys=True).encode()).hexdigest()


class Workspace:
    """Paths of the files that one unit reads and writes, and counts of its work. On a disk, the paths are in the step's
    folder. For a bucket, they are in a local folder, from which outputs are uploaded at the end."""

    def __init__(self, folder: Place, root: Path, scratch: Path, max_bytes: int, on_rows: OnRows = lambda _: None):
        self.folder, self.root, self.scratch = folder, root, scratch
        self.outputs: dict[str, Path] = {}
        self.rows = self.bytes = self.read = self.unpacked = 0
        self.max_bytes, self.on_rows = max_bytes, on_rows
        self.reported_at = 0.0

    def input(self, name: str) -> Path:
        """Return the local path of a file in the step's folder. If that is in a bucket, the file is downloaded. Raises
        FileNotFoundError if the bucket has no such file."""
        path = self.root / name
        if isinstance(self.folder, Url) and not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            stores.download(str(self.folder / name), path)
        return path

    def place(self, name: str) -> Place:
        """Return the path or URL of a file in the step's folder, to read ranges of it without a download."""
        return self.folder / name

    def output(self, name: str) -> Path:
        """Return the local path for the output `name` and register it as an output of the unit. The caller must write
        the file atomically: `with lm.storage.appearing(path, space.scratch) as partial`."""
        path = self.outputs[name] = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def count(self, rows: int = 0, bytes: int = 0) -> None:
        """Add to the unit's counts: rows written, and bytes of contents read. Raises TooManyBytesError if the bytes
        exceed engine.max_unit_bytes."""
        self.rows += rows
        self.bytes += bytes
        self.check_bytes(self.bytes, "of contents were read")
        now = time.monotonic()
        if rows and now - self.reported_at >= SECONDS_BETWEEN_COUNTS:
            self.reported_at = now
            self.on_rows(self.rows)

    def meter(self, read: int, unpacked: int) -> None:
        """Add to the unit's counts: input bytes `read` from storage, and `unpacked` from them (called by
        lm.storage.metered). Raises TooManyBytesError if either sum exceeds engine.max_unit_bytes."""
        self.read += read
        self.unpacked += unpacked
        self.check_bytes(self.read, "were read")
        self.check_bytes(self.unpacked, f"were unpacked from {self.read:,}")

    def check_bytes(self, bytes: int, done: str) -> None:
        if bytes > self.max_bytes:
            raise TooManyBytesError(
                f"{bytes:,} bytes {done}, more than engine.max_unit_bytes = {self.max_bytes:,}, and there are more. "
                "If the input is just large, raise --engine.max-unit-bytes."
            )

    def publish(self) -> dict[str, tuple[int, str]]:
        """Return {output name: (bytes, SHA-256)}, after uploading the outputs if the folder is in a bucket. Raises
        FileNotFoundError for an output that was not written."""
        found = {name: digest(path) for name, path in sorted(self.outputs.items())}
        if isinstance(self.folder, Url):
            for name, path in self.outputs.items():
                stores.upload(path, str(self.folder / name))
        return found


@contextlib.contextmanager
def workspace(step: Step, folder: Place, max_bytes: int, on_rows: OnRows) -> Generator[Workspace]:
    """Yield the workspace of a unit; for a bucket, its local folder is deleted afterwards. `on_rows` is called with the
    number of rows so far."""
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


@contextlib.contextmanager
def rare_collections() -> Generator[None]:
    """In the block, run Python's garbage collector a fiftieth as often, and only over objects created in the block.
    Saves a tenth of the time per page."""
    gc.freeze()
    gc.set_threshold(50 * USUAL_THRESHOLDS[0], *USUAL_THRESHOLDS[1:])
    try:
        yield
    finally:
        gc.set_threshold(*USUAL_THRESHOLDS)
        gc.unfreeze()


def run_unit(step: Step, unit: Unit, folder: Place, engine: EngineConfig, on_rows: OnRows = lambda _: None) -> Marker:
    """Run the work of one unit, then write and return its marker, the record that the unit is done. Outputs of an
    earlier run of the unit that this run did not write are deleted. `on_rows` is called with the number of rows so far.
    Raises the exceptions of `step.work`, and InputError if an output cannot be written."""
    start, path = time.perf_counter(), marker_of(step.name, unit.name, folder)
    before = read_marker(path)
    with workspace(step, folder, engine.max_unit_bytes, on_rows) as space:
        read = step.digest(unit)  # before the work, so that the next run detects a file that is replaced meanwhile
        with metered(space.meter), rare_collections():
            counts = step.work(unit, space) or {}
        with storing(folder):
            outputs = space.publish()
            seconds = round(time.perf_counter() - start, 3)
            marker = Marker(unit.identity, counts, outputs, seconds, os.uname().nodename, read)
            if isinstance(path, Path):
                path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, marker.to_json(), space.scratch if isinstance(folder, Path) else None)
    delete_files(folder, in_folders_of(outputs, before.outputs.keys() - outputs.keys()) if before else ())
    return marker


def try_unit(
    step: Step, unit: Unit, folder: Place, engine: EngineConfig, on_rows: OnRows = lambda _: None
) -> Marker | Failure:
    try:
        return run_unit(step, unit, folder, engine, on_rows)
    except Exception as error:
        return Failure.of(error)


def marker_of(step: str, unit: str, folder: Place) -> Place:
    return folder / UNITS / step / f"{unit}.json"


def running_of(step: str, unit: str, folder: Place) -> Place:
    """Return the path of a unit's running record: a file with one line for each attempt at the unit that is running or
    whose process died. If a process hung, the stacks of its threads follow the line."""
    return folder / UNITS / step / (unit + RUNNING)


def quarantine_of(step: str, unit: str, folder: Place) -> Place:
    return folder / QUARANTINE / step / f"{unit}.json"


def read_marker(path: Place) -> Marker | None:
    """Return the marker of a unit (Marker) stored at `path`; None if it is missing or damaged. Raises InputError if it
    lists an output outside of the step's folder."""
    return Marker.of(read_record(path), path)


def read_record(path: Place) -> dict[str, Any]:
    """Return the JSON object in a file; {} if it is missing or damaged."""
    try:
        found = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def sizes_of(places: Iterable[Place]) -> dict[Place, int]:
    """Return {place: bytes} of the `places` that exist. In a bucket, each of their folders is listed once, so the
    result has the other files of these folders too."""
    found: dict[Place, int] = {}
    for folder in {one.parent for one in places if isinstance(one, Url)}:
        found |= {folder / name: one.size for name, one in folder.files().items()}
    for path in (one for one in places if isinstance(one, Path)):
        with contextlib.suppress(OSError):  # including a name that is too long
            if path.is_file():
                found[path] = path.stat().st_size
    return found


def quarantine(step: Step, unit: Unit, failure: Failure, attempts: int, folder: Place) -> None:
    read = ""
    with contextlib.suppress(OSError):  # the unit may have failed because the file is missing
        read = step.digest(unit)
    record = {
        "identity": unit.identity, "error": failure.error, "traceback": failure.traceback, "host": failure.host,
        "attempts": attempts, "log": failure.log, "read": read,
    }  # fmt: skip
    path = quarantine_of(step.name, unit.name, folder)
    with writing(path):
        write_atomically(path, json.dumps(record, indent=1) + "\n")


def read_quarantine(path: Place) -> dict[str, Any] | None:
    found = read_record(path)
    return found if {"identity", "error"} <= found.keys() else None


def in_folders_of(outputs: Iterable[str], names: Iterable[str]) -> list[str]:
    """Return those `names` that are in the same folder as one of the `outputs`. Other files, which an old record may
    list, were not written by this run and must not be deleted."""
    folders = {output.rpartition("/")[0] for output in outputs}
    return [name for name in names if name.rpartition("/")[0] in folders]


def delete_files(folder: Place, names: Iterable[str]) -> None:
    """Delete the files `names` of `folder` that exist. Raises InputError if a name leads out of the folder."""
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
