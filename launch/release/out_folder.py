"""Write an output folder atomically, and never overwrite files of others. Object stores have no rename, so in a bucket
the file gristmill_export.json marks an export as unfinished or complete."""

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Generator, Iterable
from pathlib import Path

from data_prep.engine.units import QUARANTINE, SCRATCH, UNITS, delete_all
from lm.errors import UsageError
from lm.storage import Place, Url, objects, sizes_below, stores, unused, write_json, writing

RECORD = "gristmill_export.json"
"""File in an exported folder: the exported run, and the files that were written."""
CARD = "README.md"

MARK = ".gristmill-partial"
"""File in a folder that is being written. It is deleted last, so a killed process leaves no unmarked partial folder."""


def files_in(folder: Path) -> dict[str, int]:
    """Return {relative path: size in bytes} of all files in a folder, except .gristmill-partial (MARK)."""
    return {name: size for name, size in sizes_below(folder).items() if name != MARK}


@contextlib.contextmanager
def partial_folder(target: Path) -> Generator[Path]:
    """Context manager that creates a temporary folder next to `target`. The block fills the folder and renames it to
    `target`; otherwise the folder is deleted. First deletes temporary folders that killed processes left."""
    target.parent.mkdir(parents=True, exist_ok=True)
    for left in [path for path in target.parent.iterdir() if path.name.startswith(f".{target.name}.partial-")]:
        with contextlib.suppress(OSError), locked_folder(left):
            if (left / MARK).is_file():
                shutil.rmtree(left)
    partial = unused(target.with_name(f".{target.name}.partial"))
    partial.mkdir()
    try:
        with locked_folder(partial):
            (partial / MARK).touch()
            yield partial
        (target / MARK).unlink(missing_ok=True)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextlib.contextmanager
def locked_folder(folder: Path) -> Generator[None]:
    """Lock a folder until the block ends. Raises OSError if another process has locked it, or if it is a link."""
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(opened)


def is_export(folder: Path) -> bool:
    """Whether the folder has exactly the files that an export wrote, by its gristmill_export.json."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        record, found = json.loads((folder / RECORD).read_bytes()), files_in(folder)
        found.pop(RECORD)
        return record["files"] == found
    return False


@contextlib.contextmanager
def whole_folder(out: Path, option: str = "OUT") -> Generator[Path]:
    """Context manager that yields a temporary folder, and renames it to `out` if the block succeeds. Replaces an
    earlier export in `out`. Raises UsageError if `out` has other files, InputError if the disk cannot be written."""
    target = out.resolve() if out.is_symlink() else out.absolute()
    before = target.with_name(f".{target.name}.replaced-1")
    if is_export(before):  # moved there by a killed export
        shutil.rmtree(before) if target.exists() else before.rename(target)
    is_new = (out.is_dir() and not any(out.iterdir())) or not (out.exists() or out.is_symlink())
    if not is_new and not is_export(out):
        raise UsageError(
            f"{option} {out} already exists, and has files that launch.export did not write. Nothing was changed. Give "
            "a folder that does not exist yet."
        )
    with writing(out), partial_folder(target) as partial:
        yield partial
        replaced = unused(target.with_name(f".{target.name}.replaced"))
        if target.exists():
            target.rename(replaced)  # kept until the new one is in its place
        try:
            partial.rename(target)
        except BaseException:
            if replaced.exists():
                replaced.rename(target)
            raise
        shutil.rmtree(replaced, ignore_errors=True)


UNFINISHED = "unfinished"
"""Key in RECORD in a bucket: names of all files of the unfinished export and of earlier ones."""


@contextlib.contextmanager
def at_address(out: Url, option: str, names: Iterable[str]) -> Generator[Url]:
    """Context manager for an export to a bucket: mark it as unfinished, and yield the URL to write files with these
    names to. An interrupted export of the same names resumes. Raises UsageError if the address has other or changed
    objects, or is not in an s3:// or gs:// bucket."""
    if out.scheme not in objects.SCHEMES:
        raise UsageError(f"{option} {out} cannot be written: give a folder on a disk, or an s3:// or gs:// address.")
    there, record = out.files(), {}
    if RECORD in there:
        with contextlib.suppress(ValueError):
            record = json.loads((out / RECORD).read_bytes())
    sizes, begun = (record.get(name) if isinstance(record, dict) else None for name in ("files", UNFINISHED))
    ours = dict.fromkeys(begun if isinstance(begun, list) else ()) | (sizes if isinstance(sizes, dict) else {})
    is_ours = lambda name: name == RECORD or (name in ours and ours[name] in (None, there[name].size))
    others = [name for name in there if not is_ours(name) and not (begun and name.startswith(f"{UNITS}/"))]
    if others:
        raise UsageError(
            f"{option} {out} already has files that launch.export_documents did not write ({others[0]}). Nothing was "
            "changed. Give an address without objects."
        )
    write_json(out / RECORD, {UNFINISHED: list(dict.fromkeys([CARD, *names, *ours]))})
    yield out


def keep_only(out: Place, names: Iterable[str]) -> dict[str, int]:
    """Clean up the finished export in `out`; return {name: size in bytes} of its files. On a disk, delete temporary
    files; in a bucket, delete all objects except `names` and gristmill_export.json."""
    if isinstance(out, Path):
        for folder in (UNITS, SCRATCH, QUARANTINE):
            delete_all(out / folder)
        return files_in(out)
    there = out.files()
    stores.delete(f"{out}/{name}" for name in there.keys() - {RECORD, *names})
    return {name: there[name].size for name in sorted(names)}
