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
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from lm.errors import InputError, network_reason
from lm.storage.objects import Object, ReplacedError, StorageError, possible, settings

if TYPE_CHECKING:
    from requests import Response, Session

PIECE = 1 << 18
"""Maximum bytes per read from a connection."""
PROGRESS_BYTES = 1 << 20
"""Bytes that an attempt must receive to count as progress."""
CONNECT_SECONDS = 30.0
LONGEST_WAIT = 3600.0
"""Maximum seconds of Retry-After; for more, the command fails instead of sleeping."""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 60.0
SLOWEST = 20
"""Maximum duration of one request, in multiples of the timeout, even if bytes keep arriving slowly."""
SKIPPED_BYTES = 64 << 20
"""Maximum bytes that are read and discarded before the requested ones, if a server does not support ranges."""
CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)", re.ASCII)
LATER = frozenset({403, 408, 425, 429, 500, 502, 503, 504})
"""Status codes to retry. 403 is included because content networks return it for too many requests."""


class RefusedError(InputError):
    """The server rejects the request permanently."""


class TryAgainError(Exception):
    """This attempt failed, but another may succeed. `pause`: the seconds that the server asks to wait. `refused`: the
    failure may be permanent, such as status 403 for HEAD on a URL that is signed for GET."""

    def __init__(self, reason: str, pause: float | None = None, refused: bool = False):
        super().__init__(reason)
        self.pause, self.refused = pause, refused


class OutOfRangeError(TryAgainError):
    """The file ends before the requested bytes."""


class RequestOptions(NamedTuple):
    """Options of requests that depend on the kind of server."""

    auth: Any = None
    """Argument `auth` of requests.request; not sent to another host after a redirect."""
    later: frozenset[int] = LATER
    """Status codes of temporary errors, which are retried."""
    linked: bool = False
    """Take size and ETag from the hub's redirect to the file (X-Linked-Size, X-Linked-Etag), because the file's own
    server reports another ETag."""
    remedy: str = ""
    """Remedy that is printed if the server rejects a request."""


PLAIN = RequestOptions()
QUIET: dict[str, float] = {}
"""{host: time.monotonic() before which the host asked for no requests}; all threads of the process wait."""
LOCK = threading.Lock()


@functools.cache
def session_of(process: int) -> "Session":
    """Return the requests.Session of the process with this id, shared by its threads to reuse connections."""
    import requests
    from requests.adapters import HTTPAdapter

    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(pool_connections=16, pool_maxsize=32))
    return session


def head(url: str, options: RequestOptions = PLAIN) -> Object | None:
    """Return the size of a file and its ETag, or its modification date if it has no ETag; None if there is no such
    file. Raises StorageError, also if the server does not report the size."""
    try:
        found = request(url, 0, 0, None, options, bytearray())
    except FileNotFoundError:
        return None
    if found.size < 0:
        raise StorageError(f"{url}: the server does not report the size of the file. Download it first.")
    return possible(url, found)


def read(
    url: str, start: int, end: int | None, version: Object | None = None, options: RequestOptions = PLAIN
) -> bytes:
    """Return bytes [start, end) of a file, fewer if it is shorter; `end` None means to its end. Raises
    FileNotFoundError if there is no such file, StorageError if it cannot be read or is no longer `version`."""
    got = bytearray()
    if end is None or end > start:
        request(url, start, end, version, options, got)
    return bytes(got)


def request(
    url: str, start: int, end: int | None, version: Object | None, options: RequestOptions, got: bytearray
) -> Object:
    """Append bytes [start, end) of a file to `got`; return the size and ETag that the server reports.

    A failed request is repeated from where it stopped. Raises FileNotFoundError if there is no such file. Raises
    StorageError after settings().retries + 1 failures in a row without progress, if the server rejects the request, or
    if the file is no longer `version`.
    """
    host, tries, furthest, failures = url.split("/")[2], settings().retries + 1, 0, 0
    while True:
        while (left := QUIET.get(host, 0.0) - time.monotonic()) > 0:
            time.sleep(left)
        try:
            return attempt(url, start, end, version, options, got)
        except StorageError:
            raise
        except InputError as error:
            raise StorageError(" ".join([str(error), options.remedy]).rstrip()) from error
        except TryAgainError as error:
            failures = 0 if len(got) >= furthest + PROGRESS_BYTES else failures + 1
            furthest = max(furthest, len(got))
            if failures >= tries:
                raise StorageError(
                    f"{url} cannot be read: {error}. Tried {tries} times in a row without progress. Check "
                    "the network, and whether a proxy is needed (HTTPS_PROXY) or in the way (NO_PROXY)."
                ) from error
            pause = min(FIRST_PAUSE * 2 ** max(failures - 1, 0), LONGEST_PAUSE)
            if error.pause is None:
                time.sleep(pause * random.uniform(0.5, 1.0))  # so that workers that failed together do not retry so
                continue
            pause = max(pause, error.pause)
            with LOCK:
                QUIET[host] = max(QUIET.get(host, 0.0), time.monotonic() + pause)


