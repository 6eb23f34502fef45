"""Where a run's time goes, over all its attempts: goodput, measured without a cloud.

`goodput.json` of the run folder has one entry an attempt: seconds by phase, brought up to date now and then; beside it
`heartbeat.json` has the last step and its moment, after every step. So a run that was killed is known to the step: the
next attempt finds how long nothing ran, and which steps have to be made again.
"""

import contextlib
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

from lm.run_paths import RunPaths
from lm.storage import write_atomically

Phase = Literal["starting", "verifying", "compiling", "restoring", "data", "steps", "validation", "samples", "saving"]
PHASES: dict[str, str] = {
    "steps": "training steps that counted",
    "data": "devices waiting for data",
    "validation": "validation losses",
    "samples": "samples",
    "saving": "held by saves",
    "host_overhead": "metrics, and all else between steps",
    "starting": "starting",
    "verifying": "verifying shards",
    "compiling": "compiling",
    "restoring": "making or restoring the state",
    "repeated": "steps lost, and made again",
    "down": "nothing ran between two attempts",
}
"""Every phase, in the order of the table, and what it is."""
LONG_PHASES = ("validation", "samples", "saving")
"""What may take far longer than a step; the heartbeat says so."""
OVERLAPPED = ("data", "host_overhead")
"""What the host does while the devices may still compute a step. If they do, this time counts as time of steps."""


@dataclass
class Attempt:
    """One process from its start to its end."""

    began: float
    """Seconds since 1970."""
    first_step: int | None = None
    """Steps that were made before it; None of one that did not come to train."""
    step: int = 0
    """The last step it made."""
    seen: float = 0.0
    """When it last gave a sign, in seconds since 1970."""
    seconds: dict[str, float] = field(default_factory=dict)
    """By phase, each moment once."""


PARENT = "GRISTMILL_PARENT"
"""Variable with the process id of the parent, if this is one of several processes (launch/stages/parent.py). A
supervisor knows the heartbeat by it."""
HEARTBEAT: dict[str, type] = {"step": int, "time": float, "state": str, "process": int}
"""A line of the heartbeat."""


