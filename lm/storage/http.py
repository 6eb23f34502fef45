"""Requests over HTTP: a file of one version, whole or by ranges (RFC 9110, sections 13 and 14).

What passes by itself (5xx, 429, 403 of a content network, silence, cut connections) is tried again from where it broke
off, with growing pauses, and no sooner than the server asks (Retry-After); a try that brings the file further starts
the count anew. What is read in parts is of one version, by the ETag or else the date that the server tells.
"""

import contextlib
import functools
import os
import random
import re
import threading
import time
from collections.abc import Generator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from lm.errors import InputError, network_reason
from lm.storage.objects import Object, ReplacedError, StorageError, settings

if TYPE_CHECKING:
    from requests import Response, Session

PIECE = 1 << 18
"""Bytes read at once at most; what has come is kept even when less has."""
PROGRESS_BYTES = 1 << 20
"""Bytes that a try must bring to count as one that brought the file further."""
CONNECT_SECONDS = 30.0
LONGEST_WAIT = 3600.0
"""Seconds that a server may ask for (Retry-After) before the run ends instead of sleeping."""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 60.0
SLOWEST = 20
"""Stalls' worth of seconds that one request of a few megabytes may take, however it trickles."""
SKIPPED_BYTES = 64 << 20
"""Of a server that knows no ranges, bytes that are read and thrown away to come to those that are wanted."""
CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
LATER = frozenset({403, 408, 425, 429, 500, 502, 503, 504})
"""Answers that may be others later. 403 is among them since content networks answer so to too many requests."""


class NotThereError(InputError):
    """The server knows no such file."""


class RefusedError(InputError):
    """The server does not do what it was asked for, and will not."""


class TryAgainError(Exception):
    """This try failed, the next may not. `pause` is what the server asks for, in seconds; `refused`: it may be for
    good, as to HEAD where an address is signed for GET."""

    def __init__(self, reason: str, pause: float | None = None, refused: bool = False):
        super().__init__(reason)
        self.pause, self.refused = pause, refused


class OutOfRangeError(TryAgainError):
    """The server's file ends before the bytes that were asked for."""


@dataclass(frozen=True)
class RetryPolicy:
    """How long requests for one file go on; times in seconds."""

    tries: int
    """In a row that bring it no further."""
    first_pause: float
    """Doubled after each try."""
    longest_pause: float
    stall: float
    """Without a byte, after which a connection is given up."""


@dataclass(frozen=True)
class Version:
    """What a server tells of a file to know it again; None where it does not tell."""

    length: int | None
    etag: str | None
    modified: str | None


class Tries:
    """Tries of one file, counted anew whenever one has brought it further."""

    def __init__(self, policy: RetryPolicy):
        self.policy, self.furthest, self.failures = policy, 0, 0

    def pause_after(self, error: TryAgainError, got: int) -> float | None:
        """Seconds to wait before the next try, `got` bytes being here; None where there have been too many."""
        self.failures = 0 if got >= self.furthest + PROGRESS_BYTES else self.failures + 1
        self.furthest = max(self.furthest, got)
        if self.failures >= self.policy.tries:
            return None
        own = min(self.policy.first_pause * 2 ** max(self.failures - 1, 0), self.policy.longest_pause)
        return max(own, error.pause or 0)


@contextlib.contextmanager
def answer(
    session: "Session", url: str, headers: dict[str, str], stall: float, later: frozenset[int] = LATER, **options: Any
) -> Generator["Response"]:
    """The answer to a request, its body not yet read. Every way in which it can fail becomes one of our errors:
    TryAgainError, NotThereError, InputError. `options` are those of requests."""
    import requests
    import urllib3

    agent = {"User-Agent": f"gristmill (python-requests/{requests.__version__})", "Accept-Encoding": "identity"}
    method = options.pop("method", "GET")
    timeout = (min(stall, CONNECT_SECONDS), stall)
    try:
        with session.request(method, url, headers=agent | headers, stream=True, timeout=timeout, **options) as response:
            refuse_status(url, response, later)
            yield response
    except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema, requests.TooManyRedirects) as error:
        raise InputError(f"{url} cannot be asked for: {network_reason(error)}. Correct the address.") from error
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
    from http.client import IncompleteRead  # with TLS, .02 s of the start of all who never ask a server

    innermost = error
    while isinstance(inner := innermost.__cause__ or innermost.__context__, Exception):
        innermost = inner
    if isinstance(innermost, IncompleteRead):
        missing = f"{innermost.expected:,} bytes" if isinstance(innermost.expected, int) else "some bytes"
        return f"the connection ended {missing} too early"
    return network_reason(error)


