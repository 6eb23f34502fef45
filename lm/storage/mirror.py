"""A folder of this machine that stands for all below an address: its working copy.

What is done is done there, with all that a disk can do: links, renaming, files that grow. What is finished is pushed:
whole files, and last the one that says that the others are there. What is needed is fetched, by name, when it is
needed. `.remote/` in it has the address, and of each file that is alike on both sides its size, time and ETag. A log,
name.jsonl, lies there in parts, so that a push of what was appended costs no more than a part (`log_parts`).

Where the address differs from that record, somebody has changed it there, and the copy follows. Files here that were
not pushed stay, unless another copy has been at work there since: then they are moved aside.
"""

import contextlib
import fcntl
import functools
import glob
import hashlib
import itertools
import json
import secrets
import threading
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

from lm.errors import InputError, UsageError
from lm.storage import objects, stores
from lm.storage.files import appearing_file, cache_folder
from lm.storage.lease import Lease
from lm.storage.names import inside
from lm.storage.objects import Object, ReplacedError, StorageError
from lm.storage.places import size_of, unused, write_atomically
from lm.storage.url import Url

RECORD = ".remote"
ABOUT = f"{RECORD}/about.json"
LEASE = ".lease"
LOCAL = (RECORD, ".lock")
"""Names at the top that are never pushed."""
READS = 20
"""Times that files are read while another process changes them."""
LOG = ".jsonl"
"""Files of this suffix lie at the address in parts."""
PART_BYTES = 1 << 20
"""From which on the next line begins a new part."""


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


class Known(NamedTuple):
    """A file when it was last alike on both sides."""

    size: int
    mtime_ns: int
    etag: str
    """"" while it is being pushed."""


def copy_of(url: Url, purpose: str = "runs") -> Path:
    """The folder that stands for the address here, made when it is first used: one to work in, and another, with the
    purpose "reading", for processes that only read. Raises UsageError for one to work in where no store refuses a
    second writer."""
    if purpose == "runs" and url.scheme not in objects.SCHEMES:
        raise UsageError(f"{url} cannot be a run folder: give one on a disk, or in s3:// or gs://.")
    name = hashlib.sha256(url.address.encode()).hexdigest()[:12]
    folder = cache_folder() / purpose / f"{url.name or 'bucket'}-{name}"
    if mirror_of(folder) is None:
        MIRRORS[folder] = Mirror(folder, url, secrets.token_hex(8))
    return folder


MIRRORS: dict[Path, "Mirror"] = {}
"""Those that this process has asked for."""


def mirror_of(folder: Path) -> "Mirror | None":
    """What `folder` stands for; None where it is a folder like any other.

    Working copies are in this user's cache. Elsewhere the file about.json is not believed: in a run folder from others
    it could name a bucket of yours, which would then be written to.
    """
    if folder not in MIRRORS and (folder / ABOUT).is_file() and folder.resolve().parents[1] == cache_folder().resolve():
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        MIRRORS[folder] = Mirror(folder, Url(about["url"]), about["holder"])
    return MIRRORS.get(folder)


def shown_place(path: "Path | Url") -> "Path | Url":
    """What a run folder, or a file in it, stands for: its address where `path` is in a working copy."""
    if isinstance(path, Url):
        return path
    for folder, mirror in MIRRORS.items():
        if path.is_relative_to(folder):
            name = path.relative_to(folder).as_posix()
            return mirror.url / name if name != "." else mirror.url
    return path


