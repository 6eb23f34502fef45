"""Requests to object stores and web servers, by obstore (Rust's object_store): Amazon S3 and other servers of its
protocol (s3://), Google Cloud Storage (gs://), and any HTTP server, which is only read (https://, http://).

Uploads are atomic: an object appears when its only request, or the last of a multipart upload, has succeeded. obstore
retries transient failures (5xx, 429, timeouts, broken connections) with exponential backoff; `retried` repeats what
obstore does not. Then StorageError names the object, the cause and the remedy.

Credentials come from the variables AWS_* and GOOGLE_*, the role of a machine or pod, or gcloud's application default
credentials. AWS_ENDPOINT_URL and GOOGLE_BASE_URL name other servers of the same protocols.
"""

import bisect
import contextlib
import functools
import itertools
import os
import random
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

from lm.errors import InputError, UsageError, shown

SCHEMES, WEB = ("s3", "gs"), ("https", "http")
CHUNK = 16 * 2**20
"""Bytes per request of a large object."""
PARTS = 5_000
"""Maximum parts of an upload; S3 allows 10,000."""
THREADS = 8
"""Concurrent requests for one large object, or for many small ones."""
ROUNDS = 4
"""Attempts of a request; in each, obstore itself retries several times."""
ROUND_SECONDS = 2.0
"""Mean pause after the first attempt, then four times as long each; none if no retries are wanted."""
PIECE = 1 << 20
"""Bytes per read from a connection."""
SLOWEST = 20
"""Maximum duration of one request, in multiples of the timeout, even if bytes keep arriving slowly."""
SKIPPED_BYTES = 64 << 20
"""Maximum bytes that are read and discarded before the requested ones, if a server does not support ranges."""
MOST_OBJECTS = 5_000_000
"""Maximum objects in a listing, which takes 270 bytes of memory per object."""
MOST_BYTES = 2**46
"""Maximum size of an object in bytes: 70 TB. Stores allow at most 50 TB."""
PAGE_SECONDS = 600.0
"""Maximum seconds in which a listing must name an object or end."""
NO_NAME = re.compile("[\\0-\\x1f\\x7f\\ud800-\\udfff]|//")
"""Matches names that no file on a disk can have, or that a terminal would obey."""
HADOOP_MARKER = "_$folder$"
"""Suffix of the empty objects with which Hadoop marks folders."""


class StorageError(InputError):
    """A storage request failed; the message names the object, the cause and the remedy."""


class ReplacedError(StorageError):
    """An object changed, or was deleted, while it was read."""


class Object(NamedTuple):
    """Metadata of an object in a store, of a file on the hub or on a web server."""

    size: int
    """Size of its contents in bytes."""
    etag: str
    """Changes whenever the contents change; "" if the server does not report one."""
    version: str | None = None
    """Version ID, such as Google's generation number, if the store reports one."""

    @classmethod
    def of(cls, metadata: Any, size: int | None = None) -> "Object":
        """Convert obstore's metadata. Give the `size` for the metadata of an upload, which lacks it. Without an ETag,
        the modification date takes its place."""
        date = metadata.get("last_modified")
        etag = metadata["e_tag"] or (date.isoformat() if date and date.timestamp() else "")
        return cls(metadata["size"] if size is None else size, etag, metadata["version"])

    def differs(self, found: "Object") -> bool:
        """Return whether the size or ETag of `found` is another. An ETag that is not reported is not compared."""
        plain = lambda one: one.etag.removeprefix("W/").strip('"')
        return self.size != found.size or bool(self.etag and found.etag and plain(self) != plain(found))


def setting(name: str, default: float, least: float) -> float:
    """Return the number in an environment variable. Raises UsageError for a value that is not a number from `least` to
    86,400."""
    given = os.environ.get(name) or str(default)
    with contextlib.suppress(ValueError):
        if least <= float(given) <= 86_400:
            return float(given)
    raise UsageError(f"{name} is {given!r}; give a number from {least:g} to 86,400, or unset it.")


def timeout() -> float:
    """Return the maximum seconds without a byte."""
    return setting("GRISTMILL_STORAGE_TIMEOUT", 60, 0.1)


