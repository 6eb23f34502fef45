"""Hangs: when no step comes for many times the usual, the stacks of all threads and the state of the devices."""

import faulthandler
import statistics
import threading
import time
from collections import deque
from pathlib import Path

import jax

from lm.resilience.goodput import Goodput

TIMES = 20
"""A hang is a wait of so many times the median of the last steps, and of no less than the config's hang_seconds."""


class Watchdog:
    """Watches the heartbeat of `goodput` from a thread of its own; `close` ends it."""

    def __init__(self, goodput: Goodput, folder: Path, hang_seconds: float):
        """Dumps go to `folder`/step-N.txt. `hang_seconds` of 0 watches nothing."""
        self.goodput, self.folder, self.least = goodput, folder, hang_seconds
        self.reported = -1.0  # the beat after which a hang was reported
        self.waits: deque[float] = deque(maxlen=64)
        self.ended = threading.Event()
        if hang_seconds:
            threading.Thread(target=self.watch, name="watchdog", daemon=True).start()

    def watch(self) -> None:
        last = self.goodput.beat_at
        while not self.ended.wait(min(self.least / 10, 1.0)):
            beat = self.goodput.beat_at
            if beat != last:
                self.waits.append(beat - last)  # of several beats between two looks, the sum: never too short
                last = beat
            idle = time.monotonic() - beat
            if idle > max(self.least, TIMES * statistics.median(self.waits or [0.0])) and self.reported != beat:
                self.reported = beat
                self.dump(idle)

    def dump(self, idle: float) -> None:
        step = self.goodput.now.step
        process = jax.process_index()
        path = self.folder / f"step-{step:08d}{f'-process-{process}' if process else ''}.txt"
        usual = statistics.median(self.waits or [0.0])
        print(
            f"train: no sign of life for {idle:.0f} s after step {step:,}, while {self.goodput.current} "
            f"(usual: {usual:.2f} s). All stacks and the devices' state are in {path}",
            flush=True,
        )
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)  # a link would be written through
            with path.open("w", encoding="utf-8") as file:
                file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S %z')}  {idle:.1f} s after step {step}\n\n")
                file.write(device_state() + "\n\n")
                file.flush()
                faulthandler.dump_traceback(file, all_threads=True)
        except OSError as error:
            print(f"train: {path} cannot be written: {error}", flush=True)

    def close(self) -> None:
        self.ended.set()


def device_state() -> str:
    """A line a device of this process: what it is, and its memory."""
    lines = [f"process {jax.process_index()} of {jax.process_count()}"]
    for device in jax.local_devices():
        stats = device.memory_stats() or {}
        held = ", ".join(f"{key} {value:,}" for key, value in stats.items()) or "does not report its memory"
        lines.append(f"{device}: {held}")
    live = jax.live_arrays()
    lines.append(f"{len(live)} live arrays of {sum(array.nbytes for array in live):,} bytes")
    return "\n".join(lines)
