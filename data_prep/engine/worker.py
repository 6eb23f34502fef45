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
from multiprocessing.connection import Connection
from typing import Any

from data_prep.engine.units import Failure, Marker, try_unit
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
            result = given if isinstance(given, Failure) else attempt(given, message, connection)
            connection.send(("ended", result.to_travel() if isinstance(result, Failure) else result))


def load(pickled: bytes) -> Any:
    """The step, its folder and the engine's config; a Failure where a module that it needs is not there."""
    try:
        inherit()  # what the step names is imported by pickle
        return pickle.loads(pickled)
    except Exception as error:
        return dataclasses.replace(Failure.of(error), ends_run=True)


def attempt(given: tuple, message: bytes, connection: Connection) -> Marker | Failure:
    return try_unit(given[0], pickle.loads(message), *given[1:], on_rows=lambda rows: connection.send(("rows", rows)))


def end_with_parent() -> None:
    """Ends this process when standard input ends: the parent holds its other end."""
    while os.read(0, 1):
        pass
    shutil.rmtree(sys.argv[2], ignore_errors=True)
    os._exit(1)


if __name__ == "__main__":
    main()
