"""Copies on this disk of the files of a run in a bucket, and of other remote objects (`fetched`), valid as long as the
ETag is the same.

A command on a run begins with an empty folder, downloads files by name when it needs them, and uploads its outputs when
they are complete. The file that marks the other outputs as complete is uploaded last. Of a log, name.jsonl, only the
complete lines are uploaded.
"""

import atexit
import contextlib
import errno
import fcntl
import functools
import hashlib
import json
import secrets
import shutil
import threading
from collections.abc import Callable, Generator, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from pathlib import Path
from typing import IO

from lm.errors import InputError, UsageError, shown
from lm.storage import objects, stores
from lm.storage.files import appearing_file, cache_folder, writing
from lm.storage.lease import Lease
from lm.storage.objects import Object, ReplacedError, StorageError
from lm.storage.places import inside, size_of, write_atomically
from lm.storage.url import Url

LEASE = ".lease"
LOCK = ".lock"
"""Name of the lock file of a run, which is never uploaded."""
READS = 20
"""Maximum attempts to read files that another process is changing."""
LOG = ".jsonl"
"""Suffix of files to which lines are appended."""
PRINTED_FROM = 100_000_000
"""Minimum size in bytes of a download that is announced."""


@functools.cache
def reading_folder() -> Path:
    """Return the folder for copies of remote files that this process only reads; it is deleted at exit."""
    top, name = cache_folder() / "readers", secrets.token_hex(8)
    with writing(top):
        top.mkdir(parents=True, exist_ok=True, mode=0o700)
        for lock in top.glob("*.lock"):  # of processes that were killed
            with contextlib.suppress(OSError), lock.open("w") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
                lock.unlink()
        held = (top / f"{name}.lock").open("w")
        fcntl.flock(held, fcntl.LOCK_EX)
    atexit.register(delete_reading_folder, top / name, held)
    return top / name


def delete_reading_folder(folder: Path, lock: IO[str]) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    Path(lock.name).unlink(missing_ok=True)
    lock.close()


def local_folder(url: Url, purpose: str = "runs") -> Path:
    """Return the folder on this disk for working on the run at `url`. `purpose` is "runs" for the command that writes
    to the run and "process-1", … for other processes of that command; the next command on the run empties these
    folders. "reading" is a folder for this process only. Raises UsageError for "runs" if the store is not s3:// or
    gs://, the only ones that can exclude a second writer."""
    if purpose == "runs" and url.scheme not in objects.SCHEMES:
        raise UsageError(f"{url} cannot be a run folder: give one on a disk, or in s3:// or gs://.")
    name = f"{url.name or 'bucket'}-{hashlib.sha256(url.address.encode()).hexdigest()[:12]}"
    folder = (reading_folder() if purpose == "reading" else cache_folder() / purpose) / name
    if folder not in COPIES:
        COPIES[folder] = LocalCopy(folder, url)
    return folder


def refuse_local_folder(folder: Path) -> None:
    """Raise UsageError if `folder` is the local copy of a run in a bucket: the next command on that run empties it."""
    if folder.absolute().with_name(f"{folder.absolute().name}.holder").is_file():
        raise UsageError(
            f"{folder} is the local folder of a run in a bucket, and is emptied by the next command on that run. Give "
            "the address of the run, s3://… or gs://…."
        )


COPIES: dict[Path, "LocalCopy"] = {}
"""{folder: LocalCopy} of this process."""


def local_copy_of(folder: Path) -> "LocalCopy | None":
    """Return the LocalCopy in `folder` if the run is in a bucket; None for any other folder."""
    return COPIES.get(folder)


def shown_place(path: "Path | Url") -> "Path | Url":
    """Return the path to show in messages: for a file or folder in a LocalCopy its URL, otherwise `path`."""
    if isinstance(path, Url):
        return path
    for folder, copy in COPIES.items():
        if path.is_relative_to(folder):
            name = path.relative_to(folder).as_posix()
            return copy.url / name if name != "." else copy.url
    return path


