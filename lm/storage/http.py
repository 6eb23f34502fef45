"""HTTP requests: read one version of a file, completely or by ranges (RFC 9110, sections 13 and 14).

Transient errors (5xx, 429, 403 of a content network, timeouts, broken connections) are retried from where they broke
off, with growing pauses, and no sooner than the server asks (Retry-After); a try that makes progress resets the count.
All parts are of one version, identified by the ETag or else the modification date.
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
"""Maximum bytes per read; fewer are kept as they arrive."""
PROGRESS_BYTES = 1 << 20
"""Bytes that a try must receive to count as progress."""
CONNECT_SECONDS = 30.0
LONGEST_WAIT = 3600.0
"""Maximum seconds of Retry-After; beyond that the command fails instead of sleeping."""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 60.0
SLOWEST = 20
"""Maximum duration of one request of a few megabytes, in multiples of the stall timeout, however slowly bytes
arrive."""
SKIPPED_BYTES = 64 << 20
"""Maximum bytes that are read and discarded before the wanted ones, if a server does not support ranges."""
CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
LATER = frozenset({403, 408, 425, 429, 500, 502, 503, 504})
"""Status codes to retry. 403 is included because content networks return it for too many requests."""


class NotThereError(InputError):
    """The server has no such file."""


class RefusedError(InputError):
    """The server rejects the request permanently."""


class TryAgainError(Exception):
    """This try failed, but another may succeed. `pause` is the seconds that the server asks for; `refused`: it may be
    permanent, like HEAD on a URL that is signed for GET."""

    def __init__(self, reason: str, pause: float | None = None, refused: bool = False):
        super().__init__(reason)
        self.pause, self.refused = pause, refused


class OutOfRangeError(TryAgainError):
    """The file ends before the requested bytes."""


@dataclass(frozen=True)
class RetryPolicy:
    """Limits of retries for one file; times in seconds."""

    tries: int
    """Consecutive tries without progress."""
    first_pause: float
    """Doubled after each try."""
    longest_pause: float
    stall: float
    """Seconds without a byte after which a connection is closed."""


@dataclass(frozen=True)
class Version:
    """A server's description of a version of a file; None if absent."""

    length: int | None
    etag: str | None
    modified: str | None


class Tries:
    """Consecutive failed attempts to read one file; the count restarts when an attempt brings PROGRESS_BYTES more."""

    def __init__(self, policy: RetryPolicy):
        self.policy, self.furthest, self.failures = policy, 0, 0

    def pause_after(self, error: TryAgainError, got: int) -> float | None:
        """Seconds to wait before the next try, with `got` bytes received; None after too many tries."""
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
    """Send a request and yield the response, its body not yet read. All failures are raised as TryAgainError,
    NotThereError or another InputError. `options` are those of requests."""
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
    """Message of the innermost error, without wrappers."""
    from http.client import IncompleteRead  # imports TLS: .02 s of startup time that most commands do not need

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
    """Parse a Retry-After header: seconds, or a date, relative to the server's clock."""
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
    """Version in a response with the whole file or a range of it."""
    if response.status_code == 206:
        found = CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
        total = found[3] if found else "*"
    else:
        total = response.headers.get("Content-Length", "*").strip()
    length = int(total) if total.isascii() and total.isdigit() else None
    return Version(length, response.headers.get("ETag"), response.headers.get("Last-Modified"))


class How(NamedTuple):
    """Server-specific options."""

    auth: Any = None
    """Argument `auth` of requests; not sent to another host after a redirect."""
    later: frozenset[int] = LATER
    linked: bool = False
    """On the hub, the version is in the redirect to the file (X-Linked-Etag); the server of the file itself reports
    another one."""
    remedy: str = ""
    """Advice for rejected requests."""


PLAIN = How()


@functools.cache
def session_of(process: int) -> "Session":
    """Session shared by all threads of a process, to reuse connections."""
    import requests
    from requests.adapters import HTTPAdapter

    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(pool_connections=16, pool_maxsize=32))
    return session


QUIET: dict[str, float] = {}
"""{host: time.monotonic() until which it asked for no requests}; all threads of the process wait."""
LOCK = threading.Lock()


