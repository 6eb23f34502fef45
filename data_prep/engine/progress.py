"""How far a long pipeline is, told while it runs: a live line with the time left on a terminal, else a line now and
then.

What there is to see lies in files: a part appears when its file is done, and a note with the number of pages beside it
while it is in the making. How many pages a file holds is not known before it is read, but its size is, so the time left
is reckoned in bytes.
"""

import contextlib
import dataclasses
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from data_prep.parquet import rows_in

SECONDS_BETWEEN_LOOKS = 0.5
SECONDS_BETWEEN_LINES = 5.0
"""Where there is no terminal."""
PARTS_PER_LOOK = 10_000
"""A folder of so many parts is listed at each look, one of twice as many at every second look: a bound on the cost."""
COUNTED_PER_LOOK = 100
"""Parts that are opened at a look for their number of pages; an interrupted run may have left tens of thousands."""


class UnfinishedFile(Protocol):
    """What is asked of a file of the pipeline."""

    @property
    def index(self) -> int: ...
    @property
    def part(self) -> Path:
        """Parquet, a row a page: appears when the file is done."""
        ...

    @property
    def note(self) -> Path:
        """Holds the number of pages while the part is in the making; lies in a folder with few others."""
        ...

    @property
    def bytes(self) -> int:
        """Size of the input."""
        ...


@dataclass(frozen=True)
class Progress:
    pages: int
    """Pages judged so far, those of an earlier, interrupted run included."""
    files_done: int
    files: int
    bytes_done: int
    """Bytes of input read so far; of files in the making an estimate, by the pages that a byte held in others."""
    bytes: int
    """Bytes of input in all."""
    pages_found: int
    """Pages of an earlier run: they say nothing about how fast this one is."""
    bytes_found: int
    """Bytes of input that it had read."""
    step: str = ""
    """Which step of the stage this is, where it has several; the time left is that of the step."""
    unit: str = "pages"
    """What is counted as pages; "" where nothing is."""
    inputs: str = "files"
    """What is counted as files."""


def rows_of_part(file: UnfinishedFile) -> int | None:
    """How many pages a part holds; None when it is not whole."""
    return rows_in(file.part)


@dataclass(frozen=True)
class UnfinishedShard:
    """A file of texts/ from which a part is made that is no table: it holds as many pages as the texts do."""

    index: int
    texts: Path
    part: Path
    note: Path

    @property
    def bytes(self) -> int:
        return self.texts.stat().st_size


def unfinished_shards(texts: Sequence[Path], folder: Path) -> list[UnfinishedShard]:
    """For each file of texts/ a part in `folder` under the file's name, a JSON that is made too fast for a note."""
    return [
        UnfinishedShard(index, path, folder / f"{path.stem}.json", folder / f"{path.stem}.rows")
        for index, path in enumerate(texts)
    ]


def texts_progress(files: Sequence[UnfinishedShard], step: str) -> "FileProgress":
    """A look at the parts that are made from files of texts/."""
    return FileProgress(files, step, unit="documents", rows=lambda file: rows_in(file.texts))


