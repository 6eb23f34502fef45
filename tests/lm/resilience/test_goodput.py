"""Goodput: each moment is counted once, also across restarts; hangs are reported with all stack traces."""

import contextlib
import json
import math
import threading
import time
from types import SimpleNamespace

import pytest

from lm.resilience.goodput import PHASES, Attempt, Goodput, read_attempts, read_heartbeat, totals
from lm.resilience.watchdog import Watchdog


@pytest.fixture
def clock(monkeypatch) -> SimpleNamespace:
    """Time that passes only when `now` is increased."""
    clock = SimpleNamespace(**vars(time), now=time.time())
    clock.time = clock.monotonic = lambda: clock.now
    for module in ("goodput", "watchdog"):
        monkeypatch.setattr(f"lm.resilience.{module}.time", clock)
    return clock


def test_every_moment_is_counted_once_in_the_innermost_phase(tmp_path, clock):
    goodput = Goodput(tmp_path)
    clock.now += 1
    with goodput.phase("steps"):
        clock.now += 2
        with goodput.phase("data"):
            clock.now += 4
        clock.now += 8
    clock.now += 16
    goodput.switch("starting")
    sums = totals(goodput.attempts)
    assert {kind: seconds for kind, seconds in sums.items() if seconds} == {"starting": 17, "steps": 10, "data": 4}


@pytest.mark.parametrize(("busy", "counted"), [(True, "steps"), (False, "data")])
def test_waiting_for_data_counts_only_if_the_devices_are_idle(tmp_path, clock, busy, counted):
    goodput = Goodput(tmp_path)
    goodput.busy = lambda: busy
    with goodput.phase("data"):
        clock.now += 1
    with goodput.phase("saving"):  # training waits for it, even if the devices are busy
        clock.now += 2
    assert goodput.now.seconds == {"starting": 0, counted: 1, "saving": 2}


def test_an_error_restores_the_previous_phase(tmp_path):
    goodput = Goodput(tmp_path)
    with contextlib.suppress(KeyError), goodput.phase("saving"):
        raise KeyError
    assert goodput.current == "starting"


def test_repeated_steps_and_downtime_are_lost():
    attempts = [
        Attempt(0.0, first_step=0, step=10, seen=100.0, seconds={"starting": 20.0, "steps": 80.0}),
        Attempt(130.0, first_step=None, step=0, seen=140.0, seconds={"starting": 10.0}),  # stopped before training
        Attempt(145.0, first_step=6, step=16, seen=225.0, seconds={"restoring": 5.0, "steps": 75.0}),
    ]
    sums = totals(attempts)
    assert sums["repeated"] == pytest.approx(80 * 4 / 10)  # steps 7 to 10
    assert sums["steps"] == pytest.approx(80 * 6 / 10 + 75)
    assert sums["down"] == 30 + 5
    assert sum(sums.values()) == 225  # complete, without double counting
    growing = lambda step: step + 3 * max(step - 6, 0)  # steps 7 to 10 take four times as long as the others
    assert totals(attempts, growing)["repeated"] == pytest.approx(80 * 16 / 22)


def test_resuming_from_an_older_checkpoint_loses_steps_of_all_previous_attempts():
    attempts = [
        Attempt(0.0, first_step=0, step=100, seen=100.0, seconds={"steps": 100.0}),
        Attempt(100.0, first_step=96, step=98, seen=102.0, seconds={"steps": 2.0}),
        Attempt(102.0, first_step=50, step=120, seen=172.0, seconds={"steps": 70.0, "a kind of another version": 0.5}),
    ]
    sums = totals(attempts)
    assert sums["repeated"] == 50 + 2  # steps 51 to 100 of the first, and both of the second
    assert sums["steps"] == 50 + 70
    assert sums["a kind of another version"] == 0.5


def test_the_heartbeat_has_the_current_phase(tmp_path):
    goodput = Goodput(tmp_path)
    goodput.begin(4)
    state = lambda: (read_heartbeat(tmp_path / "heartbeat.json") or {})["state"]
    with goodput.phase("validation"):
        assert state() == "validation"
    with goodput.phase("steps"):
        assert state() == "training"


def test_a_killed_attempt_is_read_from_its_heartbeat(tmp_path):
    first = Goodput(tmp_path)
    first.begin(0)
    first.switch("steps")
    first.beat(7)
    written = read_attempts(tmp_path)[-1].seen
    heart = read_heartbeat(tmp_path / "heartbeat.json")
    assert heart is not None
    assert (heart["step"], heart["state"]) == (7, "training")
    second = Goodput(tmp_path)  # the first was not closed
    (before, now) = second.attempts
    assert before.step == 7
    assert before.seen == pytest.approx(heart["time"], abs=0.002)
    assert before.seen >= written
    assert now.first_step is None
    second.close()
    assert [one["step"] for one in json.loads((tmp_path / "goodput.json").read_text())] == [7, 0]


