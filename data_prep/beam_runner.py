"""Which Beam runner executes a pipeline, how it is kept quiet, and how its errors reach the user.

One machine: FnApiRunner by its own name, since DirectRunner first tries to download another runner and behaves
differently with and without a network. One worker runs inside this process; more are processes of their own, which take
about five seconds to start and pay for every element that passes between them: pipelines hand them files, not pages.
"""

import contextlib
import logging
import os
import re
import shlex
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Generator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from lm.errors import InputError, UsageError

if TYPE_CHECKING:
    import apache_beam as beam
    from apache_beam.runners.runner import PipelineResult

ENDED = "ended"  # a file beside the noted process ids
REPOSITORY = Path(__file__).resolve().parent.parent
WHERE = re.compile(r"(?: \[while running '[^']*'\])+\s*$")
REMOTE_ERROR = re.compile(r".*^lm\.errors\.(InputError|UsageError): (.*)", re.DOTALL | re.MULTILINE)


def run_pipeline(build: Callable[["beam.Pipeline"], None], workers: int) -> "PipelineResult":
    """Runs what `build` adds to a new pipeline on `workers` processes of this machine; the result holds its counters.

    An InputError or UsageError of a transform is raised as it was, from other processes too. Raises InputError as well
    when a worker process is killed. Only the main thread may call this.
    """
    with (
        quiet(),
        importable_by_workers(),
        tempfile.TemporaryDirectory() as pids,
        loopback_only(),
        killed_workers_told(Path(pids), workers),
        interrupt_ends_workers(Path(pids)),
    ):
        import apache_beam as beam
        from apache_beam.options.pipeline_options import PipelineOptions
        from apache_beam.runners.portability.fn_api_runner import FnApiRunner
        from apache_beam.transforms.environments import EmbeddedPythonEnvironment, SubprocessSDKEnvironment

        environment = (
            EmbeddedPythonEnvironment.default()
            if workers == 1
            else SubprocessSDKEnvironment.from_command_string(command_string=worker_command(Path(pids)))
        )
        # The empty list of flags keeps Beam from reading this process's own command line.
        options = PipelineOptions([], direct_num_workers=workers)
        pipeline = beam.Pipeline(runner=FnApiRunner(default_environment=environment), options=options)
        build(pipeline)
        try:
            result = pipeline.run()
            result.wait_until_finish()
        except InputError as error:
            raise type(error)(WHERE.sub("", str(error))) from None
        except RuntimeError as error:
            if WHERE.sub("", str(error)) == "KeyboardInterrupt":  # what Beam makes of Ctrl-C inside a transform
                raise KeyboardInterrupt from None
            # Otherwise the traceback of another process, as text.
            if found := REMOTE_ERROR.match(str(error)):
                kind = {"InputError": InputError, "UsageError": UsageError}[found[1]]
                raise kind(WHERE.sub("", found[2])) from None
            raise
        return result


def worker_command(pids: Path) -> str:
    """The shell command that becomes a worker process, after it noted its process id as a file name in `pids`.

    It does not start once `end_workers` was called. What a worker has to say comes back in the exception; on the
    terminal it would be noise.
    """
    python = f"{shlex.quote(sys.executable)} -m apache_beam.runners.worker.sdk_worker_main"
    folder = shlex.quote(str(pids))
    return f": >{folder}/$$; test -e {folder}/{ENDED} || exec {python} 2>{os.devnull}"


def end_workers(pids: Path) -> None:
    """Kills the worker processes, and those that are only about to start, so that the runner waits for none."""
    (pids / ENDED).touch()  # first: who notes its id too late to be killed finds this
    for pid in pids.iterdir():
        if pid.name != ENDED:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid.name), signal.SIGKILL)


@contextlib.contextmanager
def killed_workers_told(pids: Path, workers: int) -> Generator[None]:
    """Raises InputError when a worker process ends before its time, for which the runner would wait for ever.

    The runner's thread that waits for a process raises when that was killed, and nobody listens. Here the thread's last
    words end the other workers, and a signal wakes the main thread, which runs the pipeline.
    """
    killed = threading.Event()
    hook_before = threading.excepthook

    def listen(last_words: threading.ExceptHookArgs) -> None:
        code = re.fullmatch(r"Worker subprocess exited with return code (-?\d+)", str(last_words.exc_value))
        if last_words.exc_type.__module__.startswith("grpc"):
            return  # a connection that broke for the same cause
        if code is None:
            hook_before(last_words)
        elif int(code[1]) != -signal.SIGINT and not (pids / ENDED).exists():  # the terminal interrupts all of them
            killed.set()
            end_workers(pids)
            os.kill(os.getpid(), signal.SIGUSR1)

    def wake(*_) -> None:
        raise RuntimeError("a worker process was killed")

    handler_before = signal.signal(signal.SIGUSR1, wake)
    threading.excepthook = listen
    try:
        yield
    except RuntimeError as error:
        if not killed.is_set():
            raise
        raise InputError(
            f"One of {workers} worker processes was killed, perhaps for want of memory. What is done is kept: the same "
            "command goes on from there. Give it fewer workers if this happens again."
        ) from error
    finally:
        threading.excepthook = hook_before
        signal.signal(signal.SIGUSR1, handler_before)


@contextlib.contextmanager
def interrupt_ends_workers(pids: Path) -> Generator[None]:
    """An interrupt that this process alone gets (kill -INT, a notebook's stop) ends its workers too.

    Beam answers KeyboardInterrupt by waiting for the workers to end, and they wait for work.
    """
    handler_before = signal.getsignal(signal.SIGINT)
    if not callable(handler_before):  # ignored, as for a command in the background of a script
        yield
        return

    def interrupted(number: int, frame: FrameType | None) -> None:
        end_workers(pids)
        handler_before(number, frame)

    signal.signal(signal.SIGINT, interrupted)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler_before)


@contextlib.contextmanager
def loopback_only() -> Generator[None]:
    """Beam's servers for the workers listen on this machine alone.

    Beam binds them to all interfaces, without a login or encryption, and has no option for that; whoever reaches such a
    port may pose as a worker, or read any file of ours. Beam asks grpc.server for its servers each time, so for
    the duration of a run that gives servers which mend the address. The workers connect to "localhost" anyway.
    """
    import grpc

    server_before = grpc.server

    def server(*args, **kwargs):
        made = server_before(*args, **kwargs)
        add_before = made.add_insecure_port
        made.add_insecure_port = lambda address: add_before(address.replace("[::]:", "localhost:"))
        return made

    setattr(grpc, "server", server)  # noqa: B010 (a plain assignment is no type of ty's)
    try:
        yield
    finally:
        grpc.server = server_before


@contextlib.contextmanager
def quiet() -> Generator[None]:
    """Beam logs its own workings and, before it raises them, all errors; none of it is news to the user."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


@contextlib.contextmanager
def importable_by_workers() -> Generator[None]:
    """Worker processes find our modules, whatever folder the command was given in."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(REPOSITORY), *([before] if before else [])])
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def counters(result: "PipelineResult", namespace: str) -> dict[str, int]:
    """The counters that the transforms of a finished pipeline incremented in `namespace`, by name."""
    from apache_beam.metrics import MetricsFilter

    totals: dict[str, int] = {}
    for counter in result.metrics().query(MetricsFilter().with_namespace(namespace))["counters"]:  # one a transform
        name = counter.key.metric.name
        totals[name] = totals.get(name, 0) + counter.committed
    return dict(sorted(totals.items()))
