"""Units run once, give the same bytes on every engine despite failures, and failed units are named."""

import contextlib
import dataclasses
import errno
import faulthandler
import functools
import gc
import hashlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from data_prep.config import ONE_PROCESS, EngineConfig
from data_prep.engine import Step, Unit, Workspace, attempts, identity_of, run_step
from data_prep.engine.attempts import HOPELESS, read_manifest
from data_prep.engine.units import read_marker
from lm.errors import InputError, UsageError
from lm.storage import Place, write_atomically
from tests.run_files import HANG_SECONDS, REPOSITORY
from tests.until import until

TWO, BEAM = EngineConfig(workers=2, max_failed=1.0), EngineConfig(runner="beam", max_failed=0.5)
ENGINES = {"here": ONE_PROCESS, "processes": TWO, "beam": BEAM}
on_both = pytest.mark.parametrize("engine", [ONE_PROCESS, TWO], ids=["here", "processes"])
CRASH, HANG, DAMAGED, GROUP, COMMAND = "crash", "hang", "damaged", "group", "command"
BAD = {"bad": f"{DAMAGED} text", "kill": f"{CRASH} x", "group": f"{GROUP} x", "sleep": "wait x", "loop": "spin x"}


def work(unit: Unit[str], space: Workspace, log: Path | None = None) -> dict:
    """Write the unit's text, or fail as it says."""
    if log:
        (log / f"{unit.name}.{len(list(log.glob(f'{unit.name}.*')))}").touch()
    path = space.output(f"out/{unit.name}.txt")
    kind, _, text = unit.input.partition(" ")
    if kind == CRASH:
        print("about to crash", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == GROUP:
        os.killpg(0, signal.SIGKILL)
    if kind == COMMAND:
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(HANG_SECONDS)
    if kind == HANG:
        while True:
            space.count(bytes=1000)
    if kind == DAMAGED:
        raise InputError(f"{unit.name} is damaged.")
    if kind == "once" and log and len(list(log.glob(f"{unit.name}.*"))) == 1:
        raise ConnectionError("the first time only")
    if kind == "wait":
        end_soon()
        time.sleep(HANG_SECONDS)
    if kind == "spin":
        spin()
    if kind == "settings":
        raise UsageError("this cannot be")
    if kind == "full":
        raise InputError("cannot be written") from OSError(errno.ENOSPC, "No space left on device")
    if kind == "bug":
        raise KeyError(unit.name)
    space.count(rows=3, bytes=len(text))
    write_atomically(path, text.encode(), scratch=space.scratch)
    return {"rows": space.rows}


def spin() -> None:
    """Run forever in a regular expression, which does not return to Python."""
    end_soon()
    re.match(r"(x+x+)+y", "x" * 100)


end_soon: Callable[[], None] = lambda: None
"""Lets the unit's time limit pass, if the step's work is `Hurried`."""


class Hurried(functools.partial):
    """`work`, in worker processes in which units that hang exceed their time limit at once: the limit is long, so that
    no other unit exceeds it."""

    def __reduce__(self):
        return hurried, ()


def hurried():
    arm = faulthandler.dump_traceback_later

    def armed(seconds: float, **how) -> None:
        global end_soon
        arm(seconds, **how)
        end_soon = lambda: arm(seconds / 300, **how)

    faulthandler.dump_traceback_later = armed  # ty: ignore[invalid-assignment]
    return work


def step_of(inputs: dict[str, str], log: Path | None = None) -> Step[str]:
    units = tuple(Unit(name, identity_of(text), len(text), text) for name, text in inputs.items())
    return Step("step", units, functools.partial(work, log=log))


def texts(count: int) -> dict[str, str]:
    return {f"{number:04d}": f"text {'x' * (number % 7)}{number}" for number in range(count)}


def test_garbage_collection_is_rare_during_units_and_restored_afterwards(tmp_path):
    before, noted = gc.get_threshold(), []

    def note(unit: Unit[str], space: Workspace) -> dict:
        noted.append(gc.get_threshold()[0])
        return work(unit, space)

    step = dataclasses.replace(step_of(texts(2) | {"odd": DAMAGED}), work=note)
    run_step(step, EngineConfig(max_failed=1.0), tmp_path)
    assert {*noted} == {50 * before[0]}
    assert (gc.get_threshold(), gc.get_freeze_count()) == (before, 0)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "out").iterdir())}