def retries() -> int:
    """Return the number of retries of a failed request in each of ROUNDS rounds."""
    return int(setting("GRISTMILL_STORAGE_RETRIES", 8, 0))


def split(address: str) -> tuple[str, str, str]:
    """Return (scheme, bucket or host, key) of an address such as s3://bucket/a/key."""
    scheme, _, rest = address.partition("://")
    bucket, _, key = rest.partition("/")
    return scheme, bucket, key


@functools.lru_cache(64)
def store(root: str, token: str = "") -> Any:
    """Return obstore's client of the bucket or web server at `root`, such as s3://bucket. It cannot be used after a
    fork. `token` is sent to the server, but not to another host after a redirect."""
    from obstore.store import HTTPStore, from_url

    scheme, seconds = split(root)[0], timeout()
    named = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT") if scheme == "s3" else ("GOOGLE_BASE_URL",)
    server = root if scheme in WEB else next((os.environ[name] for name in named if os.environ.get(name)), "")
    backoff: Any = {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=15), "base": 2}
    client: Any = {
        "read_timeout": timedelta(seconds=seconds),
        "timeout": timedelta(seconds=SLOWEST * seconds),
        "connect_timeout": timedelta(seconds=min(seconds, 10.0)),
        "allow_http": server.startswith("http://"),
        "user_agent": "gristmill",
    }
    if token:
        client["default_headers"] = {"Authorization": f"Bearer {token}"}
    if certificates := os.environ.get("REQUESTS_CA_BUNDLE"):
        client["root_certificate"] = Path(certificates).read_bytes()
    retry: Any = {"max_retries": retries(), "retry_timeout": timedelta(minutes=3), "backoff": backoff}
    return (HTTPStore if scheme in WEB else from_url)(root, client_options=client, retry_config=retry)


def located(address: str) -> tuple[str, str]:
    """Return (root for `store`, key) of an address."""
    scheme, bucket, key = split(address)
    path, mark, query = key.partition("?") if scheme in WEB else (key, "", "")
    if "%2f" in path.lower():  # obstore would write it as a slash
        return address, ""
    return f"{scheme}://{bucket}" + f"/{mark}{query}" * bool(mark), unquote(path) if scheme in WEB else key


def asked[T](address: str, verb: str, request: Callable[[Any, str], T], url: str = "", token: str = "") -> T:
    """Return `request(store, key)` for the object at `url`, by default `address`; see `retried` for the rest. Raises
    StorageError also for invalid credentials."""
    root, key = located(url or address)
    try:
        client = store(root, token)
    except InputError:
        raise
    except Exception as error:  # malformed AWS_* variables, for example
        wrong = "address, or REQUESTS_CA_BUNDLE" if split(address)[0] in WEB else "AWS_* or GOOGLE_* variables"
        raise StorageError(f"{address} cannot be reached: {first_line(error)}. Correct the {wrong}.") from error
    return retried(address, verb, lambda: request(client, key))


def retried[T](address: str, verb: str, request: Callable[[], T]) -> T:
    """Return `request()`, retrying transient errors; `verb`, such as "read", and `address` are for messages. Raises
    FileNotFoundError if the object does not exist, obstore's AlreadyExistsError and PreconditionError if a condition of
    the request is not met, and StorageError for everything else."""
    from obstore import exceptions

    scheme, bucket, _ = split(address)
    pause = min(ROUND_SECONDS, retries())
    for number in range(ROUNDS):
        last = number == ROUNDS - 1
        try:
            return request()
        except (exceptions.AlreadyExistsError, exceptions.PreconditionError):
            raise
        except FileNotFoundError as error:
            if "NoSuchBucket" in str(error):
                raise StorageError(f"{address} cannot be {verb}: {no_bucket(scheme, bucket)}") from error
            # Of an upload whose parts were joined, but whose answer was lost, the next try finds no parts.
            if verb != "written" or last:
                raise FileNotFoundError(2, "No such object", address) from error
        except (exceptions.BaseError, OSError, ValueError) as error:  # the last, for names that no object can have
            if "status code: 410" in str(error):
                raise FileNotFoundError(2, "No such object", address) from error
            if last or not may_pass(error, scheme):
                raise StorageError(f"{address} cannot be {verb}: {cause(error, scheme, bucket)}") from error
        time.sleep(random.uniform(0.5, 1.5) * pause * 4**number)
    raise AssertionError("the last round returns or raises")