class Mirror:
    """The working copy in `folder`, and what it stands for."""

    def __init__(self, folder: Path, url: Url, holder: str):
        """`holder` is the copy's name, by which it is known whether another was at work there since."""
        self.folder, self.url, self.holder = folder, url, holder
        self.record = folder / RECORD / "files.json"
        self.known = self.recorded()
        self.lease: Lease | None = None
        self.listed: dict[str, Object] | None = None
        self.parts: dict[str, list[Object]] = {}
        """Of each log there, its parts, as listed or pushed."""
        self.pushed: dict[str, list[bytes]] = {}
        """Of each log, SHA-256 of its parts there, as this process has read or pushed them."""
        self.only: str | None = None
        """Of all below the address, the one name at the top that is looked at; None: all."""
        self.lock = threading.RLock()

    def recorded(self) -> dict[str, Known]:
        """What the record says; nothing where there is none, or it is damaged."""
        with contextlib.suppress(FileNotFoundError, NotADirectoryError, ValueError, TypeError):
            found = json.loads(self.record.read_text(encoding="utf-8"))
            return {name: Known(*values) for name, values in found.items()}
        return {}

    @contextlib.contextmanager
    def alone(self) -> Generator[None]:
        """One thread at a time, and, of the processes that read by the same copy, one: it knows what others have
        brought. Where the lease is held, no other process works in the copy. Raises InputError as `make`."""
        with self.lock, contextlib.ExitStack() as stack:
            if self.lease is None:
                self.make()
                fcntl.flock(stack.enter_context((self.folder / RECORD / "lock").open("w")), fcntl.LOCK_EX)
                self.known = self.recorded()
            yield

    def make(self) -> None:
        """Makes the folder, if need be. Raises InputError where it cannot be written."""
        if (self.folder / ABOUT).is_file():
            return
        about = json.dumps({"url": self.url.address, "holder": self.holder})
        try:
            (self.folder / RECORD).mkdir(parents=True, exist_ok=True)
            write_atomically(self.folder / ABOUT, about, scratch=self.folder / RECORD)  # others may do so, too
        except OSError as error:
            raise InputError(
                f"The working copy {self.folder} of {self.url} cannot be written: {error.strerror or error}. Make room "
                "there, or name another folder in GRISTMILL_CACHE."
            ) from error

    @property
    def there(self) -> dict[str, Object]:
        """All below the address, as it was when first asked for, or pushed by this process since."""
        with self.lock:
            if self.listed is None:
                found = self.url.files() if self.only is None else below(self.url / self.only, self.only)
                self.listed = {name: one for name, one in found.items() if name != LEASE}
                self.join_parts(self.listed)
            return self.listed

    def join_parts(self, listed: dict[str, Object]) -> None:
        """Makes one entry of the parts of each log."""
        self.parts = {}
        for name in [name for name in listed if name.endswith(LOG)]:
            numbers = [*itertools.takewhile(lambda n, name=name: part_name(name, n) in listed, itertools.count(1))]
            self.parts[name] = [listed[name], *(listed.pop(part_name(name, number)) for number in numbers)]
            listed[name] = as_one(self.parts[name])

    def objects_of(self, name: str) -> list[str]:
        """Names of the objects that hold the file there."""
        return [part_name(name, number) for number in range(len(self.parts.get(name, [0])))]

    def looked_at(self, name: str) -> bool:
        return self.only is None or name.split("/")[0] == self.only

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
        return [name for name in dict.fromkeys(names) if name.split("/")[0] not in LOCAL and ".partial" not in name]

    def stat(self, name: str) -> tuple[int, int] | None:
        """(bytes, time of the last change) of the file here."""
        try:
            found = (self.folder / name).stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return found.st_size, found.st_mtime_ns

    def unchanged(self, name: str) -> bool:
        """Whether the file here is as it was when it was alike on both sides."""
        known = self.known.get(name)
        return known is not None and bool(known.etag) and self.stat(name) == known[:2]

    def save(self) -> None:
        write_atomically(self.record, json.dumps(self.known), durable=False)

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
                self.agree(sole=True)
        raise AssertionError("the last attempt returns or raises")

    def download(self, names: Iterable[str]) -> list[str]:
        """Try `fetch` once."""
        there = self.there  # threads of the pool must not wait for the lock

        def bring(name: str) -> None:
            found = there[name]
            try:
                with appearing_file(inside(self.folder, name, self.url), durable=False) as partial:
                    stores.download(f"{self.url}/{name}", partial, self.parts.get(name, [found])[0])
                    for number, part in enumerate(self.parts.get(name, [])[1:], 1):
                        data = stores.read(f"{self.url}/{part_name(name, number)}", 0, None, part)
                        with partial.open("ab") as file:
                            file.write(data)
            except FileNotFoundError as error:
                raise ReplacedError(f"{self.url}/{name} was deleted while it was read. Run it again.") from error
            size, time = self.stat(name) or (0, 0)
            self.known[name] = Known(size, time, found.etag)

        with self.alone():
            alike = lambda name: self.unchanged(name) and self.known[name].etag == self.there[name].etag
            missing = [name for name in dict.fromkeys(names) if name in self.there and not alike(name)]
            total = sum(self.there[name].size for name in missing)
            if total > SAID_FROM:
                print(f"storage: bringing {len(missing)} files, {total / 1e9:,.2f} GB, from {self.url}", flush=True)
            try:
                with ThreadPoolExecutor(objects.THREADS) as pool:
                    list(pool.map(bring, missing))
            finally:
                if missing:
                    self.save()
            return missing

    def push(self, names: Iterable[str]) -> None:
        """Uploads the files of these names that are not alike there; each appears whole. Raises StorageError, and
        InputError where another process has taken over."""

        there = self.there

        def upload(name: str) -> None:
            inside(self.folder, name, self.folder)
            size, time = self.stat(name) or (-1, 0)
            if size < 0:
                return  # it went away meanwhile, as rotated logs do
            if name.endswith(LOG):
                found = self.push_log(name)
            else:
                found = stores.upload(self.folder / name, f"{self.url}/{name}")
            self.known[name], there[name] = Known(size, time, found.etag), found

        with self.lock:
            changed = [name for name in dict.fromkeys(names) if not self.unchanged(name) and self.stat(name)]
            if not changed:
                return
            self.may_write()
            self.known |= {name: Known(*(self.stat(name) or (0, 0)), "") for name in changed}
            self.save()
            try:
                with ThreadPoolExecutor(objects.THREADS) as pool:
                    list(pool.map(upload, changed))
            finally:
                self.save()

    def push_log(self, name: str) -> Object:
        """Uploads the parts of the log from the first that differs. What lies behind that is deleted before, so that
        whatever is there is a log up to some line, and has all that the logs before and after have in common."""
        there, contents = self.parts.get(name, []), log_parts((self.folder / name).read_bytes())
        digests = [hashlib.sha256(lines).digest() for lines in contents]
        if name not in self.pushed:
            places = [f"{self.url}/{part}" for part in self.objects_of(name)] if there else []
            self.pushed[name] = [hashlib.sha256(stores.read(place)).digest() for place in places]
        alike = zip(self.pushed[name], digests, there, strict=False)
        first = sum(1 for _ in itertools.takewhile(lambda one: one[0] == one[1], alike))
        left = min(first + 1, len(contents))  # the first that differs stays until it is written over
        for number in reversed(range(left, len(there))):
            stores.delete([f"{self.url}/{part_name(name, number)}"])
        self.parts[name], self.pushed[name] = there[:left], digests[:first]
        for number, lines in enumerate(contents[first:], first):
            self.parts[name][number:] = [stores.write(f"{self.url}/{part_name(name, number)}", lines)]
            self.pushed[name].append(digests[number])
        return as_one(self.parts[name])

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
                self.parts.pop(name, None)
                self.pushed.pop(name, None)
                self.there.pop(name, None)
                self.known.pop(name, None)
            self.save()

    def may_write(self) -> None:
        if self.lease is None:
            raise StorageError(f"{self.url} is only read here; this is a bug.")
        self.lease.check()

    def agree(self, sole: bool, joined: Iterable[str] = ()) -> None:
        """Makes the copy agree with what is there now. Files here that were not pushed stay where the copy's holder
        alone has worked there (`sole`); otherwise they are moved aside, but for those of the patterns `joined`: their
        lines come behind those that are there."""
        with self.alone():
            self.listed, self.pushed = None, {}
            for name, known in [(name, known) for name, known in self.known.items() if self.looked_at(name)]:
                found = self.there.get(name)
                if known.etag and found is not None and found.etag == known.etag:
                    continue
                if self.unchanged(name):
                    inside(self.folder, name, self.record).unlink()
                if known.etag or not sole:
                    del self.known[name]
            if not sole:
                logs = self.here(joined)
                for name in logs:
                    self.join(name)
                here = [name for name in self.here(["*"]) if self.looked_at(name)]
                self.move_aside([name for name in here if name not in logs and not self.unchanged(name)])
            self.save()

    def join(self, name: str) -> None:
        """Puts the lines that only are here behind those that are there."""
        if name in self.there and not self.unchanged(name):
            text = "".join(Url(f"{self.url}/{part}").read_text() for part in self.objects_of(name))
            there = text.splitlines(keepends=True)
            here = (self.folder / name).read_text(encoding="utf-8").splitlines(keepends=True)
            write_atomically(self.folder / name, "".join([*there, *(line for line in here if line not in there)]))

    def move_aside(self, names: list[str]) -> None:
        """Out of the way of what another machine has made since."""
        if not names:
            return
        aside = unused(self.folder.with_name(f"{self.folder.name}.aside"))
        for name in names:
            (aside / name).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / name).rename(aside / name)
            self.known.pop(name, None)
        print(f"storage: another machine went on with {self.url}; what only was here is in {aside}", flush=True)

    @contextlib.contextmanager
    def held(self, logs: Iterable[str] = (), joined: Iterable[str] = ()) -> Generator[None]:
        """This process alone writes there until the block ends; files here that are one of the patterns `logs` are
        pushed every now and then. Those of `joined` are written by processes that hold nothing there (`agree`). Raises
        InputError where another process is at work there."""
        lease, patterns, over = Lease(self.url / LEASE, self.holder), [*logs], threading.Event()
        self.make()
        before = lease.take()
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
            self.agree(before == self.holder, joined)
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