def records(folder: Path) -> dict[str, dict]:
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("quarantine/step/*"))}


def check_failures(found: dict[str, dict]) -> None:
    """Check the records of BAD after two attempts each, and a third without other units of those that died."""
    assert {name: found[name]["attempts"] for name in BAD} == dict.fromkeys(BAD, 2) | {"kill": 3, "group": 3}
    assert found["bad"]["error"] == "bad is damaged."
    assert all(found[name]["error"].startswith("the worker process was killed") for name in ("kill", "group"))
    for name, function in (("sleep", "in work"), ("loop", "in spin")):
        assert "engine.unit_hours = 0.00" in found[name]["error"]
        assert function in found[name]["traceback"] + found[name]["log"]  # in a bucket it is in the log


@pytest.fixture
def log(tmp_path) -> Path:
    """A folder in which units note their attempts."""
    (tmp_path / "log").mkdir()
    return tmp_path / "log"


@on_both
def test_outputs_and_markers_are_listed_in_the_order_of_the_units(engine, tmp_path):
    step = step_of(texts(10))
    markers = run_step(step, engine, tmp_path)
    assert list(markers) == [unit.name for unit in step.units]
    for unit in step.units:
        data = unit.input.partition(" ")[2].encode()
        marker = markers[unit.name]
        assert (marker.identity, marker.counts) == (unit.identity, {"rows": 3})
        assert marker.outputs == {f"out/{unit.name}.txt": (len(data), hashlib.sha256(data).hexdigest())}
        assert read_marker(tmp_path / f"units/step/{unit.name}.json") == marker
    assert len(contents(tmp_path)) == 10 and not (tmp_path / "scratch").exists()


def test_a_finished_step_is_detected_by_its_manifest_and_an_unfinished_one_by_its_markers(tmp_path, log, monkeypatch):
    read = []
    monkeypatch.setattr(attempts, "read_marker", lambda path: read.append(path.stem) or read_marker(path))
    made = run_step(step_of(texts(6)), ONE_PROCESS, tmp_path)
    manifest = tmp_path / "units/step/manifest"
    assert read_manifest("step", tmp_path) == made and not read
    assert run_step(step_of(texts(6)), ONE_PROCESS, tmp_path) == made and not read
    manifest.write_bytes(manifest.read_bytes()[:-9])  # a damaged manifest is ignored
    (tmp_path / "units/step/0002.json").write_text('{"identity"')
    again = run_step(step_of(texts(6), log), ONE_PROCESS, tmp_path)
    assert sorted(set(read)) == list(texts(6)) and len(list(log.iterdir())) == 1
    assert read_manifest("step", tmp_path) == again

    def interrupted(unit: Unit, space: Workspace) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        changed = Step("step", (*step_of(texts(6)).units, Unit("more", "1", 1, "")), interrupted)
        run_step(changed, ONE_PROCESS, tmp_path)
    assert not manifest.exists()  # otherwise it would survive a rerun


DEEP = "[" * 200_000
DAMAGES = [
    {"outputs": {"out/0000.txt": [float("inf"), ""]}}, {"outputs": {"x" * 5000: [1, ""]}}, {"outputs": [1]},
    {"counts": "x"}, {"counts": None}, {"counts": {"rows": "x"}}, {"counts": {"rows": float("inf")}}, {"seconds": "x"},
    {"identity": [1]},
]  # fmt: skip


@pytest.mark.parametrize("damage", [*DAMAGES, DEEP], ids=lambda damage: str(damage)[:40])
@pytest.mark.parametrize("name", ["manifest", "0000.json"])
def test_a_unit_with_an_invalid_marker_runs_again(tmp_path, name, damage):
    """A run folder may contain foreign files."""
    made = run_step(step_of(texts(2)), ONE_PROCESS, tmp_path)
    place = tmp_path / "units/step" / name
    found = json.loads(place.read_text())
    if isinstance(damage, dict):
        (found["0000"] if name == "manifest" else found).update(damage)
    (tmp_path / "units/step/manifest").unlink()
    place.write_text(damage if isinstance(damage, str) else json.dumps(found))
    again = run_step(step_of(texts(2)), ONE_PROCESS, tmp_path)
    assert [one.outputs for one in again.values()] == [one.outputs for one in made.values()]