def no_bucket(scheme: str, bucket: str) -> str:
    return f"there is no bucket {bucket}. Create it, or correct the name in {scheme}://{bucket}."


def may_pass(error: Exception, scheme: str) -> bool:
    """Return whether a later attempt may succeed: the server failed or was not reached, but did not refuse."""
    from obstore import exceptions

    text = str(error)
    if scheme in WEB and "status code: 403" in text:  # content networks return it for too many requests
        return True
    refusals = (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError, exceptions.NotSupportedError)
    status = re.search(r"status(?: code)?: ([34]\d\d)", text)
    refused = status is not None and status[1] not in ("408", "416", "425", "429")
    final = "error following redirect" in text or BAD_CERTIFICATE in text
    return not isinstance(error, refusals) and not refused and not (NO_KEYS.search(text) or is_name(error) or final)


def is_name(error: Exception) -> bool:
    """Return whether the error is due to the object's name."""
    return isinstance(error, ValueError) or "invalid path" in str(error)


NO_KEYS = re.compile("redential|token request|/latest/(api/token|meta-data)|InvalidAccessKeyId|SignatureDoesNotMatch")
"""Matches errors of missing or wrong credentials, also from a machine's metadata server, which is asked last."""
BAD_CERTIFICATE = "InvalidCertificate"


def cause(error: Exception, scheme: str, bucket: str) -> str:
    """Return the cause of a failed request and the remedy, as sentences."""
    from obstore import exceptions

    text = str(error)
    keys, unread = "GOOGLE_APPLICATION_CREDENTIALS", ""
    if scheme == "s3":
        keys, unread = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY", "; ~/.aws is not read"
    if "NoSuchBucket" in text:
        return no_bucket(scheme, bucket)
    if BAD_CERTIFICATE in text:
        return (
            "the server's certificate is not trusted. If you trust the server, set REQUESTS_CA_BUNDLE to the path of a "
            "PEM file with the certificate of its CA."
        )
    denied = isinstance(error, exceptions.PermissionDeniedError | exceptions.UnauthenticatedError)
    if scheme not in SCHEMES and not is_name(error) and (denied or not may_pass(error, scheme)):
        return f"{first_line(error)}. Check the address, and whether the server or a proxy requires a login."
    if denied or NO_KEYS.search(text):
        return f"{first_line(error)}. Give credentials with access ({keys}, or a role of the machine{unread})."
    if is_name(error):
        return f"{first_line(error)}. Give the file or object another name."
    if "redirect" in text.lower():
        return f"{first_line(error)}. Is the bucket in another region? Set AWS_REGION."
    if isinstance(error, OSError) and error.strerror:  # of a file that is read or written here
        return f"{error.strerror} ({error.filename}). Free space on the disk, or fix the permissions."
    return (
        f"{first_line(error)}. Tried {ROUNDS * (retries() + 1)} times. Check the store and the network, and "
        "whether a proxy is needed (HTTPS_PROXY) or in the way (NO_PROXY); then run the command again: finished work "
        "is kept."
    )


def first_line(error: Exception) -> str:
    """Return obstore's message without its debug output, with S3's error code or the system's reason if there is
    one."""
    text, _, debug = str(error).partition("Debug source:")
    text = re.sub(
        r"^.*?Error performing .*? - (Server returned non-2xx status code: )?", "", " ".join(text[:4000].split())
    )
    code = re.search(r"<Code>(\w+)</Code>", text)
    reasons = re.findall(r'(?:message|error): "([^"]+)"', debug) if "error sending request" in text else []
    text = reasons[-1].lower() if reasons else text.partition(": <")[0] + (f": {code[1]}" if code else "")
    return text[:400].rstrip(".: ")


