"""What a run tells of itself while it trains: rows of numbers, and one live line."""

import contextlib
import math
import resource
import sys
import time
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

from lm.metrics.writers import JsonLines, Row, Sink, TensorBoard, WeightsAndBiases
from lm.planning.hardware import Peak
from lm.run_paths import RunPaths
from lm.terminal import duration


class MetricsLog:
    """The same rows in `folder`/metrics.jsonl, as TensorBoard events, and in Weights & Biases if a project is named.

    `settings` are what Weights & Biases shows as the run's config.
    """

    def __init__(
        self,
        folder: Path,
        first_step: int,
        wandb_project: str = "",
        settings: dict[str, Any] | None = None,
        primary: bool = True,
        untold: bool = False,
    ):
        """Of several processes, the `primary` one alone writes. `untold`: the validation of `first_step` is yet to be
        told, whatever stands there of it."""
        self.sinks: list[Sink] = []
        self.failed: set[Sink] = set()
        if not primary:
            return
        # The one that can be refused comes first; nothing is open yet then.
        asked = [WeightsAndBiases(folder, wandb_project, settings or {})] if wandb_project else []
        again = lambda row: untold and row["step"] == first_step and "validation_loss" in row
        lines = JsonLines(RunPaths(folder).metrics, first_step, again)
        files = lines, TensorBoard(RunPaths(folder).tensorboard, first_step)
        self.sinks += [*files, *asked]

    def write(self, step: int, values: Row) -> None:
        """Sends `values` to every sink, but what is not finite; numbers are rounded to 7 significant digits.

        A sink on a full disk is told of once, and training goes on without it until it can be written again.
        """
        finite = {name: v for name, v in values.items() if math.isfinite(v)}
        row: Row = {name: v if isinstance(v, int) else float(f"{v:.7g}") for name, v in finite.items()}
        for sink in self.sinks:
            with self.reported(sink):
                sink.write(step, row)

    @contextlib.contextmanager
    def reported(self, sink: Sink) -> Generator[None]:
        """Tells of a disk that cannot be written, once a sink, and goes on."""
        try:
            yield
        except OSError as error:
            if sink not in self.failed:
                self.failed.add(sink)
                print(f"train: {type(sink).__name__} cannot be written, and training goes on: {error}", flush=True)

    def close(self) -> None:
        for sink in self.sinks:
            with self.reported(sink):
                sink.close()


class Meter:
    """Speed of a training loop. Only what happens in `training` counts: no validation, no samples, no saves."""

    def __init__(self, first: int, steps: int, tokens_per_step: int, step_flops: int, peak: Peak):
        """`first` steps of `steps` were made before."""
        self.first, self.steps = first, steps
        self.tokens_per_step, self.step_flops, self.peak = tokens_per_step, step_flops, peak
        self.started, self.told, self.busy, self.waited = time.perf_counter(), first, 0.0, 0.0

    @contextlib.contextmanager
    def training(self) -> Generator[None]:
        """Counts the seconds of the block."""
        start = time.perf_counter()
        yield
        self.busy += time.perf_counter() - start

    def next[Item](self, batches: Iterator[Item]) -> Item:
        """The next batch; the seconds until it comes count as waiting."""
        start = time.perf_counter()
        batch = next(batches)
        self.waited += time.perf_counter() - start
        return batch

    def row(self, step: int) -> Row:
        """What was measured since the last call."""
        steps_per_second = (step - self.told) / self.busy
        elapsed = time.perf_counter() - self.started
        row: Row = {
            "tokens": step * self.tokens_per_step,
            "tokens_per_second": self.tokens_per_step * steps_per_second,
            "data_wait_share": self.waited / self.busy,
            "seconds": elapsed,
            "seconds_left": elapsed / (step - self.first) * (self.steps - step),
        }
        if self.peak.rate is not None:
            row[self.peak.metric] = self.step_flops * steps_per_second / self.peak.rate
        self.told, self.busy, self.waited = step, 0.0, 0.0
        return row


def memory(devices: Sequence[Any]) -> Row:
    """Bytes now and at most so far: of the fullest device, or, where devices do not tell, of this process."""
    stats = [device.memory_stats() or {} for device in devices]
    row: Row = {
        name: max(one[key] for one in stats)
        for name, key in (("device_bytes_in_use", "bytes_in_use"), ("device_bytes_peak", "peak_bytes_in_use"))
        if all(key in one for one in stats)
    }
    if row:
        return row
    unit = 1 if sys.platform == "darwin" else 1024  # getrusage(2): bytes on macOS, kilobytes elsewhere
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    try:  # Linux alone tells what is resident now
        now = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize()
    except OSError:
        return {"process_bytes_peak": peak}
    return {"process_bytes_in_use": now, "process_bytes_peak": max(now, peak)}  # the kernel counts the peak in lumps


def live_text(step: int, steps: int, row: Row) -> str:
    """One row in a line: "step 20/800  loss 8.134  3,909 tokens/s  MFU 61 %  13:41 left"; on a CPU without MFU."""
    mfu = f"MFU {row['mfu']:.0%}  ".replace("%", " %") if "mfu" in row else ""
    speed, left = f"{row['tokens_per_second']:,.0f} tokens/s", duration(row["seconds_left"])
    return f"step {step:,}/{steps:,}  loss {row['loss']:.3f}  {speed}  {mfu}{left} left"
