"""metrics.jsonl as the window reads it, again and again while it grows: what is new of it alone, and never too much."""

import json
import os
from pathlib import Path
from typing import Any

MOST_LINES = 3_000
"""Of an answer: of longer runs every second, third, … line is sent, the last ones always."""
MOST_DAMAGED = 5
"""Damaged lines that are named."""
MOST = 1e300
"""Of a number; of an integer that has more digits, JavaScript reads infinity."""
TRAIN = (
    "loss", "learning_rate", "tokens_per_second", "mfu", "cpu_matmul_share", "gradient_norm", "tokens", "seconds",
    "seconds_left", "goodput",
)  # fmt: skip
VALIDATION = ("validation_loss", "validation_bits_per_byte")
STARTED = (
    "parameters", "steps", "tokens_per_step", "step_flops", "device_kind", "devices", "attention", "processes",
)  # fmt: skip


def finite(value: object) -> int | float | None:
    """`value`, or None for what is no number that JSON can hold."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not -MOST <= value <= MOST:
        return None
    return value


def told(value: object) -> str | int | float | None:
    """A word or a number of a line, None for what is neither."""
    return value[:200] if isinstance(value, str) else finite(value)


class CurveLog:
    """The lines of one file. A step that was run twice, around a kill, counts by its later line; a line that is no
    line of metrics is left out and named in `damaged`; a last line that a kill has cut off is only left out."""

    def __init__(self, path: Path):
        self.path = path
        self.forget()

    def forget(self) -> None:
        self.inode, self.read_to = -1, 0
        self.train: dict[int, dict] = {}
        self.validation: dict[int, dict] = {}
        self.starts: list[dict] = []
        self.lines = 0
        self.damaged: list[str] = []
        """A sentence for each of the first lines that are no lines of metrics."""

    def follow(self) -> None:
        """Reads what has come since; all of it where the file is another, as after a restart."""
        try:
            with self.path.open("rb") as file:
                now = os.fstat(file.fileno())
                if now.st_ino != self.inode or now.st_size < self.read_to:
                    self.forget()
                    self.inode = now.st_ino
                file.seek(self.read_to)
                data = file.read()
        except OSError:
            self.forget()
            return
        whole = data[: data.rfind(b"\n") + 1]
        self.read_to += len(whole)
        for line in whole.splitlines():
            self.lines += 1
            if line.strip() and not self.take(line) and len(self.damaged) < MOST_DAMAGED:
                self.damaged.append(f"{self.path}, line {self.lines:,}, is no line of metrics, and is left out.")

    def take(self, line: bytes) -> bool:
        """Whether it is a line of metrics."""
        try:
            row = json.loads(line)
            step = row["step"]
        except (ValueError, KeyError, TypeError, RecursionError):
            return False
        if not isinstance(step, int) or isinstance(step, bool) or not 0 <= step < 2**53:
            return False
        if isinstance(row.get("run"), dict):
            self.starts.append({"step": step} | {name: told(row["run"].get(name)) for name in STARTED})
        if "loss" in row:
            self.train[step] = {name: finite(row.get(name)) for name in TRAIN}
        if "validation_loss" in row:
            self.validation[step] = {name: finite(row.get(name)) for name in VALIDATION}
        return True

    def read(self, after: int = -1) -> dict[str, Any]:
        """Columns of the lines of steps after `after`: {"train": {"step": [...], "loss": [...], ...}, "validation",
        "starts": what ran from which step on, "every": of how many lines one is sent, "last": the step to ask after}.
        Columns that no line has are left out; null stands where one line has no number."""
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
    told = {name: values for name, values in found.items() if any(value is not None for value in values)}
    return every, {"step": steps, **told}