class Goodput:
    """The attempts of a run, this process's last. `close` writes what was counted."""

    busy: Callable[[], bool] = staticmethod(lambda: False)
    """Whether the devices are at a step: what the host does meanwhile (OVERLAPPED) takes no time from them."""
    work: Callable[[int], int] = staticmethod(int)
    """As of `totals`."""

    def __init__(self, run: Path, began: float | None = None, process: int = 0):
        """`began`: when this process did, in seconds since 1970; now, if not given. Of several processes each has its
        heartbeat, and 0 alone writes where the time goes."""
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
        """Seconds of this process by phase, as they pass on the host, also while the devices are at a step."""
        self.beat_at = time.monotonic()
        self.file: int | None = None

    @contextlib.contextmanager
    def phase(self, name: Phase) -> Generator[None]:
        """Time within counts as this phase, and not as the one around it."""
        outer = self.switch(name)
        shown = name in LONG_PHASES and self.now.first_step is not None
        if shown:
            self.beat(self.now.step, name)
        try:
            yield
        finally:
            self.switch(outer)
            if shown:
                self.write()  # what is not written when a kill comes is taken for steps
                self.beat(self.now.step)

    def switch(self, phase: str) -> str:
        """From now on, time counts as `phase`. Returns the phase until now."""
        moment = time.time()
        seconds = self.now.seconds
        counted = "steps" if self.current in OVERLAPPED and self.busy() else self.current
        passed = max(0.0, moment - self.switched_at)
        seconds[counted] = seconds.get(counted, 0.0) + passed
        self.clock[self.current] = self.clock.get(self.current, 0.0) + passed
        outer, self.current, self.switched_at = self.current, phase, moment
        return outer

    def read_clock(self) -> dict[str, float]:
        """A copy of `clock` up to now."""
        self.switch(self.current)
        return dict(self.clock)

    def begin(self, first_step: int) -> None:
        """Training begins after `first_step` steps that were restored."""
        self.switch("host_overhead")
        self.now.first_step = self.now.step = first_step
        self.write()  # before the heartbeat: a new heartbeat would make the earlier attempt seem alive until now
        self.beat(first_step)

    def beat(self, step: int, state: str = "training") -> None:
        """A sign of life: `step` steps are made. Costs some microseconds, and waits for no disk."""
        self.beat_at = time.monotonic()
        self.now.step, self.now.seen = step, time.time()
        process = int(os.environ.get(PARENT, os.getpid()))
        line = json.dumps({"step": step, "time": round(self.now.seen, 6), "state": state, "process": process})
        with contextlib.suppress(OSError):  # a full disk is reported where something is lost by it
            if self.file is None:
                self.heart.unlink(missing_ok=True)  # it is written in place, and a link would be written through
                self.file = os.open(self.heart, os.O_WRONLY | os.O_CREAT, 0o666)
            os.pwrite(self.file, f"{line:<127}\n".encode(), 0)  # of one length: nothing of the line before is left

    def write(self) -> None:
        """Brings goodput.json up to date."""
        if self.path is None:
            return
        self.switch(self.current)
        self.now.seen = time.time()
        rounded = [asdict(one) | {"seconds": {k: round(v, 3) for k, v in one.seconds.items()}} for one in self.attempts]
        with contextlib.suppress(OSError):
            write_atomically(self.path, json.dumps(rounded, indent=1) + "\n", durable=False)

    def has_resumed(self) -> bool:
        """Whether an attempt before this one began from a checkpoint."""
        return any(one.first_step for one in self.attempts[:-1])

    def stop_before_training(self) -> None:
        """The process is asked to end, and ends, before it has made a step."""
        self.write()  # first: what is known of attempts before by the heartbeat alone, the next line writes over
        self.beat(self.now.step, "stopped")

    def close(self) -> None:
        self.write()
        if self.file is not None:
            os.close(self.file)
            self.file = None

    def shares(self) -> dict[str, float]:
        """{"goodput": …}: of the time since the run's first start, in all attempts, the share of steps that counted."""
        self.switch(self.current)
        return {"goodput": share_of_steps(totals(self.attempts, self.work))}

    def table(self) -> str:
        """What the run's time went into, over all attempts so far, a line a phase."""
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
    """Seconds by phase (PHASES). Steps that a later attempt made again count as repeated, by their share of the work of
    their attempt. `work(step)` is that of all steps before, such as Stages.windows_before; by default all steps are
    alike."""
    sums = dict.fromkeys(PHASES, 0.0)
    for one in attempts:
        for kind, seconds in one.seconds.items():
            sums[kind] = sums.get(kind, 0.0) + seconds
    for one, later in itertools.pairwise(attempts):
        sums["down"] += max(0.0, later.began - one.seen)
    kept = sys.maxsize  # steps that no later attempt has made again
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
    """Of all the time, that of steps that counted."""
    return sums["steps"] / max(sum(sums.values()), 1e-9)


def read_attempts(run: Path) -> list[Attempt]:
    """What earlier processes wrote; none where there is nothing, or nothing that can be read."""
    try:
        attempts = [Attempt(**one) for one in json.loads(RunPaths(run).goodput.read_text(encoding="utf-8"))]
        for one in attempts:
            one.seconds = {kind: float(seconds) for kind, seconds in one.seconds.items()}
            one.began, one.seen, one.step = float(one.began), float(one.seen), int(one.step)
            one.first_step = None if one.first_step is None else int(one.first_step)
            if not all(map(math.isfinite, (one.began, one.seen, *one.seconds.values()))):
                raise ValueError("a time is not finite")
    except (OSError, ValueError, TypeError, AttributeError, OverflowError, RecursionError):
        return []
    heart = read_heartbeat(RunPaths(run).heartbeat())
    if attempts and heart and heart["time"] >= round(attempts[-1].seen, 6) and heart["step"] >= attempts[-1].step:
        last = attempts[-1]  # killed: what it did after it last wrote was, near enough, steps
        last.seconds["steps"] = last.seconds.get("steps", 0.0) + max(0.0, heart["time"] - last.seen)
        last.step, last.seen = heart["step"], heart["time"]
    return attempts


def read_heartbeat(path: Path) -> dict | None:
    """{"step", "time", "state", "process"} of the last sign of life, or None where there is none that can be read."""
    try:
        heart = json.loads(path.read_text(encoding="utf-8"))
        return {name: kind(heart[name]) for name, kind in HEARTBEAT.items()}
    except (OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None