def as_one(parts: list[Object]) -> Object:
    """What is said of a log, by its parts."""
    if len(parts) == 1:
        return parts[0]
    return Object(sum(one.size for one in parts), "+".join(one.etag for one in parts))


@functools.cache
def fetched(url: Url) -> Path:
    """A file or folder of this machine, of the same name, with all that lies at the address; where nothing does, it is
    not there. What changes there while this process lives is not looked for. Raises StorageError."""
    folder = copy_of(url.parent, "reading")
    mirror = mirror_of(folder)
    assert mirror is not None
    with mirror.lock:  # threads may ask for several names of one folder
        mirror.only = url.name
        mirror.agree(sole=False)
        mirror.fetch((), [glob.escape(url.name)])
    return folder / url.name


def as_local_file(place: Path | Url) -> Path:
    """The file itself, or what `fetched` brings of an object. Raises as that."""
    return fetched(place) if isinstance(place, Url) else place.expanduser()


def below(url: Url, name: str) -> dict[str, Object]:
    """The object at the address and all that lies below, as `name` and name/…: what lies beside it is not listed."""
    one = url.found()
    inside = {} if url.scheme in stores.WEB else url.files()
    return ({} if one is None else {name: one}) | {f"{name}/{rest}": found for rest, found in inside.items()}


SAID_FROM = 100_000_000
"""Bytes from which it is said that they are being brought."""