def head(address: str, url: str = "", token: str = "") -> Object | None:
    """Return the metadata of the object; None if it does not exist. Web servers are sent a GET of the first byte,
    because some do not support HEAD. Raises StorageError if it does not report the size."""
    import obstore
    from obstore.exceptions import BaseError

    web = split(address)[0] not in SCHEMES

    def look(client: Any, key: str) -> Object:
        if not web:
            return Object.of(obstore.head(client, key))
        with contextlib.suppress(BaseError):  # of an empty file, or a server without ranges
            return Object.of(obstore.get(client, key, options={"range": (0, 1)}).meta)
        try:
            return Object.of(obstore.get(client, key).meta)
        except BaseError as error:
            if "Content-Length" not in str(error):
                raise
            raise StorageError(
                f"{address}: the server does not report the size of the file. Download it first."
            ) from error

    try:
        return possible(address, asked(address, "read", look, url, token))
    except FileNotFoundError:
        return None


def read(
    address: str, start: int = 0, end: int | None = None, version: Object | None = None, url: str = "", token: str = ""
) -> bytes:
    """Return bytes [start, end) of the object, by default all. Raises ReplacedError if it is no longer `version`.

    After a failure, the bytes that came are kept and only the others requested, all of one version. `url` is the
    address that is requested, by default `address`, and `token` is sent there."""
    import obstore
    from obstore.exceptions import GenericError, NotSupportedError, PreconditionError

    if end is not None and end <= start:
        return b""
    is_bucket, got, held = split(address)[0] in SCHEMES, bytearray(), [version] if version else []

    def check(why: str) -> None:
        """Raise ReplacedError if the object was replaced, else OSError: an answer was an error page, for example."""
        if held and (now := head(address, url, token)) != held[0]:
            if now is None:
                raise FileNotFoundError(2, "No such object", address)
            if held[0].differs(now):
                raise replaced(address)
        raise OSError(why)

    def bring(client: Any, key: str) -> None:
        begin = start + len(got)
        options: Any = {"range": (begin, end) if end is not None else {"offset": begin}} if begin or end else {}
        if is_bucket and held and held[0].etag:
            options["if_match"] = held[0].etag
        skip = 0
        try:
            answer = obstore.get(client, key, options=options)
        except NotSupportedError as error:
            if begin > SKIPPED_BYTES:
                raise StorageError(
                    f"{address}: the server does not support ranges, so a file of this size cannot be read there. "
                    "Download it first."
                ) from error
            answer, skip = obstore.get(client, key), begin
        except GenericError as error:
            if is_bucket or "status code: 416" not in str(error):
                raise
            if not held:
                return
            check(first_line(error))
        found = Object.of(answer.meta)
        if held and held[0].differs(found):
            check("a response was of another file, although the file has not changed")
        held[:] = held or [found]
        left = max(min(found.size, found.size if end is None else end) - begin, 0)
        for piece in answer.stream(min_chunk_size=PIECE):
            new = memoryview(piece)[skip : skip + left]
            got.extend(new)
            skip, left = max(skip - len(piece), 0), left - len(new)
            if not left:
                return
        if left:
            raise OSError(f"the connection ended {left:,} bytes too early")

    try:
        asked(address, "read", bring, url, token)
    except PreconditionError as error:
        raise replaced(address) from error
    return bytes(got)


def replaced(address: str) -> ReplacedError:
    return ReplacedError(f"{address} was replaced while it was read. Run the command again.")


ABSENT = Object(0, "")
"""Value of `instead_of` in `upload`: the object must not exist yet."""


