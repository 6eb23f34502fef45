"""Hang detection: if a step takes many times the usual time, write the stacks of all threads and the device state."""

import faulthandler
import statistics
import threading
import time
from collections import deque
from pathlib import Path

import jax

from lm.resilience.goodput import Goodput

TIMES = 20
"""A hang is a wait longer than TIMES times the median of the last steps, and longer than train.hang_seconds."""


class Watchdog:
    """Watches the heartbeat of `goodput` in a thread until `close`. If training hangs, writes the stacks of all
    threads."""

    def __init__(self, goodput: Goodput, folder: Path, hang_seconds: float, step_seconds: float = 0.0):
        """Stacks are written to `folder`/step-N.txt. `hang_seconds` = 0 disables the watchdog. `step_seconds` is the
        time of a step as measured before training: the first beats only tell how long it takes to start a step."""
        self.goodput, self.folder, self.least = goodput, folder, hang_seconds
        self.step_seconds = step_seconds
        self.reported = -1.0  # time of the heartbeat after which a hang was reported
        self.waits: deque[float] = deque(maxlen=64)
        self.ended = threading.Event()
        if hang_seconds:
            threading.Thread(target=self.watch, name="watchdog", daemon=True).start()

    def watch(self) -> None:
        last = self.goodput.beat_at
        while not self.ended.wait(min(self.least / 10, 1.0)):
            beat = self.goodput.beat_at
            if beat != last:
                self.waits.append(beat - last)  # a sum if several beats occurred: never too short
                last = beat
            idle = time.monotonic() - beat
            if idle > max(self.least, TIMES * self.usual()) and self.reported != beat:
                self.reported = beat
                self.dump(idle)

    def usual(self) -> float:
        """Return the usual seconds between two beats."""
        return max(statistics.median(self.waits or [0.0]), self.step_seconds)

    def dump(self, idle: float) -> None:
        step = self.goodput.now.step
        process = jax.process_index()
        path = self.folder / f"step-{step:08d}{f'-process-{process}' if process else ''}.txt"
        print(
            f"train: no sign of life for {idle:.0f} s after step {step:,}, while {self.goodput.current} "
            f"(usual: {self.usual():.2f} s). All stacks and the devices' state are in {path}",
            flush=True,
        )
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)  # do not follow a link
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
    """Return text about the devices of this process and their memory, one line each."""
    lines = [f"process {jax.process_index()} of {jax.process_count()}"]
    for device in jax.local_devices():
        stats = device.memory_stats() or {}
        held = ", ".join(f"{key} {value:,}" for key, value in stats.items()) or "does not report its memory"
        lines.append(f"{device}: {held}")
    live = jax.live_arrays()
    lines.append(f"{len(live)} live arrays of {sum(array.nbytes for array in live):,} bytes")
    return "\n".join(lines)
