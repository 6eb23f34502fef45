import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import grpc
import pytest

from data_prep.engine import beam_runner
from data_prep.engine.beam_runner import run_pipeline
from lm.errors import InputError, UsageError
from tests.run_files import HANG_SECONDS

REPOSITORY = Path(__file__).parents[3]
LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}  # 127.0.0.1 twice, ::1
LISTEN = "0A"  # the state of a socket in /proc/net/tcp
MESSAGE = "The file is bad.\nRemedy: mend [it], lm.errors.InputError: no, this is no other error"


def work(number: int, fault: str, folder: Path) -> None:
    (folder / str(number)).touch()
    if number == 3:
        if fault == "input":
            raise InputError(MESSAGE)
        if fault == "usage":
            raise UsageError(MESSAGE)
        if fault == "bug":
            raise KeyError("a bug of ours")
        if fault == "killed":
            os.kill(os.getpid(), signal.SIGKILL)


def listening_addresses(pid: int) -> list[str]:
    """Local addresses, in hex, of the TCP sockets that a process listens on, as Linux tells."""
    sockets = set()
    for handle in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            sockets.add(str(handle.readlink()))
    addresses = []
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):  # a machine without IPv6 has no tcp6
            for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == LISTEN and f"socket:[{fields[9]}]" in sockets:
                    addresses.append(fields[1].split(":")[0])
    return addresses


def run(fault: str, workers: int, folder: Path, **options) -> set[int]:
    """The numbers that were worked on."""

    def build(pipeline) -> None:
        import apache_beam as beam

        numbers = pipeline | beam.Create(range(6), reshuffle=workers > 1)
        numbers | "one end" >> beam.Map(work, fault=fault, folder=folder)
        negative = numbers | beam.Map(lambda number: number % 3 - 100)
        negative | "another end" >> beam.Map(work, fault="none", folder=folder)

    run_pipeline(build, workers, **options)
    return {int(path.name) for path in folder.iterdir()}


ALL = {0, 1, 2, 3, 4, 5, -100, -99, -98}


@pytest.mark.parametrize("workers", [1, 2])
def test_all_is_worked_on(workers, tmp_path):
    assert run("none", workers, tmp_path) == ALL


@pytest.mark.parametrize(("fault", "kind", "workers"), [("input", InputError, 1), ("usage", UsageError, 2)])
def test_errors_for_the_user_arrive_as_they_were(fault, kind, workers, tmp_path):
    with pytest.raises(InputError) as caught:
        run(fault, workers, tmp_path)
    assert type(caught.value) is kind
    assert str(caught.value) == MESSAGE


def test_a_bug_is_not_hidden(tmp_path):
    with pytest.raises(KeyError, match="a bug of ours"):
        run("bug", 1, tmp_path)


def test_a_killed_worker_is_told(tmp_path):
    with pytest.raises(InputError, match="One of 2 worker processes was killed"):
        run("killed", 2, tmp_path)


@pytest.mark.parametrize(
    "runner", [["fn_api"], ["beam", "--runner=apache_beam.runners.portability.fn_api_runner.FnApiRunner"]]
)
def test_a_runner_is_chosen_by_name_or_by_beams_options(runner, tmp_path):
    assert run("none", 1, tmp_path, runner=runner[0], options=runner[1:]) == ALL


UNSUITABLE = (["fn_api", "--direct_num_workers=3"], ["beam", "--flink_master=x"], ["beam"], ["beam", "--runner=Nobody"],
              ["beam", "--runner=DirectRunner", "--direct_num_workers=many"])  # fmt: skip


@pytest.mark.parametrize("runner", UNSUITABLE)
def test_options_that_do_not_suit_the_runner_are_refused(runner, tmp_path):
    with pytest.raises(UsageError, match="beam_options"):
        run("none", 1, tmp_path, runner=runner[0], options=runner[1:])


INTERRUPTED = """
import os, signal, sys, time, weakref
from pathlib import Path
from data_prep.engine import beam_runner
from data_prep.engine.beam_runner import run_pipeline

def wait(number, folder):
    (Path(folder) / str(number)).touch()
    time.sleep(3600)

def build(pipeline):
    import apache_beam as beam
    pipeline | beam.Create([0, 1], reshuffle=True) | beam.Map(wait, folder=sys.argv[1])
    if sys.argv[2] == "dropped":  # Python drops what a signal raises in the callback of a weak reference
        thing = set()
        reference = weakref.ref(thing, lambda _: os.kill(os.getpid(), signal.SIGINT))
        del thing
        print("dropped", flush=True)

if __name__ == "__main__":
    try:
        run_pipeline(build, 2)
    except KeyboardInterrupt:
        print("interrupted")
"""


