"""The files of a run in a bucket that a command needs on this disk.

A command begins with an empty folder, downloads files by name when it needs them, and uploads what it has made: whole
files, and last the one that says that the others are there. A log, name.jsonl, lies in the bucket in parts, so that an
upload of what was appended costs no more than a part (`log_parts`).
"""

import atexit
import contextlib
import functools
import hashlib
import itertools
import secrets
import shutil
import tempfile
import threading
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from pathlib import Path

from lm.errors import InputError, UsageError
from lm.storage import objects, stores
from lm.storage.files import appearing_file, cache_folder
from lm.storage.lease import Lease
from lm.storage.names import inside
from lm.storage.objects import Object, ReplacedError, StorageError
from lm.storage.places import size_of, write_atomically
from lm.storage.url import Url

LEASE = ".lease"
LOCK = ".lock"
"""Never uploaded."""
READS = 20
"""Times that files are read while another process changes them."""
LOG = ".jsonl"
"""Files of this suffix lie at the address in parts."""
PART_BYTES = 1 << 20
"""From which on the next line begins a new part."""
PRINTED_FROM = 100_000_000
"""Bytes from which a download is announced."""


def log_parts(lines: bytes) -> list[bytes]:
    """The whole lines of a log in parts of PART_BYTES or a line more; at least one part. What is appended changes the
    last alone."""
    parts, start, end = [], 0, lines.rfind(b"\n") + 1
    while end - start > PART_BYTES and (cut := lines.find(b"\n", start + PART_BYTES, end) + 1) < end:
        parts.append(lines[start:cut])
        start = cut
    return [*parts, lines[start:end]]


def part_name(name: str, number: int) -> str:
    """The object that holds part `number` of a log."""
    return f"{name}.part-{number:05d}" if number else name


def whole_log(parts: list[Object]) -> Object:
    """The parts of a log as one object."""
    if len(parts) == 1:
        return parts[0]
    return Object(sum(one.size for one in parts), "+".join(one.etag for one in parts))


@functools.cache
def reading_folder() -> Path:
    """For files that this process only reads; deleted when it ends."""
    folder = Path(tempfile.gettempdir()) / f"gristmill-{secrets.token_hex(8)}"
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def local_folder(url: Url, purpose: str = "runs") -> Path:
    """The folder for files of the run at `url`, which is made when it is first used. "runs" is the one of a command
    that writes there, "process-<n>" that of its other processes; both stay, and are emptied when the next one begins.
    "reading" is this process's own. Raises UsageError for a run where no store refuses a second writer."""
    if purpose == "runs" and url.scheme not in objects.SCHEMES:
        raise UsageError(f"{url} cannot be a run folder: give one on a disk, or in s3:// or gs://.")
    name = f"{url.name or 'bucket'}-{hashlib.sha256(url.address.encode()).hexdigest()[:12]}"
    folder = (reading_folder() if purpose == "reading" else cache_folder() / purpose) / name
    if folder not in COPIES:
        COPIES[folder] = LocalCopy(folder, url)
    return folder


COPIES: dict[Path, "LocalCopy"] = {}
"""Those that this process has asked for."""


def local_copy_of(folder: Path) -> "LocalCopy | None":
    """The run in a bucket whose files `folder` holds; None for a folder like any other."""
    return COPIES.get(folder)


def shown_place(path: "Path | Url") -> "Path | Url":
    """The address of a run folder in a bucket, or of a file in it; any other path as it is."""
    if isinstance(path, Url):
        return path
    for folder, copy in COPIES.items():
        if path.is_relative_to(folder):
            name = path.relative_to(folder).as_posix()
            return copy.url / name if name != "." else copy.url
    return path


