"""manifest.json of a checkpoint, which detects any change of its files, and the retention policy. Orbax and safetensors
do not verify what they read: of 60 single-bit flips in a checkpoint, Orbax accepted 59."""

import contextlib
import errno
import hashlib
import itertools
import json
import math
import os
import re
from collections.abc import Generator, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from lm.bounded import MOST_CONFIG_BYTES, parse_json, read_bounded
from lm.errors import MALFORMED, InputError, UsageError
from lm.run_paths import UNFINISHED, RunPaths
from lm.storage import (
    HASHING_THREADS,
    Place,
    Url,
    delete_files,
    digest,
    relative_name,
    shown_place,
    sizes_below,
    sizes_of,
    sync,
    write_atomically,
)

MANIFEST, HALF_MANIFEST = "manifest.json", "manifest.json.partial"
PARTS = (MANIFEST, "model", "training")
"""Names in a checkpoint folder. A damaged checkpoint still has at least one of them, or is empty."""
OF_ANOTHER_RUN = {"reinforce": "launch.reinforce", "chat": "launch.finetune"}
"""{section of the config with the run to start from: the script that resumes such a run, given its folder}."""
BEST = {"step": int, "loss": float}
"""Fields of "best" in the metadata, the state of train.patience, and their types."""


class DamageError(Exception):
    """The files of a checkpoint are not as they were written; the message names the file."""


@contextlib.contextmanager
def reading(path: Place) -> Generator[None]:
    """Convert an OSError in the block: to DamageError if the disk fails to read `path` (EIO), else to InputError."""
    try:
        yield
    except OSError as error:
        found = f"{path} cannot be read: {os.strerror(error.errno or errno.EIO)}"
        if error.errno == errno.EIO:
            raise DamageError(found) from error
        raise InputError(f"{found}. Nothing was changed; fix this, and run the command again.") from error


