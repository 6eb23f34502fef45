"""Files on a disk: hashes, durable and atomic writes, and errors of full disks."""

import contextlib
import errno
import os
import re
import secrets
import shutil
from collections.abc import Generator, Mapping
from pathlib import Path

from lm.errors import InputError

HASHING_THREADS = min(8, os.cpu_count() or 1)
"""Threads for hashing many files: hashlib releases the GIL."""


def user_cache(environment: Mapping[str, str] = os.environ) -> Path:
    """Return this program's cache folder: $XDG_CACHE_HOME/gristmill, by default ~/.cache/gristmill."""
    base = environment.get("XDG_CACHE_HOME") or Path(environment.get("HOME") or Path.home()) / ".cache"
    return (Path(base) / "gristmill").absolute()


def cache_folder() -> Path:
    """Return the folder $GRISTMILL_CACHE, by default `user_cache()`."""
    given = os.environ.get("GRISTMILL_CACHE")
    return Path(given).expanduser().absolute() if given else user_cache()


HUB_REPOSITORY = re.compile(r"(models|datasets|spaces)--.+")
"""Name of a repository's folder in huggingface_hub's cache: snapshots/REVISION/FILE links to ../../blobs/HASH."""


def file_inside(folder: Path, name: str) -> Path:
    """Return folder / name, after checking that it is no symbolic link out of the folder. The file need not exist.

    The folder may be untrusted: the target of such a link would be read, and published by an export. Raises InputError
    for a link out of the folder, or a circular one. Links within one repository of huggingface_hub's cache are allowed,
    because its snapshots consist of links. A Url is not checked: buckets have no links.
    """
    path = folder / name
    if not isinstance(folder, Path):
        return path
    root = folder.resolve()
    if root.parent.name == "snapshots" and HUB_REPOSITORY.fullmatch(root.parents[1].name):
        root = root.parents[1]
    try:
        target = path.resolve()
    except (OSError, RuntimeError) as error:  # circular links
        raise InputError(f"{path} cannot be followed: {error}. Put the file itself there.") from error
    if not target.is_relative_to(root):
        raise InputError(
            f"{path} is a link to {target}, outside of {root}, and is not followed. Replace it by a copy if it "
            "belongs there."
        )
    return path


def sync(path: Path) -> None:
    """Wait until the contents of a file, or the names in a folder, are on disk and survive a loss of power."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def appearing_file(path: Path, scratch: Path | None = None, durable: bool = True) -> Generator[Path]:
    """Yield a temporary path to write to; when the block ends, move that file to `path`, atomically. If the block
    fails, the temporary file is deleted, and an existing file at `path` stays.

    The temporary file is next to `path`, for a single writer, or in the folder `scratch` under a random name, so that
    no other process, such as a worker that outlives a killed run, writes to it too. `scratch` may be on another disk.
    If `durable`, the contents are synced to the disk before the move.
    """
    if scratch is None:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + ".partial")
        partial.unlink(missing_ok=True)  # do not write through a link of this name
    else:
        name = f"{path.parent.name}-{path.name}"[:50]  # whatever the names, below the 255 bytes of a file name
        partial = scratch / f"{name}.{secrets.token_hex(8)}.partial"
    try:
        yield partial
        if durable:
            sync(partial)
        try:
            partial.replace(path)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            sibling = path.with_name(f"{path.name}.{secrets.token_hex(8)}.partial")
            try:
                shutil.copyfile(partial, sibling)
                if durable:
                    sync(sibling)
                sibling.replace(path)
            finally:
                sibling.unlink(missing_ok=True)
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def writing(what: object) -> Generator[None]:
    """Convert an OSError in the block to InputError: `what` cannot be written, the reason, and the remedy."""
    try:
        yield
    except ConnectionError:  # a pipe or socket, not a file
        raise
    except OSError as error:
        raise InputError(
            f"{what} cannot be written: {error.strerror or error}. Free space on the disk, or fix the permissions."
        ) from error


def break_hard_links(path: Path) -> None:
    """Replace a file that has other names (hard links) by a copy, so that writing to it changes only this name."""
    if path.is_file() and not path.is_symlink() and path.stat().st_nlink > 1:
        with appearing_file(path, durable=False) as partial:
            shutil.copy2(path, partial)


class Appended:
    """A file opened for appending, in which each piece is written completely or, if the disk is full, not at all."""

    def __init__(self, path: Path):
        path.parent.mkdir(parents=True, exist_ok=True)
        break_hard_links(path)
        self.path = path
        self.file = path.open("ab", buffering=0)  # unbuffered: closing does not write

    def append(self, piece: bytes) -> None:
        """Append `piece`. Raises OSError if it cannot be written."""
        end = self.file.seek(0, os.SEEK_END)
        written = self.file.write(piece)
        if written != len(piece):
            os.truncate(self.path, end)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))

    def close(self) -> None:
        self.file.close()
