"""Goodput: the share of a run's wall-clock time, over all attempts, that was spent on training steps that counted.

`goodput.json` in the run folder has one entry per attempt with the seconds per phase, updated now and then.
`heartbeat.json` next to it has the last step and its time, updated after every step. So after a kill, the next attempt
knows exactly how long nothing ran and which steps must be repeated.
"""

import contextlib
import faulthandler
import itertools
import json
import math
import os
import sys
import time
from collections.abc import Callable, Generator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from lm.errors import MALFORMED
from lm.run_paths import RunPaths
from lm.storage import write_atomically

Phase = Literal["starting", "verifying", "compiling", "restoring", "data", "steps", "validation", "samples", "saving"]
PHASES: dict[str, str] = {
    "steps": "training steps that counted",
    "data": "devices waiting for data",
    "validation": "evaluators and hooks",
    "samples": "samples",
    "saving": "held by saves",
    "host_overhead": "metrics and other work between steps",
    "starting": "starting",
    "verifying": "verifying shards",
    "compiling": "compiling",
    "restoring": "initializing or restoring the state",
    "repeated": "steps lost and repeated",
    "down": "nothing ran between two attempts",
}
"""{phase: description}, in the order of the table."""
STARTING = "starting"
"""State in the heartbeat before the first step."""
LONG_PHASES = ("validation", "samples", "saving")
"""Phases that may take far longer than a step; the heartbeat names them."""
OVERLAPPED = ("data", "host_overhead")
"""Phases of the host during which the devices may still be computing a step. If they are, the time counts as steps."""


@dataclass
class Attempt:
    """One process of a run, from its start to its end. A run that is resumed has several attempts."""

    began: float
    """Start, in Unix seconds."""
    first_step: int | None = None
    """Number of steps done before this attempt; None if it did not start training."""
    step: int = 0
    """Last step of this attempt."""
    seen: float = 0.0
    """Last sign of life, in Unix seconds."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Seconds by phase; phases do not overlap."""


PARENT = "GRISTMILL_PARENT"
"""Environment variable with the process id of the parent, if this is one of several processes
(launch/stages/parent.py). The supervisor recognizes the heartbeat by it."""
HEARTBEAT: dict[str, type] = {"step": int, "time": float, "state": str, "process": int}
"""Fields of a heartbeat line, and their types."""