@dataclass(frozen=True)
class RetentionPolicy:
    """Checkpoints to keep once a newer one is complete: the last `newest`, and those that `every` and `best` select."""

    newest: int
    every: int = 0
    """Keep the first checkpoint at or after each multiple of this many steps; 0: none. The save at the multiple itself
    may have been skipped, for a slow disk or a bad step."""
    best: int = 0
    """Keep this many checkpoints with the lowest validation losses."""

    def of(self, losses: Mapping[int, float | None]) -> set[int]:
        """Return the steps to keep, given {step: validation loss, or None if it was not measured}."""
        measured = sorted((loss, -step) for step, loss in losses.items() if loss is not None and math.isfinite(loss))
        first = {step // self.every: step for step in sorted(losses, reverse=True)} if self.every else {}
        return {
            *sorted(losses)[-self.newest :],
            *(step for multiple, step in first.items() if multiple or not step),
            *(-step for _, step in measured[: self.best]),
        }


def folders_of(run: RunPaths) -> tuple[Place, Place]:
    """Return the run's folders (checkpoints/, snapshots/): those in its bucket if it has one, else the local ones."""
    return shown_place(run.checkpoints), shown_place(run.snapshots)


def saved_steps(run: RunPaths) -> list[int]:
    """Return the steps of all checkpoints and snapshots of the run, ascending."""
    return sorted({step for folder in folders_of(run) for step in steps_in(folder)})


def find_parameters(folders: Sequence[Place], step: int | None = None) -> list[Place]:
    """Return the checkpoint of `step` in the first of the folders (checkpoints, then snapshots) that has it, without
    `step` the newest in the first folder that has any; then all others. Reads none of them. Raises InputError if there
    is no checkpoint, UsageError if `step` is not among the existing steps."""
    found = [(one, folder / str(one)) for folder in folders for one in reversed(steps_in(folder))]
    if not found:
        run = folders[0].parent
        config: Any = {}
        if isinstance(run, Path):
            with contextlib.suppress(OSError, ValueError, InputError, RecursionError):
                config = parse_json(read_bounded(run / RunPaths.config_json, MOST_CONFIG_BYTES))
        section = lambda name: config.get(name) if isinstance(config, dict) else None
        is_based = lambda values: isinstance(values, dict) and values.get("base")
        script = next((script for name, script in OF_ANOTHER_RUN.items() if is_based(section(name))), "")
        first = f"{script} {shown_place(run)}" if script else f"launch.train CONFIG.py --workdir {shown_place(run)}"
        raise InputError(f"There is no checkpoint in {shown_place(folders[0])}. First run: python -m {first}")
    chosen = next((place for one, place in found if step in (None, one)), None)
    if chosen is None:
        raise UsageError(
            f"There is no checkpoint of step {step:,} in {' or '.join(map(str, folders))}. The steps there are "
            f"{', '.join(map(str, sorted({one for one, _ in found})))}."
        )
    return [chosen, *(place for _, place in found if place != chosen)]


def steps_in(folder: Place) -> list[int]:
    """Return the steps of the checkpoints in `folder`, ascending, intact or damaged, without unfinished ones. Other
    contents, such as a user's folder with a number as its name, are ignored."""
    return sorted(step for step, (finished, _) in states_in(folder).items() if finished)


def states_in(folder: Place) -> dict[int, tuple[bool, bool]]:
    """Return {step: (is finished, is marked as unfinished)} of all steps that training has begun to write in the
    folder. Both are True if training was killed after it wrote the manifest and before it deleted the mark."""
    names, found = names_in(folder) or (), {}
    for step in {name.removesuffix(UNFINISHED) for name in names}:
        if not (step.isascii() and step.isdecimal() and step == str(int(step))):
            continue
        inside = names_in(folder / step) if step in names and not is_link(folder / step) else None
        if f"{step}{UNFINISHED}" in names:
            found[int(step)] = inside is not None and MANIFEST in inside, True
        elif inside is not None and (not inside or inside & {*PARTS}):
            found[int(step)] = True, False
    return found


def is_link(place: Place) -> bool:
    """Return whether the path is a link. A link in a folder of checkpoints, and its target, belong to the user."""
    return isinstance(place, Path) and place.is_symlink()


def names_in(folder: Place) -> set[str] | None:
    """Return the names of a folder's direct children; None if it is not a folder."""
    if isinstance(folder, Url):
        return {*folder.children()} or None
    with contextlib.suppress(NotADirectoryError, FileNotFoundError):  # training may delete it meanwhile
        return {path.name for path in folder.iterdir()}
    return None


def mark_unfinished(folder: Place, step: int) -> None:
    """Create the file `<step>` + UNFINISHED before a checkpoint is written or deleted, so that leftovers of a kill do
    not count as a checkpoint."""
    marker = folder / f"{step}{UNFINISHED}"
    if isinstance(marker, Url):
        write_atomically(marker, "")
    elif not marker.exists():
        marker.parent.mkdir(parents=True, exist_ok=True)
        marker.touch()
        sync(marker.parent)


def unmark(folder: Place, step: int) -> None:
    (folder / f"{step}{UNFINISHED}").unlink(missing_ok=True)


def delete_step(folder: Place, step: int) -> None:
    """Delete a checkpoint, complete or not; keep files that training did not write, and the targets of links."""
    place = folder / str(step)
    with contextlib.suppress(OSError):  # on a disk without room for a name, the missing manifest says enough
        mark_unfinished(folder, step)
    if not is_link(place):
        try:
            names = [*read_manifest(place)["files"]]
        except (DamageError, InputError):
            names = [name for name in sizes_below(place) if name.split("/")[0] in PARTS]
        (place / MANIFEST).unlink(missing_ok=True)  # first, so that a half-deleted checkpoint does not look complete
        delete_files(place, [*names, HALF_MANIFEST])
    unmark(folder, step)


def delete_unfinished(folder: Place) -> None:
    """Delete the leftovers of checkpoints that were being written or deleted when a run was killed."""
    for step, (finished, marked) in states_in(folder).items():
        if not finished:
            delete_step(folder, step)
        elif marked:
            unmark(folder, step)


def unlisted(folder: Place, files: Mapping[str, Any]) -> list[str]:
    """Return the files in a checkpoint folder that are not in the manifest's `files`: the user's."""
    if isinstance(folder, Url):
        there = {*folder.files()}
    else:
        there = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()}
    return sorted(there - {*files, MANIFEST, HALF_MANIFEST})


