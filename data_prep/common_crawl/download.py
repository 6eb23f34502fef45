"""One file over HTTP, whole or not at all: resumed where a cut connection left it, verified, tried again politely.

A part that is there is gone on with only where the server confirms that its file is still the same (RFC 9110, sections
13 and 14). The manners towards servers are those of lm.storage.http.
"""

import hashlib
import re
import shutil
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from data_prep.common_crawl.part import Part
from lm.errors import InputError
from lm.storage import writing
from lm.storage.http import (
    CONTENT_RANGE,
    PIECE,
    OutOfRangeError,
    RetryPolicy,
    Tries,
    TryAgainError,
    Version,
    answer,
    version_of,
)

if TYPE_CHECKING:
    from requests import Response

GZIP = b"\x1f\x8b"
SMALLEST_GZIP = 18  # bytes of a member's head and foot
MD5 = re.compile(r'"([0-9a-f]{32})"')


class StoppedError(Exception):
    """Another download, or the user, has ended this one."""


class Client:
    """What the downloads of a run share: manners towards the server, the room on the disk, and the order to stop."""

    def __init__(self, policy: RetryPolicy, report: Callable[[str], None]):
        self.policy, self.report = policy, report
        self.stop = threading.Event()
        self.received = 0
        self.lock = threading.Lock()
        self.quiet_until = 0.0  # on time.monotonic's clock: all keep quiet when one is asked to
        self.begun: dict[Path, tuple[Part, int]] = {}
        self.waiting_files = 0

    def pause(self, seconds: float, everybody: bool = False) -> None:
        """Waits, and until the quiet that any download was asked for is over. Raises StoppedError when told to stop."""
        until = time.monotonic() + seconds
        with self.lock:
            if everybody:
                self.quiet_until = max(self.quiet_until, until)
        while (left := max(until, self.quiet_until) - time.monotonic()) > 0:
            self.stop.wait(min(left, 1.0))
            self.stop_if_told()
        self.stop_if_told()

    def stop_if_told(self) -> None:
        if self.stop.is_set():
            raise StoppedError

    def count(self, number: int) -> None:
        with self.lock:
            self.received += number

    def reserve_disk_space(self, part: Part, length: int) -> None:
        """Raises InputError when the disk cannot take what this download, the others and those to come still lack.

        Those to come are taken to be as long as the longest so far.
        """
        with self.lock:
            self.waiting_files -= part.path not in self.begun
            self.begun[part.path] = part, length
            lacking = sum(length - part.size for part, length in self.begun.values() if not part.path.exists())
            longest = max(length for _, length in self.begun.values())
            lacking += max(0, self.waiting_files) * longest
        free = shutil.disk_usage(part.path.parent).free
        if lacking > free:
            raise InputError(
                f"The files still need {lacking / 1e9:.2f} GB, but {part.path.parent} has {free / 1e9:.2f} GB free. "
                "Make room, fetch fewer files, or give a --workdir on a larger disk."
            )