@pytest.mark.parametrize("when", ["starting", "dropped", pytest.param("working", marks=pytest.mark.slow)])
def test_an_interrupt_of_the_main_process_alone_ends_all(tmp_path, when):
    command = [sys.executable, "-c", INTERRUPTED, str(tmp_path), when]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, cwd=REPOSITORY
    )
    try:
        deadline = time.monotonic() + HANG_SECONDS
        begun = (lambda: len(members(process.pid)) > 1) if when == "starting" else (lambda: any(tmp_path.iterdir()))
        if when != "dropped":  # there the process interrupts itself
            while not begun() and time.monotonic() < deadline and process.poll() is None:
                time.sleep(0.05)
            assert begun()
            os.kill(process.pid, signal.SIGINT)
        said, errors = process.communicate(timeout=HANG_SECONDS)
        assert (said.removeprefix("dropped\n"), errors, process.returncode) == ("interrupted\n", "", 0)
        assert said.startswith("dropped\n") == (when == "dropped")
        while members(process.pid) and time.monotonic() < deadline:  # the workers' server ends when it sees us gone
            time.sleep(0.05)
        assert members(process.pid) == []
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # its own session: nobody else is in it
        process.communicate()


def test_a_repeated_interrupt_does_not_outlive_the_run(monkeypatch, tmp_path):
    """Repeats used to cut what ends them, where they came while the run was being left."""
    monkeypatch.setattr(beam_runner, "REPEAT_SECONDS", 0.0)
    handler, hook, threads = signal.getsignal(signal.SIGINT), sys.unraisablehook, threading.active_count()

    def interrupted() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(HANG_SECONDS)

    for _ in range(100):
        with pytest.raises(KeyboardInterrupt):
            beam_runner.ending_workers(tmp_path, interrupted)
        assert signal.getsignal(signal.SIGINT) is handler and sys.unraisablehook is hook
        assert threading.active_count() == threads


def members(session: int) -> list[str]:
    """The process ids of a session."""
    listed = subprocess.run(["ps", "-o", "pid=", "-s", str(session)], capture_output=True, text=True)
    return listed.stdout.split()


@pytest.mark.skipif(sys.platform != "linux", reason="open ports are read from /proc")
def test_beams_servers_listen_on_the_loopback_alone(tmp_path):
    def build(pipeline) -> None:
        import apache_beam as beam

        told = pipeline | beam.Create([os.getpid()]) | beam.FlatMap(listening_addresses)
        told | beam.Map(lambda address: (tmp_path / f"{address}").touch())

    run_pipeline(build, 2)
    addresses = {path.name for path in tmp_path.iterdir()}
    assert addresses and addresses <= LOOPBACK


def test_what_a_run_changes_in_its_process_is_put_back(tmp_path):
    def state():
        return logging.root.manager.disable, os.environ.get("PYTHONPATH"), grpc.server, signal.getsignal(signal.SIGINT)

    before = state()
    run("none", 1, tmp_path)
    assert state() == before


ON_DASK = """
import sys
from pathlib import Path
from lm.errors import InputError
from tests.data_prep.engine.test_beam_runner import run

if __name__ == "__main__":
    try:
        print(sorted(run(sys.argv[1], 2, Path(sys.argv[2]), runner="dask", options=sys.argv[3:])))
    except InputError as error:
        print(type(error).__name__, error)
"""


@pytest.mark.slow
def test_an_error_for_the_user_arrives_from_dask_too(tmp_path):
    """That Dask does the same where there is no error, test_clusters.py says."""
    assert on_dask("usage", tmp_path) == f"UsageError {MESSAGE}"
    assert "3" in {path.name for path in (tmp_path / "out").iterdir()}


@pytest.mark.slow
def test_a_scheduler_that_does_not_answer_is_told(tmp_path):
    said = on_dask("none", tmp_path, "--dask_client_address=tcp://127.0.0.1:1")
    assert said.startswith("InputError No Dask scheduler answers (--dask_client_address=tcp://127.0.0.1:1): ")


def on_dask(fault: str, folder: Path, *options: str) -> str:
    """What a process of its own prints, which is what Dask's workers import again."""
    pytest.importorskip("distributed", reason="Dask is not installed")
    (folder / "main.py").write_text(ON_DASK)
    (folder / "out").mkdir()
    command = [sys.executable, "-W", "ignore", str(folder / "main.py"), fault, str(folder / "out"), *options]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "5s"}
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=HANG_SECONDS)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.strip()