def upload(source: Path | bytes, address: str, instead_of: Object | None = None) -> Object:
    """Write the contents of a file, or bytes, atomically; return the object's metadata. `instead_of` is the version
    that the object must have now, or ABSENT if there must be none. Otherwise raises obstore's PreconditionError or
    AlreadyExistsError."""
    import obstore

    size = source.stat().st_size if isinstance(source, Path) else len(source)
    options: dict[str, Any] = {"chunk_size": max(CHUNK, -(-size // PARTS)), "max_concurrency": THREADS}
    if isinstance(source, bytes):
        options["use_multipart"] = False  # conditions need a single request
    if instead_of is not None:
        version = {"e_tag": instead_of.etag} | ({"version": instead_of.version} if instead_of.version else {})
        options["mode"] = version if instead_of.etag else "create"
    put = lambda client, key: obstore.put(client, key, source, **options)
    return Object.of(asked(address, "written", put), size)


def rename(address: str, target: str) -> None:
    """Copy an object to `target`, an address in the same bucket, and delete the original."""
    import obstore

    _, _, source = split(address)
    asked(target, "written", lambda client, key: obstore.rename(client, source, key))


def possible(address: str, found: Object) -> Object:
    """Return `found`, the metadata of the object at `address`. Raises StorageError if no object can have its size."""
    if not isinstance(found.size, int) or not 0 <= found.size <= MOST_BYTES:
        raise StorageError(
            f"{address} is {shown(found.size)} bytes, says the server, but an object has at most {MOST_BYTES:,}. "
            "Delete the object, or give an address on another server."
        )
    return found


def bounded(address: str, entries: Iterable[tuple[str, Object]]) -> dict[str, Object]:
    """Return a listing {name: metadata}, sorted, without the address itself. Raises StorageError if there are over
    MOST_OBJECTS entries, for a name that no file can have, and for an impossible size."""
    found: dict[str, Object] = {}
    for count, (name, one) in enumerate(entries, 1):
        if count > MOST_OBJECTS:
            raise StorageError(
                f"{address} cannot be listed: there are over {MOST_OBJECTS:,} objects, such as {shown(name)}, or the "
                "server's list does not end. Give the address of a folder with fewer objects."
            )
        if name and (not {"", ".", ".."}.isdisjoint(name.split("/")) or NO_NAME.search(name)):
            raise StorageError(
                f"{address} cannot be listed: it has an object {shown(name)}, which no file can be named. Delete or "
                "rename this object."
            )
        if name and (one.size or name not in found):  # a folder marker may be listed under the name of an object
            found[name] = possible(f"{address}/{name}", one)
    return dict(sorted(found.items()))


def begun[T](bring: Callable[[], T]) -> Future[T]:
    """Call `bring` in a daemon thread; return its result as a Future."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(bring())
        except BaseException as error:
            future.set_exception(error)

    # A daemon: a server that does not answer must not keep the process from ending.
    threading.Thread(target=run, name="storage", daemon=True).start()
    return future


def in_time[T](address: str, pages: Iterable[T]) -> Iterator[T]:
    """Yield the pages of a listing. Raises StorageError if one takes over PAGE_SECONDS: a server may send empty pages
    without end, which its client does not pass on."""
    iterator = iter(pages)
    while True:
        future = begun(lambda: next(iterator, None))
        if not wait([future], PAGE_SECONDS).done:
            raise StorageError(
                f"{address} cannot be listed: for {PAGE_SECONDS:g} s, the server named no object. Give the address of "
                "a folder with fewer objects, or of another server."
            )
        if (page := future.result()) is None:
            return
        yield page


def listing(address: str) -> dict[str, Object]:
    """Return {key relative to the address: metadata}, sorted, of all objects whose keys begin with the address + "/",
    but no folder markers: the empty objects `a/` or `a_$folder$` that consoles, s3fs and Hadoop create."""
    import obstore

    prefix = split(address)[2].rstrip("/")
    begin = len(prefix) + 1 if prefix else 0

    def pages(client: Any, key: str) -> dict[str, Object]:
        every = in_time(address, obstore.list(client, prefix or None, chunk_size=1000))
        return bounded(address, ((one["path"][begin:], Object.of(one)) for page in every for one in page))

    found = asked(address, "listed", pages)
    names, empty = list(found), [name for name, one in found.items() if not one.size]
    after = lambda name: names[bisect.bisect(names, f"{name}/") :][:1]
    is_folder = lambda name: after(name) and after(name)[0].startswith(f"{name}/")
    # obstore lists `a/` as "a": only a request for "a" tells it from an empty file.
    unclear = [name for name in empty if not name.endswith(HADOOP_MARKER) and not is_folder(name)]
    with ThreadPoolExecutor(THREADS) as pool:
        heads = pool.map(head, [f"{address.rstrip('/')}/{name}" for name in unclear])
        files = {name for name, one in zip(unclear, heads, strict=True) if one is not None}
    return {name: one for name, one in found.items() if one.size or name in files}


def children(address: str) -> dict[str, Object | None]:
    """Return {name: metadata, or None for a folder} of the direct children of the address, sorted."""
    import obstore

    prefix = split(address)[2].rstrip("/")

    def ask(client: Any, key: str) -> dict[str, Object | None]:
        (found,) = in_time(address, map(obstore.list_with_delimiter, [client], [prefix or None]))
        last = lambda path: path.rstrip("/").rpartition("/")[2]
        folders = {last(path): None for path in found["common_prefixes"]}
        files = ((last(one["path"]), Object.of(one)) for one in found["objects"] if one["path"] != prefix)
        real = {name: one for name, one in bounded(address, files).items() if not name.endswith(HADOOP_MARKER)}
        return real | folders

    return dict(sorted(asked(address, "listed", ask).items()))


def delete(addresses: Iterable[str]) -> None:
    """Delete objects, ignoring missing ones."""
    import obstore

    by_bucket: dict[tuple[str, str], list[str]] = {}
    for address in addresses:
        scheme, bucket, key = split(address)
        by_bucket.setdefault((scheme, bucket), []).append(key)
    for (scheme, bucket), keys in by_bucket.items():
        for some in itertools.batched(keys, 1000):
            with contextlib.suppress(FileNotFoundError):
                remove = lambda client, _, some=some: obstore.delete(client, list(some))
                asked(f"{scheme}://{bucket}/{some[0]}", "deleted", remove)


SETTINGS = (
    "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_SKIP_SIGNATURE",
    "AWS_VIRTUAL_HOSTED_STYLE_REQUEST", "AWS_REQUEST_PAYER", "AWS_REQUESTER_PAYS", "AWS_UNSIGNED_PAYLOAD",
    "AWS_CHECKSUM_ALGORITHM", "AWS_S3_EXPRESS", "AWS_CONDITIONAL_PUT", "AWS_COPY_IF_NOT_EXISTS", "AWS_DISABLE_TAGGING",
    "AWS_DISABLE_BULK_DELETE", "AWS_SERVER_SIDE_ENCRYPTION", "AWS_SSE_KMS_KEY_ID", "AWS_SSE_BUCKET_KEY_ENABLED",
    "GOOGLE_BASE_URL", "GOOGLE_SKIP_SIGNATURE", "HF_ENDPOINT", "GRISTMILL_STORAGE_TIMEOUT", "GRISTMILL_STORAGE_RETRIES",
)  # fmt: skip
"""Variables that are passed on to processes on other machines, if set. Files that a variable names, roles of a machine
or a pod, proxies and cache folders belong to each machine. So a driver without keys leaves the credentials to the
machines' own roles, which are renewed while a job runs."""
KEYS = (
    ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_TOKEN"),
    ("AWS_SSE_CUSTOMER_KEY_BASE64",),
    ("GOOGLE_SERVICE_ACCOUNT_KEY",),
    ("GOOGLE_BEARER_TOKEN",),
    ("HF_TOKEN",),
)
"""Secrets, never printed. All of a group are passed on if one is set, so that keys of two machines never mix."""


def environment_of_storage() -> dict[str, str | None]:
    """Return this process's variables for storage, as {name: value}, for `set_environment` in a process on another
    machine. A variable with value None must be unset there."""
    given = {name: os.environ[name] for name in SETTINGS if name in os.environ}
    groups = [group for group in KEYS if any(name in os.environ for name in group)]
    return given | {name: os.environ.get(name) for group in groups for name in group}


def set_environment(values: Mapping[str, str | None]) -> None:
    """Set environment variables, or unset those with value None. After a change, new clients of stores are created."""
    if all(os.environ.get(name) == value for name, value in values.items()):
        return
    for name, value in values.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value
    store.cache_clear()
