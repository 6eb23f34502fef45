"""Which Beam runner executes a pipeline, how it is kept quiet, and how its errors reach the user.

  fn_api  FnApiRunner by its own name, since DirectRunner first tries to download another runner and behaves differently
          with and without a network. One worker runs inside this process; more are processes (beam_workers.py), which
          pay for every element that passes between them: pipelines hand them files, not pages.
  dask    DaskRunner, on a cluster of this machine or, by --dask_client_address=..., on one that runs.
  beam    Any other: Flink, Spark, Dataflow. Its name and all it needs are Beam's own options, --runner=... first. Its
          workers need this package, and see the run folder under the same path or address.

What a pipeline may use is what works on all of them (each tried on Beam 2.77's DaskRunner): Create, Map, FlatMap,
ParDo, Flatten, Reshuffle, GroupByKey, CoGroupByKey, CombinePerKey and side inputs. Not tagged outputs, which arrive
mixed, nor what finish_bundle yields, which is lost, nor counters, of which there are none: results are files.
"""

import contextlib
import io
import logging
import os
import re
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Literal

from data_prep.engine.beam_workers import ENDED, worker_command
from lm.errors import InputError, UsageError

if TYPE_CHECKING:
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions

REPOSITORY = Path(__file__).resolve().parents[2]
WHERE = re.compile(r"(?: \[while running '[^']*'\])+\s*$")
REMOTE_ERROR = re.compile(r".*^lm\.errors\.(InputError|UsageError): (.*)", re.DOTALL | re.MULTILINE)
ONE_ELEMENT_EACH = 1 << 30  # partitions that Dask is asked for; it makes as many as there are elements
REPEAT_SECONDS = 1.0
"""Between an interrupt and the same again, as long as it has not ended the run."""

Runner = Literal["fn_api", "dask", "beam"]


def run_pipeline(
    build: Callable[["beam.Pipeline"], None], workers: int, runner: Runner = "fn_api", options: Sequence[str] = ()
) -> None:
    """Runs what `build` adds to a new pipeline: on `workers` processes of this machine, or wherever `options` say.

    An InputError or UsageError of a transform is raised as it was, from other processes too. Raises InputError as well
    when a worker process is killed, and UsageError for options that do not suit the runner. Only the main thread may
    call this.
    """
    if runner == "fn_api" and options:
        raise UsageError(
            f"engine.beam_options are {' '.join(options)}, but engine.runner is fn_api, which has none. Leave them out."
        )
    if runner == "beam" and not any(option.startswith("--runner=") for option in options):
        raise UsageError(
            f"engine.runner is beam, but engine.beam_options are {' '.join(options) or 'empty'}: name one, as "
            "--runner=FlinkRunner."
        )
    run = {"fn_api": run_locally, "dask": run_on_dask, "beam": run_by_options}[runner]
    # On a cluster, its logs are how one sees what it does.
    with contextlib.nullcontext() if runner == "beam" else quiet(), importable_by_workers(), errors_as_they_were():
        run(build, workers, options)


def run_locally(build: Callable[["beam.Pipeline"], None], workers: int, _: Sequence[str]) -> None:
    """By FnApiRunner, in this process or in worker processes."""
    with (
        tempfile.TemporaryDirectory() as pids,
        loopback_only(),
        killed_workers_told(Path(pids), workers),
    ):
        ending_workers(Path(pids), lambda: on_fn_api_runner(build, workers, Path(pids)))


def on_fn_api_runner(build: Callable[["beam.Pipeline"], None], workers: int, pids: Path) -> None:
    command = worker_command(pids) if workers > 1 else ""  # first: its server starts while Beam is imported

    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.runners.portability.fn_api_runner import FnApiRunner
    from apache_beam.transforms.environments import EmbeddedPythonEnvironment, SubprocessSDKEnvironment

    environment = (
        EmbeddedPythonEnvironment.default()
        if workers == 1
        else SubprocessSDKEnvironment.from_command_string(command_string=command)
    )
    # The empty list of flags keeps Beam from reading this process's own command line.
    pipeline_options = PipelineOptions([], direct_num_workers=workers)
    pipeline = beam.Pipeline(runner=FnApiRunner(default_environment=environment), options=pipeline_options)
    build(pipeline)
    pipeline.run().wait_until_finish()


def run_on_dask(build: Callable[["beam.Pipeline"], None], workers: int, options: Sequence[str]) -> None:
    """By DaskRunner, on the cluster that the options name or on `workers` processes of this machine."""
    try:
        from dask.distributed import KilledWorker, LocalCluster
    except ImportError as error:
        raise UsageError(f"runner is dask, but it is not installed ({error}): make add PACKAGE=distributed.") from error
    import apache_beam as beam
    from apache_beam.runners.dask.dask_runner import DaskRunner, DaskRunnerResult

    with contextlib.ExitStack() as stack:
        told = list(options)
        if not any(option.startswith(("--dask_client_address", "--dask_scheduler_file")) for option in options):
            cluster = LocalCluster(
                n_workers=workers, threads_per_worker=1, dashboard_address=None, silence_logs=logging.CRITICAL
            )
            told.append(f"--dask_client_address={stack.enter_context(cluster).scheduler_address}")
        if not any(option.startswith("--dask_npartitions") for option in options):
            told.append(f"--dask_npartitions={ONE_ELEMENT_EACH}")
        pipeline = beam.Pipeline(runner=DaskRunner(), options=parsed(told))
        build(pipeline)
        join_ends(pipeline)
        try:
            result = pipeline.run()
        except OSError as error:  # nothing but the connection is made here
            raise InputError(
                f"No Dask scheduler answers ({' '.join(options)}): {error}. Start one (dask scheduler), or mend its "
                "address in beam_options."
            ) from error
        assert isinstance(result, DaskRunnerResult)
        stack.enter_context(result.client)
        try:
            result.wait_until_finish()
        except KilledWorker as error:
            raise killed_worker(workers) from error