def attempt(
    url: str, start: int, end: int | None, version: Object | None, options: RequestOptions, got: bytearray
) -> Object:
    """Send one request for the bytes of [start, end) after those already in `got`; append the answer to `got`, and
    return the file's size and ETag. For an empty range, only get size and ETag. Raises TryAgainError if another attempt
    may succeed, else FileNotFoundError or InputError."""
    if end is not None and end <= start:
        return describe(url, options)
    begin = start + len(got)
    headers = {} if begin == 0 and end is None else {"Range": f"bytes={begin}-{'' if end is None else end - 1}"}
    if version and version.etag and "Range" in headers and not options.linked and not version.etag.startswith("W/"):
        headers["If-Range"] = version.etag
    try:
        with answer(url, options, headers) as response:
            found = object_of(response, options)
            if version is not None and differs(version, found):
                if still_there(url, version, options):  # an error page of a proxy, or a login page, with status 200
                    raise TryAgainError("a response was of another file, although the file has not changed")
                raise ReplacedError(f"{url} was replaced while it was read. Run the command again.")
            if 0 <= (length := length_of(response)) != found.size:  # on the hub, whose files are on another server
                raise TryAgainError(f"a response was of a file of {length:,} bytes instead of {found.size:,}")
            receive(response, begin, end, found, got)
            return found
    except OutOfRangeError:
        if version is None or begin >= version.size:
            return version or Object(begin, "")
        if not still_there(url, version, options):
            raise ReplacedError(f"{url} was replaced while it was read. Run the command again.") from None
        raise


def describe(url: str, options: RequestOptions) -> Object:
    """Return the size (-1 if not reported) and ETag of a file: by HEAD, else by a GET of the first byte, else by a GET
    of the whole file whose body is not read. Raises TryAgainError if another attempt may succeed, else
    FileNotFoundError or InputError."""
    found = Object(-1, "")
    for method, headers in (("HEAD", {}), ("GET", {"Range": "bytes=0-0"}), ("GET", {})):
        try:
            with answer(url, options, headers, method) as response:
                found = object_of(response, options)
        except OutOfRangeError:
            continue
        except (RefusedError, TryAgainError) as error:
            if method == "GET" or (isinstance(error, TryAgainError) and not error.refused):
                raise
        if found.size >= 0:
            break
    return found


def still_there(url: str, version: Object, options: RequestOptions) -> bool:
    """Send a new request; return whether the file still is `version`. True also if the server does not say."""
    try:
        # On the hub read the first byte: the redirect may be signed for GET only.
        return not differs(version, attempt(url, 0, int(options.linked), None, options, bytearray()))
    except TryAgainError:
        return True
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def answer(url: str, options: RequestOptions, headers: dict[str, str], method: str = "GET") -> Generator["Response"]:
    """Send a request and yield the response, its body not yet read. Every failure is raised as TryAgainError,
    FileNotFoundError or InputError."""
    import requests
    import urllib3

    agent = {"User-Agent": f"gristmill (python-requests/{requests.__version__})", "Accept-Encoding": "identity"}
    timeout = settings().timeout
    try:
        with session_of(os.getpid()).request(
            method, url, headers=agent | headers, stream=True, timeout=(min(timeout, CONNECT_SECONDS), timeout),
            auth=options.auth, allow_redirects=True,
        ) as response:  # fmt: skip
            check_status(url, response, options.later)
            yield response
    except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema, requests.TooManyRedirects) as error:
        raise InputError(f"{url} cannot be requested: {network_reason(error)}. Correct the address.") from error
    except requests.RequestException as error:
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            raise InputError(
                f"{url}: the server's certificate is not trusted. If you trust the server, set REQUESTS_CA_BUNDLE to "
                "the path of a PEM file with the certificate of its CA."
            ) from error
        raise TryAgainError(said(error)) from error
    except urllib3.exceptions.HTTPError as error:
        raise TryAgainError(said(error)) from error