class LocalCopy:
    """Files in `folder` of the run at `url`."""

    def __init__(self, folder: Path, url: Url):
        self.folder, self.url = folder, url
        self.same: dict[str, tuple[int, int, str]] = {}
        """Of each file that is equal on both sides: bytes and time of the last change here, ETag there."""
        self.lease: Lease | None = None
        self.listed: dict[str, Object] | None = None
        self.parts: dict[str, list[Object]] = {}
        """Of each log there, its parts, as listed or uploaded."""
        self.uploaded: dict[str, list[bytes]] = {}
        """Of each log, SHA-256 of its parts there, as this process has read or uploaded them."""
        self.lock = threading.RLock()

    def make(self) -> str:
        """Makes the folder, if need be, and returns its name for the lease. Raises InputError where it cannot be
        written."""
        try:
            self.folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.folder.mkdir(exist_ok=True)
            name = self.folder.with_name(f"{self.folder.name}.holder")
            with contextlib.suppress(FileNotFoundError):
                return name.read_text(encoding="utf-8")
            write_atomically(name, holder := secrets.token_hex(8))
        except OSError as error:
            raise InputError(
                f"{self.folder}, for files of {self.url}, cannot be written: {error.strerror or error}. Make room "
                "there, or name other folders in GRISTMILL_CACHE and TMPDIR."
            ) from error
        return holder

    def clear(self, kept: Iterable[str] = ()) -> None:
        """Deletes what an earlier command left, but for files of the patterns `kept`: what counts is in the bucket."""
        with self.lock:
            self.make()
            self.listed, self.same, self.uploaded = None, {}, {}
            patterns = [LOCK, *kept]
            for path in self.folder.iterdir():
                if any(fnmatchcase(path.name, pattern) for pattern in patterns):
                    continue
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()

    @property
    def there(self) -> dict[str, Object]:
        """All below the address, as it was when first asked for, or uploaded by this process since."""
        with self.lock:
            if self.listed is None:
                self.listed = {name: one for name, one in self.url.files().items() if name != LEASE}
                self.join_parts(self.listed)
            return self.listed

    def join_parts(self, listed: dict[str, Object]) -> None:
        """Makes one entry of the parts of each log."""
        self.parts = {}
        for name in [name for name in listed if name.endswith(LOG)]:
            numbers = [*itertools.takewhile(lambda n, name=name: part_name(name, n) in listed, itertools.count(1))]
            self.parts[name] = [listed[name], *(listed.pop(part_name(name, number)) for number in numbers)]
            listed[name] = whole_log(self.parts[name])

    def objects_of(self, name: str) -> list[str]:
        """Names of the objects that hold the file there."""
        return [part_name(name, number) for number in range(len(self.parts.get(name, [0])))]

    def refresh(self) -> None:
        """Lists anew, and deletes files here that are no longer what is there."""
        with self.lock:
            self.listed, self.uploaded = None, {}
            for name, (*_, etag) in [*self.same.items()]:
                if name not in self.there or self.there[name].etag != etag:
                    if self.unchanged(name):
                        inside(self.folder, name, self.url).unlink()
                    del self.same[name]

    def size(self, name: str) -> int | None:
        """Bytes of a file that is here or there."""
        size = size_of(self.folder / name)
        return self.there[name].size if size is None and name in self.there else size

    def matching(self, patterns: Iterable[str]) -> list[str]:
        """Names there that are one of the shell patterns, or lie in a folder that is one."""
        wanted = list(patterns)
        heads = lambda name: ("/".join(name.split("/")[: depth + 1]) for depth in range(name.count("/") + 1))
        return [name for name in self.there if any(fnmatchcase(one, p) for one in heads(name) for p in wanted)]

    def here(self, patterns: Iterable[str]) -> list[str]:
        """Names here of files that are one of the shell patterns, or lie in a folder that is one."""
        roots = [path for pattern in patterns for path in sorted(self.folder.glob(pattern))]
        files = [file for root in roots for file in (sorted(root.rglob("*")) if root.is_dir() else [root])]
        names = (str(file.relative_to(self.folder)) for file in files if file.is_file())
        return [name for name in dict.fromkeys(names) if name != LOCK and ".partial" not in name]

    def stat(self, name: str) -> tuple[int, int] | None:
        """(bytes, time of the last change) of the file here."""
        try:
            found = (self.folder / name).stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return found.st_size, found.st_mtime_ns

    def unchanged(self, name: str) -> bool:
        """Whether the file here is as it was when it was equal on both sides."""
        return name in self.same and self.stat(name) == self.same[name][:2]

    def fetch(self, names: Iterable[str], patterns: Iterable[str] = ()) -> list[str]:
        """Download files by name, and those that `matching` finds for the patterns, unless they are the same here.
        Returns the names of those downloaded.

        Without the lease, another process may write there: files that it replaces or deletes meanwhile are listed and
        read again. Raises StorageError, and OSError where the disk does not take them."""
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
        """Try `fetch` once."""
        there = self.there  # threads of the pool must not wait for the lock

        def bring(name: str) -> None:
            found = there[name]
            first, *others = self.parts.get(name, [found])
            with appearing_file(inside(self.folder, name, self.url), durable=False) as partial:
                download(self.url / name, partial, first)
                with partial.open("ab") as file:
                    for number, part in enumerate(others, 1):
                        file.write(read_version(self.url / part_name(name, number), part))
            self.same[name] = (*(self.stat(name) or (0, 0)), found.etag)

        with self.lock:
            self.make()
            is_same = lambda name: self.unchanged(name) and self.same[name][2] == there[name].etag
            missing = [name for name in dict.fromkeys(names) if name in there and not is_same(name)]
            announce(sum(there[name].size for name in missing), len(missing), self.url)
            with ThreadPoolExecutor(objects.THREADS) as pool:
                list(pool.map(bring, missing))
            return missing

    def push(self, names: Iterable[str]) -> None:
        """Uploads the files of these names that are not the same there; each appears whole. Raises StorageError, and
        InputError where another process has taken over."""

        there = self.there

        def upload(name: str) -> None:
            inside(self.folder, name, self.folder)
            if (stat := self.stat(name)) is None:
                return  # it went away meanwhile, as rotated logs do
            if name.endswith(LOG):
                found = self.push_log(name)
            else:
                found = stores.upload(self.folder / name, f"{self.url}/{name}")
            self.same[name], there[name] = (*stat, found.etag), found

        with self.lock:
            changed = [name for name in dict.fromkeys(names) if not self.unchanged(name) and self.stat(name)]
            if changed:
                self.may_write()
                with ThreadPoolExecutor(objects.THREADS) as pool:
                    list(pool.map(upload, changed))

    def push_log(self, name: str) -> Object:
        """Uploads the parts of the log from the first that differs. What lies behind that is deleted before, so that
        whatever is there is a log up to some line, and has all that the logs before and after have in common."""
        there, contents = self.parts.get(name, []), log_parts((self.folder / name).read_bytes())
        digests = [hashlib.sha256(lines).digest() for lines in contents]
        if name not in self.uploaded:
            places = [f"{self.url}/{part}" for part in self.objects_of(name)] if there else []
            self.uploaded[name] = [hashlib.sha256(stores.read(place)).digest() for place in places]
        equal = zip(self.uploaded[name], digests, there, strict=False)
        first = sum(1 for _ in itertools.takewhile(lambda one: one[0] == one[1], equal))
        left = min(first + 1, len(contents))  # the first that differs stays until it is written over
        for number in reversed(range(left, len(there))):
            stores.delete([f"{self.url}/{part_name(name, number)}"])
        self.parts[name], self.uploaded[name] = there[:left], digests[:first]
        for number, lines in enumerate(contents[first:], first):
            self.parts[name][number:] = [stores.write(f"{self.url}/{part_name(name, number)}", lines)]
            self.uploaded[name].append(digests[number])
        return whole_log(self.parts[name])

    def delete(self, names: Iterable[str]) -> None:
        """Deletes the objects of these names, as far as they are there. Raises as `push`."""
        with self.lock:
            going = [name for name in dict.fromkeys(names) if name in self.there]
            if not going:
                return
            self.may_write()
            for part in [part for name in going for part in reversed(self.objects_of(name)[1:])]:
                stores.delete([f"{self.url}/{part}"])
            stores.delete(f"{self.url}/{name}" for name in going)
            for name in going:
                for record in (self.parts, self.uploaded, self.there, self.same):
                    record.pop(name, None)

    def may_write(self) -> None:
        if self.lease is None:
            raise StorageError(f"{self.url} is only read here; this is a bug.")
        self.lease.check()

    def join(self, name: str) -> None:
        """Puts the lines of a log here behind those that are there."""
        if name in self.there:
            text = "".join(Url(f"{self.url}/{part}").read_text() for part in self.objects_of(name))
            there = text.splitlines(keepends=True)
            here = (self.folder / name).read_text(encoding="utf-8").splitlines(keepends=True)
            write_atomically(self.folder / name, "".join([*there, *(line for line in here if line not in there)]))

    @contextlib.contextmanager
    def held(self, logs: Iterable[str] = (), joined: Iterable[str] = ()) -> Generator[None]:
        """This process alone writes there until the block ends; files here that are one of the patterns `logs` are
        uploaded every now and then. Logs of the patterns `joined` are written by processes that hold nothing there:
        what they hold here is added to what is there. Raises InputError where another process is at work there."""
        lease, patterns, joined = Lease(self.url / LEASE, self.make()), [*logs], [*joined]
        over = threading.Event()
        lease.take()
        self.lease = lease

        def keep(action: Callable[[], None]) -> None:
            while not over.wait(lease.seconds / 3):
                with contextlib.suppress(InputError, OSError):  # whoever pushes is told
                    action()

        # The lease by itself: logs wait for pushes and fetches of other files, which may take longer than it lasts.
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
            if not beating.is_alive() and not pushing.is_alive():  # else the network is away: the lease ends by itself
                with contextlib.suppress(InputError):
                    lease.release()


def read_version(url: Url, version: Object) -> bytes:
    """The object. Raises ReplacedError where it is no longer that version."""
    try:
        return stores.read(url.address, 0, None, version)
    except FileNotFoundError as error:
        raise deleted(url) from error


def download(url: Url, path: Path, version: Object) -> None:
    """Writes the object into the file. Raises ReplacedError where it is no longer that version."""
    try:
        stores.download(url.address, path, version)
    except FileNotFoundError as error:
        raise deleted(url) from error


def deleted(url: Url) -> ReplacedError:
    return ReplacedError(f"{url} was deleted while it was read. Run it again.")


def announce(size: int, files: int, url: Url) -> None:
    """Says that a download has begun, if it is large."""
    if size > PRINTED_FROM:
        print(f"storage: downloading {files} files, {size / 1e9:,.2f} GB, from {url}", flush=True)
