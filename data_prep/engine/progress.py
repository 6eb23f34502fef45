"""Progress of a long step: a live line on a terminal, otherwise a line every few seconds. The remaining time is
estimated from bytes of input, since the number of rows in a unit is unknown until it is read."""

import dataclasses
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

SECONDS_BETWEEN_LINES = 5.0


@dataclass(frozen=True)
class Progress:
    pages: int
    """Pages processed so far, including those of an earlier, interrupted run."""
    files_done: int
    """Units of work that are done."""
    files: int
    """All units of work of the step."""
    bytes_done: int
    """Bytes of input read so far. For unfinished files, estimated from their pages and the bytes per page of finished
    files."""
    bytes: int
    """Bytes of all inputs."""
    pages_found: int
    """Pages processed by an earlier run; they do not count in the speed of this run."""
    bytes_found: int
    """Bytes of input of the units that an earlier run finished."""
    step: str = ""
    """Name of the current step, if the stage has several. The remaining time is that of the step."""
    unit: str = "pages"
    """Noun for the counted rows, such as "pages"; "" if none are counted."""
    inputs: str = "files"


OnProgress = Callable[[Progress], None]


class ProgressLine:
    """Prints progress, as a live line on a terminal and otherwise every few seconds. Call it with each Progress. As a
    context manager, it removes the live line at the end."""

    def __init__(self, label: str, clock: Callable[[], float] = time.monotonic):
        from rich.console import Console

        self.label, self.clock = label, clock
        self.status = Console().status(f"{label}: starting") if sys.stdout.isatty() else None
        self.step = ""
        self.start: float | None = None
        self.printed_at: float | None = None
        self.files_done = 0

    def __enter__(self) -> "ProgressLine":
        if self.status:
            self.status.start()
        return self

    def __exit__(self, *_) -> None:
        if self.status:
            self.status.stop()

    def __call__(self, progress: Progress) -> None:
        now = self.clock()
        if self.start is None or progress.step != self.step:
            self.step, self.start, self.files_done = progress.step, now, 0
        named = dataclasses.replace(progress, step="" if progress.step == self.label else progress.step)
        line = f"{self.label}: {describe(named, now - self.start)}"
        if self.status:
            self.status.update(line)
            return
        is_due = self.printed_at is None or now - self.printed_at >= SECONDS_BETWEEN_LINES
        if progress.files_done > self.files_done and (is_due or progress.files_done == progress.files):
            print(line, flush=True)
            self.printed_at, self.files_done = now, progress.files_done


def describe(progress: Progress, seconds: float) -> str:
    parts = [progress.step] if progress.step else []
    counted = progress.unit and (progress.pages or not progress.files_done)  # some steps count no rows
    if counted:
        parts.append(f"{progress.pages:,} {progress.unit}")
    if progress.files:
        parts.append(f"{progress.files_done:,} of {progress.files:,} {progress.inputs}")
    if counted and seconds > 0:
        parts.append(f"{(progress.pages - progress.pages_found) / seconds:,.0f} {progress.unit}/s")
    read = progress.bytes_done - progress.bytes_found
    if read > 0 and progress.files_done < progress.files:
        parts.append(f"{duration(seconds * (progress.bytes - progress.bytes_done) / read)} left")
    return ", ".join(parts)


def duration(seconds: float) -> str:
    """Format seconds with at most two units: 45 s, 3 min 05 s, 2 h 10 min, 4 d 03 h."""
    whole = round(seconds)
    for size, unit, lower_size, lower in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // lower_size:02d} {lower}"
    return f"{whole} s"