class LocalCopy:
    """Copy, in `folder` on this disk, of the run at `url` in a bucket. Files are named relative to the run."""

    def __init__(self, folder: Path, url: Url):
        self.folder, self.url = folder, url
        self.same: dict[str, tuple[int, int, str]] = {}
        """{file that is equal on both sides: (local size, local modification time, remote ETag)}."""
        self.lease: Lease | None = None
        self.listed: dict[str, Object] | None = None
        self.lock = threading.RLock()

    def make(self) -> str:
        """Create the folder if it does not exist; return its random id, under which this copy holds the run's lease.
        Raises InputError if the folder cannot be written."""
        try:
            self.folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.folder.mkdir(exist_ok=True)
            name = self.folder.with_name(f"{self.folder.name}.holder")
            with contextlib.suppress(FileNotFoundError):
                return name.read_text(encoding="utf-8")
            write_atomically(name, holder := secrets.token_hex(8))
        except OSError as error:
            raise InputError(
                f"{self.folder}, for files of {self.url}, cannot be written: {error.strerror or error}. Free space "
                "there, or set GRISTMILL_CACHE to another folder."
            ) from error
        return holder

    def clear(self, kept: Iterable[str] = ()) -> None:
        """Delete all local files that an earlier command left, except names that match the shell patterns `kept`."""
        with self.lock:
            self.make()
            self.listed, self.same = None, {}
            patterns = [LOCK, *kept]
            for path in self.folder.iterdir():
                if any(fnmatchcase(path.name, pattern) for pattern in patterns):
                    continue
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()

    @property
    def there(self) -> dict[str, Object]:
        """{name: metadata} of all files in the bucket, listed on first use and updated by uploads of this process."""
        with self.lock:
            if self.listed is None:
                self.listed = {name: one for name, one in self.url.files().items() if name != LEASE}
            return self.listed

    def refresh(self) -> None:
        """List the bucket from scratch, and delete local files that have changed only in the bucket."""
        with self.lock:
            self.listed = None
            for name, (*_, etag) in [*self.same.items()]:
                if name not in self.there or self.there[name].etag != etag:
                    if self.unchanged(name):
                        inside(self.folder, name, self.url).unlink()
                    del self.same[name]

    def size(self, name: str) -> int | None:
        """Return the size in bytes of the local file, else of the one in the bucket; None if there is neither."""
        size = size_of(self.folder / name)
        return self.there[name].size if size is None and name in self.there else size

    def matching(self, patterns: Iterable[str]) -> list[str]:
        """Return the names in the bucket that match one of the shell patterns, or are in a folder that matches one."""
        wanted = list(patterns)
        heads = lambda name: ("/".join(name.split("/")[: depth + 1]) for depth in range(name.count("/") + 1))
        return [name for name in self.there if any(fnmatchcase(one, p) for one in heads(name) for p in wanted)]

    def here(self, patterns: Iterable[str]) -> list[str]:
        """Return the names of local files that match one of the shell patterns, or are in a folder that matches one."""
        roots = [path for pattern in patterns for path in sorted(self.folder.glob(pattern))]
        files = [file for root in roots for file in (sorted(root.rglob("*")) if root.is_dir() else [root])]
        names = (str(file.relative_to(self.folder)) for file in files if file.is_file())
        return [name for name in dict.fromkeys(names) if name != LOCK and ".partial" not in name]

    def stat(self, name: str) -> tuple[int, int] | None:
        """Return (size in bytes, modification time in ns) of the local file; None if it does not exist."""
        try:
            found = (self.folder / name).stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return found.st_size, found.st_mtime_ns

    def unchanged(self, name: str) -> bool:
        """Return whether the local file has not changed since it was last downloaded or uploaded."""
        return name in self.same and self.stat(name) == self.same[name][:2]

    def fetch(self, names: Iterable[str], patterns: Iterable[str] = ()) -> list[str]:
        """Download the files `names`, and those that match the shell patterns, unless the local ones are the same.
        Return the names of the downloaded files.

        If another process replaces or deletes a file meanwhile, list the bucket and try again, up to READS times (in a
        `held` block, raise at once). Raises StorageError, and OSError if the disk is full.
        """
        names, patterns = [*names], [*patterns]
        for left in reversed(range(READS)):
            try:
                return self.download([*names, *self.matching(patterns)])
            except ReplacedError:
                if not left or self.lease is not None:
                    raise
                self.refresh()
        raise AssertionError("the last attempt returns or raises")

    def download(self, names: Iterable[str]) -> list[str]:
        """Download these files as `fetch` does, in one attempt. Raises ReplacedError if one changes meanwhile."""
        with self.lock:
            self.make()
            there = self.there
            is_same = lambda name: self.unchanged(name) and self.same[name][2] == there[name].etag
            missing = [name for name in dict.fromkeys(names) if name in there and not is_same(name)]
            paths = {inside(self.folder, name, self.url): name for name in missing}

            def note(path: Path) -> None:
                self.same[paths[path]] = (*(self.stat(paths[path]) or (0, 0)), there[paths[path]].etag)

            download(self.url, {path: (self.url / name, there[name]) for path, name in paths.items()}, whole=note)
            return missing

    def push(self, names: Iterable[str]) -> None:
        """Upload the files that differ from those in the bucket, each atomically. Raises StorageError, and InputError
        if another process has taken the lease."""

        there = self.there

        def upload(name: str) -> None:
            inside(self.folder, name, self.folder)
            if (stat := self.stat(name)) is None:
                return  # deleted meanwhile, like rotated logs
            source: Path | bytes = self.folder / name
            if name.endswith(LOG):
                source = source.read_bytes()
                source = source[: source.rfind(b"\n") + 1]
            found = stores.upload(source, f"{self.url}/{name}")
            self.same[name], there[name] = (*stat, found.etag), found

        with self.lock:
            changed = [name for name in dict.fromkeys(names) if not self.unchanged(name) and self.stat(name)]
            if changed:
                self.may_write()
                with ThreadPoolExecutor(objects.THREADS) as pool:
                    list(pool.map(upload, changed))

    def delete(self, names: Iterable[str]) -> None:
        """Delete these files from the bucket, if they exist. Raises the errors of `push`."""
        with self.lock:
            going = [name for name in dict.fromkeys(names) if name in self.there]
            if not going:
                return
            self.may_write()
            stores.delete(f"{self.url}/{name}" for name in going)
            for name in going:
                self.there.pop(name)
                self.same.pop(name, None)

    def may_write(self) -> None:
        if self.lease is None:
            raise StorageError(f"{self.url} is read-only here; this is a bug.")
        self.lease.check()

    def join(self, name: str) -> None:
        """Insert the lines of the log in the bucket before those of the local log, without duplicates."""
        if name in self.there:
            there = (self.url / name).read_text().splitlines(keepends=True)
            here = (self.folder / name).read_text(encoding="utf-8").splitlines(keepends=True)
            write_atomically(self.folder / name, "".join([*there, *(line for line in here if line not in there)]))

    @contextlib.contextmanager
    def held(self, logs: Iterable[str] = (), joined: Iterable[str] = ()) -> Generator[None]:
        """Hold the lease during the block, so that only this process writes to the run, and upload local files that
        match the shell patterns `logs` periodically. At the start, delete all local files except logs that match
        `joined`, which processes without the lease write; merge these logs with those in the bucket. Raises InputError
        if another process holds the lease."""
        lease, patterns, joined = Lease(self.url / LEASE, self.make()), [*logs], [*joined]
        over = threading.Event()
        lease.take()
        self.lease = lease

        def keep(action: Callable[[], None]) -> None:
            while not over.wait(lease.seconds / 3):
                with contextlib.suppress(InputError, OSError):  # reported by the next push
                    action()

        # Separate threads: log uploads wait for transfers of other files, which may take longer than the lease lasts.
        beating = threading.Thread(target=keep, args=[lease.beat], name="lease", daemon=True)
        pushing = threading.Thread(target=keep, args=[lambda: self.push(self.here(patterns))], name="logs", daemon=True)
        try:
            beating.start()
            self.clear(joined)
            for name in self.here(joined):
                self.join(name)
            pushing.start()
            yield
        finally:
            over.set()
            for thread in (beating, pushing):
                if thread.ident is not None:
                    thread.join(lease.seconds)
            self.lease = None
            if not beating.is_alive() and not pushing.is_alive():  # else the network is down, and the lease expires
                with contextlib.suppress(InputError):
                    lease.release()


