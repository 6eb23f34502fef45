"""How far a long pipeline is, told while it runs: one live line on a terminal, one line a finished file elsewhere."""

import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

SECONDS_BETWEEN_LOOKS = 0.5


@dataclass(frozen=True)
class Progress:
    pages: int
    """Pages judged so far, those of an earlier, interrupted run included."""
    files_done: int
    files: int


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
