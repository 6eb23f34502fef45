"""The supervisor restarts crashed processes, gives up on repeated crashes at one step, and forwards signals."""

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Generator
from pathlib import Path
from types import SimpleNamespace

import pytest

from launch import supervise
from launch import supervise as supervision
from launch.supervise import Supervisor
from lm.errors import AbsentPeerError, PeerError
from lm.resilience.goodput import read_heartbeat
from tests.run_files import REPOSITORY
from tests.train_process import free_port
from tests.until import until

CHILD = """
import os, signal, sys, time
from pathlib import Path
from lm.resilience.goodput import Goodput

run = Path(sys.argv[1])
count = run / "count"
number = int(count.read_text()) + 1 if count.exists() else 1
count.write_text(str(number))
goodput = Goodput(run)

def pass_time(seconds):
    (run / "partial").write_text(str(seconds))
    (run / "partial").rename(run / "pass")
    while (run / "pass").exists():
        time.sleep(0.01)
"""


@pytest.fixture(autouse=True)
def clock(monkeypatch, tmp_path) -> None:
    """Let programs move the supervisor's clock by `pass_time`, between two looks at the heartbeat.

    No limit is short in real time, so slow programs do not exceed one.
    """
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    ahead, asked, beat = 0.0, tmp_path / "pass", Supervisor.beat

    def moves() -> Generator[None]:
        nonlocal ahead
        while True:
            if asked.exists():
                yield
                ahead += float(asked.read_text())
                yield
                asked.unlink()
            yield

    def look(supervisor: Supervisor, before: dict | None) -> dict | None:
        next(looks)
        return beat(supervisor, before)

    looks, names = moves(), vars(time) | {"monotonic": lambda: time.monotonic() + ahead}
    monkeypatch.setattr(supervision, "time", SimpleNamespace(**names))
    monkeypatch.setattr(Supervisor, "beat", look)


def supervisor(run: Path, body: str, **settings) -> Supervisor:
    """Supervise a program that knows `number`, the number of its starts, and has a heartbeat."""
    program = run / "child.py"
    program.write_text(CHILD + textwrap.dedent(body))
    command = [sys.executable, str(program), str(run)]
    made = Supervisor(command, run / "heartbeat.json", run / "supervisor.jsonl", first_wait=0.01, look_seconds=0.02)
    return dataclasses.replace(made, **settings)


def when_it_beats(run: Path, number: int, both: bool = False) -> None:
    """Send a signal to the supervisor, and to the program if `both`, once the program has a heartbeat."""

    def wait() -> None:
        while (heart := read_heartbeat(run / "heartbeat.json")) is None:
            time.sleep(0.02)
        os.kill(os.getpid(), number)
        if both:
            os.kill(heart["process"], number)

    threading.Thread(target=wait, daemon=True).start()


def events(run: Path) -> list[str]:
    rows = [json.loads(line) for line in (run / "supervisor.jsonl").read_text().splitlines()]
    return [row["event"] for row in rows if row["event"] != "start"]


