"""A worker process: run units received over a pipe, one at a time, until the parent ends. Output goes to a file; if a
unit fails, the end of the file is stored with the error."""

import contextlib
import dataclasses
import faulthandler
import functools
import os
import pickle
import shutil
import signal
import sys
import threading
import time
from collections.abc import Generator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from data_prep.engine.units import ATTEMPT, Failure, Marker, OnRows, running_of, storing, try_unit
from lm.errors import InputError
from lm.storage import Place, write_atomically
from lm.trusted_code import inherit


def main() -> None:
    """Run the worker process until its parent ends. Command-line arguments: the file descriptor of the pipe to the
    parent, and the temporary folder of all workers, which is deleted at the end."""
    for one in (signal.SIGINT, signal.SIGTERM):  # sent to all processes at once; the parent ends its workers
        signal.signal(one, signal.SIG_IGN)
    faulthandler.enable()
    threading.Thread(target=end_with_parent, daemon=True).start()
    connection = Connection(int(sys.argv[1]))
    step = b""
    while True:
        try:
            kind, message = connection.recv()
        except (EOFError, ConnectionResetError):
            return
        if kind == "step":
            step = message
        else:
            connection.send(("ended", attempt(step, message, lambda rows: connection.send(("rows", rows)))))


@functools.lru_cache(1)
def load(pickled: bytes) -> Any:
    inherit()  # unpickling imports modules that the step names
    return pickle.loads(pickled)


def attempt(pickled: bytes, message: bytes, on_rows: OnRows = lambda rows: None, node: str = "-") -> Marker | Failure:
    """Run one attempt at a unit, which may crash this process, and return the unit's marker or its failure.

    `pickled` is (step, folder, engine), `message` is (unit, number of its earlier attempts that died), `node` is Ray's
    ID of this machine. While it runs, the attempt is recorded in the run folder (`running_of`), so that a death of this
    process or of the command is counted.
    """
    try:
        step, folder, engine = load(pickled)
    except Exception as error:  # for example, a missing module
        return dataclasses.replace(Failure.of(error), ends_run=True).picklable()
    unit, deaths = pickle.loads(message)
    place, seconds = running_of(step.name, unit.name, folder), engine.unit_hours * 3600
    record = f"{ATTEMPT}{unit.identity}\n" * deaths
    record += f"{ATTEMPT}{unit.identity} on {os.uname().nodename}, process {os.getpid()}, "
    record += f"node {node}, since {time.time():.3f}\n"
    try:
        with recorded(place, record, seconds):
            result = try_unit(step, unit, folder, engine, on_rows)
        # A finished unit needs no record. In a bucket, `clean_up` deletes them, 1,000 per request.
        if isinstance(place, Path) or isinstance(result, Failure):
            place.unlink(missing_ok=True)
    except (OSError, InputError) as error:
        result = Failure.of(error)
    return result.picklable() if isinstance(result, Failure) else result


@contextlib.contextmanager
def recorded(place: Place, record: str, seconds: float) -> Generator[None]:
    """Write `record`, a unit's running record, to `place`, then run the block. If that takes longer than `seconds`, the
    stacks of all threads are written to the record (in a bucket, to the log) and the process ends: a thread of
    faulthandler does this, even if a library never returns to Python."""
    with contextlib.ExitStack() as stack:
        if isinstance(place, Path):
            place.unlink(missing_ok=True)  # the file may be hard-linked in a backup
            file = stack.enter_context(place.open("x", encoding="utf-8"))
            file.write(record)
            file.flush()
        else:
            file = 2
            with storing(place):
                write_atomically(place, record)
        faulthandler.dump_traceback_later(seconds, exit=True, file=file)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()


def end_with_parent() -> None:
    """End this process when standard input closes: the parent holds the other end."""
    while os.read(0, 1):
        pass
    shutil.rmtree(sys.argv[2], ignore_errors=True)
    os._exit(1)


if __name__ == "__main__":
    main()