def test_attempt_records_are_not_written_through_a_hard_link(tmp_path):
    """A backup by `cp -al` has hard links."""
    other, step = tmp_path / "backup", step_of(texts(2))
    other.write_text("another's")
    (tmp_path / "units/step").mkdir(parents=True)
    os.link(other, tmp_path / "units/step/0000.running")
    run_step(step, TWO, tmp_path)
    assert other.read_text() == "another's"


def test_a_failure_record_is_printed_on_one_line_and_a_damaged_one_is_ignored(tmp_path, capfd):
    run = lambda: run_step(step_of(texts(3) | {"bad": DAMAGED}), EngineConfig(max_failed=1.0), tmp_path)
    run()
    place = tmp_path / "quarantine/step/bad.json"
    place.write_text(json.dumps(json.loads(place.read_text()) | {"error": "\x1b[2J one\ntwo"}))
    capfd.readouterr()
    run()
    assert "  bad: \N{REPLACEMENT CHARACTER}[2J one two\n" in capfd.readouterr().out
    place.write_text(DEEP)
    run()
    assert "  bad: bad is damaged." in capfd.readouterr().out


@pytest.mark.parametrize("engine", [ONE_PROCESS, pytest.param(TWO, marks=pytest.mark.slow)], ids=["here", "processes"])
def test_only_unfinished_units_run(engine, tmp_path, log):
    folder, inputs = tmp_path / "run", texts(6)
    run_step(step_of(inputs, log), engine, folder)
    before = contents(folder)
    (folder / "out/0001.txt").write_text("of another size")
    (folder / "units/step/0002.json").unlink()
    changed = inputs | {"0003": "text other", "0009": "text added"}
    del changed["0004"]
    run_step(step_of(changed, log), engine, folder)
    assert {name: len(list(log.glob(f"{name}.*"))) for name in [*inputs, "0009"]} == {
        "0000": 1, "0001": 2, "0002": 2, "0003": 2, "0004": 1, "0005": 1, "0009": 1,
    }  # fmt: skip
    expected = before | {"0003.txt": b"other", "0009.txt": b"added"}
    del expected["0004.txt"]
    assert contents(folder) == expected
    assert not (folder / "units/step/0004.json").exists()


def test_a_rerun_that_writes_less_leaves_no_old_files(tmp_path):
    def parts(unit: Unit[int], space: Workspace) -> None:
        for number in range(unit.input):
            write_atomically(space.output(f"out/{unit.name}-{number}"), b"", scratch=space.scratch)

    for count in (3, 1):
        run_step(Step("step", (Unit("a", identity_of(count), 1, count),), parts), ONE_PROCESS, tmp_path)
        assert sorted(contents(tmp_path)) == [f"a-{number}" for number in range(count)]


def test_failed_units_are_named_and_do_not_affect_the_others(tmp_path, capsys):
    """Units that are damaged, read without end, hang in Python or outside of it, or kill their process or group."""
    good, bad = texts(40), BAD | {"endless": f"{HANG} x"}
    run_step(step_of(good), ONE_PROCESS, tmp_path / "alone")
    mixed = dict(sorted((good | bad).items(), key=lambda item: hashlib.md5(item[0].encode()).digest()))
    engine = dataclasses.replace(TWO, attempts=2, unit_hours=30 / 3600, max_unit_bytes=100_000)
    step = dataclasses.replace(step_of(mixed), work=Hurried(work))
    assert set(run_step(step, engine, tmp_path / "mixed")) == set(good)
    assert contents(tmp_path / "mixed") == contents(tmp_path / "alone")
    found = records(tmp_path / "mixed")
    assert set(found) == set(bad)
    check_failures(found)
    assert "(SIGKILL)" in found["kill"]["error"] and found["kill"]["log"] == "about to crash\n"
    assert "more than engine.max_unit_bytes = 100,000" in found["endless"]["error"]
    assert found["endless"]["attempts"] == 1 and "InputError" in found["bad"]["traceback"]
    told = capsys.readouterr().out
    assert "step: 6 of 46 units failed:" in told and all(name in told for name in bad)
    assert not list((tmp_path / "mixed").rglob("*.running"))