def pause(host: str, seconds: float, everybody: bool) -> None:
    with LOCK:
        if everybody:
            QUIET[host] = max(QUIET.get(host, 0.0), time.monotonic() + seconds)
    # Jitter, so that workers that failed together do not retry together.
    time.sleep(seconds if everybody else seconds * random.uniform(0.5, 1.0))


def keep_quiet(host: str) -> None:
    while (left := QUIET.get(host, 0.0) - time.monotonic()) > 0:
        time.sleep(left)


def policy() -> RetryPolicy:
    """Policy from the environment variables of lm.storage.objects.settings."""
    limits = settings()
    return RetryPolicy(limits.retries + 1, FIRST_PAUSE, LONGEST_PAUSE, limits.timeout)


def head(url: str, how: How = PLAIN) -> Object | None:
    """Return the size of a file and its ETag, or else its date as ETag. None if there is no such file. Raises
    StorageError, also if the server reports no size."""
    got = bytearray()
    try:
        object = request(url, 0, 0, None, how, got)
    except FileNotFoundError:
        return None
    if object.size < 0:
        raise StorageError(f"{url}: the server does not tell how long it is. Bring it to a disk first.")
    return object


def read(url: str, start: int, end: int | None, version: Object | None = None, how: How = PLAIN) -> bytes:
    """Read bytes `start` to `end` (None: to the end), fewer if the file ends before; of `version`, if given.

    Raises FileNotFoundError if there is no such file, StorageError if it is another version or cannot be read.
    """
    got = bytearray()
    if end is None or end > start:
        request(url, start, end, version, how, got)
    return bytes(got)


def request(url: str, start: int, end: int | None, version: Object | None, how: How, got: bytearray) -> Object:
    """Try until all bytes are in `got`; return the server's description of the file."""
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
    """Return the server's description of a file: by HEAD; if that is rejected or gives no length, by a GET of the first
    byte; if that is impossible, by a GET of the whole file. No body is read. Raises like `answer`."""
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
    """Send one request and append its bytes to `got`. For an empty range, only return the server's description of the
    file."""
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
                if still_there(url, version, how):  # an error page of a proxy, or a login page, with status 200
                    raise TryAgainError("an answer was of something else, though the file is still the same")
                raise ReplacedError(f"{url} was replaced while it was read. Run it again.")
            length = version_of(response).length
            if None is not length != found.size:  # on the hub, whose files are on another server
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
    """Ask the server again; whether it reports the same version, or no version."""
    try:
        # On the hub read the first byte: the redirect may be signed for GET only.
        return not differs(version, attempt(url, 0, int(how.linked), None, how, bytearray()))
    except TryAgainError:
        return True
    except NotThereError:
        return False


def object_of(response: "Response", how: How) -> Object:
    """Size (-1: unknown) and ETag, or else the date; on the hub, those of the linked file."""
    told = version_of(response)
    if how.linked:
        for one in [*response.history, response]:
            if etag := one.headers.get("X-Linked-Etag"):
                size = one.headers.get("X-Linked-Size", told.length)
                return Object(-1 if size is None else int(size), etag.removeprefix("W/").strip('"'))
        return Object(-1 if told.length is None else told.length, (told.etag or "").removeprefix("W/").strip('"'))
    return Object(-1 if told.length is None else told.length, told.etag or told.modified or "")


def differs(version: Object, found: Object) -> bool:
    """Whether a response is of another version, by all that it reports."""
    return bool(version.etag and found.etag and version.etag != found.etag) or (
        found.size >= 0 and version.size != found.size
    )


def receive(response: "Response", begin: int, end: int | None, found: Object, got: bytearray, stall: float) -> None:
    """Append the bytes from `begin` to `end`. Raises TryAgainError if they are too few, or not the requested ones."""
    skip = 0
    if response.status_code == 206:
        told = CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
        if not told or int(told[1]) != begin:
            raise TryAgainError(f"the server sent {response.headers.get('Content-Range')!r}, not what was asked for")
    else:
        skip = begin  # the server does not support ranges
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
