"""Training metrics: throughput, memory, rows for the writers, and the live line on the terminal."""

import contextlib
import math
import resource
import sys
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lm.metrics.hardware import Peak
from lm.metrics.writers import JsonLines, Row, TensorBoard, WeightsAndBiases, Writer
from lm.run_paths import RunPaths
from lm.terminal import duration


class MetricsLog:
    """Writes rows of metrics to metrics.jsonl and TensorBoard files in `folder` and, if a project is set, to Weights &
    Biases, with `settings` as the run's config there."""

    def __init__(
        self,
        folder: Path,
        first_step: int,
        wandb_project: str = "",
        settings: dict[str, Any] | None = None,
        primary: bool = True,
        evaluation_pending: bool = False,
    ):
        """Only the `primary` process writes. If `evaluation_pending`, the rows of the evaluations at `first_step` are
        deleted, because these run again."""
        self.writers: list[Writer] = []
        self.failed: set[Writer] = set()
        self.lines: JsonLines | None = None
        if not primary:
            return
        # Weights & Biases first: it can fail, and nothing else is open yet.
        asked = [WeightsAndBiases(folder, wandb_project, settings or {})] if wandb_project else []
        of_step = lambda row: "tokens" in row
        again = lambda row: row["step"] == first_step and ("run" in row or (evaluation_pending and not of_step(row)))
        self.lines = JsonLines(RunPaths(folder).metrics, first_step, again)
        self.writers += [self.lines, TensorBoard(RunPaths(folder).tensorboard, first_step), *asked]

    def write_run(self, step: int, run: Mapping[str, Any]) -> None:
        """Write a row {"step": step, "run": run}, which describes the run from `step` on. Only to metrics.jsonl."""
        if self.lines is not None:
            with self.reported(self.lines):
                self.lines.write(step, {"run": run})

    def write(self, step: int, values: Mapping[str, int | float | list[float]]) -> None:
        """Write `values` of a step to every writer, rounded to 7 significant digits, without values that are not
        finite. Lists go only to metrics.jsonl.

        A write error, such as a full disk, is printed once per writer; training continues.
        """
        rounded = lambda value: value if isinstance(value, int) else float(f"{value:.7g}")
        lists = {name: list(map(rounded, value)) for name, value in values.items() if isinstance(value, list)}
        plain = {name: value for name, value in values.items() if not isinstance(value, list)}
        row: Row = {name: rounded(value) for name, value in plain.items() if math.isfinite(value)}
        for writer in self.writers:
            with self.reported(writer):
                if isinstance(writer, JsonLines):
                    writer.write(step, row | lists)
                else:
                    writer.write(step, row)

    @contextlib.contextmanager
    def reported(self, writer: Writer) -> Generator[None]:
        """Context manager that prints the first OSError of each writer instead of raising it."""
        try:
            yield
        except OSError as error:
            if writer not in self.failed:
                self.failed.add(writer)
                print(f"train: {type(writer).__name__} cannot be written; training continues: {error}", flush=True)

    def close(self) -> None:
        for writer in self.writers:
            with self.reported(writer):
                writer.close()


class Meter:
    """Measures the throughput of a training loop. Only time within `training` counts."""

    def __init__(self, first: int, steps: int, tokens: Callable[[int], int], flops: Callable[[int], int], peak: Peak):
        """`first` of `steps` steps are already done. `tokens(step)` and `flops(step)` are the totals of all steps
        before `step` (Stages.tokens_before, lm.model.cost.flops_before)."""
        self.first, self.steps = first, steps
        self.tokens, self.flops, self.peak = tokens, flops, peak
        self.started, self.last_logged, self.busy, self.waited = time.perf_counter(), first, 0.0, 0.0

    @contextlib.contextmanager
    def training(self) -> Generator[None]:
        """Context manager whose duration counts as training."""
        start = time.perf_counter()
        yield
        self.busy += time.perf_counter() - start

    def next[Item](self, batches: Iterator[Item]) -> Item:
        """Return the next batch. The time until it is there counts as waiting for data."""
        start = time.perf_counter()
        batch = next(batches)
        self.waited += time.perf_counter() - start
        return batch

    def row(self, step: int) -> Row:
        """Return throughput metrics after `step` steps: rates since the last call, and totals."""
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
    """Return current and peak memory in bytes: of the device that uses most, or of the process if they report none."""
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
    try:  # only on Linux
        now = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize()
    except OSError:
        return {"process_bytes_peak": peak}
    return {"process_bytes_in_use": now, "process_bytes_peak": max(now, peak)}  # the kernel updates the peak in batches


def live_text(step: int, steps: int, row: Row) -> str:
    """Format metrics as "step 20/800  loss 8.134  3,909 tokens/s  MFU 61 %  13:41 left"; without MFU on a CPU. In
    reinforcement learning, the loss means nothing, and the reward is shown."""
    mfu = f"MFU {row['mfu']:.0%}  ".replace("%", " %") if "mfu" in row else ""
    speed, left = f"{row['tokens_per_second']:,.0f} tokens/s", duration(row["seconds_left"])
    name = "reward" if "reward" in row else "loss"
    return f"step {step:,}/{steps:,}  {name} {row[name]:.3f}  {speed}  {mfu}{left} left"