class Goodput:
    """Accounts for the wall-clock time of all attempts of a run, of which this process is the last."""

    busy: Callable[[], bool] = staticmethod(lambda: False)
    """Whether the devices are computing a step; OVERLAPPED phases then count as steps."""
    work: Callable[[int], int] = staticmethod(int)
    """Return the work of all steps before a step (see `totals`)."""

    def __init__(self, run: Path, began: float | None = None, process: int = 0):
        """`began` is the start of this process in Unix seconds, by default now. Each of several processes writes its
        own heartbeat; only process 0 writes goodput.json."""
        self.start_seconds: float | None = None
        self.path = RunPaths(run).goodput if process == 0 else None
        self.heart = RunPaths(run).heartbeat(process)
        began = time.time() if began is None else began
        before = read_attempts(run)
        if self.path is not None and not before and self.path.exists():
            print(f"train: {self.path} is damaged: the time of earlier attempts is not counted", flush=True)
        self.attempts = [*before, Attempt(began, seen=began)]
        self.now = self.attempts[-1]
        self.current: str = "starting"
        self.switched_at = began
        self.clock: dict[str, float] = {}
        """Host seconds of this process by phase, including time during which the devices compute a step."""
        self.beat_at = time.monotonic()
        self.file: int | None = None

    @contextlib.contextmanager
    def phase(self, name: Phase) -> Generator[None]:
        """Count the time within the context as phase `name` instead of the outer phase."""
        outer = self.switch(name)
        shown = name in LONG_PHASES and self.now.first_step is not None
        if shown:
            self.beat(self.now.step, name)
        self.beat_start()
        try:
            yield
        finally:
            self.switch(outer)
            self.beat_start()
            if shown:
                self.write()  # after a kill, time not yet written counts as steps
                self.beat(self.now.step)

    def switch(self, phase: str) -> str:
        """End the current phase, count its time, and begin `phase`. Return the name of the phase that ended."""
        moment = time.time()
        seconds = self.now.seconds
        counted = "steps" if self.current in OVERLAPPED and self.busy() else self.current
        passed = max(0.0, moment - self.switched_at)
        seconds[counted] = seconds.get(counted, 0.0) + passed
        self.clock[self.current] = self.clock.get(self.current, 0.0) + passed
        outer, self.current, self.switched_at = self.current, phase, moment
        return outer

    def read_clock(self) -> dict[str, float]:
        """Return the seconds that this process spent in each phase until now: a copy of `clock`."""
        self.switch(self.current)
        return dict(self.clock)

    def watch_start(self, seconds: float) -> None:
        """From now until `begin`, write a heartbeat when a phase begins or ends. If none did for `seconds`, print the
        stacks of all threads to stderr, also if a thread holds the interpreter's lock; 0: never."""
        self.start_seconds = seconds
        self.write()  # first: the new heartbeat overwrites the earlier attempt's, which may be its only record
        self.beat_start()

    def beat_start(self) -> None:
        """Record progress before the first step, if `watch_start` was called."""
        if self.start_seconds is not None:
            self.beat(self.now.step, STARTING)
            if self.start_seconds:
                faulthandler.dump_traceback_later(self.start_seconds, file=2)

    def end_start(self) -> None:
        """Stop what `watch_start` began."""
        if self.start_seconds:
            faulthandler.cancel_dump_traceback_later()
        self.start_seconds = None

    def begin(self, first_step: int) -> None:
        """Record that training begins after step `first_step` (0, or that of the restored checkpoint)."""
        self.end_start()
        self.switch("host_overhead")
        self.now.first_step = self.now.step = first_step
        self.write()  # before the heartbeat, which would make the earlier attempt seem alive until now
        self.beat(first_step)

    def beat(self, step: int, state: str = "training") -> None:
        """Write heartbeat.json after `step` steps. Takes microseconds and does not wait for the disk."""
        self.beat_at = time.monotonic()
        self.now.step, self.now.seen = step, time.time()
        process = int(os.environ.get(PARENT, os.getpid()))
        line = json.dumps({"step": step, "time": round(self.now.seen, 6), "state": state, "process": process})
        with contextlib.suppress(OSError):  # a full disk is reported by writes that matter
            if self.file is None:
                self.heart.unlink(missing_ok=True)  # written in place: never follow a link
                self.file = os.open(self.heart, os.O_WRONLY | os.O_CREAT, 0o666)
            os.pwrite(self.file, f"{line:<127}\n".encode(), 0)  # fixed length: overwrites the previous line

    def write(self) -> None:
        """Write goodput.json. I/O errors are ignored."""
        if self.path is None:
            return
        self.switch(self.current)
        self.now.seen = time.time()
        rounded = [asdict(one) | {"seconds": {k: round(v, 3) for k, v in one.seconds.items()}} for one in self.attempts]
        with contextlib.suppress(OSError):
            write_atomically(self.path, json.dumps(rounded, indent=1) + "\n", durable=False)

    def has_resumed(self) -> bool:
        """Return whether an earlier attempt resumed from a checkpoint."""
        return any(one.first_step for one in self.attempts[:-1])

    def stop_before_training(self) -> None:
        """Record that the process stops, as it was asked to, before its first step."""
        self.write()  # first: the new heartbeat overwrites the earlier attempt's, which may be its only record
        self.beat(self.now.step, "stopped")

    def close(self) -> None:
        self.end_start()
        self.write()
        if self.file is not None:
            os.close(self.file)
            self.file = None

    def shares(self) -> dict[str, float]:
        """Return {"goodput": fraction of the time since the run's first start that was spent on steps not repeated
        later}."""
        self.switch(self.current)
        return {"goodput": share_of_steps(totals(self.attempts, self.work))}

    def table(self) -> str:
        """Return a table for the terminal: seconds and share of each phase over all attempts, one line per phase."""
        self.switch(self.current)
        sums = totals(self.attempts, self.work)
        whole = max(sum(sums.values()), 1e-9)
        rows = [
            f"  {sums[kind]:9,.1f} s  {sums[kind] / whole:6.1%}  {meaning}"
            for kind, meaning in PHASES.items()
            if sums[kind] >= 0.001
        ]
        times = "1 attempt" if len(self.attempts) == 1 else f"{len(self.attempts)} attempts"
        return "\n".join([f"goodput: {share_of_steps(sums):.1%} of {whole:,.1f} s, in {times}", *rows])


