"""What a run wrote into its folder, and how new outputs take the place of old ones. Nothing else is ever deleted.

`stages/<stage>.files` lists the files that a stage wrote, with their sizes. It outlives the marker, so that outputs
whose marker was deleted in order to make them again are known to be a run's. Where new outputs go, a file that is
listed and has its size is deleted; any other file is the user's and is moved to `replaced-<n>/`.

A folder of outputs may be a link to another disk. The link stays, and what it leads to is replaced.
"""

import contextlib
import errno
import json
import os
import shlex
import shutil
from pathlib import Path

from lm.errors import InputError
from lm.run_paths import RunPaths
from lm.storage import sync, unused, write_atomically

MADE, MOVING = "made.json", "moving.json"
"""In `.partial/<stage>/`: the list of finished outputs. Under the first name nothing has been moved yet, under the
second the old outputs are gone."""


def remove_command(*paths: Path, folders: bool = False) -> str:
    """The shell command that deletes the paths."""
    return shlex.join(["rm", *(["-r"] if folders else []), *map(str, paths)])


def read_record(name: str, workdir: Path) -> dict[str, int]:
    """{relative path: bytes} of the files that the stage wrote. Nothing is known where the record cannot be read: then
    everything counts as the user's."""
    try:
        found = json.loads(RunPaths(workdir).written(name).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {path: size for path, size in found.items() if isinstance(size, int)} if isinstance(found, dict) else {}


def write_record(name: str, workdir: Path, files: dict[str, int]) -> None:
    write_atomically(RunPaths(workdir).written(name), json.dumps(files))


def files_in(folder: Path, outputs: tuple[str, ...]) -> dict[str, int]:
    """{relative path: bytes} of all files that the outputs in `folder` consist of."""
    found = {}
    for output in outputs:
        path = folder / output
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file():
                found[str(file.relative_to(folder))] = file.stat().st_size
    return found


def entries(path: Path) -> list[Path]:
    """Everything at `path` that is no folder. A link is an entry, and is followed only where it is `path` itself."""
    if path.is_dir():
        return [entry for entry in sorted(path.rglob("*")) if entry.is_symlink() or not entry.is_dir()]
    return [path] if path.is_symlink() or path.exists() else []


def refuse_broken_links(workdir: Path, outputs: tuple[str, ...]) -> None:
    """Raises InputError where an output is a link to what is not there, such as a disk that is not mounted."""
    for output in outputs:
        path = workdir / output
        if path.is_symlink() and not path.exists():
            raise InputError(
                f"{path} is a link to {path.readlink()}, which is not there. Mount its disk or make that folder; or, "
                f"to keep {output} in the run folder: {remove_command(path)}"
            )


def put_in_place(
    name: str, workdir: Path, outputs: tuple[str, ...], partial: Path, optional: tuple[str, ...] = ()
) -> None:
    """Moves the outputs in `partial`/out to their places in the run folder; what a run wrote there before is deleted,
    what it did not write is moved to `replaced-<n>/`. Those that are `optional` may lack.

    Wherever it is interrupted, it is done when it is called again (`can_go_on`).
    """
    out, moving = partial / "out", partial / MOVING
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
    for file in read_list(moving):
        if (out / file).exists():
            move(out / file, workdir / file)


def can_go_on(workdir: Path, partial: Path) -> bool:
    """Whether everything was made, so that only `put_in_place` is left to do."""
    out = partial / "out"
    size_of = lambda path: path.stat().st_size if path.is_file() else None
    for name, places in ((MOVING, (out, workdir)), (MADE, (out,))):
        if (partial / name).is_file():
            files = read_list(partial / name)
            if all(any(size_of(place / file) == size for place in places) for file, size in files.items()):
                return True
            (partial / name).unlink()  # somebody took a file away: it is made again
    return False


def read_list(path: Path) -> dict[str, int]:
    return json.loads(path.read_text(encoding="utf-8"))


def clear(name: str, workdir: Path, outputs: tuple[str, ...]) -> None:
    """Makes room for the outputs of a stage: deletes what the record lists, and moves aside what it does not."""
    refuse_broken_links(workdir, outputs)
    record, replaced = read_record(name, workdir), unused(RunPaths(workdir).replaced)
    for output in outputs:
        place, others = workdir / output, []
        for path in entries(place):
            size = path.stat().st_size if path.is_file() else None
            if size is not None and record.get(str(path.relative_to(workdir))) == size:
                path.unlink()
            else:
                others.append(path)
        if others:
            aside = beside_link(place) or replaced / output
            for path in others:
                move(path, aside / path.relative_to(place) if path != place else aside)
            shown = ", ".join(str(path.relative_to(workdir)) for path in others[:3]) + (", …" if others[3:] else "")
            print(f"{name}: {shown} in {workdir}: not what this run wrote there. Moved to {aside}", flush=True)
        remove_empty_folders(place)


def set_aside(workdir: Path, names: tuple[str, ...], why: str) -> None:
    """Moves what is there to `replaced-<n>/`, whole: what took days is not deleted because a file of ours was lost."""
    refuse_broken_links(workdir, names)
    replaced, moved = unused(RunPaths(workdir).replaced), []
    for name in names:
        place = workdir / name
        beside = beside_link(place)
        if beside:
            inside = list(place.iterdir())
            for entry in inside:
                move(entry, beside / entry.name)
            moved += [f"{name} to {beside}"] if inside else []
        elif place.exists():
            move(place, replaced / name)
            moved.append(f"{name} to {replaced / name}")
    if moved:
        print(f"{workdir}: what is there {why}. Moved {', '.join(moved)}", flush=True)


def beside_link(place: Path) -> Path | None:
    """Where to move what is in a folder that `place` is a link to, so that it stays on its disk; None where `place` is
    no such link, or that is not possible."""
    if not (place.is_symlink() and place.is_dir()):
        return None
    real = place.resolve()
    same_disk = real.parent.stat().st_dev == real.stat().st_dev
    return unused(Path(f"{real}.replaced")) if same_disk and os.access(real.parent, os.W_OK) else None


def move(source: Path, target: Path) -> None:
    """Moves a file, link or folder, also to another disk; `target` appears whole, and only then `source` is gone."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        source.rename(target)
        return
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
    partial = target.with_name(f"{target.name}.partial")
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
    """Deletes what a run wrote: a file, a folder with all in it, or what is in a folder that `path` is a link to."""
    if path.is_symlink() and path.is_dir():
        for entry in path.iterdir():
            remove(entry)
    elif path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