CRASHES = """
goodput.beat(10 * number)
if number < 5:
    os.kill(os.getpid(), signal.SIGKILL) if number % 2 else sys.exit(1)
goodput.beat(50, "done")
"""
BEFORE_THE_FIRST_STEP = """
from lm.resilience.preemption import PreemptionHandler
with PreemptionHandler(1, lambda: goodput.beat(0, "stopped")):
    if number == 1:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(600)
"""
OTHER_CLOCK = """
real = time.time
time.time = lambda: real() + {}
for step in range(1, 13):
    goodput.beat(step)
    time.sleep(0.1)
goodput.beat(30, "stopped" if number == 1 else "done")
"""
HANGING_START = """
goodput.watch_start(0.2)
def restore_or_compile():
    with goodput.phase("restoring"):
        while b"in restore_or_compile" not in os.pread(2, 100_000, 0):
            time.sleep(0.02)
        pass_time(700)
        print("waits after 700 s", file=sys.stderr, flush=True)
        pass_time(600)
if number == 1:
    restore_or_compile()
goodput.begin(0)
goodput.beat(4, "done")
"""
LOST = """
if number % 2 == 0:
    sys.exit(4)
goodput.beat(7)
sys.exit(3)
"""
STARTING = "goodput.watch_start({0}); pass_time(3000); goodput.begin(0); goodput.beat(4, 'done')"
SAVING = """goodput.begin(0); goodput.beat(8)
with goodput.phase("saving"): pass_time(3000)
goodput.beat(8, "done")"""
FULL_DISK = """goodput.beat(8); (run / "heartbeat.json.probe").mkdir(); pass_time(700)"""
"""No file can be written at that path."""
RUNS: dict[str, tuple[str, dict[str, float], int, str, list[str]]] = {
    "ever later crashes": (CRASHES, {}, 0, "crash, crash, crash, crash, done", [
        "ended by SIGKILL after step 10; restarting\n", "exit code 1 after step 20; restarting\n",
        "done: 5 starts, 4 crashes so far"]),
    "crashes at one step": ("goodput.beat(7 if number > 1 else 5); sys.exit(41)", {"same_step": 3}, 41,
        "crash, crash, crash, gave up", ["exit code 41 after step 7, 3 times in a row; 4 starts"]),
    "crashes at different steps": ("goodput.beat(100 + number % 2); sys.exit(1)",
        {"same_step": 3, "no_progress": 4, "longest_wait": 0.02}, 1, "crash, crash, crash, crash, gave up",
        ["4 crashes in a row without progress beyond step 101; 5 starts"]),
    "crashes before the first step": ("sys.exit(1)", {"same_step": 2}, 1, "crash, gave up",
        ["exit code 1 outside of training, 2 times in a row"]),
    "a usage error": ("sys.exit(2)", {}, 2, "gave up", []),
    "stopped by others": ("goodput.beat(4, 'stopped' if number == 1 else 'done')", {}, 0, "stopped, done", []),
    "stopped before the first step": (BEFORE_THE_FIRST_STEP, {}, 0, "stopped, done", []),
    "a stage after training": ("goodput.beat(9, 'done'); pass_time(7000)", {"hang_seconds": 600.0}, 0, "done", []),
    "a save": (SAVING, {"hang_seconds": 600.0}, 0, "done", []),
    "a full disk": (FULL_DISK, {"hang_seconds": 600.0}, 0, "done", []),
    "no progress": ("goodput.beat(8); number > 1 or pass_time(700)", {"hang_seconds": 600.0}, 0, "crash, done",
        [r"killed after \d+ s without progress, after step 8"]),
    "a start that hangs": (HANGING_START, {"start_seconds": 600.0}, 0, "crash, done",
        [r"in restore_or_compile[\s\S]*waits after 700 s\s",
         r"waits after 700 s[\s\S]*killed after \d+ s without progress, outside of training"]),
    "a start without a limit": (STARTING.format(0), {"start_seconds": 0.0, "hang_seconds": 600.0}, 0, "done", []),
    "a long start": (STARTING.format(600), {"start_seconds": 3600.0, "hang_seconds": 600.0}, 0, "done", []),
    "a clock ahead": (OTHER_CLOCK.format(7200), {"hang_seconds": 600.0}, 0, "stopped, done", []),
    "a clock behind": (OTHER_CLOCK.format(-7200), {"hang_seconds": 600.0}, 0, "stopped, done", []),
    "lost after the join and absent at the next": (LOST, {"same_step": 3}, PeerError.exit_code,
        "crash, waiting, crash, waiting, gave up", []),
}  # fmt: skip
"""{what a program does: (its body, settings, the supervisor's exit code, events, what it prints)}."""


@pytest.mark.parametrize(
    "name", [pytest.param(one, marks=pytest.mark.slow if one == "a clock behind" else ()) for one in RUNS]
)
def test_a_process_is_restarted_or_given_up(tmp_path, capfd, name):
    """Also after the heartbeat of an earlier process, whose steps and stop do not count."""
    body, settings, code, expected, said = RUNS[name]
    (tmp_path / "heartbeat.json").write_text('{"step": 99, "time": 1, "state": "stopped", "process": 1}')
    assert supervisor(tmp_path, body, **settings).run() == code
    assert ", ".join(events(tmp_path)) == expected
    told = capfd.readouterr().err
    assert all(re.search(one, told) for one in said), told


def test_an_invalid_heartbeat_is_ignored(tmp_path):
    for text in ("[]", "{}", "7", '{"step": null, "time": 1, "state": "x", "process": 1}', "{"):
        (tmp_path / "heartbeat.json").write_text(text)
        assert supervisor(tmp_path, "").run() == 0


def test_the_supervisor_gives_up_on_an_absent_process_after_its_limit(tmp_path, capfd):
    assert supervisor(tmp_path, "sys.exit(4)", give_up_after=0.5).run() == AbsentPeerError.exit_code
    assert events(tmp_path)[-1] == "gave up" and {*events(tmp_path)[:-1]} <= {"waiting"}
    assert "another process has not joined for" in (said := capfd.readouterr().err)
    assert "--give-up-after is 0.5 s" in said


def test_waits_grow_with_every_crash_at_one_step(tmp_path, monkeypatch):
    waits: list[float] = []
    watched = supervisor(tmp_path, "goodput.beat(3); sys.exit(1)", same_step=6, first_wait=1.0, longest_wait=5.0)
    monkeypatch.setattr(watched, "sleep", waits.append)
    watched.run()
    assert waits == [0.0, 1.0, 2.0, 4.0, 5.0]


def test_a_heartbeat_of_an_earlier_process_is_ignored_whatever_its_number(tmp_path):
    watched = supervisor(tmp_path, "")
    watched.process = subprocess.Popen([sys.executable, "-c", ""])
    line = '{"step": %d, "time": 1, "state": "training", "process": %d}'
    watched.heart.write_text(line % (4, watched.process.pid))
    before = read_heartbeat(watched.heart)
    assert watched.beat(before) is None
    watched.heart.write_text(line % (5, watched.process.pid))
    assert watched.beat(before) == read_heartbeat(watched.heart)
    watched.process.wait()