def download(
    url: Url,
    wanted: Mapping[Path, tuple[Url, Object]],
    scratch: Path | None = None,
    whole: Callable[[Path], None] = lambda path: None,
) -> None:
    """Download objects, {path: (its address, its version)}, each atomically; `whole` is called with the path of each
    when it is there, in a thread; `scratch` is as for appearing_file. If they are larger than PRINTED_FROM together,
    print that they are downloaded from `url`. Raises ReplacedError if an object is no longer of its version."""
    size = sum(version.size for _, version in wanted.values())
    if size > PRINTED_FROM:
        print(f"storage: downloading {len(wanted)} files, {size / 1e9:,.2f} GB, from {url}", flush=True)

    def bring(path: Path) -> None:
        place, version = wanted[path]
        with storable(place):
            path.parent.mkdir(parents=True, exist_ok=True)
            with appearing_file(path, scratch, durable=False) as partial:
                try:
                    stores.download(place.address, partial, version)
                except FileNotFoundError as error:
                    raise ReplacedError(
                        f"{place} is listed, but there is no such object. If it was deleted meanwhile, run the command "
                        f"again; if the store has an object {place}/, with a slash at the end, delete that."
                    ) from error
        whole(path)

    with ThreadPoolExecutor(objects.THREADS) as pool:
        list(pool.map(bring, wanted))