def refuse_status(url: str, response: "Response", later: frozenset[int]) -> None:
    status = f"{response.status_code} {response.reason}"
    if response.status_code in (200, 206):
        return
    if response.status_code in (404, 410):
        raise NotThereError(f"The server has no file {url} ({status}).")
    if response.status_code == 416:
        raise OutOfRangeError(f"the server has no bytes from where the part ends ({status})")
    if response.status_code not in later:
        raise RefusedError(f"{url} is refused: {status}. Check the address, and whether it or a proxy wants a login.")
    pause = seconds_asked(response.headers.get("Retry-After"), response.headers.get("Date"))
    if pause is not None and pause > LONGEST_WAIT:
        raise InputError(
            f"{url}: {status}, and the server asks to come back in {pause / 3600:.1f} hours. What has come is kept: "
            "give the same command then."
        )
    raise TryAgainError(status, pause, refused=response.status_code == 403)


def seconds_asked(retry_after: str | None, date: str | None) -> float | None:
    """Of a Retry-After header: a number of seconds, or a date, counted from the server's own clock."""
    if retry_after is None:
        return None
    from email.utils import parsedate_to_datetime

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


class How(NamedTuple):
    """What differs from server to server."""

    auth: Any = None
    """As requests takes it; it is not sent to another host that a request is led to."""
    later: frozenset[int] = LATER
    linked: bool = False
    """Of the hub: the version is told by the answer that leads to the file (X-Linked-Etag), whose own server tells
    another."""
    remedy: str = ""
    """Said besides where a request is refused."""


PLAIN = How()


@functools.cache
def session_of(process: int) -> "Session":
    """One for all threads of a process: its connections are used again."""
    import requests
    from requests.adapters import HTTPAdapter

    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(pool_connections=16, pool_maxsize=32))
    return session


QUIET: dict[str, float] = {}
"""{host: until when, on time.monotonic's clock, it asked to be left alone}: all threads of the process obey."""
LOCK = threading.Lock()


def pause(host: str, seconds: float, everybody: bool) -> None:
    with LOCK:
        if everybody:
            QUIET[host] = max(QUIET.get(host, 0.0), time.monotonic() + seconds)
    # Of many workers that failed together, not all come back together.
    time.sleep(seconds if everybody else seconds * random.uniform(0.5, 1.0))


def keep_quiet(host: str) -> None:
    while (left := QUIET.get(host, 0.0) - time.monotonic()) > 0:
        time.sleep(left)


def policy() -> RetryPolicy:
    """By the variables of lm.storage.objects.settings."""
    limits = settings()
    return RetryPolicy(limits.retries + 1, FIRST_PAUSE, LONGEST_PAUSE, limits.timeout)


def head(url: str, how: How = PLAIN) -> Object | None:
    """What the server says of a file: its size, and its ETag, else its date, in place of an ETag. None where there is
    no such file. Raises StorageError, also where no size is told."""
    got = bytearray()
    try:
        object = request(url, 0, 0, None, how, got)
    except FileNotFoundError:
        return None
    if object.size < 0:
        raise StorageError(f"{url}: the server does not tell how long it is. Bring it to a disk first.")
    return object


def read(url: str, start: int, end: int | None, version: Object | None = None, how: How = PLAIN) -> bytes:
    """Bytes `start` to `end` (None: all from there), fewer where the file ends; of that `version`, if given.

    Raises FileNotFoundError where there is no such file, StorageError where it is another version, or cannot be had.
    """
    got = bytearray()
    if end is None or end > start:
        request(url, start, end, version, how, got)
    return bytes(got)


def request(url: str, start: int, end: int | None, version: Object | None, how: How, got: bytearray) -> Object:
    """Tries until all is in `got`; what the server says of the file."""
    host, tries = url.split("/")[2], Tries(policy())
    while True:
        keep_quiet(host)
        try:
            return attempt(url, start, end, version, how, got)
        except NotThereError as error:
            raise FileNotFoundError(2, "No such file on the server", url) from error
        except StorageError:
            raise
        except InputError as error:
            raise StorageError(" ".join([str(error), how.remedy]).rstrip()) from error
        except TryAgainError as error:
            wait = tries.pause_after(error, len(got))
            if wait is None:
                raise StorageError(
                    f"{url} cannot be read: {error}. Tried {tries.policy.tries} times in a row that brought it no "
                    "further. Check the network, and whether a proxy is needed (HTTPS_PROXY) or in the way (NO_PROXY)."
                ) from error
            pause(host, wait, everybody=error.pause is not None)


