"""Follow metrics.jsonl while it grows: reads only new lines, and returns a bounded number of points."""

import os
from pathlib import Path
from typing import Any

from viewer.training_data import finite, metrics_in

MOST_LINES = 3_000
"""Maximum lines of an answer: for longer runs every second, third, … line, always including the last one."""
MOST_DAMAGED = 5
"""Maximum damaged lines to report."""
TRAIN = (
    "loss", "learning_rate", "tokens_per_second", "mfu", "cpu_matmul_share", "gradient_norm", "tokens", "seconds",
    "seconds_left", "goodput", "reward",
)  # fmt: skip
VALIDATION = ("validation_loss", "validation_bits_per_byte", "validation_pass_at_1")
STARTED = (
    "parameters", "steps", "tokens_per_step", "step_flops", "device_kind", "devices", "attention", "processes",
)  # fmt: skip


class CurveLog:
    """Lines of metrics.jsonl. If a step was logged twice, before and after a crash, the later line counts. Invalid
    lines are skipped and listed in `damaged`; an incomplete last line is only skipped."""

    def __init__(self, path: Path):
        self.path = path
        self.reset()

    def reset(self) -> None:
        self.inode, self.read_to = -1, 0
        self.train: dict[int, dict] = {}
        self.validation: dict[int, dict] = {}
        self.starts: list[dict] = []
        self.lines = 0
        self.damaged: list[str] = []
        """A sentence for each of the first invalid lines."""

    def follow(self) -> None:
        """Read the new lines; all lines if the file was replaced, as after a restart."""
        try:
            with self.path.open("rb") as file:
                now = os.fstat(file.fileno())
                if now.st_ino != self.inode or now.st_size < self.read_to:
                    self.reset()
                    self.inode = now.st_ino
                file.seek(self.read_to)
                data = file.read()
        except OSError:
            self.reset()
            return
        whole = data[: data.rfind(b"\n") + 1]
        self.read_to += len(whole)
        for line in whole.splitlines():
            self.lines += 1
            if line.strip() and not self.take(line) and len(self.damaged) < MOST_DAMAGED:
                self.damaged.append(f"{self.path}, line {self.lines:,}, is not a line of metrics, and is skipped.")

    def take(self, line: bytes) -> bool:
        """Parse and store a line; return False if it is not a line of metrics."""
        if (row := metrics_in(line)) is None:
            return False
        step = row["step"]
        if isinstance(row.get("run"), dict):
            known = lambda value: value[:200] if isinstance(value, str) else finite(value)
            self.starts.append({"step": step} | {name: known(row["run"].get(name)) for name in STARTED})
        if "loss" in row or "reward" in row:
            if "reward" in row:
                row["loss"] = None  # the objective of reinforcement learning, whose value shows nothing
            self.train[step] = {name: finite(row.get(name)) for name in TRAIN}
        if "validation_loss" in row or "validation_pass_at_1" in row:
            self.validation[step] = {name: finite(row.get(name)) for name in VALIDATION}
        return True

    def read(self, after: int = -1) -> dict[str, Any]:
        """Return the lines of steps above `after`, as columns: {"train": {"step": [...], "loss": [...], ...},
        "validation": ..., "starts": objects, one per start of training, "every": N if only every Nth line is included,
        "last": `after` for the next call}. Columns without any number are omitted; null if a line has no number."""
        self.follow()
        every, train = columns(self.train, TRAIN, after)
        _, validation = columns(self.validation, VALIDATION, after)
        last = max((*self.train, *self.validation), default=-1)
        return {"train": train, "validation": validation, "starts": self.starts[-20:], "every": every, "last": last}


def columns(rows: dict[int, dict], names: tuple[str, ...], after: int) -> tuple[int, dict[str, list]]:
    steps = sorted(step for step in rows if step > after)
    every = max(1, -(-len(steps) // MOST_LINES))
    steps = steps[::-every][::-1]
    found = {name: [rows[step][name] for step in steps] for name in names}
    shown = {name: values for name, values in found.items() if any(value is not None for value in values)}
    return every, {"step": steps, **shown}