def test_an_interrupt_that_only_reached_the_supervisor_is_forwarded(tmp_path, monkeypatch):
    monkeypatch.setattr(supervision, "BY_ITSELF", 0.2)
    body = """
    signal.signal(signal.SIGTERM, lambda *_: (goodput.beat(6, "stopped"), os._exit(0)))
    goodput.beat(5)
    time.sleep(600)
    """
    watched = supervisor(tmp_path, body)
    when_it_beats(tmp_path, signal.SIGINT)
    assert watched.run() == 0
    assert events(tmp_path) == ["asked to end"]


def test_sigterm_is_forwarded_once(tmp_path):
    body = """
    signals = []
    signal.signal(signal.SIGTERM, lambda *_: signals.append(1))
    goodput.beat(5)
    while not signals:
        time.sleep(0.02)
    pass_time(0)
    sys.exit(40 + len(signals))
    """
    watched = supervisor(tmp_path, body)
    when_it_beats(tmp_path, signal.SIGTERM)
    assert watched.run() == 41


def test_a_signal_while_the_process_is_being_started_is_forwarded_too(tmp_path, monkeypatch):
    watched = supervisor(tmp_path, "goodput.beat(1); time.sleep(600)")
    real = subprocess.Popen

    def slow(command):
        process = real(command)
        os.kill(os.getpid(), signal.SIGTERM)
        return process

    monkeypatch.setattr(subprocess, "Popen", slow)
    assert watched.run() == 128 + signal.SIGTERM
    assert events(tmp_path) == ["asked to end"]


def test_failed_joins_are_no_crashes_and_the_run_completes_when_the_other_process_is_back(tmp_path, capfd):
    address = f"localhost:{free_port()}"
    body = f"""
    import subprocess
    from launch.stages.meeting import meet
    from lm.errors import PeerError
    if number == 3:
        code = "from launch.stages.meeting import *; meet(1, 2, {address!r}, 600.0); open('back', 'x')"
        subprocess.Popen([sys.executable, "-c", code], cwd=run)
    try:
        meet(0, 2, {address!r}, 0.1 if number < 4 else 600.0)
    except PeerError as error:
        sys.exit(error.exit_code)
    goodput.beat(9, "done")
    """
    watched = supervisor(tmp_path, body, same_step=2, no_progress=2)
    assert watched.run() == 0
    until((tmp_path / "back").exists)
    assert events(tmp_path) == ["waiting"] * (len(events(tmp_path)) - 1) + ["done"] and len(events(tmp_path)) > 2
    assert "another process has not joined for" in capfd.readouterr().err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_is_forwarded_and_nothing_is_restarted(tmp_path, monkeypatch, number, code):
    monkeypatch.setattr(supervision, "BY_ITSELF", 600.0)
    body = f"""
    signal.signal({int(number)}, lambda *_: (goodput.beat(6, "stopped"), os._exit({code})))
    goodput.beat(5)
    time.sleep(600)
    """
    watched = supervisor(tmp_path, body)
    when_it_beats(tmp_path, number, both=number == signal.SIGINT)  # as a terminal does, to its whole group
    assert watched.run() == code
    assert (tmp_path / "count").read_text() == "1"
    assert events(tmp_path) == ["asked to end"]


def test_exit_codes_distinguish_done_from_stopped_for_a_scheduler(tmp_path):
    body = """
    signal.signal(signal.SIGTERM, lambda *_: (goodput.beat(6, "stopped"), os._exit(0)))
    goodput.beat(5)
    if number == 1:
        time.sleep(600)
    """
    when_it_beats(tmp_path, signal.SIGTERM)
    assert supervisor(tmp_path, body, stopped_code=75).run() == 75
    assert supervisor(tmp_path, body, stopped_code=75).run() == 0
    assert supervisor(tmp_path, "sys.exit(2)", stopped_code=75).run() == 2


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("--same-step", "0"),
        ("--hang-minutes", "nan"),
        ("--hang-minutes", "-1"),
        ("--hang-minutes", "inf"),
        ("--give-up-after", "nan"),
        ("--give-up-after", "-1"),
    ],
)
def test_invalid_limits_are_rejected_with_their_value(monkeypatch, capsys, name, value):
    monkeypatch.setattr(sys, "argv", ["launch.supervise", f"{name}={value}", "launch.train", "tests/configs.py"])
    with pytest.raises(SystemExit) as ended:
        supervise.main()
    assert ended.value.code == 2
    assert re.search(rf"{name} is {value}", capsys.readouterr().err)


def test_an_invalid_config_is_reported_before_anything_is_started(tmp_path):
    command = [sys.executable, "-m", "launch.supervise", "launch.train", "tests/configs.py", "--train.steps", "0"]
    ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=600)
    assert ended.returncode == 2
    assert "train.steps is 0" in ended.stderr
    assert "supervise: " not in ended.stderr.replace("launch.supervise: ", "")
