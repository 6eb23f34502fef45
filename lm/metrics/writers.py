"""Writers of metrics: metrics.jsonl, TensorBoard events, and Weights & Biases if a project is set."""

import importlib
import json
import os
import re
import struct
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol, runtime_checkable

from lm.errors import MALFORMED, InputError, UsageError, shown
from lm.run_paths import RunPaths
from lm.storage import Appended, write_atomically

Row = dict[str, int | float]


@runtime_checkable
class Writer(Protocol):
    """Destination of metrics, such as a file."""

    def write(self, step: int, row: Row) -> None: ...

    def close(self) -> None: ...


class JsonLines:
    """Writes metrics.jsonl: one JSON object per line. A restart deletes lines of later steps."""

    def __init__(self, path: Path, first_step: int, drop: Callable[[Row], bool] = lambda row: False):
        """Also deletes lines for which `drop` returns True."""
        kept = []
        if path.exists():
            for number, line in enumerate(path.read_bytes().splitlines(keepends=True), 1):
                try:
                    row = json.loads(line)
                    earlier = row["step"] <= first_step
                except MALFORMED:
                    if line.endswith(b"\n"):  # else truncated by a kill
                        text = shown(line.decode("utf-8", "replace").strip())
                        print(f"train: {path}, line {number:,}, is damaged and skipped: {text}", flush=True)
                    continue
                if earlier and not drop(row):
                    kept.append(line.rstrip(b"\r\n") + b"\n")
        write_atomically(path, b"".join(kept))
        self.file = Appended(path)

    def write(self, step: int, row: Mapping[str, Any]) -> None:
        self.file.append((json.dumps({"step": step, **row}) + "\n").encode())

    def close(self) -> None:
        self.file.close()


EVENTS_BYTES = 1 << 20
"""Size after which events go to a new file, because files in a bucket cannot be appended to and are uploaded whole."""


class TensorBoard:
    """Writes TensorBoard events. After a restart, TensorBoard hides the earlier events of later steps.

    Uses the messages and checksums of tensorboardX, but not its writer, whose thread dies if the disk is full, after
    which its queue fills up and blocks training forever.
    """

    def __init__(self, folder: Path, first_step: int):
        from tensorboardX.proto import event_pb2, summary_pb2

        self.event: Any = event_pb2.Event  # ty: ignore[missing-attribute]
        self.summary: Any = summary_pb2.Summary  # ty: ignore[missing-attribute]
        session: Any = event_pb2.SessionLog  # ty: ignore[missing-attribute]
        self.path = folder / f"events.out.tfevents.{time.time_ns() // 10**9}.{os.uname().nodename}.{os.getpid()}"
        self.files = 0
        self.open_file()
        self.add(step=first_step + 1, session_log=session(status=session.START))

    def open_file(self) -> None:
        """Open the next events file. TensorBoard reads them in the order of their names."""
        file = Appended(self.path.with_name(f"{self.path.name}.{self.files:06d}"))
        file.append(self.record(file_version="brain.Event:2"))
        self.file, self.files = file, self.files + 1

    def write(self, step: int, row: Row) -> None:
        if self.file.file.tell() > EVENTS_BYTES:
            before = self.file
            self.open_file()  # if that fails, the next event tries again
            before.close()
        values = [self.summary.Value(tag=name, simple_value=value) for name, value in row.items()]
        self.add(step=step, summary=self.summary(value=values))

    def add(self, **fields: object) -> None:
        self.file.append(self.record(**fields))

    def record(self, **fields: object) -> bytes:
        """Encode an event as a TFRecord: length, checksum of the length, data, checksum of the data."""
        from tensorboardX.record_writer import masked_crc32c

        data = self.event(wall_time=time.time(), **fields).SerializeToString()
        length = struct.pack("<Q", len(data))
        checksums = (struct.pack("<I", masked_crc32c(part)) for part in (length, data))
        return length + next(checksums) + data + next(checksums)

    def close(self) -> None:
        self.file.close()


class WeightsAndBiases:
    """Writes metrics to a run on wandb.ai, or only to `folder`/wandb if WANDB_MODE is "offline".

    The id of the run is stored in `folder`/wandb/run_id, so a restart continues it. Weights & Biases ignores steps that
    were logged before; their values are bit-identical.
    """

    def __init__(self, folder: Path, project: str, settings: dict[str, Any]):
        wandb = import_wandb(project)
        run_id = run_id_in(RunPaths(folder).wandb / "run_id")
        try:
            self.run = wandb.init(
                project=project, id=run_id, name=folder.resolve().name, resume="allow", dir=str(folder), config=settings
            )
        except wandb.Error as error:
            raise InputError(  # may be temporary, such as a network failure
                f"Weights & Biases cannot begin train.wandb_project = {project!r}: {str(error).rstrip('.')}. Log in "
                "(wandb login), set WANDB_MODE=offline, or leave train.wandb_project empty."
            ) from error

    def write(self, step: int, row: Row) -> None:
        self.run.log(row, step=step)

    def close(self) -> None:
        self.run.finish()


def run_id_in(path: Path) -> str:
    """Return the id of the Weights & Biases run in file `path`, created on first use. Raises InputError if the file
    contains anything else, because wandb uses the id as part of a folder name."""
    if not path.exists():
        write_atomically(path, uuid.uuid4().hex)
    run_id = path.read_text(encoding="utf-8", errors="replace").strip()
    if not re.fullmatch(r"[\w-]{1,64}", run_id):
        raise InputError(f"{path} holds {shown(run_id)}, which is not a run id. Delete the file to get a new id.")
    return run_id


def import_wandb(project: str) -> ModuleType:
    """Import and return wandb. Raises UsageError, which names train.wandb_project, if it is not installed."""
    try:
        return importlib.import_module("wandb")
    except ImportError as error:
        raise UsageError(
            f"train.wandb_project is {project!r}, but the package wandb cannot be imported ({error}). {WANDB_REMEDY}"
        ) from error


WANDB_REMEDY = (
    "Install it (make add PACKAGE=wandb), or set train.wandb_project to '': metrics.jsonl and TensorBoard have the "
    "same values."
)
