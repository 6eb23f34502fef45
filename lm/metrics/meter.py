"""What a run reports while it trains: rows of numbers, and one live line."""

import contextlib
import math
import resource
import sys
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lm.metrics.writers import JsonLines, Row, TensorBoard, WeightsAndBiases, Writer
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
        evaluation_pending: bool = False,
    ):
        """Of several processes, the `primary` one alone writes. `evaluation_pending`: the evaluations of `first_step`
        are run again, so their rows are taken out."""
        self.writers: list[Writer] = []
        self.failed: set[Writer] = set()
        self.lines: JsonLines | None = None
        if not primary:
            return
        # The one that can be refused comes first; nothing is open yet then.
        asked = [WeightsAndBiases(folder, wandb_project, settings or {})] if wandb_project else []
        again = lambda row: row["step"] == first_step and ("run" in row or (evaluation_pending and "tokens" not in row))
        self.lines = JsonLines(RunPaths(folder).metrics, first_step, again)
        self.writers += [self.lines, TensorBoard(RunPaths(folder).tensorboard, first_step), *asked]

    def write_run(self, step: int, run: Mapping[str, Any]) -> None:
        """A row of metrics.jsonl alone, which says what runs from `step` on: {"step": step, "run": run}."""
        if self.lines is not None:
            with self.reported(self.lines):
                self.lines.write(step, {"run": run})

    def write(self, step: int, values: Mapping[str, int | float | list[float]]) -> None:
        """Sends `values` to every writer, but what is not finite; numbers are rounded to 7 significant digits. Lists go
        only to metrics.jsonl.

        A writer on a full disk is reported once, and training goes on without it until it can be written again.
        """
        row: Row = {}
        lists: dict[str, list[float]] = {}
        for name, value in values.items():
            if isinstance(value, list):
                lists[name] = [rounded(one) for one in value]
            elif math.isfinite(value):
                row[name] = rounded(value)
        for writer in self.writers:
            with self.reported(writer):
                if isinstance(writer, JsonLines):
                    writer.write(step, row | lists)
                else:
                    writer.write(step, row)

    @contextlib.contextmanager
    def reported(self, writer: Writer) -> Generator[None]:
        """Reports a disk that cannot be written, once a writer, and goes on."""
        try:
            yield
        except OSError as error:
            if writer not in self.failed:
                self.failed.add(writer)
                print(f"train: {type(writer).__name__} cannot be written, and training goes on: {error}", flush=True)

    def close(self) -> None:
        for writer in self.writers:
            with self.reported(writer):
                writer.close()


def rounded(value: float) -> float:
    """`value` with 7 significant digits; integers unchanged."""
    return value if isinstance(value, int) else float(f"{value:.7g}")


class Meter:
    """Speed of a training loop. Only what happens in `training` counts: no validation, no samples, no saves."""

    def __init__(self, first: int, steps: int, tokens: Callable[[int], int], flops: Callable[[int], int], peak: Peak):
        """`first` steps of `steps` were made before. `tokens(step)` and `flops(step)` are those of all steps before
        `step` (Stages.tokens_before, lm.planning.flops.flops_before)."""
        self.first, self.steps = first, steps
        self.tokens, self.flops, self.peak = tokens, flops, peak
        self.started, self.last_logged, self.busy, self.waited = time.perf_counter(), first, 0.0, 0.0

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
        since = lambda count, first: count(step) - count(first)
        elapsed = time.perf_counter() - self.started
        row: Row = {
            "tokens": self.tokens(step),
            "train_flops": float(self.flops(step)),
            "tokens_per_second": since(self.tokens, self.last_logged) / self.busy,
            "data_wait_share": self.waited / self.busy,
            "seconds": elapsed,
            "seconds_left": elapsed * (self.flops(self.steps) - self.flops(step)) / since(self.flops, self.first),
        }
        if self.peak.rate is not None:
            row[self.peak.metric] = since(self.flops, self.last_logged) / self.busy / self.peak.rate
        self.last_logged, self.busy, self.waited = step, 0.0, 0.0
        return row


def memory(devices: Sequence[Any]) -> Row:
    """Bytes now and at most so far: of the fullest device, or, where devices do not report it, of this process."""
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
    try:  # Linux alone reports what is resident now
        now = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize()
    except OSError:
        return {"process_bytes_peak": peak}
    return {"process_bytes_in_use": now, "process_bytes_peak": max(now, peak)}  # the kernel counts the peak in lumps


def live_text(step: int, steps: int, row: Row) -> str:
    """One row in a line: "step 20/800  loss 8.134  3,909 tokens/s  MFU 61 %  13:41 left"; on a CPU without MFU."""
    mfu = f"MFU {row['mfu']:.0%}  ".replace("%", " %") if "mfu" in row else ""
    speed, left = f"{row['tokens_per_second']:,.0f} tokens/s", duration(row["seconds_left"])
    return f"step {step:,}/{steps:,}  loss {row['loss']:.3f}  {speed}  {mfu}{left} left"
