"""What a run reports while it trains: metrics.jsonl, TensorBoard events, and one live line."""

import json
import sys
import time
from pathlib import Path
from typing import IO

from lm.files import write_atomically


class MetricsLog:
    """metrics.jsonl, one JSON object a line, and the same numbers as TensorBoard events.

    On a restart from a checkpoint, lines of later steps are taken out, so that every step stands there once.
    """

    def __init__(self, folder: Path, first_step: int):
        from tensorboardX import SummaryWriter

        self.path = folder / "metrics.jsonl"
        kept = []
        if self.path.exists():
            for line in self.path.read_text(encoding="utf-8").splitlines():
                try:
                    row = json.loads(line)
                except json.JSONDecodeError:  # the line that a kill cut short
                    continue
                if row["step"] <= first_step:
                    kept.append(line + "\n")
        write_atomically(self.path, "".join(kept))
        self.file: IO[str] = self.path.open("a", encoding="utf-8")
        self.events = SummaryWriter(str(folder / "tensorboard"), purge_step=first_step + 1)

    def write(self, step: int, values: dict[str, float]) -> None:
        """Appends {"step": step, **values}; numbers are rounded to 7 significant digits."""
        rounded = {name: v if isinstance(v, int) else float(f"{v:.7g}") for name, v in values.items()}
        row = {"step": step} | rounded
        self.file.write(json.dumps(row) + "\n")
        self.file.flush()
        for name, value in values.items():
            self.events.add_scalar(name, value, step)

    def close(self) -> None:
        self.file.close()
        self.events.close()


class LiveLine:
    """One line that is written over again on a terminal; elsewhere a line every `seconds_apart` seconds."""

    def __init__(self, seconds_apart: float = 15.0):
        self.terminal = sys.stdout.isatty()
        self.seconds_apart = seconds_apart
        self.last = -float("inf")

    def show(self, text: str) -> None:
        now = time.monotonic()
        if self.terminal:
            print(f"\r\033[K{text}", end="", flush=True)
        elif now - self.last >= self.seconds_apart:
            print(text, flush=True)
            self.last = now

    def end(self) -> None:
        """Leaves the live line, so that other text can follow."""
        if self.terminal:
            print("\r\033[K", end="", flush=True)


def for_terminal(text: str) -> str:
    """Text that a model wrote, without the control characters that a terminal would obey."""
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)


def duration(seconds: float) -> str:
    """ "1:02:03" or "2:03" """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