def join_ends(pipeline: "beam.Pipeline") -> None:
    """Makes one end of all ends of the graph: DaskRunner runs only what the last transform needs."""
    import apache_beam as beam
    from apache_beam.pipeline import PipelineVisitor

    made, used = [], set()

    class Ends(PipelineVisitor):
        def visit_transform(self, transform_node) -> None:
            made.extend(transform_node.outputs.values())
            used.update(transform_node.inputs)
            used.update(side_input.pvalue for side_input in transform_node.side_inputs)

    pipeline.visit(Ends())
    tuple(collection for collection in made if collection not in used) | "ends" >> beam.Flatten()


def parsed(options: Sequence[str]) -> "PipelineOptions":
    """Raises UsageError for a value that an option of Beam does not take: Beam itself would print 200 lines of usage
    and end the process."""
    from apache_beam.options.pipeline_options import PipelineOptions

    made, said = PipelineOptions(list(options)), io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            made.get_all_options()
    except SystemExit as error:
        reason = said.getvalue().rpartition("error: ")[2].strip()
        raise UsageError(f"Beam does not take engine.beam_options {' '.join(options)}: {reason}") from error
    return made


def run_by_options(build: Callable[["beam.Pipeline"], None], _: int, options: Sequence[str]) -> None:
    """By the runner that the options name."""
    import apache_beam as beam

    try:
        pipeline = beam.Pipeline(options=parsed(options))
    except (ValueError, ImportError) as error:  # of a runner that there is not, or not without other packages
        raise UsageError(f"Beam does not take engine.beam_options {' '.join(options)}: {error}") from error
    build(pipeline)
    pipeline.run().wait_until_finish()


@contextlib.contextmanager
def errors_as_they_were() -> Generator[None]:
    """Raises what a transform raised for the user, without what Beam wraps around it or appends."""
    try:
        yield
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


def killed_worker(workers: int) -> InputError:
    return InputError(
        f"One of {workers} worker processes was killed, perhaps for want of memory. What is done is kept: the same "
        "command goes on from there. Give it fewer workers if this happens again."
    )


def end_workers(pids: Path) -> None:
    """Kills the worker processes, and those that are only about to start, so that the runner waits for none."""
    (pids / ENDED).touch()  # first: who notes its id too late to be killed finds this
    for pid in os.listdir(pids):  # noqa: PTH208 -- a list: no folder stays open where the next interrupt cuts this
        if pid != ENDED:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)


@contextlib.contextmanager
def killed_workers_told(pids: Path, workers: int) -> Generator[None]:
    """Raises InputError when a worker process ends before its time, for which the runner would wait for ever.

    The runner's thread that waits for a process raises when that was killed, and nobody listens. Here the thread's last
    words end the other workers, and a signal wakes the main thread, which runs the pipeline.
    """
    killed = threading.Event()
    hook_before = threading.excepthook
    threads_before = frozenset(threading.enumerate())

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
        raise killed_worker(workers) from error
    finally:
        if (pids / ENDED).exists():  # their threads still have to say so, to nobody but `listen`
            for thread in frozenset(threading.enumerate()) - threads_before:
                if thread.name == "run_worker":
                    thread.join(timeout=10)
        threading.excepthook = hook_before
        signal.signal(signal.SIGUSR1, handler_before)


def ending_workers(pids: Path, run: Callable[[], None]) -> None:
    """`run()`. An interrupt that this process alone gets meanwhile (kill -INT, a notebook's stop) ends its workers too.

    Beam answers KeyboardInterrupt by waiting for the workers to end, and they wait for work. Python drops an exception
    that a signal raises in the callback of a weak reference or in __del__, as imports have them: without its workers
    the runner would then wait for ever. So the interrupt is repeated until `run` has ended.
    """
    handler_before = signal.getsignal(signal.SIGINT)
    if not callable(handler_before):  # ignored, as for a command in the background of a script
        run()
        return
    asked = repeated = False
    leaving = threading.Event()

    def running() -> None:
        run()

    def interrupted(number: int, frame: FrameType | None) -> None:
        nonlocal asked, repeated
        try:
            if repeated and not any(caller.f_code is running.__code__ for caller in callers(frame)):
                return  # `run` has ended: an exception here would cut what puts the handler back, and the repeats go on
            asked = True  # and nothing that takes a lock: the main thread may hold it
            end_workers(pids)
            handler_before(number, frame)
        finally:
            repeated = False

    def repeat() -> None:
        nonlocal repeated
        while not leaving.wait(REPEAT_SECONDS):
            if asked and not repeated:
                repeated = True
                os.kill(os.getpid(), signal.SIGINT)

    def hide_dropped(dropped: "sys.UnraisableHookArgs") -> None:
        if dropped.exc_type is not KeyboardInterrupt:
            hook_before(dropped)

    repeater, hook_before = threading.Thread(target=repeat, daemon=True), sys.unraisablehook
    signal.signal(signal.SIGINT, interrupted)
    sys.unraisablehook = hide_dropped
    repeater.start()
    try:
        running()
    finally:
        leaving.set()
        repeater.join()  # its last signal has come before the handler is put back
        signal.signal(signal.SIGINT, handler_before)
        sys.unraisablehook = hook_before


def callers(frame: FrameType | None) -> Generator[FrameType]:
    """The frame and those that called it."""
    while frame is not None:
        yield frame
        frame = frame.f_back


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
    """Worker processes find our modules, and the user's, whatever folder the command was given in."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(REPOSITORY), *filter(None, sys.path)])
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before
