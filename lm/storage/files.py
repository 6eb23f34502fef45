"""Files of a disk: hashes, what is certain to be on it, and what is said when it takes no more."""

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
"""For many files at a time: hashlib lets go of the interpreter."""


def user_cache(environment: Mapping[str, str] = os.environ) -> Path:
    """This program's folder among the caches of this user: XDG_CACHE_HOME, by default ~/.cache, and gristmill in it."""
    base = environment.get("XDG_CACHE_HOME") or Path(environment.get("HOME") or Path.home()) / ".cache"
    return Path(base) / "gristmill"


def cache_folder() -> Path:
    """GRISTMILL_CACHE, by default the folder of caches of this user."""
    given = os.environ.get("GRISTMILL_CACHE")
    return Path(given).expanduser() if given else user_cache()


HUB_REPOSITORY = re.compile(r"(models|datasets|spaces)--.+")
"""Name of a repository's folder in the cache of huggingface_hub: snapshots/REVISION/FILE links to ../../blobs/HASH."""


def file_inside(folder: Path, name: str) -> Path:
    """The file `name` of a folder that may be a stranger's; it need not exist. Raises InputError if it is a link that
    leads out of the folder: what it leads to would be read, and published by an export. Links within one repository of
    huggingface_hub's cache are its layout, and allowed. A store has no links: of a Url the file is returned."""
    path = folder / name
    if not isinstance(folder, Path):
        return path
    root = folder.resolve()
    if root.parent.name == "snapshots" and HUB_REPOSITORY.fullmatch(root.parents[1].name):
        root = root.parents[1]
    try:
        target = path.resolve()
    except (OSError, RuntimeError) as error:  # links that lead in a circle
        raise InputError(f"{path} cannot be followed: {error}. Put the file itself there.") from error
    if not target.is_relative_to(root):
        raise InputError(
            f"{path} is a link to {target}, outside of {root}, and is not followed. Copy it there if it belongs there."
        )
    return path


def sync(path: Path) -> None:
    """Waits until what was written to a file, or the names in a folder, are on disk: no loss of power undoes it."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def appearing_file(path: Path, scratch: Path | None = None, durable: bool = True) -> Generator[Path]:
    """The name under which to write what shall be the file `path`: in the folder `scratch`, best of the same disk, with
    random digits, so that a worker that outlives a killed run by seconds, or one on another machine of the same disk,
    cannot write into it; or, where one process alone writes, beside `path`, where the next attempt writes it anew.

    When the block ends well, the file is moved to `path`, or copied if that is on another disk, after it was brought to
    the disk if it is to be `durable`; otherwise it is deleted, and what was at `path` stays.
    """
    if scratch is None:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + ".partial")
        partial.unlink(missing_ok=True)  # a link under this name would be written through
    else:
        partial = scratch / f"{path.parent.name}-{path.name}.{secrets.token_hex(8)}.partial"
    try:
        yield partial
        if durable:
            sync(partial)
        try:
            partial.replace(path)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            beside = path.with_name(f"{path.name}.{secrets.token_hex(8)}.partial")
            try:
                shutil.copyfile(partial, beside)
                if durable:
                    sync(beside)
                beside.replace(path)
            finally:
                beside.unlink(missing_ok=True)
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def writing(what: object) -> Generator[None]:
    """Raises InputError, which names `what` and the remedy, for an error of a file in the block."""
    try:
        yield
    except ConnectionError:  # a pipe or socket: no file
        raise
    except OSError as error:
        raise InputError(
            f"{what} cannot be written: {error.strerror or error}. Make room on the disk, or mend the permissions."
        ) from error


def break_hard_links(path: Path) -> None:
    """Replace a file that has other names too (hard links) by a copy: what is written into it then changes only it."""
    if path.is_file() and not path.is_symlink() and path.stat().st_nlink > 1:
        with appearing_file(path, durable=False) as partial:
            shutil.copy2(path, partial)


class Appended:
    """A file that grows by whole pieces: one that does not fit on the disk leaves nothing of itself."""

    def __init__(self, path: Path):
        path.parent.mkdir(parents=True, exist_ok=True)
        break_hard_links(path)
        self.path = path
        self.file = path.open("ab", buffering=0)  # nothing is left to be written when it is closed

    def append(self, piece: bytes) -> None:
        """Raises OSError where it cannot be written."""
        end = self.file.seek(0, os.SEEK_END)
        written = self.file.write(piece)
        if written != len(piece):
            os.truncate(self.path, end)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))

    def close(self) -> None:
        self.file.close()
