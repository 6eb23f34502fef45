import contextlib
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import grpc
import pytest

from data_prep.beam_runner import counters, run_pipeline
from lm.errors import InputError, UsageError

REPOSITORY = Path(__file__).parents[2]
LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}  # 127.0.0.1 twice, ::1
LISTEN = "0A"  # the state of a socket in /proc/net/tcp
MESSAGE = "The file is bad.\nRemedy: mend [it], lm.errors.InputError: no, this is no other error"


def work(number: int, fault: str) -> None:
    from apache_beam.metrics import Metrics

    Metrics.counter("test", f"odd/{number % 2}").inc(number)
    if number == 3:
        if fault == "input":
            raise InputError(MESSAGE)
        if fault == "usage":
            raise UsageError(MESSAGE)
        if fault == "bug":
            raise KeyError("a bug of ours")
        if fault == "killed":
            os.kill(os.getpid(), signal.SIGKILL)

        if fault == "listening":
            Path(os.environ["LISTENING"]).write_text("\n".join(listening_addresses(os.getppid())))


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


def run(fault: str, workers: int):
    import apache_beam as beam

    def build(pipeline) -> None:
        pipeline | beam.Create(range(6), reshuffle=workers > 1) | beam.Map(work, fault=fault)

    return run_pipeline(build, workers)


@pytest.mark.parametrize("workers", [1, 2])
def test_counters_add_up_over_workers(workers):
    assert counters(run("none", workers), "test") == {"odd/0": 6, "odd/1": 9}
    assert counters(run("none", 1), "other") == {}


@pytest.mark.parametrize(("fault", "kind", "workers"), [("input", InputError, 1), ("usage", UsageError, 2)])
def test_errors_for_the_user_arrive_as_they_were(fault, kind, workers):
    with pytest.raises(InputError) as caught:
        run(fault, workers)
    assert type(caught.value) is kind
    assert str(caught.value) == MESSAGE


def test_a_bug_is_not_hidden():
    with pytest.raises(KeyError, match="a bug of ours"):
        run("bug", 1)


def test_a_killed_worker_is_told():
    with pytest.raises(InputError, match="One of 2 worker processes was killed"):
        run("killed", 2)


INTERRUPTED = """
import sys, time
from pathlib import Path
from data_prep.beam_runner import run_pipeline

def wait(number, folder):
    (Path(folder) / str(number)).touch()
    time.sleep(600)

def build(pipeline):
    import apache_beam as beam
    pipeline | beam.Create([0, 1], reshuffle=True) | beam.Map(wait, folder=sys.argv[1])

if __name__ == "__main__":
    try:
        run_pipeline(build, 2)
    except KeyboardInterrupt:
        print("interrupted")
"""


@pytest.mark.parametrize("when", ["starting", "working"])
def test_an_interrupt_of_the_main_process_alone_ends_all(tmp_path, when):
    command = [sys.executable, "-c", INTERRUPTED, str(tmp_path)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, cwd=REPOSITORY
    )
    try:
        deadline = time.monotonic() + 40
        begun = (lambda: len(members(process.pid)) > 1) if when == "starting" else (lambda: any(tmp_path.iterdir()))
        while not begun() and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.05)
        assert begun()
        os.kill(process.pid, signal.SIGINT)
        said, errors = process.communicate(timeout=20)
        assert (said, errors, process.returncode) == ("interrupted\n", "", 0)
        assert members(process.pid) == []
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # its own session: nobody else is in it
        process.communicate()


def members(session: int) -> list[str]:
    """The process ids of a session."""
    listed = subprocess.run(["ps", "-o", "pid=", "-s", str(session)], capture_output=True, text=True)
    return listed.stdout.split()


@pytest.mark.skipif(sys.platform != "linux", reason="open ports are read from /proc")
def test_beams_servers_listen_on_the_loopback_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("LISTENING", str(tmp_path / "addresses"))
    run("listening", 2)
    addresses = (tmp_path / "addresses").read_text().split()
    assert len(addresses) >= 4  # control, data, state, logging
    assert set(addresses) <= LOOPBACK


def test_what_a_run_changes_in_its_process_is_put_back():
    def state():
        return logging.root.manager.disable, os.environ.get("PYTHONPATH"), grpc.server, signal.getsignal(signal.SIGINT)

    before = state()
    run("none", 1)
    assert state() == before