class FileProgress[File: UnfinishedFile]:
    """Call it to see how far the files are. What is whole at the first call was made by an earlier run.

    Folders are listed, since most of many thousand files need not be asked for; and a part is opened once. With
    complete=True nothing is put off to a later look.
    """

    def __init__(
        self,
        files: Sequence[File],
        step: str = "",
        unit: str = "pages",
        rows: Callable[[File], int | None] = rows_of_part,
    ):
        self.step, self.unit, self.rows = step, unit, rows
        self.files = len(files)
        self.bytes = sum(file.bytes for file in files)
        # Paths are plain strings here: with many thousand of them Path takes ten times as long.
        self.by_part = {str(file.part): file for file in files}  # that are not done
        self.by_note = {str(file.note): file for file in files}
        self.part_folders = sorted({os.path.dirname(path) for path in self.by_part})  # noqa: PTH120
        self.note_folders = sorted({os.path.dirname(path) for path in self.by_note})  # noqa: PTH120
        self.looks = 0
        self.in_the_making: set[str] = set()  # notes seen at the last look
        self.uncounted: list[File] = []  # done, but not opened yet
        self.found: set[int] = set()  # indices of what an earlier run made
        self.bytes_done = self.bytes_found = self.pages = self.pages_found = self.bytes_counted = 0

    def __call__(self, complete: bool = False) -> Progress:
        notes = {path for path in listed(self.note_folders) if path in self.by_note}
        gone = [str(self.by_note[path].part) for path in self.in_the_making - notes]
        self.mark_done([path for path in gone if os.path.exists(path)])  # noqa: PTH110
        self.in_the_making = notes
        if complete or self.looks % (1 + self.files // PARTS_PER_LOOK) == 0:
            self.mark_done(listed(self.part_folders))
        self.looks += 1
        self.count(len(self.uncounted) if complete else COUNTED_PER_LOOK)
        making = {path: pages_noted(Path(path)) for path in notes if str(self.by_note[path].part) in self.by_part}
        return Progress(
            pages=self.pages + sum(making.values()),
            files_done=self.files - len(self.by_part),
            files=self.files,
            bytes_done=self.bytes_done + sum(self.bytes_of(self.by_note[path], n) for path, n in making.items()),
            bytes=self.bytes,
            pages_found=self.pages_found,
            bytes_found=self.bytes_found,
            step=self.step,
            unit=self.unit,
        )

    def mark_done(self, parts: list[str]) -> None:
        """Takes note of those of `parts`, which are there, that were not there before."""
        for path in parts:
            if path in self.by_part:
                file = self.by_part.pop(path)
                self.bytes_done += file.bytes
                if self.looks == 0:
                    self.found.add(file.index)
                    self.bytes_found += file.bytes
                self.uncounted.append(file)

    def count(self, parts: int) -> None:
        """Opens so many of the parts that are done; what turns out not to be whole is not done after all."""
        for _ in range(min(parts, len(self.uncounted))):
            file = self.uncounted.pop()  # the latest first: pages of this run matter for its speed
            of_earlier_run = file.index in self.found
            pages = self.rows(file)
            if pages is None:
                self.by_part[str(file.part)] = file
                self.bytes_done -= file.bytes
                self.bytes_found -= file.bytes if of_earlier_run else 0
                self.found.discard(file.index)
                continue
            self.pages += pages
            self.pages_found += pages if of_earlier_run else 0
            self.bytes_counted += file.bytes

    def bytes_of(self, file: File, pages: int) -> int:
        """How many bytes of the file its first `pages` pages may be; 0 as long as no file is done to compare with."""
        return min(file.bytes, pages * self.bytes_counted // self.pages) if self.pages else 0


def listed(folders: Sequence[str]) -> list[str]:
    """The paths in all folders; of one that is not there, none."""
    paths = []
    for folder in folders:
        with contextlib.suppress(OSError):  # not there yet; and a line about the work must not end it
            inside = os.path.join(folder, "")  # noqa: PTH118
            paths += [inside + name for name in os.listdir(folder or ".")]  # noqa: PTH208
    return paths


def pages_noted(note: Path) -> int:
    with contextlib.suppress(OSError, ValueError):  # just removed, or just being written
        return int(note.read_text())
    return 0


class JoinProgress:
    """Call it to see how far the joins of dedup/clusters.py are that leave their work in `folder`.

    How many there will be nobody knows before the last, so each is a step of its own, reckoned in ranges of keys.
    """

    def __init__(self, folder: Path, step: str):
        self.folder, self.step = folder, step
        self.found: dict[str, int] | None = None  # {step at the first look: ranges that an earlier run did}

    def __call__(self, complete: bool = False) -> Progress:
        plans = sorted((path.stat().st_mtime_ns, path) for path in self.folder.glob("*/ranges.json"))
        step, done, ranges = f"{self.step}, sorting", 0, 0
        if plans:
            step, plan = f"{self.step}, join {len(plans)}", plans[-1][1]
            ranges = len(json.loads(plan.read_text()))
            done = sum(path.endswith(".arrow") for path in listed([str(plan.parent)]))
        self.found = {step: done} if self.found is None else self.found
        found = self.found.get(step, 0)
        return Progress(0, done, ranges, done, ranges, 0, found, step=step, unit="", inputs="ranges of keys")


class ProgressReporter:
    """A thread that looks at the progress twice a second and hands it on, from entering to leaving the block.

    The work is done in other processes, or inside Beam, which copies its functions and so cuts their ties to us. What
    `look` reads must therefore lie in files.
    """

    def __init__(self, look: Callable[..., Progress], report: Callable[[Progress], None]):
        self.look, self.report = look, report
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def run(self) -> None:
        while not self.ended.wait(SECONDS_BETWEEN_LOOKS):
            self.report(self.look())

    def __enter__(self) -> "ProgressReporter":
        self.report(self.look())
        self.thread.start()
        return self

    def __exit__(self, *_) -> None:
        self.ended.set()
        self.thread.join()
        self.report(self.look(complete=True))


class ProgressLine:
    """Prints progress: call it with each Progress, and use it as a context so that the live line ends clean."""

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
        line = f"{self.label}: {told(named, now - self.start)}"
        if self.status:
            self.status.update(line)
            return
        is_due = self.printed_at is None or now - self.printed_at >= SECONDS_BETWEEN_LINES
        if progress.files_done > self.files_done and (is_due or progress.files_done == progress.files):
            print(line, flush=True)
            self.printed_at, self.files_done = now, progress.files_done


def told(progress: Progress, seconds: float) -> str:
    """One line about the progress made in `seconds`."""
    parts = [progress.step] if progress.step else []
    if progress.unit:
        parts.append(f"{progress.pages:,} {progress.unit}")
    if progress.files:
        parts.append(f"{progress.files_done:,} of {progress.files:,} {progress.inputs}")
    if progress.unit and seconds > 0:
        parts.append(f"{(progress.pages - progress.pages_found) / seconds:,.0f} {progress.unit}/s")
    read = progress.bytes_done - progress.bytes_found
    if read > 0 and progress.files_done < progress.files:
        parts.append(f"{duration(seconds * (progress.bytes - progress.bytes_done) / read)} left")
    return ", ".join(parts)


def duration(seconds: float) -> str:
    """Two units at most: 45 s, 3 min 05 s, 2 h 10 min, 4 d 3 h."""
    whole = round(seconds)
    for size, unit, lower_size, lower in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // lower_size:02d} {lower}"
    return f"{whole} s"
