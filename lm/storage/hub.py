"""Files of Hugging Face's hub: hf://datasets/OWNER/NAME[@REVISION]/PATH, in huggingface_hub's syntax; without
`datasets/` for models.

Files are read by ranges, listed by the tree of the repository, and written atomically by commits. The token is
HF_TOKEN, or that of `hf auth login`; HF_ENDPOINT selects another hub.
"""

import contextlib
import functools
import itertools
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from lm.errors import UsageError, network_reason, shown
from lm.storage import objects
from lm.storage.objects import Object, StorageError, bounded, in_time, possible, timeout

if TYPE_CHECKING:
    from huggingface_hub import HfFileMetadata, HfUri

SERVER = "https://huggingface.co"
PASSING = {408, 409, 412, 425, 429, 500, 502, 503, 504}
"""Status codes of temporary errors; 409 and 412 mean a concurrent commit."""
SIGNED_SECONDS = 300
"""Seconds for which the signed address of a version of a file is used; the hub signs them for an hour."""
REMEDY = "Check the name; for a private or gated repository set HF_TOKEN to a token with access, and accept its terms."


def named(address: str) -> "HfUri":
    """Parse an hf:// URL. Raises UsageError if it names no repository."""
    from huggingface_hub import parse_hf_uri

    try:
        found = parse_hf_uri(address)
        if found.is_repo:
            return found
        reason = "a bucket of the hub cannot be read"
    except ValueError as error:
        reason = shown(str(error), quotes=False)
    raise UsageError(
        f"{shown(address)} is not a file on the hub: {reason}. Give hf://datasets/OWNER/NAME/PATH, or with a revision "
        "hf://datasets/OWNER/NAME@REVISION/PATH."
    )


def endpoint() -> str:
    return (os.environ.get("HF_ENDPOINT") or SERVER).rstrip("/")


def look(address: str) -> "HfFileMetadata":
    """Return huggingface_hub's metadata of a file: size, ETag, and its address, which may be on another server. Raises
    FileNotFoundError if it does not exist."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    def ask(api: Any, one: "HfUri") -> "HfFileMetadata":
        url = hf_hub_url(one.id, one.path_in_repo, repo_type=one.type, revision=one.revision, endpoint=api.endpoint)
        return get_hf_file_metadata(url, timeout=timeout(), endpoint=api.endpoint, retry_on_errors=True)

    return asked(address, "read", ask)


def head(address: str) -> Object | None:
    """Return the size and ETag of a file, None if it does not exist. The ETag is its SHA-256, or for a small file git's
    hash. Raises StorageError if the hub does not report the size, or cannot be read."""
    if not named(address).path_in_repo:
        return None
    try:
        found = look(address)
    except FileNotFoundError:
        return None
    if found.size is None:
        raise StorageError(f"{address}: the hub does not report the size of the file. Download it first.")
    return possible(address, Object(found.size, found.etag or ""))


@functools.lru_cache(64)
def signed(address: str, version: Object | None, server: str, period: int) -> "HfFileMetadata":
    """Return the metadata of `version` of a file, whose address has its contents even if the file is replaced. Raises
    ReplacedError if the file was replaced. `server` and `period` tell calls at other servers and times apart."""
    found = look(address)
    if version and version.differs(Object(version.size if found.size is None else found.size, found.etag or "")):
        raise objects.replaced(address)
    return found


def read(address: str, start: int = 0, end: int | None = None, version: Object | None = None) -> bytes:
    """Return bytes [start, end) of the file, fewer if it is shorter; `end` None means to its end. Raises
    FileNotFoundError if there is no such file, ReplacedError if it is no longer `version`."""
    from huggingface_hub import get_token

    find = signed if version else signed.__wrapped__
    found = find(address, version, endpoint(), int(time.monotonic() / SIGNED_SECONDS))
    is_hub = urlsplit(found.location)[:2] == urlsplit(endpoint())[:2]  # another server has another ETag, and no token
    held = Object(version.size, version.etag if is_hub else "") if version else None
    return objects.read(address, start, end, held, found.location, (is_hub and get_token()) or "")


def asked[T](address: str, verb: str, request: Callable[[Any, "HfUri"], T]) -> T:
    """Return `request(api, path)` for huggingface_hub's HfApi and the parsed `address`; `verb`, such as "read", is for
    messages. Raises FileNotFoundError if there is no such file or folder, StorageError for any other failure."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError

    api, one = HfApi(endpoint=endpoint(), library_name="gristmill"), named(address)

    def attempt() -> T:
        try:
            return request(api, one)
        except EntryNotFoundError as error:
            raise FileNotFoundError(2, "No such file or folder on the hub", address) from error
        except Exception as error:
            network = type(error).__module__.startswith("httpx")  # or httpx2, depending on the version
            if not network and not isinstance(error, HfHubHTTPError | OSError | ValueError):
                raise
            status = getattr(getattr(error, "response", None), "status_code", None)
            reason = f"{status} {str(error).strip().splitlines()[0]}" if status else network_reason(error)
            if status in PASSING or (network and status is None):
                raise ConnectionError(reason[:400]) from error
            raise StorageError(f"{address} cannot be {verb}: {reason[:400]}. {REMEDY}") from error

    return objects.retried(address, verb, attempt)


def listing(address: str) -> dict[str, Object]:
    """Return {path relative to `address`: size and hash} of all files below the folder; {} if it does not exist."""

    def tree(api: Any, one: "HfUri") -> dict[str, Object]:
        entries = api.list_repo_tree(
            one.id, one.path_in_repo or None, recursive=True, revision=one.revision, repo_type=one.type
        )
        begin = len(one.path_in_repo) + 1 if one.path_in_repo else 0
        found = lambda entry: Object(entry.size, str(entry.lfs.sha256 if entry.lfs else entry.blob_id))
        every = in_time(address, itertools.batched(entries, 1000))
        files = (entry for page in every for entry in page if hasattr(entry, "blob_id"))
        try:
            return bounded(address, ((str(entry.path)[begin:], found(entry)) for entry in files))
        except (AttributeError, KeyError, TypeError) as error:  # raised by huggingface_hub for other JSON
            raise StorageError(f"{address} cannot be listed: the hub's answer is no list of files. {REMEDY}") from error

    try:
        return asked(address, "listed", tree)
    except FileNotFoundError:
        return {}


def upload(source: Path | bytes, address: str) -> Object:
    """Write a file's contents, or bytes, to `address` by one commit, atomically; return its size and ETag. The
    repository must exist. Raises the errors of `asked`."""

    def commit(api: Any, one: "HfUri") -> None:
        api.upload_file(
            path_or_fileobj=source, path_in_repo=one.path_in_repo, repo_id=one.id, repo_type=one.type,
            revision=one.revision, commit_message=f"Write {one.path_in_repo}",
        )  # fmt: skip

    asked(address, "written", commit)
    found = head(address)
    if found is None:
        raise StorageError(f"{address} was written, but is not on the hub. Write it again.")
    return found


def delete(addresses: Iterable[str]) -> None:
    """Delete each file by its own commit, ignoring missing ones."""

    def commit(api: Any, one: "HfUri") -> None:
        api.delete_file(one.path_in_repo, one.id, repo_type=one.type, revision=one.revision)

    for address in addresses:
        with contextlib.suppress(FileNotFoundError):
            asked(address, "deleted", commit)
