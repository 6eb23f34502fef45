"""Objects that are read as files: brought whole into a folder of this machine, named by their SHA-256, and kept there.

    shards/<SHA-256>          a whole object; beside it <SHA-256>.used, whose time is when it was last asked for
    users/<random digits>     the names that a process reads, one a line; held by a lock while the process lives

A file gets its name when all of it is there and has that SHA-256: a kill leaves no half of an object under it. The
folder has a bound; beyond it, files that no process reads are deleted, the least recently asked for first.
"""

import atexit
import contextlib
import fcntl
import functools
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, NamedTuple

from lm.errors import InputError, UsageError
from lm.storage import stores
from lm.storage.files import appearing_file, digest, user_cache
from lm.storage.places import Place
from lm.storage.url import StorageError, Url

SPARED = 2 * 10**9
"""Bytes of the disk that are left free where no bound is given."""
AT_ONCE = 4
"""Objects that are brought at a time, each by several requests."""


class Wanted(NamedTuple):
    """A file or object, and what it is to hold."""

    place: Place
    bytes: int
    sha256: str


def cache_folder() -> Path:
    """GRISTMILL_CACHE, by default the folder of caches of this user."""
    given = os.environ.get("GRISTMILL_CACHE")
    return Path(given).expanduser() if given else user_cache()


def bound(folder: Path) -> int:
    """Bytes that the cached objects in `folder` may take: GRISTMILL_CACHE_GB, by default what the disk has free beside
    them. Raises UsageError where that is not a number."""
    given = os.environ.get("GRISTMILL_CACHE_GB", "")
    if not given:
        return shutil.disk_usage(folder).free + sum(path.stat().st_size for path in files_in(folder)) - SPARED
    try:
        return int(float(given) * 1e9)
    except (ValueError, OverflowError):
        raise UsageError(f"GRISTMILL_CACHE_GB is {given!r}; give a number of gigabytes, or leave it out.") from None


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if "." not in path.name]


def as_files(wanted: Sequence[Wanted]) -> list[Path]:
    """A file of this machine for each: itself, or what the object was brought to. It stays there while this process
    lives.

    Raises InputError where objects do not fit into the cache together, StorageError where one cannot be read or does
    not hold what it should.
    """
    remote = {one.sha256: one for one in wanted if isinstance(one.place, Url)}
    if remote:
        folder = cache_folder() / "shards"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            bring(list(remote.values()), folder)
        except OSError as error:
            raise InputError(
                f"The cache {folder} cannot be used: {error.strerror or error}. Make room there, or name another "
                "folder in GRISTMILL_CACHE."
            ) from error
    return [one.place if isinstance(one.place, Path) else cache_folder() / "shards" / one.sha256 for one in wanted]


def bring(wanted: list[Wanted], folder: Path) -> None:
    """Brings what is not in `folder` yet."""
    use(folder.with_name("users"), [one.sha256 for one in wanted])
    missing = [one for one in wanted if not is_here(one, folder)]
    if not missing:
        return
    make_room(sum(one.bytes for one in missing), folder)
    size, server = sum(one.bytes for one in missing), missing[0].place.parent
    print(f"storage: bringing {len(missing)} files, {size / 1e9:,.2f} GB, from {server} to {folder}", flush=True)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(lambda one: bring_one(one, folder), missing))


def is_here(one: Wanted, folder: Path) -> bool:
    """Whether it was brought before; then it counts as asked for just now."""
    path = folder / one.sha256
    if not path.is_file() or path.stat().st_size != one.bytes:
        return False
    used_at(path).touch()  # the file itself stays as it is: who has read it through knows it by its times
    return True


def used_at(path: Path) -> Path:
    """The empty file whose time is that at which a cached file was last asked for."""
    return path.with_name(f"{path.name}.used")


def bring_one(one: Wanted, folder: Path) -> None:
    assert isinstance(one.place, Url)
    with (folder / f"{one.sha256}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # of several processes that want it, one brings it
        if is_here(one, folder):
            return
        with appearing_file(folder / one.sha256, scratch=folder, durable=False) as partial:
            try:
                stores.download(one.place.address, partial)
            except FileNotFoundError:
                raise StorageError(f"{one.place} is not there. Write it again, or bring it back.") from None
            found = digest(partial)
            if found != (one.bytes, one.sha256):
                raise StorageError(
                    f"{one.place} holds {found[0]} bytes with a SHA-256 of {found[1]}, but {one.bytes} bytes with "
                    f"{one.sha256} were written. Bring it back from a copy, or write it again."
                )
    (folder / f"{one.sha256}.lock").unlink(missing_ok=True)


def make_room(needed: int, folder: Path) -> None:
    """Deletes files that nobody reads until so many bytes fit in. Raises InputError where they do not."""
    limit, read = bound(folder), set(names_in_use(folder.with_name("users")))
    for path in folder.glob("*.partial"):  # of a process that was killed, unless it was begun within the hour
        if path.stat().st_mtime < time.time() - 3600:
            path.unlink(missing_ok=True)
    asked_for = lambda path: (used_at(path) if used_at(path).exists() else path).stat().st_mtime
    oldest = sorted(files_in(folder), key=asked_for)
    held = sum(path.stat().st_size for path in oldest)
    for path in oldest:
        if held + needed > limit and path.name not in read:
            held -= path.stat().st_size
            path.unlink()
            used_at(path).unlink(missing_ok=True)
    if held + needed > limit:
        raise InputError(
            f"{needed / 1e9:,.6g} GB more do not fit into the cache {folder}: it may hold {max(limit, 0) / 1e9:,.6g} "
            f"GB, and {held / 1e9:,.6g} GB there are read now. Name a folder of a larger disk in GRISTMILL_CACHE, or "
            "raise GRISTMILL_CACHE_GB."
        )


@functools.cache
def own_list(users: Path) -> IO[str]:
    """This process's list of what it reads, locked until it ends."""
    users.mkdir(parents=True, exist_ok=True)
    file = (users / secrets.token_hex(8)).open("a", encoding="utf-8")
    fcntl.flock(file, fcntl.LOCK_EX)
    atexit.register(file.close)
    return file


def use(users: Path, names: Sequence[str]) -> None:
    """Notes that this process reads files of these names, so that no other deletes them."""
    file = own_list(users)
    file.write("".join(f"{name}\n" for name in names))
    file.flush()


def names_in_use(users: Path) -> Iterator[str]:
    """The names that living processes read; lists of others are deleted."""
    for path in users.iterdir():
        with contextlib.suppress(FileNotFoundError), path.open(encoding="utf-8") as file:
            try:
                if file.name != own_list(users).name:
                    fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                    path.unlink()
                    continue
            except BlockingIOError:
                pass
            yield from file.read().split()
