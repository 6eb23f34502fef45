"""Files that a run wrote into its folder, and how new outputs replace old ones. Nothing else is ever deleted.

`stages/<stage>.files` lists the files that a stage wrote, with their sizes. It outlives the marker, so that outputs
whose marker was deleted in order to make them again are known to be a run's. Where new outputs go, a file that is
listed and has its size is deleted; any other file is the user's and is moved to `replaced-<n>/` of the run folder.

A folder of outputs may be a link to a folder on another disk that the run has claimed (links.py). The link stays, and
the run's files are replaced in that folder. Other files in it are neither deleted nor moved: the stage is refused.
"""

import contextlib
import errno
import json
import shlex
import shutil
from pathlib import Path
from typing import Any

from launch.folder.links import CLAIM, claim_links
from lm.errors import InputError, UsageError
from lm.run_paths import RunPaths
from lm.storage import Url, inside, relative_name, shown_place, sync, unused, write_atomically

BEGUN = "begun.json"
"""In `.partial/<stage>/`: what is being made. It is written first and deleted last."""
PARTIAL = ".partial"
"""Ending of a file that is being written, or copied to another disk."""
MADE, MOVING = "made.json", "moving.json"
"""In `.partial/<stage>/`: the list of finished outputs. Under the first name nothing has been moved yet, under the
second the old outputs are gone."""


def remove_command(*paths: Path, folders: bool = False) -> str:
    """The shell command that deletes the paths; of files in the working copy of a bucket, where it would bring them
    again, what to delete there."""
    places = [shown_place(path) for path in paths]
    if not folders and any(isinstance(place, Url) for place in places):
        return f"delete {' '.join(map(str, places))}"
    return shlex.join(["rm", *(["-r"] if folders else []), *map(str, paths)])


def read_record(name: str, workdir: Path) -> dict[str, int]:
    """{relative path: bytes} of the files that the stage wrote; empty if the record cannot be read, so that every file
    counts as the user's. Raises InputError for a name that leads out of the run folder."""
    path = RunPaths(workdir).written(name)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return {relative_name(file, path): size for file, size in found.items()} if isinstance(found, dict) else {}


def write_record(name: str, workdir: Path, files: dict[str, int]) -> None:
    write_atomically(RunPaths(workdir).written(name), json.dumps(files))


def files_in(folder: Path, outputs: tuple[str, ...]) -> dict[str, int]:
    """{relative path: bytes} of all files that the outputs in `folder` consist of."""
    found = {}
    for output in outputs:
        path = folder / output
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file() and file.name != CLAIM:
                found[str(file.relative_to(folder))] = file.stat().st_size
    return found


def entries(path: Path) -> list[Path]:
    """Everything at `path` that is no folder. A link is an entry, and is followed only where it is `path` itself."""
    if path.is_dir():
        found = (entry for entry in sorted(path.rglob("*")) if entry.is_symlink() or not entry.is_dir())
        return [entry for entry in found if entry != path / CLAIM]
    return [path] if path.is_symlink() or path.exists() else []


def put_in_place(
    name: str, workdir: Path, outputs: tuple[str, ...], partial: Path, optional: tuple[str, ...] = ()
) -> None:
    """Moves the outputs in `partial`/out to their places in the run folder; what a run wrote there before is deleted,
    what it did not write is moved to `replaced-<n>/`. Those that are `optional` may lack.

    Wherever it is interrupted, it is done when it is called again (`can_go_on`).
    """
    out, moving = partial / "out", partial / MOVING
    claim_links(workdir, outputs)
    if not moving.is_file():
        for output in outputs:
            if output not in optional and not (out / output).exists():
                raise FileNotFoundError(errno.ENOENT, f"the stage {name} did not make it", str(out / output))
        files = files_in(out, outputs)
        write_atomically(partial / MADE, json.dumps(files))
        clear(name, workdir, outputs)
        write_record(name, workdir, files)
        (partial / MADE).replace(moving)
    for output in outputs:
        if (out / output).is_dir():
            (workdir / output).mkdir(parents=True, exist_ok=True)
    for file in read_list(moving, outputs):
        if (source := inside(out, file, moving)).exists():
            move(source, inside(workdir, file, moving))


def can_go_on(workdir: Path, partial: Path, outputs: tuple[str, ...]) -> bool:
    """Whether everything was made, so that only `put_in_place` is left to do. Raises InputError for a list that names
    a file outside of the outputs."""
    out = partial / "out"
    size_of = lambda path: path.stat().st_size if path.is_file() else None
    for name, places in ((MOVING, (out, workdir)), (MADE, (out,))):
        if (partial / name).is_file():
            files = read_list(partial / name, outputs)
            if all(any(size_of(place / file) == size for place in places) for file, size in files.items()):
                return True
            (partial / name).unlink()  # somebody took a file away: it is made again
    return False


