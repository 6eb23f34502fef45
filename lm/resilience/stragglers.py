"""Detect stragglers: processes whose hosts slow down all others.

All processes end a step together, because its collectives wait for the last one, so their step times are equal. Their
host times differ: the time to read a batch, copy it to the devices, and do everything between two steps (logs,
heartbeats). The host prepares a step while the devices compute the previous one, so host time costs nothing until it
reaches the time of a step. Waiting for devices is not host time, so a slow device or link is not detected here;
docs/long_runs.md explains how to find one.
"""

import json
import socket
import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax

from lm.resilience.goodput import Goodput
from lm.resilience.multihost import coordination

TIMES = 2.0
"""Minimum host time of a straggler, relative to the median host time of the other processes."""
SHARE = 0.5
"""Minimum host time of a straggler, as a fraction of the time of a step."""


class HostTime(NamedTuple):
    """Mean times of one process, in seconds per step, and its host."""

    seconds: float
    """Total host time."""
    data: float
    """Part of it spent on reading batches and copying them to the devices."""
    host: str
    """Host name."""


class HostTimes:
    """Compares the host times of all processes (time per step for data, logs and other work on the host), once per
    logged step, without a collective. Each process publishes its time in JAX's key-value store before it starts the
    step. A step ends after all processes have started it, so process 0 then finds every entry without waiting. Does
    nothing in a run of one process."""

    def __init__(self, goodput: Goodput):
        self.goodput = goodput
        self.collected = 0
        self.reported: int | None = None
        """Process named in the last warning; reset when it is no longer the slowest straggler."""

    def begin(self, step: int) -> None:
        """Start to measure after `step` steps."""
        self.step, self.clock, self.step_seconds = step, self.goodput.read_clock(), 0.0

    def publish(self, step: int) -> None:
        """Publish this process's mean host time since the last call. Call it before the logged step `step`."""
        if jax.process_count() == 1:
            return
        steps, before = step - self.step, self.clock
        self.begin(step)
        data, other, devices = (
            (self.clock.get(phase, 0.0) - before.get(phase, 0.0)) / steps
            for phase in ("data", "host_overhead", "steps")
        )
        self.step_seconds = data + other + devices
        own = HostTime(data + other, data, socket.gethostname())
        coordination()[0].key_value_set(f"{directory(step)}{jax.process_index()}", json.dumps(own))

    def collect(self, step: int) -> tuple[dict[str, Any], str]:
        """Return (metrics, warning about a straggler or ""). Both are empty except in process 0. Call it after
        `step`."""
        if jax.process_count() == 1 or jax.process_index() > 0:
            return {}, ""
        store, _, _ = coordination()
        found = {int(key.rpartition("/")[2]): text for key, text in store.key_value_dir_get(directory(step))}
        store.key_value_delete(directory(step))
        if len(found) < jax.process_count():
            return {}, ""  # missing times must not stop a run
        times = [HostTime(*json.loads(found[process])) for process in range(jax.process_count())]
        seconds = [one.seconds for one in times]
        slowest = max(seconds)
        row = {"host_seconds": seconds, "slowest_host_seconds": slowest, "slowest_process": seconds.index(slowest)}
        self.collected += 1
        # The first logged interval includes starting the data loaders.
        slow = stragglers(seconds, self.step_seconds) if self.collected > 1 else []
        first = slow[0] if slow else None
        warning = warning_of(times, slow, self.step_seconds) if slow and first != self.reported else ""
        self.reported = first
        return row, warning


def directory(step: int) -> str:
    """Return the prefix of a step's keys in the key-value store."""
    return f"gristmill/host_seconds/{step}/"


def others_median(seconds: Sequence[float], process: int) -> float:
    return statistics.median([*seconds[:process], *seconds[process + 1 :]])


def stragglers(seconds: Sequence[float], step_seconds: float) -> list[int]:
    """Return the indices of stragglers, slowest first: processes whose host time is at least TIMES the others' median
    and SHARE of a step. `seconds` are host times of two or more processes, `step_seconds` the time of a step."""
    least = lambda process: max(SHARE * step_seconds, TIMES * others_median(seconds, process))
    slow = [process for process, own in enumerate(seconds) if own >= least(process)]
    return sorted(slow, key=lambda process: -seconds[process])


def warning_of(times: Sequence[HostTime], slow: Sequence[int], step_seconds: float) -> str:
    """Return a warning that names the slowest straggler, slow[0]. `times` are the host times of all processes."""
    own, median = times[slow[0]], others_median([one.seconds for one in times], slow[0])
    more = f" {len(slow) - 1:,} more are slow." if slow[1:] else ""
    return (
        f"warning: process {slow[0]} ({own.host}) slows down the others: its host takes {own.seconds:.3g} s of a step "
        f"of {step_seconds:.3g} s, including {own.data:.3g} s for data; the median of the others is {median:.3g} "
        f's.{more} See "Stragglers" in docs/long_runs.md'
    )
