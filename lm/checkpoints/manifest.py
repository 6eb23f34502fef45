"""A checkpoint's manifest, by which any change of its files is found, and the choice of the checkpoints that stay.

Orbax and safetensors do not look at what they read: of 60 flips of one bit in a checkpoint, Orbax let 59 through.
"""

import contextlib
import errno
import hashlib
import itertools
import json
import math
import os
import re
from collections.abc import Generator, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from lm.errors import InputError
from lm.storage import HASHING_THREADS, digest, relative_name, sync, write_atomically

MANIFEST = "manifest.json"
PARTS = (MANIFEST, "model", "training")
"""What a checkpoint's folder holds. A damaged one has one of them at least, or is empty."""


class DamageError(Exception):
    """A checkpoint that is not what was written; the message names the file."""


@contextlib.contextmanager
def reading(path: Path) -> Generator[None]:
    """Raises DamageError where the disk has lost what is there, InputError where it only may not be read."""
    try:
        yield
    except OSError as error:
        found = f"{path} cannot be read: {os.strerror(error.errno or errno.EIO)}"
        if error.errno == errno.EIO:
            raise DamageError(found) from error
        raise InputError(f"{found}. Nothing is changed; mend that, and run it again.") from error


@dataclass(frozen=True)
class RetentionPolicy:
    """Which checkpoints stay when a newer one is whole."""

    newest: int
    every: int = 0
    """Of every so many steps, the first at or behind each multiple stays for good: the multiple itself, unless it was
    left out for a slow disk or a bad step. 0 for none."""
    best: int = 0
    """As many of the lowest validation losses stay."""

    def of(self, losses: Mapping[int, float | None]) -> set[int]:
        """The steps that stay of {step: validation loss at it, or None where it was not measured}."""
        measured = sorted((loss, -step) for step, loss in losses.items() if loss is not None and math.isfinite(loss))
        first = {step // self.every: step for step in sorted(losses, reverse=True)} if self.every else {}
        return {
            *sorted(losses)[-self.newest :],
            *(step for multiple, step in first.items() if multiple or not step),
            *(-step for _, step in measured[: self.best]),
        }


def steps_in(folder: Path) -> list[int]:
    """The steps of the checkpoints in `folder`, rising, whole or not; anything else that lies there is none, such as a
    user's folder with a number as its name."""
    if not folder.is_dir():
        return []
    named = {path.name: path for path in folder.iterdir() if path.is_dir()}
    numbers = [name for name in named if name.isdecimal() and name == str(int(name))]
    ours = lambda path: any((path / part).exists() for part in PARTS) or not any(path.iterdir())
    return sorted(int(name) for name in numbers if ours(named[name]))


def unlisted(folder: Path, files: Mapping[str, Any]) -> list[Path]:
    """What lies in a checkpoint's folder and is not among the manifest's `files`: a user put it there."""
    listed = {folder / name for name in files} | {folder / MANIFEST}
    return sorted(path for path in folder.rglob("*") if not path.is_dir() and path not in listed)


def lengths(about: Mapping[str, Any], steps: int) -> dict[str, Any]:
    """What a run of `steps` steps that goes on from a checkpoint says of its length: {"steps", "continued_from"}.

    The second has {"steps": a length that it had before, "at": the step at which that was changed} of every change;
    `about` is what was said about the checkpoint.
    """
    before = list(about.get("continued_from", []))
    if about.get("steps", steps) != steps:
        before.append({"steps": about["steps"], "at": about["step"]})
    return {"steps": steps, "continued_from": before}


def digests(folder: Path, names: Iterable[str]) -> dict[str, tuple[int, str]]:
    """{name: (bytes, SHA-256)}. Raises as `reading` does."""

    def one(name: str) -> tuple[int, str]:
        with reading(folder / name):
            return digest(folder / name)

    with ThreadPoolExecutor(HASHING_THREADS) as pool:
        listed = sorted(names)
        return dict(zip(listed, pool.map(one, listed), strict=True))


def render(about: Mapping[str, Any], files: Mapping[str, Any]) -> str:
    """The manifest's text. Its last entry is the hash of the others, lest a flip in it go unseen."""
    content = {"about": about, "files": files}
    seal = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return json.dumps(content | {"sha256": seal}, indent=1, sort_keys=True) + "\n"


def owner(name: str) -> int:
    """The process that wrote a file of a checkpoint, by its name: Orbax gives each a folder of its own in every item,
    and process 0 writes whatever is for all."""
    found = re.search(r"(?:^|/)ocdbt\.process_(\d+)/", name)
    return int(found[1]) if found else 0


def files_of(folder: Path, process: int) -> dict[str, dict[str, Any]]:
    """{name: {"bytes", "sha256"}} of the files below `folder` that this process wrote, forced to the disk. Raises
    as `reading` does, and OSError."""
    names = [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]
    mine = [name for name in names if owner(name) == process]
    found = {name: {"bytes": size, "sha256": sha} for name, (size, sha) in digests(folder, mine).items()}
    for path in {folder / name for name in mine} | {parent for name in mine for parent in (folder / name).parents}:
        if path.is_relative_to(folder):
            sync(path)
    return found


def write_manifest(folder: Path, about: Mapping[str, Any], others: Mapping[str, Any] = MappingProxyType({})) -> None:
    """`folder`/manifest.json: `about`, JSON's types alone, and size and SHA-256 of every file below `folder`: those
    that other processes wrote as they say it, in `others`."""
    write_atomically(folder / MANIFEST, render(about, {**others, **files_of(folder, 0)}))
    sync(folder)


def amend(folder: Path, about: Mapping[str, Any]) -> None:
    """Adds to what the manifest says about a checkpoint, or says it anew. Raises DamageError and OSError."""
    manifest = read_manifest(folder)
    write_atomically(folder / MANIFEST, render(manifest["about"] | about, manifest["files"]))
    sync(folder)


def read_manifest(folder: Path) -> dict[str, Any]:
    """{"about": …, "files": …} of the checkpoint in `folder`, without a look at the files. Raises DamageError,
    and InputError where it may not be read."""
    path = folder / MANIFEST
    if not path.exists():
        raise DamageError(f"{path} is missing")
    with reading(path):
        data = path.read_bytes()
    try:
        read = json.loads(data)
        if render(read["about"], read["files"]).encode() != data:
            raise DamageError(f"{path} is not what was written: its own SHA-256 differs")
        for name in read["files"]:
            relative_name(name, path)
    except InputError as error:
        raise DamageError(str(error)) from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DamageError(f"{path} is not what was written: {type(error).__name__}: {error}") from error
    return read


def files_sha256(folder: Path) -> str:
    """What tells one content of the checkpoint in train.start.checkpoint from another: a hash over those of its files.
    What its manifest says about them may grow. Raises InputError where the manifest is missing or damaged."""
    try:
        files = read_manifest(folder)["files"]
    except DamageError as damage:
        raise InputError(f"train.start.checkpoint: {damage}. Take another, or bring it back.") from damage
    return hashlib.sha256(json.dumps(files).encode()).hexdigest()


def share_of(files: Mapping[str, Mapping[str, Any]], part: int, parts: int) -> list[str]:
    """The names of a checkpoint's `files` that are part `part` of `parts`, of about as many bytes each.

    They are in the order of the processes that wrote them, so that as many processes as wrote a checkpoint each get
    what they will read, and half as many get what two of them wrote."""
    names = sorted(files, key=lambda name: (owner(name), name))
    ends = list(itertools.accumulate(files[name]["bytes"] for name in names))
    middle = lambda number: ends[number] - files[names[number]]["bytes"] / 2
    total = ends[-1] if ends else 0
    return [name for n, name in enumerate(names) if min(parts - 1, int(parts * middle(n) / max(total, 1))) == part]


def verify(folder: Path, part: int = 0, parts: int = 1) -> dict[str, Any]:
    """What the manifest says `about` the checkpoint, the files of this part of it (all, if not given) found as they
    were written. Raises DamageError, and InputError where one may not be read."""
    manifest = read_manifest(folder)
    files = manifest["files"]
    names = share_of(files, part, parts)
    for name in names:  # sizes first: they cost nothing
        path, written = folder / name, files[name]["bytes"]
        size = path.stat().st_size if path.is_file() else None
        if size != written:
            found = "is missing" if size is None else f"has {size} bytes"
            raise DamageError(f"{path} {found}, but {written} bytes were written")
    for name, (_, sha) in digests(folder, names).items():
        if sha != files[name]["sha256"]:
            raise DamageError(f"{folder / name} has a SHA-256 of {sha}, but {files[name]['sha256']} was written")
    return manifest["about"]
