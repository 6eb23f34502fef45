"""`--from`: reuse the finished stages of another run. Outputs with equal keys are linked or copied.

Files of 1 MB and more become hard links if the file system allows it, since no stage changes a file in place. Smaller
files and logs, which people edit and training appends to, are copied.
"""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import Any

from configs.experiment.run_folder import RunFolder
from launch.run_folder import bucket
from launch.run_folder.checks import is_run, refuse_links
from launch.run_folder.markers import read_note
from launch.run_folder.outputs import entries
from lm.checkpoints.manifest import MANIFEST, delete_unfinished, mark_unfinished, steps_in, unmark
from lm.errors import InputError, UsageError
from lm.run_paths import RunPaths
from lm.storage import Place, Url, appearing, shown_place, sizes_below, streamed

LINKED_FROM = 1_000_000
"""Size in bytes from which a file is linked instead of copied."""


def check_source(source: Path, workdir: Path) -> None:
    """Raise UsageError unless the folder of --from, `source`, is another run without links, InputError if a process is
    working in it. Downloads the markers of a run in a bucket."""
    place = shown_place(source)
    if isinstance(place, Url):
        RunFolder.to_read(place)
    if not is_run(source):
        there = "is not a run folder" if source.is_dir() else "is not there"
        raise UsageError(f"--from {place} {there}. Give a run folder, such as runs/demo.")
    if place == shown_place(workdir) or source.resolve() == workdir.resolve():
        raise UsageError(f"--from and --workdir are both {place}. Give the new run another folder.")
    refuse_links(source)
    with held(source):
        pass


@contextlib.contextmanager
def held(source: Path) -> Generator[None]:
    """Hold a shared lock on a run folder against changes. Raises InputError if a process is working in it."""
    path = RunPaths(source).lock
    if not path.is_file():  # a copy without hidden files
        yield
        return
    with path.open(encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"Another process ({lock.read().strip() or 'unknown'}) is working in --from {source}. Wait for it to "
                "end."
            ) from error
        yield


def refuse_damaged(source: Path, marker: dict[str, Any]) -> None:
    """Raise InputError if a file that the marker lists is missing in the run `source`, or has another size."""
    for name, size in marker["files"].items():
        found = bucket.size_in(source, name)
        if found != size:
            raise InputError(
                f"--from {shown_place(source)}: {name} is {'missing' if found is None else f'{found} bytes'}; it "
                f"should have {size} bytes. Restore the file, first repeat that run's command, or remove --from."
            )


def take(outputs: tuple[str, ...], logs: tuple[str, ...], source: Path, workdir: Path, marker: dict) -> None:
    """Copy a finished stage from the run `source`: its logs, without outputs of other stages, then the outputs that the
    marker lists, large ones as hard links. Overwrites files of an interrupted copy."""
    markers = map(read_note, RunPaths(source).stages.glob("*.json"))
    others = {file for one in markers if one and one["key"] != marker["key"] for file in one["files"]}
    for log in logs:
        files = [path for path in entries(source / log) if str(path.relative_to(source)) not in others]
        copy_files(files, source, workdir, link=False)
    for output in outputs:
        if output in bucket.AT_ADDRESS:
            take_checkpoints(shown_place(source / output), shown_place(workdir / output))
            continue
        listed = [source / file for file in marker["files"] if (source / file).is_relative_to(source / output)]
        copy_files(listed, source, workdir, link=True)


def take_checkpoints(source: Place, target: Place) -> None:
    """Copy or link all checkpoints or snapshots (a marker lists only the newest), each with its manifest last."""
    delete_unfinished(target)
    for step in sorted({*steps_in(source)} - {*steps_in(target)}):
        mark_unfinished(target, step)
        for name in sorted(sizes_below(source / str(step)), key=lambda name: (name == MANIFEST, name)):
            copy_file(source / str(step) / name, target / str(step) / name, link=True)
        unmark(target, step)


def copy_files(files: Iterable[Path], source: Path, workdir: Path, link: bool) -> None:
    """Copy or link files of the run `source` to the same relative paths in `workdir`, each atomically."""
    for path in files:
        if path.is_file():
            copy_file(path, workdir / path.relative_to(source), link)


def copy_file(source: Place, target: Place, link: bool) -> None:
    """Copy a file or object atomically; with `link`, make a hard link of a large file if possible. Raises InputError if
    the object is deleted meanwhile."""
    with appearing(target, durable=False) as partial:
        if isinstance(source, Url):
            try:
                with streamed(source) as stream, partial.open("wb") as file:
                    shutil.copyfileobj(stream, file, 1 << 20)
            except FileNotFoundError as error:
                raise InputError(f"{source} was deleted while it was read. Run the command again.") from error
            return
        real = source.resolve()
        if link and isinstance(target, Path) and real.stat().st_size >= LINKED_FROM:
            with contextlib.suppress(OSError):  # another disk, or one without links
                os.link(real, partial)
        if not partial.exists():
            shutil.copy2(real, partial)