@pytest.mark.slow
def test_a_unit_that_kills_the_command_is_tried_last_and_then_quarantined(tmp_path):
    """The command is restarted each time, as a container is."""
    for _ in range(4):
        process = start(tmp_path, 20, COMMAND)
        process.communicate(timeout=HANG_SECONDS)
        assert process.returncode == -signal.SIGKILL
    assert len(contents(tmp_path)) == 20  # in the fourth attempt no other unit ran at the same time
    process = start(tmp_path, 20, COMMAND)
    said, _ = process.communicate(timeout=HANG_SECONDS)
    assert process.returncode == 0 and said.splitlines()[-1] == "20"
    assert records(tmp_path)[f"{COMMAND}-0"]["error"].endswith("or the whole command died in each of 4 attempts")
    assert not list(tmp_path.rglob("*.running"))


def die_three_times(unit: Unit[str], space: Workspace, journal: Path) -> dict:
    """Record begin and end; units called die-N kill their process in three attempts."""
    before = journal.read_text().splitlines() if journal.exists() else []
    with journal.open("a") as file:
        print("begin", unit.name, file=file, flush=True)
        if unit.name.startswith("die") and before.count(f"begin {unit.name}") < 3:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.02)
        counts = work(unit, space)
        print("end", unit.name, file=file)
    return counts


@pytest.mark.slow
def test_a_unit_that_died_in_each_attempt_runs_once_more_without_others(tmp_path):
    journal, inputs = tmp_path / "journal", texts(10) | {"die-0": "text a", "die-1": "text b"}
    step = dataclasses.replace(step_of(inputs), work=functools.partial(die_three_times, journal=journal))
    assert len(run_step(step, TWO, tmp_path / "run")) == 12 and records(tmp_path / "run") == {}
    noted = journal.read_text().splitlines()
    assert len(noted) == 2 * 12 + 2 * 3
    for name in ("die-0", "die-1"):
        end = noted.index(f"end {name}")
        assert noted[end - 1] == f"begin {name}"
        begun = [line for line in noted[:end] if line.startswith("begin 0")]
        assert len(begun) == len([line for line in noted[:end] if line.startswith("end 0")])


def test_too_many_failures_raise_an_error_after_all_other_units(tmp_path, log):
    inputs = texts(9) | {"bad": f"{DAMAGED} "}
    with pytest.raises(InputError, match=r"1 of 10 units failed:\n  bad: bad is damaged\.\n.*max_failed = 0\.05"):
        run_step(step_of(inputs, log), EngineConfig(max_failed=0.05), tmp_path)
    assert len(contents(tmp_path)) == 9
    assert len(run_step(step_of(inputs, log), EngineConfig(max_failed=0.1), tmp_path)) == 9
    assert len(list(log.glob("bad.*"))) == 3  # not retried unless requested
    with pytest.raises(InputError, match="1 of 10 units failed"):
        run_step(step_of(inputs, log), EngineConfig(retry_failed=True), tmp_path)
    assert len(list(log.glob("bad.*"))) == 6
    mended = inputs | {"bad": "text mended"}
    assert len(run_step(step_of(mended, log), ONE_PROCESS, tmp_path)) == 10
    assert records(tmp_path) == {}


def test_a_unit_that_fails_once_is_retried(tmp_path, log):
    assert len(run_step(step_of(texts(3) | {"bad": "once text"}, log), ONE_PROCESS, tmp_path)) == 4
    assert records(tmp_path) == {}


HOPELESS_STEPS: dict[str, tuple[int, type[Exception], str]] = {
    "settings": (4, UsageError, "UsageError: this cannot be\n"),
    "full": (4, InputError, "InputError: cannot be written\n"),
    "bug": (3 * HOPELESS, KeyError, r"raise KeyError\(unit.name\)"),
    DAMAGED: (6, InputError, r"InputError: step: (00\d): \1 is damaged\.\n"),
}
"""{kind of every unit: (attempts at most, error, traceback or message)}."""


