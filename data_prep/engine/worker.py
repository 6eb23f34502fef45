"""A worker process: runs the units that come over its pipe, one at a time, and ends when its parent does.

Its standard output and error go to a file, whose end the parent keeps where a unit fails. That and what it brings to
this machine are deleted by the parent, and where that was killed, by its workers.
"""

import dataclasses
import faulthandler
import os
import pickle
import shutil
import signal
import sys
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from data_prep.engine.units import ATTEMPT, Failure, Marker, running_of, try_unit
from lm.trusted_code import inherit


def main() -> None:
    """The process: its arguments are the number of the pipe's file descriptor, and the folder of all workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal interrupts all of a group; the parent ends its workers
    faulthandler.enable()
    threading.Thread(target=end_with_parent, daemon=True).start()
    connection = Connection(int(sys.argv[1]))
    given: Any = b""
    while True:
        try:
            kind, message = connection.recv()
        except (EOFError, ConnectionResetError):
            return
        if kind == "step":
            given = message
        else:
            if isinstance(given, bytes):
                given = load(given)
            result = (
                given
                if isinstance(given, Failure)
                else attempt(given, message, lambda rows: connection.send(("rows", rows)))
            )
            connection.send(("ended", result.to_travel() if isinstance(result, Failure) else result))


def load(pickled: bytes) -> Any:
    """The step, its folder and the engine's config; a Failure where a module that it needs is not there."""
    try:
        inherit()  # what the step names is imported by pickle
        return pickle.loads(pickled)
    except Exception as error:
        return dataclasses.replace(Failure.of(error), ends_run=True)


def attempt(given: tuple, message: bytes, on_rows: Callable[[int], None] = lambda rows: None) -> Marker | Failure:
    """One attempt in a process that may die of it.

    On a disk, the file `running_of` has a line for each attempt that has not ended, so that a restarted command knows
    the attempts during which it ended. After engine.unit_hours the process writes there where it hangs, and ends; a
    thread of faulthandler does that, even while a library never returns to Python.
    """
    step, folder, engine = given
    unit = pickle.loads(message)
    if not isinstance(folder, Path):
        return try_unit(step, unit, folder, engine, on_rows)
    place = running_of(step.name, unit.name, folder)
    try:
        with place.open("a", encoding="utf-8") as file:
            file.write(f"{ATTEMPT}{unit.identity} on {os.uname().nodename}, process {os.getpid()}\n")
            file.flush()
            faulthandler.dump_traceback_later(engine.unit_hours * 3600, exit=True, file=file)
            try:
                result = try_unit(step, unit, folder, engine, on_rows)
            finally:
                faulthandler.cancel_dump_traceback_later()
        place.unlink(missing_ok=True)
    except OSError as error:
        return Failure.of(error)
    return result


def end_with_parent() -> None:
    """Ends this process when standard input ends: the parent holds its other end."""
    while os.read(0, 1):
        pass
    shutil.rmtree(sys.argv[2], ignore_errors=True)
    os._exit(1)


if __name__ == "__main__":
    main()
