"""Outputs of stages: which files the run wrote. Only these are ever deleted.

`stages/<stage>.files` lists the files that a finished stage wrote, with their sizes. It outlives the marker: if a user
deletes the marker to run the stage again, its old outputs are still known to be the run's. Before a stage runs, all
other files in its output folders are the user's, and are moved to `replaced-<n>/` in the run folder.
"""

import json
import os
import shlex
import shutil
from collections.abc import Iterable
from pathlib import Path

from launch.run_folder.checks import refuse_link
from lm.errors import print_untrusted
from lm.run_paths import RunPaths
from lm.storage import Place, Url, relative_name, remove_empty_folders, shown_place, unused, write_atomically
from lm.terminal import listed

NOT_OUTPUTS = {RunPaths.units, RunPaths.scratch, RunPaths.quarantine, RunPaths.parts}
"""Subfolders of output folders whose files are not outputs."""


def remove_command(*paths: Path) -> str:
    """Shell command that deletes the files; for a run in a bucket, the addresses to delete."""
    places = [shown_place(path) for path in paths]
    if any(isinstance(place, Url) for place in places):
        return f"delete {' '.join(map(str, places))}"
    return shlex.join(["rm", *map(str, paths)])


def read_record(path: Place) -> dict[str, int]:
    """Return {relative path: size in bytes} of the files that a stage wrote, by its record stages/<stage>.files. Empty
    if that cannot be read: then all files count as the user's. Raises InputError for a path outside of the run folder,
    StorageError if a bucket cannot be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return {relative_name(file, path): size for file, size in found.items()} if isinstance(found, dict) else {}


def write_record(name: str, workdir: Path, files: dict[str, int]) -> None:
    write_atomically(RunPaths(workdir).written(name), json.dumps(files))


def files_in(folder: Path, outputs: Iterable[str]) -> dict[str, int]:
    """{path in `folder`: size in bytes} of all files of these outputs."""
    paths = [path for output in outputs for path in entries(folder / output) if path.is_file()]
    return {str(path.relative_to(folder)): path.stat().st_size for path in paths}


def entries(path: Path) -> list[Path]:
    """All files and links in the folder `path`; or `path` itself, if it is a file."""
    if path.is_dir():
        return [entry for entry in sorted(path.rglob("*")) if entry.is_symlink() or not entry.is_dir()]
    return [path] if path.exists() else []


def below(file: str, output: str) -> bool:
    """Whether `file` is `output` or inside it; both are relative to the run folder."""
    return file == output or file.startswith(f"{output}/")


def is_not_output(file: str) -> bool:
    """Whether a file in an output folder is in a subfolder of bookkeeping or temporary files (NOT_OUTPUTS)."""
    return not NOT_OUTPUTS.isdisjoint(file.split("/")[1:-1])


def make_room(name: str, workdir: Path, outputs: Iterable[str]) -> None:
    """Move files at the output paths of stage `name` to `replaced-<n>/` if it did not write them, or if they were
    changed since. Raises UsageError if an output is a link."""
    outputs, record = tuple(outputs), read_record(RunPaths(workdir).written(name))
    for output in outputs:
        refuse_link(workdir / output)
    is_ours = lambda path: path.is_file() and record.get(str(path.relative_to(workdir))) == path.stat().st_size
    there = [path for output in outputs for path in entries(workdir / output)]
    others = [path for path in there if not is_not_output(str(path.relative_to(workdir))) and not is_ours(path)]
    move_aside(workdir, others, NOT_OURS)
    for output in outputs:
        remove_empty_folders(workdir / output)  # one may be at the path of a new file


def keep_only(name: str, workdir: Path, outputs: Iterable[str], files: dict[str, int]) -> None:
    """Record `files`, {relative path: bytes}, as the outputs of stage `name`. Of the other files at the stage's output
    paths, delete those that the stage wrote earlier, and move the user's files to `replaced-<n>/`."""
    record, others = read_record(RunPaths(workdir).written(name)), []
    for output in outputs:
        for path in entries(workdir / output):
            file = str(path.relative_to(workdir))
            if file in files or is_not_output(file):
                continue
            whole = file.removesuffix(".partial")  # being copied from another run or, with digits, to another disk
            half_copied = whole != file and not files.keys().isdisjoint({whole, whole.rpartition(".")[0]})
            if half_copied or (path.is_file() and record.get(file) == path.stat().st_size):
                path.unlink()
            else:
                others.append(path)
        remove_empty_folders(workdir / output)
    move_aside(workdir, others, NOT_OURS)
    write_record(name, workdir, files)


def delete_folder(folder: Path) -> None:
    """Delete a folder and its contents, if it exists. Raises UsageError if it is a link."""
    refuse_link(folder)
    if folder.is_dir():
        shutil.rmtree(folder)


NOT_OURS = "was not written by this run, or was changed since"


def move_aside(workdir: Path, paths: Iterable[Path], why: str) -> None:
    """Move files and folders of the run that exist to `replaced-<n>/`, and print their names and `why`."""
    paths = [path for path in paths if os.path.lexists(path)]
    if not paths:
        return
    aside = unused(RunPaths(workdir).replaced)
    for path in paths:
        target = aside / path.relative_to(workdir)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(path, target)
    names = [str(path.relative_to(workdir)) for path in paths]
    print_untrusted(f"{workdir}: {listed(names)} {why}. Moved to {aside}")
