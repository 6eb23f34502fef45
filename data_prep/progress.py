"""How far a long pipeline is, told while it runs: one live line on a terminal, one line a finished file elsewhere."""

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from data_prep.parquet import rows_in

if TYPE_CHECKING:
    from data_prep.pipeline import SourceFile

SECONDS_BETWEEN_LOOKS = 0.5


@dataclass(frozen=True)
class Progress:
    pages: int
    """Pages judged so far, those of an earlier, interrupted run included."""
    files_done: int
    files: int


def looking_at(files: Sequence["SourceFile"]) -> Callable[[], Progress]:
    """A function that looks how far `files` are: by the parts that are whole, and the notes beside those in the making.

    A part that is whole stays so, and is read once.
    """
    rows: dict[int, int] = {}  # of the parts that are whole

    def look() -> Progress:
        waiting = 0
        for file in files:
            if file.index in rows:
                continue
            if (whole := rows_in(file.part)) is not None:
                rows[file.index] = whole
                continue
            with contextlib.suppress(OSError, ValueError):  # not begun, or just being written
                waiting += int(file.note.read_text())
        return Progress(sum(rows.values()) + waiting, len(rows), len(files))

    return look


class Watch:
    """A thread that looks at the progress twice a second and hands it on, from entering to leaving the block.

    The work is done in other processes, or inside Beam, which copies its functions and so cuts their ties to us. What
    `look` reads must therefore lie in files.
    """

    def __init__(self, look: Callable[[], Progress], report: Callable[[Progress], None]):
        self.look, self.report = look, report
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def run(self) -> None:
        while not self.ended.wait(SECONDS_BETWEEN_LOOKS):
            self.report(self.look())

    def __enter__(self) -> "Watch":
        self.report(self.look())
        self.thread.start()
        return self

    def __exit__(self, *_) -> None:
        self.ended.set()
        self.thread.join()
        self.report(self.look())


class ProgressLine:
    """Prints progress: call it with each Progress, and use it as a context so that the live line ends clean."""

    def __init__(self, label: str):
        from rich.console import Console

        self.label = label
        self.status = Console().status(f"{label}: starting") if sys.stdout.isatty() else None
        self.first: tuple[float, int] | None = None
        self.files_done = 0

    def __enter__(self) -> "ProgressLine":
        if self.status:
            self.status.start()
        return self

    def __exit__(self, *_) -> None:
        if self.status:
            self.status.stop()

    def __call__(self, progress: Progress) -> None:
        now = time.perf_counter()
        start, pages_then = self.first = self.first or (now, progress.pages)
        rate = (progress.pages - pages_then) / max(now - start, SECONDS_BETWEEN_LOOKS)
        files = f"{progress.files_done} of {progress.files} files"
        line = f"{self.label}: {progress.pages:,} pages, {files}, {rate:.0f} pages/s"
        if self.status:
            self.status.update(line)
        elif progress.files_done > self.files_done:
            print(line, flush=True)
        self.files_done = progress.files_done