def lengths(about: Mapping[str, Any], steps: int) -> dict[str, Any]:
    """Return the metadata {"steps": steps, "continued_from": [...]} of a run that continues from a checkpoint with the
    metadata `about`. `continued_from` lists the earlier lengths of the run: {"steps": the length, "at": the step of the
    checkpoint at which it was changed}."""
    before = list(about.get("continued_from", []))
    if about.get("steps", steps) != steps:
        before.append({"steps": about["steps"], "at": about["step"]})
    return {"steps": steps, "continued_from": before}


def digests(folder: Place, names: Iterable[str]) -> dict[str, tuple[int, str]]:
    """Return {name: (size in bytes, SHA-256)} of files. Raises DamageError or InputError if one cannot be read."""

    def one(name: str) -> tuple[int, str]:
        with reading(folder / name):
            return digest(folder / name)

    with ThreadPoolExecutor(HASHING_THREADS) as pool:
        listed = sorted(names)
        return dict(zip(listed, pool.map(one, listed), strict=True))


def render(about: Mapping[str, Any], files: Mapping[str, Any]) -> str:
    """Return the text of a manifest. Its last entry is the SHA-256 of the others, so that changes are detected."""
    content = {"about": about, "files": files}
    seal = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return json.dumps(content | {"sha256": seal}, indent=1, sort_keys=True) + "\n"


def owner(name: str) -> int:
    """Return the number of the process that wrote a file of a checkpoint, by its name: each process has a folder
    ocdbt.process_<n> in every item, and process 0 writes the common files."""
    found = re.search(r"(?:^|/)ocdbt\.process_(\d+)/", name)
    return int(found[1]) if found else 0


def files_of(folder: Place, items: Iterable[str], process: int) -> dict[str, dict[str, Any]]:
    """Return {name: {"bytes", "sha256"}} of the files that process number `process`, not 0, wrote to these `items`."""
    parts = [f"{item}/ocdbt.process_{process}" for item in items]
    return described(folder, [f"{part}/{name}" for part in parts for name in sizes_below(folder / part)])