def read_list(path: Path, outputs: tuple[str, ...]) -> dict[str, int]:
    """{relative path: bytes} of finished outputs. Raises InputError if the list is damaged, or names a file that is in
    none of the `outputs`."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        files = {relative_name(file, path): int(size) for file, size in found.items()}
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{path} is damaged ({error}). To make these outputs again: {remove_command(path.parent, folders=True)}"
        ) from error
    for file in files:
        if not any(below(file, output) for output in outputs):
            raise InputError(
                f"{path} names the file {file!r}, which is none of the outputs {', '.join(outputs)}. Nothing was "
                f"changed. To make these outputs again: {remove_command(path.parent, folders=True)}"
            )
    return files


def below(file: str, output: str) -> bool:
    """Whether a file of a run folder is the output, or in it."""
    return file == output or file.startswith(f"{output}/")


def sorted_out(name: str, workdir: Path, outputs: tuple[str, ...]) -> dict[str, tuple[list[Path], list[Path]]]:
    """{output: (files there that the run wrote, others)}. Raises UsageError for others in a folder on another disk, to
    which the output is a link."""
    claim_links(workdir, outputs)
    record, found = read_record(name, workdir), {}

    def is_ours(path: Path, linked: bool) -> bool:
        file = str(path.relative_to(workdir))
        if path.is_file() and record.get(file) == path.stat().st_size:
            return True
        return linked and file.endswith(PARTIAL) and file.removesuffix(PARTIAL) in record  # a kill came in `move`

    for place in (workdir / output for output in outputs):
        linked, there = place.is_symlink(), entries(place)
        ours = [path for path in there if is_ours(path, linked)]
        others = [path for path in there if not is_ours(path, linked)]
        if linked and others:
            refuse_foreign(place, others, "holds files that this run did not write, or that were changed since")
        found[str(place.relative_to(workdir))] = ours, others
    return found


def refuse_foreign(place: Path, others: list[Path], why: str) -> None:
    shown = ", ".join(str(path.relative_to(place)) for path in others[:3]) + (", …" if others[3:] else "")
    raise UsageError(
        f"{place} is a link to {place.resolve()}, which {why} ({shown}). Behind a link, such files are neither deleted "
        "nor moved. Nothing was changed. Move them to another folder; then run it again."
    )


def clear(name: str, workdir: Path, outputs: tuple[str, ...]) -> None:
    """Makes room for the outputs of a stage: deletes what the record lists, and moves aside what it does not. Raises as
    `sorted_out`; then nothing is changed."""
    replaced = unused(RunPaths(workdir).replaced)
    for output, (ours, others) in sorted_out(name, workdir, outputs).items():
        place, aside = workdir / output, replaced / output
        for path in ours:
            path.unlink()
        for path in others:
            move(path, aside / path.relative_to(place) if path != place else aside)
        if others:
            shown = ", ".join(str(path.relative_to(workdir)) for path in others[:3]) + (", …" if others[3:] else "")
            print(f"{name}: {shown} in {workdir}: not what this run wrote there. Moved to {aside}", flush=True)
        remove_empty_folders(place)


def set_aside(workdir: Path, names: tuple[str, ...], why: str) -> None:
    """Moves what is there to `replaced-<n>/`, whole: what took days is not deleted because a file of ours was lost.
    Raises UsageError for files behind a link; then nothing is changed."""
    claim_links(workdir, names)
    replaced, moved = unused(RunPaths(workdir).replaced), []
    for place in (workdir / name for name in names):
        if place.is_symlink() and (others := entries(place)):
            refuse_foreign(place, others, f"holds files that {why}")
    for name in names:
        place = workdir / name
        if place.exists() and not place.is_symlink():
            move(place, replaced / name)
            moved.append(f"{name} to {replaced / name}")
    if moved:
        print(f"{workdir}: what is there {why}. Moved {', '.join(moved)}", flush=True)


def move(source: Path, target: Path) -> None:
    """Moves a file, link or folder, also to another disk; `target` appears whole, and only then `source` is gone."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        source.rename(target)
        return
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
    partial = target.with_name(f"{target.name}{PARTIAL}")
    remove(partial)
    if source.is_dir() and not source.is_symlink():
        shutil.copytree(source, partial, symlinks=True)
    else:
        shutil.copy2(source, partial, follow_symlinks=False)
    for path in [partial, *partial.rglob("*")]:
        if not path.is_symlink():
            sync(path)
    partial.rename(target)
    if source.is_symlink():
        source.unlink()
    else:
        remove(source)


def remove_empty_folders(place: Path) -> None:
    """Deletes a folder without files; where it is a link, the folders within."""
    if not place.is_dir():
        return
    for folder in sorted(place.rglob("*"), reverse=True):
        if folder.is_dir() and not folder.is_symlink():
            with contextlib.suppress(OSError):
                folder.rmdir()
    if not place.is_symlink():
        place.rmdir()


def remove(path: Path) -> None:
    """Deletes a file, or a folder with all in it. A link is deleted itself, and never followed."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def remove_parts(partial: Path) -> None:
    """Deletes the folder of an unfinished stage, the note of what is being made last. A folder without that note was
    not made by a run, and stays unless it is empty; a link is deleted itself."""
    if partial.is_symlink():
        partial.unlink()
    elif partial.is_dir():
        if (partial / BEGUN).is_file():
            for path in partial.iterdir():
                if path.name != BEGUN:
                    remove(path)
            (partial / BEGUN).unlink()
        (partial / f"{BEGUN}{PARTIAL}").unlink(missing_ok=True)  # a kill came before anything else was written
        with contextlib.suppress(OSError):
            partial.rmdir()


def clear_away(partial: Path, workdir: Path) -> None:
    """Delete what a run left in the folder of unfinished outputs; move other files to `replaced-<n>/`. Raises
    UsageError if those are behind a link."""
    remove_parts(partial)
    if partial.exists():
        if partial.parent.is_symlink():
            raise UsageError(
                f"{partial} holds files that no run wrote, behind the link {partial.parent}. Files behind a link are "
                "neither deleted nor moved. Nothing was changed. Move them away; then run it again."
            )
        aside = unused(RunPaths(workdir).replaced) / partial.name
        move(partial, aside)
        print(f"{partial}: not what this run wrote there. Moved to {aside}", flush=True)


def begin_again(partial: Path, workdir: Path, note: dict[str, Any]) -> None:
    """As `clear_away`; then `partial` has the note of what is made there."""
    clear_away(partial, workdir)
    write_atomically(partial / BEGUN, json.dumps(note))
