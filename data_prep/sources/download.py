"""One file over HTTP, whole or not at all: resumed where a cut connection left it, verified, tried again politely.

A part that is there is gone on with only where the server confirms that its file is still the same (RFC 9110, sections
13 and 14).
"""

import contextlib
import hashlib
import re
import shutil
import threading
import time
import zlib
from collections.abc import Callable, Generator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.client import IncompleteRead
from pathlib import Path
from typing import TYPE_CHECKING

from data_prep.sources.part import Part, Version
from lm.errors import InputError, network_reason
from lm.storage import writing

if TYPE_CHECKING:
    from requests import Response

PIECE = 1 << 18
"""Bytes read at once at most; what has come is written even when less has."""
PROGRESS_BYTES = 1 << 20
"""Bytes that a try must bring to count as one that brought the file further."""
CONNECT_SECONDS = 30.0
LONGEST_WAIT = 3600.0
"""Seconds that a server may ask for (Retry-After) before the run ends instead of sleeping."""
GZIP = b"\x1f\x8b"
SMALLEST_GZIP = 18  # bytes of a member's head and foot
MD5 = re.compile(r'"([0-9a-f]{32})"')
CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
LATER = {403, 408, 425, 429, 500, 502, 503, 504}
"""Answers that may be others later. 403 is among them since content networks answer so to too many requests."""


class NotThereError(InputError):
    """The server knows no such file."""


class StoppedError(Exception):
    """Another download, or the user, has ended this one."""


class TryAgainError(Exception):
    """This try failed, the next may not. `pause` is what the server asks for, in seconds."""

    def __init__(self, reason: str, pause: float | None = None):
        super().__init__(reason)
        self.pause = pause


@dataclass(frozen=True)
class RetryPolicy:
    """How long a download goes on; times in seconds (data_prep.config.CommonCrawlPages explains each)."""

    tries: int
    first_pause: float
    longest_pause: float
    stall: float


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
    part, failures = Part(path), 0
    refused: str | None = None  # the digest of a whole file with wrong checksums
    furthest = part.size if part.version() else 0
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
            failures = 0 if part.size >= furthest + PROGRESS_BYTES else failures + 1
            furthest = max(furthest, part.size)
            if failures >= client.policy.tries:
                raise InputError(given_up(url, part, client, error)) from error
            own = min(client.policy.first_pause * 2 ** max(failures - 1, 0), client.policy.longest_pause)
            pause = max(own, error.pause or 0)
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
    version = part.version()
    if version is None or part.size != version.length:
        with answer_to(url, part, version, client) as response:
            told = version_of(response)
            if response.status_code == 206:
                version = continued(response, part, version, told)
            else:  # the first try, a changed file, or a server that knows no ranges
                part.begin(version := told)
            if version.length is not None:
                client.reserve_disk_space(part, version.length)
            receive(response, part, version.length, client)
    return finish(part, version, client, refused)


@contextlib.contextmanager
def answer_to(url: str, part: Part, version: Version | None, client: Client) -> Generator["Response"]:
    """The answer to a request for the rest of the file. Every way in which it can fail becomes one of our errors."""
    import requests
    import urllib3

    headers = {"User-Agent": f"gristmill (python-requests/{requests.__version__})", "Accept-Encoding": "identity"}
    if version:
        headers["Range"] = f"bytes={part.size}-"
        if version.condition:
            headers["If-Range"] = version.condition
    stall = client.policy.stall
    try:
        with (
            requests.Session() as session,
            session.get(url, headers=headers, stream=True, timeout=(min(stall, CONNECT_SECONDS), stall)) as response,
        ):
            refuse_status(url, response, part)
            yield response
    except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema, requests.TooManyRedirects) as error:
        raise InputError(
            f"{url} cannot be asked for: {network_reason(error)}. Correct pages.common_crawl.address."
        ) from error
    except requests.RequestException as error:
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            raise InputError(
                f"{url}: the server's certificate is not trusted. Name the authorities to trust in REQUESTS_CA_BUNDLE."
            ) from error
        raise TryAgainError(said(error)) from error
    except urllib3.exceptions.HTTPError as error:
        raise TryAgainError(said(error)) from error


def said(error: Exception) -> str:
    """What the innermost error says, without the wrapping."""
    innermost = error
    while isinstance(inner := innermost.__cause__ or innermost.__context__, Exception):
        innermost = inner
    if isinstance(innermost, IncompleteRead):
        missing = f"{innermost.expected:,} bytes" if isinstance(innermost.expected, int) else "some bytes"
        return f"the connection ended {missing} too early"
    return network_reason(error)


def refuse_status(url: str, response: "Response", part: Part) -> None:
    status = f"{response.status_code} {response.reason}"
    if response.status_code in (200, 206):
        return
    if response.status_code in (404, 410):
        raise NotThereError(f"The server has no file {url} ({status}).")
    if response.status_code == 416:  # the part is longer than the file: it has changed
        part.discard()
        raise TryAgainError(f"the server has no bytes from where the part ends ({status})")
    if response.status_code not in LATER:
        raise InputError(f"{url} is refused: {status}. Check pages.common_crawl.address, and the proxy's login.")
    pause = seconds_asked(response.headers.get("Retry-After"), response.headers.get("Date"))
    if pause is not None and pause > LONGEST_WAIT:
        raise InputError(
            f"{url}: {status}, and the server asks to come back in {pause / 3600:.1f} hours. What has come is kept: "
            "give the same command then."
        )
    raise TryAgainError(status, pause)


def seconds_asked(retry_after: str | None, date: str | None) -> float | None:
    """Of a Retry-After header: a number of seconds, or a date, counted from the server's own clock."""
    if retry_after is None:
        return None
    if retry_after.strip().isascii() and retry_after.strip().isdigit():
        return float(retry_after)
    try:
        now = parsedate_to_datetime(date) if date else datetime.now(UTC)
        return max(0.0, (parsedate_to_datetime(retry_after) - now).total_seconds())
    except (ValueError, TypeError):
        return None


def version_of(response: "Response") -> Version:
    """Of an answer with the whole file or a range of it."""
    if response.status_code == 206:
        found = CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
        total = found[3] if found else "*"
    else:
        total = response.headers.get("Content-Length", "*").strip()
    length = int(total) if total.isascii() and total.isdigit() else None
    return Version(length, response.headers.get("ETag"), response.headers.get("Last-Modified"))


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