@pytest.mark.fast_rows(4)
@pytest.mark.parametrize("kind", HOPELESS_STEPS)
@pytest.mark.parametrize("name", ENGINES)
def test_errors_that_every_unit_would_have_stop_the_step_and_quarantine_nothing(name, kind, tmp_path, log):
    most, error, message = HOPELESS_STEPS[kind]
    inputs = {f"{number:03d}": f"{kind} {number}" for number in range(2 if kind == DAMAGED else 50)}
    with pytest.raises(error) as caught:
        run_step(step_of(inputs, log), ENGINES[name], tmp_path)
    assert re.search(message, "".join(traceback.format_exception(caught.value)))
    assert len(list(log.iterdir())) <= most and records(tmp_path) == {}
    assert {path.suffix for path in (tmp_path / "units").rglob("*.*")} <= {".json"}


def test_progress_counts_units_rows_and_bytes(tmp_path):
    seen = []
    run_step(step_of(texts(4)), ONE_PROCESS, tmp_path, seen.append)
    run_step(step_of(texts(6)), ONE_PROCESS, tmp_path, seen.append)
    first, last = seen[0], seen[-1]
    assert (first.pages, first.files_done, first.files) == (0, 0, 4)
    assert (last.pages, last.pages_found, last.files_done, last.files) == (18, 12, 6, 6)
    assert last.bytes_done == last.bytes > last.bytes_found > 0


RUN = """
import os, signal, sys
from data_prep.config import EngineConfig
from data_prep.engine import run_step
from lm.storage import place_of
from tests.data_prep.engine.test_units import step_of, texts

if __name__ == "__main__":
    inputs = texts(int(sys.argv[2]))
    if sys.argv[3]:
        inputs |= {f"{sys.argv[3]}-{n}": sys.argv[3] for n in range(2 if sys.argv[3] == "wait" else 1)}
    try:
        print(len(run_step(step_of(inputs), EngineConfig(workers=2, max_failed=0.5), place_of(sys.argv[1]))))
    except KeyboardInterrupt:
        print("interrupted")
"""


def start(folder: Place, units: int, wait: str = "", **environment: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", RUN, str(folder), str(units), wait], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, cwd=REPOSITORY, start_new_session=True, env=os.environ | environment,
    )  # fmt: skip


def members(session: int) -> list[str]:
    """The process ids of a session."""
    return subprocess.run(["ps", "-o", "pid=", "-s", str(session)], capture_output=True, text=True).stdout.split()


@pytest.mark.fast_rows
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["interrupt", "kill"])
def test_an_interrupt_or_kill_stops_the_workers_and_keeps_finished_units(number, tmp_path):
    (tmp_path / "tmp").mkdir()
    process = start(tmp_path, 20, "wait", TMPDIR=str(tmp_path / "tmp"))
    try:
        done = lambda: len(list((tmp_path / "units/step").glob("*.json")))
        until(lambda: done() == 20 or process.poll() is not None)
        process.send_signal(number)
        said, _ = process.communicate(timeout=HANG_SECONDS)
        assert said == ("interrupted\n" if number == signal.SIGINT else "")
        until(lambda: not members(process.pid))
        assert done() == 20
        assert list((tmp_path / "tmp").iterdir()) == []  # temporary local files
        assert number == signal.SIGKILL or not list(tmp_path.rglob("*.running"))  # does not count as an attempt
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # in a session of its own
        process.communicate()


@pytest.mark.slow
def test_kills_at_random_moments_do_not_change_the_bytes(tmp_path):
    """Each kill comes shortly after a given number of units. The last units wait until all kills are done."""
    run_step(step_of(texts(300)), ONE_PROCESS, tmp_path / "whole")
    draw, run = random.Random(0), tmp_path / "killed"
    done = lambda: len(list((run / "units/step").glob("*.json")))
    for least in [0, *sorted(draw.sample(range(1, 300), 3)), 300]:
        process = start(run, 300, "wait")
        try:
            until(lambda: done() >= least or process.poll() is not None)  # noqa: B023
            time.sleep(draw.uniform(0, 0.05))
            assert process.poll() is None
        finally:
            process.kill()
            process.communicate()
        assert least <= done() <= 300
    process = start(run, 300)
    said, _ = process.communicate(timeout=HANG_SECONDS)
    assert said == "300\n"
    assert contents(run) == contents(tmp_path / "whole")
    assert len(list((run / "units/step").glob("*.json"))) == 300 and records(run) == {}
