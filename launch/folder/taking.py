"""A run that begins from the finished stages of another (`--from`): outputs of equal keys are linked or copied.

Files of 1 MB and more are hard links where the file system allows it, which take no room: no stage changes a file in
place. Smaller ones are copied, and so are logs, which people edit and training appends to.
"""

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import Any

from launch.folder.guard import is_run
from launch.folder.links import refuse_links
from launch.folder.markers import read_note
from launch.folder.written import BEGUN, begin_again, below, can_go_on, entries, put_in_place, remove, remove_parts
from lm.errors import InputError, UsageError
from lm.run_paths import RunPaths
from lm.storage import write_atomically

LINKED_FROM = 1_000_000
"""Bytes."""


def check_source(source: Path, workdir: Path) -> None:
    """Raises UsageError unless `source` is the folder of another run, InputError when a process is at work there."""
    if not is_run(source):
        there = "is not the folder of a run" if source.is_dir() else "is not there"
        raise UsageError(f"--from {source} {there}. Name the folder of a run, such as runs/demo.")
    if source.resolve() == workdir.resolve():
        raise UsageError(f"--from and --workdir are both {workdir}. Give the new run a folder of its own.")
    refuse_links(source, claim=False)
    with held(source):
        pass


@contextlib.contextmanager
def held(source: Path) -> Generator[None]:
    """Nobody else changes the run folder meanwhile. Raises InputError when a process is at work there."""
    path = RunPaths(source).lock
    if not path.is_file():  # a copy without hidden files
        yield
        return
    with path.open(encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"Another process ({lock.read().strip() or 'unknown'}) is at work in {source}, which --from names. "
                "Wait for it to end."
            ) from error
        yield


def finished_in(source: Path, name: str) -> dict[str, Any] | None:
    """The marker of a stage that another run has finished, or None. Raises InputError when it is damaged."""
    return read_note(RunPaths(source).marker(name), "key", "settings", "files")


def refuse_damaged(source: Path, marker: dict[str, Any]) -> None:
    """Raises InputError when files that the marker lists are not what was written."""
    for name, size in marker["files"].items():
        file = source / name
        found = file.stat().st_size if file.is_file() else None
        if found != size:
            raise InputError(
                f"--from {source}: {file} is {'missing' if found is None else f'{found} bytes'}, but {size} bytes were "
                "written. Bring it back, or run that run's own command again first; or leave --from out."
            )


def take(name: str, outputs: tuple[str, ...], logs: tuple[str, ...], source: Path, workdir: Path, marker: dict) -> None:
    """Takes over the finished outputs of the stage of that name, and its logs where there are any; then its marker.

    Raises InputError when they are damaged, or a process is at work in `source`.
    """
    partial = RunPaths(workdir).partial(f"{name}.taken")
    note = {"key": marker["key"], "settings": {}, "source": str(source.resolve())}
    with held(source):
        refuse_damaged(source, marker)
        begun = read_note(partial / BEGUN, delete=partial)
        if not begun or any(begun.get(field) != value for field, value in note.items()):
            begin_again(partial, workdir, note)
        if not can_go_on(workdir, partial, (*outputs, *logs)):
            remove(partial / "out")
            for output in outputs:
                bring(files_of(source, output, marker), source, partial / "out", link=True)
            others = listed_by_others(source, name)
            for log in logs:
                files = [path for path in entries(source / log) if str(path.relative_to(source)) not in others]
                bring(files, source, partial / "out", link=False)
        there = tuple(one for one in (*outputs, *logs) if (partial / "out" / one).exists() or one in outputs)
        not_made = tuple(one for one in outputs if not any(below(file, one) for file in marker["files"]))
        put_in_place(name, workdir, there, partial, optional=not_made)
    write_atomically(RunPaths(workdir).marker(name), json.dumps(marker | {"taken_from": str(source)}, indent=1))
    remove_parts(partial)
    print(f"{name}: taken from {source}", flush=True)


def files_of(source: Path, output: str, marker: dict) -> list[Path]:
    """The files of an output: those that the marker lists, and all in the folder where it lists only the newest of them
    (checkpoints) or none (snapshots)."""
    place = source / output
    if output in (RunPaths.checkpoints, RunPaths.snapshots):
        return [path for path in entries(place) if RunPaths.unfinished not in path.relative_to(place).parts]
    return [source / file for file in marker["files"] if (source / file).is_relative_to(place)]


def listed_by_others(source: Path, name: str) -> set[str]:
    """Files that other stages of the run made: those are taken with them."""
    markers = (finished_in(source, path.stem) for path in RunPaths(source).stages.glob("*.json") if path.stem != name)
    return {file for marker in markers if marker for file in marker["files"]}


def bring(files: Iterable[Path], source: Path, out: Path, link: bool) -> None:
    """Links or copies files of the run folder `source` into `out`, under the same names."""
    for path in files:
        if not path.is_file():
            continue
        real, target = path.resolve(), out / path.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        if link and real.stat().st_size >= LINKED_FROM:
            with contextlib.suppress(OSError):  # another disk, or one without links
                os.link(real, target)
                continue
        shutil.copy2(real, target)