def check_status(url: str, response: "Response", later: frozenset[int]) -> None:
    status = f"{response.status_code} {response.reason}"
    if response.status_code in (200, 206):
        return
    if response.status_code in (404, 410):
        raise FileNotFoundError(2, "No such file on the server", url)
    if response.status_code == 416:
        raise OutOfRangeError(f"the server has no bytes from where the part ends ({status})")
    if response.status_code not in later:
        raise RefusedError(
            f"{url} is refused: {status}. Check the address, and whether the server or a proxy requires a login."
        )
    pause = seconds_asked(response.headers.get("Retry-After"), response.headers.get("Date"))
    if pause is not None and pause > LONGEST_WAIT:
        raise InputError(
            f"{url}: {status}, and the server asks to retry in {pause / 3600:.1f} hours. Run the same command then; "
            "downloaded parts are kept."
        )
    raise TryAgainError(status, pause, refused=response.status_code == 403)


def said(error: Exception) -> str:
    """Return the message of an error of requests or urllib3, without its wrapper errors."""
    from http.client import IncompleteRead  # imports TLS: .02 s of startup time that most commands do not need

    innermost = error
    while isinstance(inner := innermost.__cause__ or innermost.__context__, Exception):
        innermost = inner
    if isinstance(innermost, IncompleteRead):
        missing = f"{innermost.expected:,} bytes" if isinstance(innermost.expected, int) else "some bytes"
        return f"the connection ended {missing} too early"
    return network_reason(error)


def seconds_asked(retry_after: str | None, date: str | None) -> float | None:
    """Return the seconds to wait by a Retry-After header, which is a number or a date; None if absent or invalid.
    `date` is the header Date: the server's clock."""
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


def length_of(response: "Response") -> int:
    """Return the length of the whole file in bytes, also by a response with only a range of it; -1 if not reported."""
    if response.status_code == 206:
        found = CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
        total = found[3] if found else "*"
    else:
        total = response.headers.get("Content-Length", "*").strip()
    return number_in(total)


def number_in(text: str) -> int:
    """Return the number of bytes in a header's value; -1 if it has none."""
    return int(text) if re.fullmatch("[0-9]{1,19}", text) else -1


def object_of(response: "Response", options: RequestOptions) -> Object:
    """Return the size (-1 if not reported) and the ETag, or else the modification date, in a response; with
    options.linked, those in the hub's redirect."""
    size, etag = length_of(response), response.headers.get("ETag")
    if not options.linked:
        return Object(size, etag or response.headers.get("Last-Modified") or "")
    plain = lambda etag: etag.removeprefix("W/").strip('"')
    for one in [*response.history, response]:
        if linked := one.headers.get("X-Linked-Etag"):
            return Object(number_in(one.headers.get("X-Linked-Size", str(size))), plain(linked))
    return Object(size, plain(etag or ""))


def differs(version: Object, found: Object) -> bool:
    """Return whether the size or ETag of `found` differs from `version`. Values not reported are not compared."""
    return bool(version.etag and found.etag and version.etag != found.etag) or (
        found.size >= 0 and version.size != found.size
    )


def receive(response: "Response", begin: int, end: int | None, found: Object, got: bytearray) -> None:
    """Append bytes [begin, end) of the file from the response to `got`. Raises TryAgainError if the server sends fewer
    or other bytes, or too slowly; StorageError if it cannot send ranges and `begin` is above SKIPPED_BYTES."""
    skip = 0
    if response.status_code == 206:
        sent = CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
        if not sent or int(sent[1]) != begin:
            raise TryAgainError(f"the server sent {response.headers.get('Content-Range')!r}, not the requested range")
    else:
        skip = begin  # the server does not support ranges
        if skip > SKIPPED_BYTES:
            raise StorageError(
                f"{response.url}: the server does not support ranges, so a file of this size cannot be read there. "
                "Download it first."
            )
    stop = found.size if end is None else min(end, found.size) if found.size >= 0 else end
    wanted = None if stop < 0 else stop - begin
    size, limit = len(got), SLOWEST * settings().timeout
    deadline = time.monotonic() + limit
    while (wanted is None or len(got) - size < wanted) and (piece := response.raw.read1(PIECE, decode_content=False)):
        skipped = min(skip, len(piece))
        skip -= skipped
        got += memoryview(piece)[skipped : None if wanted is None else skipped + wanted - (len(got) - size)]
        if time.monotonic() > deadline:
            raise TryAgainError(f"only {len(got) - size:,} bytes came in {limit:g} s")
    if wanted is not None and len(got) - size < wanted:
        raise TryAgainError(f"the connection ended {wanted - (len(got) - size):,} bytes too early")