def test_a_start_has_a_heartbeat_for_each_phase_and_its_time_counts_as_start(tmp_path):
    def state() -> str:
        heart = read_heartbeat(tmp_path / "heartbeat.json")
        return heart["state"] if heart else ""

    first = Goodput(tmp_path)
    with first.phase("compiling"):
        assert state() == ""  # not watched
    first.begin(0)
    first.beat(7)
    second = Goodput(tmp_path, began=time.time() - 10)  # the first was killed
    second.watch_start(0)
    for phase in ("compiling", "restoring"):
        (tmp_path / "heartbeat.json").write_text("")
        with second.phase(phase):
            assert state() == "starting"
            (tmp_path / "heartbeat.json").write_text("")
        assert state() == "starting"
    heart = read_heartbeat(tmp_path / "heartbeat.json")
    assert heart is not None
    (tmp_path / "heartbeat.json").write_text(json.dumps(heart | {"time": time.time() + 60}))
    one, two = read_attempts(tmp_path)  # the second was killed, too
    assert one.step == 7 and two.first_step is None and "steps" not in two.seconds and two.seconds["starting"] > 60
    second.begin(7)
    with second.phase("restoring"):
        assert state() == "training"


def test_stopping_before_training_keeps_previous_attempts(tmp_path):
    first = Goodput(tmp_path)
    first.begin(0)
    first.beat(7)
    Goodput(tmp_path).stop_before_training()
    heart = read_heartbeat(tmp_path / "heartbeat.json")
    assert heart is not None and heart["state"] == "stopped"
    assert [one.step for one in read_attempts(tmp_path)] == [7, 0]


def test_a_shorter_heartbeat_overwrites_a_longer_one(tmp_path):
    goodput = Goodput(tmp_path)
    goodput.beat(123_456_789, "training")
    goodput.beat(5, "done")
    assert read_heartbeat(tmp_path / "heartbeat.json")["step"] == 5  # ty: ignore[not-subscriptable]


def test_a_damaged_record_is_ignored(tmp_path):
    whole = {"began": 1.0, "first_step": 0, "step": 5, "seen": 2.0, "seconds": {"steps": 1.0}}
    changed = [{"first_step": {}}, {"step": math.inf}, {"seen": -math.inf}, {"seconds": {"steps": math.nan}}]
    wrong = [json.dumps([whole | one]) for one in changed]
    for text in ("", "[{", "{}", '[{"x": 1}]', '[{"began": 1, "seconds": null}]', '[{"began": "x"}]', *wrong):
        (tmp_path / "goodput.json").write_text(text)
        assert read_attempts(tmp_path) == []
    (tmp_path / "goodput.json").write_text(json.dumps([whole]))
    (tmp_path / "heartbeat.json").write_text('{"step": 1e999, "time": 3, "state": "", "process": 1}')
    assert read_heartbeat(tmp_path / "heartbeat.json") is None and len(read_attempts(tmp_path)) == 1


def test_a_folder_that_cannot_be_written_does_not_stop_the_run(tmp_path):
    goodput = Goodput(tmp_path / "absent")
    goodput.begin(0)
    goodput.beat(3)
    goodput.close()


def test_the_table_has_all_phases(tmp_path, clock):
    goodput = Goodput(tmp_path)
    goodput.now.seconds = dict.fromkeys(PHASES, 10.0)
    lines = goodput.table().splitlines()
    assert lines[0].startswith("goodput: 8.3%") and "in 1 attempt" in lines[0]
    assert [line.split("%  ")[1] for line in lines[1:]] == list(PHASES.values())


def test_a_hang_is_reported_once_with_all_stacks_and_the_devices(tmp_path, clock, capsys):
    goodput = Goodput(tmp_path)
    ready, end = threading.Event(), threading.Event()

    def wait_for_a_collective():
        ready.set()
        end.wait(600)

    thread = threading.Thread(target=wait_for_a_collective)
    thread.start()
    ready.wait()
    with contextlib.closing(Watchdog(goodput, tmp_path / "hangs", hang_seconds=0.3)):
        for step in range(1, 6):
            goodput.beat(step)
        clock.now += 1
        path, first = tmp_path / "hangs/step-00000005.txt", ""
        while not all(name in first for name in ("wait_for_a_collective", "test_a_hang_is_reported_once")):
            time.sleep(0.02)
            first = path.read_text() if path.exists() else ""
        time.sleep(1.0)  # the hang lasts for several checks of the watchdog
    end.set()
    thread.join()
    assert list(path.parent.iterdir()) == [path]
    assert "live arrays of" in first and "process 0 of 1" in first
    out = capsys.readouterr().out
    assert out.count("no sign of life") == 1
    assert "after step 5" in out


@pytest.mark.parametrize(("waited", "step_seconds"), [(0.01, {"step_seconds": 1000.0}), (1000.0, {})])
def test_slow_steps_are_not_a_hang(tmp_path, clock, waited, step_seconds):
    """Also if the first ones are only started, in milliseconds, before the loop waits for one."""
    goodput = Goodput(tmp_path)
    with contextlib.closing(Watchdog(goodput, tmp_path / "hangs", hang_seconds=0.1, **step_seconds)) as watchdog:
        watchdog.waits.extend([waited] * 7)
        goodput.beat(8)
        clock.now += 10
        time.sleep(0.5)
    assert not (tmp_path / "hangs").exists()
