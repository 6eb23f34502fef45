"""A folder that is there whole or not at all, and in whose place nothing of anybody else's is ever put. A store has no
rename, so at an address RECORD says whether what is there is whole."""

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Generator, Iterable
from pathlib import Path

from data_prep.engine.units import QUARANTINE, SCRATCH, UNITS, delete_all
from lm.errors import UsageError
from lm.storage import Place, Url, objects, stores, unused, write_json, writing

RECORD = "gristmill_export.json"
"""In a folder that launch.export wrote: the run it is of, and the files that it wrote."""
CARD = "README.md"

MARK = ".gristmill-partial"
"""In a folder that is being written. It is deleted last, so that a killed process leaves no folder without it."""


def files_in(folder: Path) -> dict[str, int]:
    """{relative path: bytes} of all files below a folder."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and path != folder / MARK]
    return {str(path.relative_to(folder)): path.stat().st_size for path in paths}


@contextlib.contextmanager
def partial_folder(target: Path) -> Generator[Path]:
    """A new folder next to `target`, to be renamed in the block; it is deleted if it was not.

    Folders that killed processes left there are deleted first: a live process has its folder locked.
    """
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
    """Lock a folder against other processes. Raises OSError if another process has it, or it is a link."""
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(opened)


def refuse_others(out: Path, option: str) -> None:
    """Raises UsageError unless `out` is not there yet, is an empty folder, or holds what launch.export wrote alone."""
    if out.is_dir() and not any(out.iterdir()):
        return
    if (not out.exists() and not out.is_symlink()) or is_export(out):
        return
    raise UsageError(
        f"{option} {out} is there already, and is not what launch.export wrote alone. Nothing was changed. Give a "
        "folder that does not exist yet."
    )


def is_export(folder: Path) -> bool:
    """Whether the folder holds what launch.export wrote, and nothing else."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        record, found = json.loads((folder / RECORD).read_bytes()), files_in(folder)
        found.pop(RECORD)
        return record["files"] == found
    return False


@contextlib.contextmanager
def whole_folder(out: Path, option: str = "OUT") -> Generator[Path]:
    """The folder in which to write what shall be the folder `out`: beside it, and renamed when the block ends well;
    otherwise it is deleted. What launch.export wrote to `out` before gives way.

    Raises UsageError as `refuse_others`, InputError where the disk does not take it.
    """
    target = out.resolve() if out.is_symlink() else out.absolute()
    before = target.with_name(f".{target.name}.replaced-1")
    if is_export(before):  # a killed export had moved it aside
        shutil.rmtree(before) if target.exists() else before.rename(target)
    refuse_others(out, option)
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
"""In RECORD at an address: the names of all files of an export that has not ended, or of one before."""


@contextlib.contextmanager
def at_address(out: Url, option: str, names: Iterable[str]) -> Generator[Url]:
    """The address at which to write CARD, files of these names, units' markers, and at last RECORD. The same export
    goes on where it was interrupted. Raises UsageError where other objects are there, or something was changed, and
    where nothing can be written."""
    if out.scheme not in objects.SCHEMES:
        raise UsageError(f"{option} {out} cannot be written: give a folder of a disk, or an address of s3:// or gs://.")
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
            f"{option} {out} is there already, and is not what launch.export_documents wrote alone ({others[0]}). "
            "Nothing was changed. Give an address below which nothing is."
        )
    write_json(out / RECORD, {UNFINISHED: list(dict.fromkeys([CARD, *names, *ours]))})
    yield out


def keep_only(out: Place, names: Iterable[str]) -> dict[str, int]:
    """Delete the units' markers, and at an address what an earlier export left; {name: bytes} of these files."""
    if isinstance(out, Path):
        for folder in (UNITS, SCRATCH, QUARANTINE):
            delete_all(out / folder)
        return files_in(out)
    there = out.files()
    stores.delete(f"{out}/{name}" for name in there.keys() - {RECORD, *names})
    return {name: there[name].size for name in sorted(names)}