def look(url: str, how: How) -> Object:
    """What the server says of a file: by its head; where it refuses that or tells no length, by the answer to a request
    for the first byte; where there is none or ranges are unknown, for all. No body is read. Raises as `answer`."""
    stall, found = policy().stall, Object(-1, "")
    for method, headers in (("HEAD", {}), ("GET", {"Range": "bytes=0-0"}), ("GET", {})):
        options = {"auth": how.auth, "allow_redirects": True, "method": method}
        try:
            with answer(session_of(os.getpid()), url, headers, stall, how.later, **options) as response:
                found = object_of(response, how)
        except OutOfRangeError:
            continue
        except (RefusedError, TryAgainError) as error:
            if method == "GET" or (isinstance(error, TryAgainError) and not error.refused):
                raise
        if found.size >= 0:
            break
    return found


def attempt(url: str, start: int, end: int | None, version: Object | None, how: How, got: bytearray) -> Object:
    """One request; what it brings is appended to `got`. Of no bytes at all, what the server says of the file."""
    if end is not None and end <= start:
        return look(url, how)
    begin = start + len(got)
    headers = {} if begin == 0 and end is None else {"Range": f"bytes={begin}-{'' if end is None else end - 1}"}
    if version and version.etag and "Range" in headers and not how.linked and not version.etag.startswith("W/"):
        headers["If-Range"] = version.etag
    limits = policy()
    options = {"auth": how.auth, "allow_redirects": True}
    try:
        with answer(session_of(os.getpid()), url, headers, limits.stall, how.later, **options) as response:
            found = object_of(response, how)
            if version is not None and differs(version, found):
                if still_there(url, version, how):  # an error page of a proxy or a login, called a success
                    raise TryAgainError("an answer was of something else, though the file is still the same")
                raise ReplacedError(f"{url} was replaced while it was read. Run it again.")
            length = version_of(response).length
            if None is not length != found.size:  # of the hub, whose storage is another server
                raise TryAgainError(f"an answer was of a file of {length:,} bytes, not of {found.size:,}")
            receive(response, begin, end, found, got, limits.stall)
            return found
    except OutOfRangeError:
        if version is not None and begin < version.size and not still_there(url, version, how):
            raise ReplacedError(f"{url} was replaced while it was read. Run it again.") from None
        if version is not None and begin < version.size:
            raise
        return version or Object(begin, "")


def still_there(url: str, version: Object, how: How) -> bool:
    """Whether the server, asked again, tells of the same version; or does not tell."""
    try:
        # Of the hub by its first byte: the address that it leads to may be signed for GET only.
        return not differs(version, attempt(url, 0, int(how.linked), None, how, bytearray()))
    except TryAgainError:
        return True
    except NotThereError:
        return False


def object_of(response: "Response", how: How) -> Object:
    """Size (-1: not told) and ETag, else the date; of the hub, what it says of what it leads to."""
    told = version_of(response)
    if how.linked:
        for one in [*response.history, response]:
            if etag := one.headers.get("X-Linked-Etag"):
                size = one.headers.get("X-Linked-Size", told.length)
                return Object(-1 if size is None else int(size), etag.removeprefix("W/").strip('"'))
        return Object(-1 if told.length is None else told.length, (told.etag or "").removeprefix("W/").strip('"'))
    return Object(-1 if told.length is None else told.length, told.etag or told.modified or "")


def differs(version: Object, found: Object) -> bool:
    """Whether an answer is of another version, by all that it tells."""
    return bool(version.etag and found.etag and version.etag != found.etag) or (
        found.size >= 0 and version.size != found.size
    )


def receive(response: "Response", begin: int, end: int | None, found: Object, got: bytearray, stall: float) -> None:
    """Appends the bytes from `begin` to `end`. Raises TryAgainError when they are too few, or others than asked for."""
    skip = 0
    if response.status_code == 206:
        told = CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
        if not told or int(told[1]) != begin:
            raise TryAgainError(f"the server sent {response.headers.get('Content-Range')!r}, not what was asked for")
    else:
        skip = begin  # it knows no ranges
        if skip > SKIPPED_BYTES:
            raise StorageError(
                f"{response.url}: the server sends no ranges, so a file that long cannot be read where it is. Bring it "
                "to a disk first."
            )
    stop = found.size if end is None else min(end, found.size) if found.size >= 0 else end
    wanted = None if stop is None or stop < 0 else stop - begin
    size, deadline = len(got), time.monotonic() + SLOWEST * stall
    while (wanted is None or len(got) - size < wanted) and (piece := response.raw.read1(PIECE, decode_content=False)):
        skipped = min(skip, len(piece))
        skip -= skipped
        got += memoryview(piece)[skipped : None if wanted is None else skipped + wanted - (len(got) - size)]
        if time.monotonic() > deadline:
            raise TryAgainError(f"only {len(got) - size:,} bytes came in {SLOWEST * stall:g} s")
    if wanted is not None and len(got) - size < wanted:
        raise TryAgainError(f"the connection ended {wanted - (len(got) - size):,} bytes too early")