@contextlib.contextmanager
def storable(url: Url) -> Generator[None]:
    """Convert disk errors in the block that are due to the name or size of the object at `url` to InputError."""
    try:
        yield
    except (OSError, RecursionError) as error:
        number = error.errno if isinstance(error, OSError) else errno.ENAMETOOLONG
        if number == errno.ENAMETOOLONG:
            reason = "its name is too long: a disk allows 255 bytes between slashes and 4,096 in all. Rename the object"
        elif number == errno.EFBIG:
            reason = "it is larger than files on this disk can be. Set GRISTMILL_CACHE to a folder on another disk"
        elif number in (errno.EISDIR, errno.ENOTDIR, errno.EEXIST):
            reason = "it has the name of a folder, or a folder its name. Delete or rename the object"
        else:
            raise
        raise InputError(f"{shown(str(url), quotes=False)} cannot be stored on a disk: {reason}.") from error


@functools.cache
def fetched(url: Url) -> Path:
    """Download the object or folder at `url`; return its local path, which ends in the same name. If nothing is at
    `url`, that path does not exist. Files with an ETag are downloaded only once; changes during the lifetime of this
    process are not noticed. Raises StorageError, and OSError if the disk is full."""
    for _ in range(READS - 1):
        with contextlib.suppress(ReplacedError):
            return fetch_listed(url, below(url))
    return fetch_listed(url, below(url))


def fetch_listed(url: Url, found: dict[str, Object]) -> Path:
    """Download the objects `found`, as `below` lists them, and return the local path of `url` (see `fetched`). Raises
    ReplacedError if an object has changed since it was listed."""
    version = json.dumps([url.address, *((name, *one) for name, one in found.items())])
    folder = cache_folder() / "reading" / hashlib.sha256(version.encode()).hexdigest()[:16]
    place_of = lambda name: url if name == url.name else url.parent / name  # the address itself may have a query

    def is_missing(name: str) -> bool:
        path = inside(folder, name, url)
        with storable(place_of(name)):
            return not found[name].etag or size_of(path) != found[name].size

    folder.mkdir(parents=True, exist_ok=True)
    download(url, {folder / name: (place_of(name), found[name]) for name in filter(is_missing, found)}, folder)
    return folder / url.name


def as_local_file(place: Path | Url) -> Path:
    """Return a path with `~` expanded. For a Url, download the object and return the path of the local copy; raises the
    errors of `fetched`."""
    return fetched(place) if isinstance(place, Url) else place.expanduser()


def below(url: Url) -> dict[str, Object]:
    """Return {name: metadata} of the object at `url` and of all below it, named "a" and "a/…" for s3://bucket/a."""
    one = url.found()
    others = {} if url.scheme in objects.WEB else url.files()
    return ({} if one is None else {url.name: one}) | {f"{url.name}/{name}": found for name, found in others.items()}
