"""Units on worker processes of this machine. A worker runs one unit at a time, which it receives over a pipe.

A killed worker costs its unit one attempt, and is replaced. Workers are reused for the next step, since a start takes a
second of CPU time, and end with this process. They are not forked: a process with threads must not fork.
"""

import atexit
import contextlib
import os
import pickle
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Generator
from dataclasses import replace
from multiprocessing import Pipe
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from data_prep.engine.attempts import SECONDS_BETWEEN_REPORTS, Attempts, run_here
from data_prep.engine.units import Failure, Unit

REPOSITORY = Path(__file__).resolve().parents[2]
LOG_BYTES = 4000
"""Last bytes of a worker's output that are stored with a failed unit."""


class Worker:
    def __init__(self, folder: Path):
        """Start a process. Its log and temporary files are in `folder`, which is deleted with it."""
        (folder / "tmp").mkdir(parents=True)
        self.folder, self.log = folder, folder / "log"
        self.connection, theirs = Pipe()
        paths = {
            "PYTHONPATH": os.pathsep.join([str(REPOSITORY), *filter(None, sys.path)]),
            "TMPDIR": str(folder / "tmp"),
        }
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "data_prep.engine.worker", str(theirs.fileno()), str(folder.parent)],
                stdin=subprocess.PIPE,  # when it closes, the worker ends
                stdout=output,
                stderr=output,
                pass_fds=[theirs.fileno()],
                process_group=0,  # a unit that kills its group does not kill this process
                env=os.environ | paths,
            )
        theirs.close()
        self.unit: Unit | None = None
        self.step = 0

    def begin(self, unit: Unit, deaths: int, number: int, step: bytes) -> None:
        """Send a unit to the worker process. `deaths` is the number of earlier attempts at the unit in which the
        process died. `step` is the pickled step and `number` identifies it: the step is sent only if the number changed
        since the last unit. Raises OSError if the process has ended."""
        self.unit = unit
        os.truncate(self.log, 0)
        if self.step != number:
            self.connection.send(("step", step))
            self.step = number
        self.connection.send(("unit", pickle.dumps((unit, deaths))))

    def printed(self) -> str:
        return self.log.read_bytes()[-LOG_BYTES:].decode(errors="replace")

    def death(self) -> str:
        code = self.process.wait()
        how = f"was killed ({signal.Signals(-code).name})" if code < 0 else f"ended with code {code}"
        memory = ", perhaps because memory ran out" if code == -signal.SIGKILL else ""
        return f"the worker process {how}{memory}"

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()
        self.connection.close()
        shutil.rmtree(self.folder, ignore_errors=True)


class Pool:
    def __init__(self, key: object):
        self.key = key
        self.folder = Path(tempfile.mkdtemp(prefix="gristmill-workers-"))
        self.workers: list[Worker] = []
        self.started = self.steps = 0

    def add(self) -> Worker:
        self.started += 1
        self.workers.append(Worker(self.folder / str(self.started)))
        return self.workers[-1]

    def replace(self, worker: Worker) -> Worker:
        worker.end()
        self.workers.remove(worker)
        return self.add()

    def end(self) -> None:
        for worker in self.workers:
            worker.end()
        self.workers.clear()
        shutil.rmtree(self.folder, ignore_errors=True)


POOL: list[Pool] = []


@contextlib.contextmanager
def pool() -> Generator[Pool]:
    """Yield this process's pool of workers. It is created on first use, and again if the environment variables, the
    import path or the working folder changed. An exception in the block ends all workers."""
    key = (dict(os.environ), list(sys.path), Path.cwd())
    if POOL and POOL[0].key != key:
        end_pool()
    if not POOL:
        POOL.append(Pool(key))
    try:
        yield POOL[0]
    except BaseException:
        end_pool()
        raise


@atexit.register
def end_pool() -> None:
    while POOL:
        POOL.pop().end()


def run_units(attempts: Attempts) -> None:
    """Run all queued units of a step in worker processes, or in this process if engine.workers is 1. Raises the errors
    of `Attempts.ended`."""
    if attempts.engine.workers == 1:
        run_here(attempts)
    else:
        run_in_processes(attempts, attempts.engine.workers)


def run_in_processes(attempts: Attempts, workers: int) -> None:
    """Run all queued units of a step in `workers` processes. Raises the errors of `Attempts.ended`; the processes then
    end."""
    with attempts.forgetting_running(), pool() as found:
        found.steps += 1
        step = pickle.dumps((replace(attempts.step, units=()), attempts.folder, attempts.engine))
        count = min(workers, len(attempts.queue))
        while len(found.workers) < count:
            found.add()
        idle = found.workers[:count]
        busy: dict[Any, Worker] = {}
        while attempts.queue or busy:
            while idle and (unit := attempts.next()):
                worker = found.replace(idle.pop()) if unit.name in attempts.suspects else idle.pop()
                with contextlib.suppress(OSError):  # the worker ended: its closed pipe reports that
                    worker.begin(unit, attempts.deaths.get(unit.name, 0), found.steps, step)
                busy[worker.connection] = worker
            for connection in wait(list(busy), SECONDS_BETWEEN_REPORTS):
                worker = busy[connection]
                if take_message(worker, attempts):
                    del busy[connection]
                    idle.append(worker if worker.process.poll() is None else found.replace(worker))
            attempts.report_now_and_then()


def take_message(worker: Worker, attempts: Attempts) -> bool:
    """Receive a message from a worker: the number of rows so far, or the result of its unit. A closed pipe means that
    the process died. Returns whether the unit has ended."""
    assert worker.unit is not None
    try:
        kind, value = worker.connection.recv()
    except (EOFError, OSError):
        attempts.ended(worker.unit, attempts.death(worker.unit, worker.death(), worker.printed()))
        return True
    if kind == "rows":
        attempts.working[worker.unit.name] = value
        return False
    if isinstance(value, Failure):
        value = replace(value, log=worker.printed())
    attempts.ended(worker.unit, value)
    return True