def totals(attempts: list[Attempt], work: Callable[[int], int] = int) -> dict[str, float]:
    """Return {phase: seconds} over all attempts, for the phases in PHASES. Steps that a later attempt had to repeat
    count as "repeated": their part, by work, of the seconds that the attempt spent on steps. `work(step)` is the work
    of all steps before `step`, such as Stages.windows_before; by default all steps are equal."""
    sums = dict.fromkeys(PHASES, 0.0)
    for one in attempts:
        for kind, seconds in one.seconds.items():
            sums[kind] = sums.get(kind, 0.0) + seconds
    for one, later in itertools.pairwise(attempts):
        sums["down"] += max(0.0, later.began - one.seen)
    kept = sys.maxsize  # steps up to this one were not repeated by a later attempt
    for one in reversed(attempts):
        if one.first_step is None:
            continue
        made, again = work(one.step) - work(one.first_step), work(one.step) - work(min(kept, one.step))
        if made > 0 and again > 0:
            lost = one.seconds.get("steps", 0.0) * min(1.0, again / made)
            sums["steps"] -= lost
            sums["repeated"] += lost
        kept = min(kept, one.first_step)
    return sums


def share_of_steps(sums: dict[str, float]) -> float:
    """Return the fraction of the time that was spent on steps not repeated later. `sums` is the result of `totals`."""
    return sums["steps"] / max(sum(sums.values()), 1e-9)


def read_attempts(run: Path) -> list[Attempt]:
    """Return the attempts of earlier processes from goodput.json; [] if there are none or the file is damaged. The
    heartbeat adds what a killed process had not written."""
    try:
        attempts = [Attempt(**one) for one in json.loads(RunPaths(run).goodput.read_text(encoding="utf-8"))]
        for one in attempts:
            one.seconds = {kind: float(seconds) for kind, seconds in one.seconds.items()}
            one.began, one.seen, one.step = float(one.began), float(one.seen), int(one.step)
            one.first_step = None if one.first_step is None else int(one.first_step)
            if not all(map(math.isfinite, (one.began, one.seen, *one.seconds.values()))):
                return []
    except (OSError, *MALFORMED):
        return []
    heart = read_heartbeat(RunPaths(run).heartbeat())
    if attempts and heart and heart["time"] >= round(attempts[-1].seen, 6) and heart["step"] >= attempts[-1].step:
        last = attempts[-1]  # killed: count its time since the last write as steps, or as start
        phase = STARTING if heart["state"] == STARTING else "steps"
        last.seconds[phase] = last.seconds.get(phase, 0.0) + max(0.0, heart["time"] - last.seen)
        last.step, last.seen = heart["step"], heart["time"]
    return attempts


def read_heartbeat(path: Path) -> dict | None:
    """Return a heartbeat, a dict with the keys of HEARTBEAT; None if the file is missing or damaged."""
    try:
        heart = json.loads(path.read_text(encoding="utf-8"))
        return {name: kind(heart[name]) for name, kind in HEARTBEAT.items()}
    except (OSError, *MALFORMED):
        return None