def fetch_file(url: str, path: Path, client: Client) -> None:
    """Brings `url`, a gzip file, to `path`, unless it is there.

    A try that brings the file further starts the count of tries anew. Raises NotThereError when the server has no such
    file, InputError when it is given up or the disk does not take it, StoppedError when `client` is told to stop.
    """
    if path.is_file():
        return
    part = Part(path)
    refused: str | None = None  # the digest of a whole file with wrong checksums
    tries = Tries(client.policy, part.size if part.version() else 0)
    while True:
        client.pause(0)
        try:
            with writing(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                refused = attempt(url, part, client, refused)
                if path.is_file():
                    return
                raise TryAgainError("it came whole, but its checksums say otherwise")
        except TryAgainError as error:
            pause = tries.pause_after(error, part.size)
            if pause is None:
                raise InputError(given_up(url, part, client, error)) from error
            client.report(f"{path.name}: {error}; trying again in {pause:g} s")
            client.pause(pause, everybody=error.pause is not None)


def given_up(url: str, part: Part, client: Client, error: Exception) -> str:
    return (
        f"{url} was given up after {client.policy.tries} tries in a row that brought it no further; the last one: "
        f"{error}.\nWhat has come is kept ({part.size:,} bytes of this file, and all files that are whole), and "
        "the same command goes on from there. Check the network, and whether a proxy is needed (HTTPS_PROXY) or in "
        "the way (NO_PROXY)."
    )


def attempt(url: str, part: Part, client: Client, refused: str | None) -> str | None:
    """One request, and all that it brings. The file appears when it is whole; its MD5 when the checksums say otherwise.

    Raises TryAgainError, NotThereError, InputError.
    """
    import requests

    version = part.version()
    if version is None or part.size != version.length:
        headers = {"Range": f"bytes={part.size}-"} if version else {}
        if version and version.condition:
            headers["If-Range"] = version.condition
        try:
            with (
                requests.Session() as session,
                answer(session, url, headers, client.policy.stall) as response,
            ):
                version = taken(response, part, version, client)
        except OutOfRangeError:  # the part is longer than the file: it has changed
            part.discard()
            raise
    return finish(part, version, client, refused)


def taken(response: "Response", part: Part, version: Version | None, client: Client) -> Version:
    """Appends what an answer brings to the part; of which version it is then."""
    told = version_of(response)
    if response.status_code == 206:
        version = continued(response, part, version, told)
    else:  # the first try, a changed file, or a server that knows no ranges
        part.begin(version := told)
    if version.length is not None:
        client.reserve_disk_space(part, version.length)
    receive(response, part, version.length, client)
    return version


def continued(response: "Response", part: Part, version: Version | None, told: Version) -> Version:
    """The version of part and range. Raises TryAgainError, the part discarded, when they are not of the same file."""
    found = CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
    if not version or not found or int(found[1]) != part.size:
        part.discard()
        raise TryAgainError(f"the server sent {response.headers.get('Content-Range')!r}, not what was asked for")
    if not version.like(told):
        part.discard()
        raise TryAgainError("the file has changed on the server: beginning anew")
    return Version(version.length or told.length, version.etag, version.modified)


def receive(response: "Response", part: Part, length: int | None, client: Client) -> None:
    """Appends what comes. Raises TryAgainError when it is too little, too much, or no gzip file."""
    with part.bytes.open("ab") as file:
        size = file.tell()
        # Raw bytes: a server that calls a .gz file an encoding of its contents still sends the file.
        while piece := response.raw.read1(PIECE, decode_content=False):
            client.stop_if_told()
            if size == 0 and not piece.startswith(GZIP[: len(piece)]):
                raise TryAgainError(f"{piece[:16]!r} came instead of a gzip file (the page of a proxy or a login?)")
            size += len(piece)
            if length is not None and size > length:
                break
            file.write(piece)
            client.count(len(piece))
    if size < SMALLEST_GZIP:
        part.discard()
        raise TryAgainError(f"the answer ended after {size} bytes")
    if length is None:
        return
    if size > length:
        part.discard()
        raise TryAgainError(f"the server sent more than the {length:,} bytes that it told")
    if size < length:
        raise TryAgainError(f"the connection ended at {size:,} of {length:,} bytes")


def finish(part: Part, version: Version, client: Client, refused: str | None) -> str | None:
    """Makes the part appear when it is verified, else discards it and returns its MD5.

    An ETag of 32 hexadecimal digits is an MD5 on most servers. Where it is none, or is not the file's, the checksums of
    its gzip members decide. Bytes that came twice are what the server has, damaged or not: they are taken.
    """
    told = MD5.fullmatch(version.etag or "")
    digest = md5_of(part.bytes) if told else ""
    if not told or digest != told[1]:
        if (damage := gzip_damage(part.bytes, client)) and (digest := digest or md5_of(part.bytes)) != refused:
            part.discard()
            return digest
        if damage:
            client.report(f"{part.path.name}: it came twice with the same damage ({damage}), and is taken as it is")
    part.appear()
    return None


def md5_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5", _bufsize=PIECE).hexdigest()


def gzip_damage(path: Path, client: Client) -> str:
    """What is wrong with a gzip file, read to its end; "" when all checksums of its members are right."""
    member = None
    try:
        with path.open("rb") as file:
            while rest := file.read(PIECE):
                client.stop_if_told()
                while rest:
                    if member is None:
                        member = zlib.decompressobj(wbits=31)
                    member.decompress(rest, PIECE)
                    rest = member.unconsumed_tail or member.unused_data
                    if member.eof:
                        member = None
    except zlib.error as error:
        return str(error)
    return "it ends within a gzip member" if member else ""