def described(folder: Place, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return {name: {"bytes", "sha256"}} of files of a checkpoint, after forcing them to disk. Raises DamageError or
    InputError if one cannot be read, and OSError if one cannot be forced to disk."""
    found = {name: {"bytes": size, "sha256": sha} for name, (size, sha) in digests(folder, names).items()}
    if isinstance(folder, Path):
        for path in {folder / name for name in names} | {one for name in names for one in (folder / name).parents}:
            if path.is_relative_to(folder):
                sync(path)
    return found


def write_manifest(folder: Place, about: Mapping[str, Any], others: Mapping[str, Any] = MappingProxyType({})) -> None:
    """Write `folder`/manifest.json: the metadata `about` (JSON types), and size and SHA-256 of every file in the
    folder; `others` has those of files that other processes wrote. Raises InputError if one of these is missing."""
    there = sizes_below(folder)
    for name, one in others.items():
        if (found := there.get(name)) != one["bytes"]:
            raise InputError(
                f"process {owner(name)} wrote {name}, {one['bytes']:,} bytes, but in {folder} of process 0 "
                f"{'it is missing' if found is None else f'it has {found:,} bytes'}. Give a run folder that all "
                "processes share: one on a shared disk, or in a bucket."
            )
    own = [name for name in there if owner(name) == 0]
    write_atomically(folder / MANIFEST, render(about, {**others, **described(folder, own)}))
    if isinstance(folder, Path):
        sync(folder)


def amend(folder: Place, about: Mapping[str, Any]) -> None:
    """Add to or replace entries of the metadata `about` in the manifest. Raises DamageError and OSError."""
    manifest = read_manifest(folder)
    write_atomically(folder / MANIFEST, render(manifest["about"] | about, manifest["files"]))
    if isinstance(folder, Path):
        sync(folder)


def read_manifest(folder: Place) -> dict[str, Any]:
    """Return {"about": metadata, "files": {name: {"bytes", "sha256"}}} of a checkpoint, without verifying the files.
    Raises DamageError, and InputError if the manifest may not be read."""
    path = folder / MANIFEST
    with reading(path):
        try:
            data = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError) as error:
            raise DamageError(f"{path} is missing") from error
    try:
        read = json.loads(data)
        if render(read["about"], read["files"]).encode() != data:
            raise DamageError(f"{path} has changed since it was written: its SHA-256 differs")
        for name, one in read["files"].items():
            relative_name(name, path)
            if type(one["bytes"]) is not int or not isinstance(one["sha256"], str):
                raise ValueError(f"size or SHA-256 of {name}")
        about, loss = read["about"], read["about"].get("validation_loss")
        if folder.name.isdecimal() and about["step"] != int(folder.name):
            raise ValueError(f"it is of step {about['step']}")
        if loss is not None and not isinstance(loss, float):
            raise ValueError("validation_loss")
        if (best := about.get("best")) is not None and {name: type(value) for name, value in best.items()} != BEST:
            raise ValueError("best")
    except InputError as error:
        raise DamageError(str(error)) from error
    except MALFORMED as error:
        raise DamageError(f"{path} is damaged: {type(error).__name__}: {error}") from error
    return read


def files_sha256(folder: Place) -> str:
    """Return a SHA-256 that identifies the files of the checkpoint in train.start.checkpoint, by their names and
    contents but not their metadata in the manifest. Raises InputError if the manifest is missing or damaged."""
    try:
        files = read_manifest(folder)["files"]
    except DamageError as damage:
        raise InputError(
            f"train.start.checkpoint: {damage}. Use another checkpoint, or restore it from a copy."
        ) from damage
    return hashlib.sha256(json.dumps(files).encode()).hexdigest()


def share_of(files: Mapping[str, Mapping[str, Any]], part: int, parts: int) -> list[str]:
    """Return the names of the files in part `part` of `parts`, of about equal size. Files are in the order of the
    processes that wrote them: with the same number of processes, each verifies the files that it will read."""
    names = sorted(files, key=lambda name: (owner(name), name))
    ends = list(itertools.accumulate(files[name]["bytes"] for name in names))
    middle = lambda number: ends[number] - files[names[number]]["bytes"] / 2
    total = ends[-1] if ends else 0
    return [name for n, name in enumerate(names) if min(parts - 1, int(parts * middle(n) / max(total, 1))) == part]


def verify(folder: Place, part: int = 0, parts: int = 1) -> dict[str, Any]:
    """Verify the files of a checkpoint, or those in part `part` of `parts` (see `share_of`); return its metadata.
    Raises DamageError, and InputError if a file may not be read."""
    manifest = read_manifest(folder)
    files = manifest["files"]
    names = share_of(files, part, parts)
    for name, size in sizes_of(folder, names).items():  # sizes first: they cost nothing
        written = files[name]["bytes"]
        if size != written:
            found = "is missing" if size is None else f"has {size} bytes"
            raise DamageError(f"{folder / name} {found} instead of {written} bytes")
    for name, (_, sha) in digests(folder, names).items():
        if sha != files[name]["sha256"]:
            raise DamageError(f"{folder / name} has the SHA-256 {sha} instead of {files[name]['sha256']}")
    return manifest["about"]
