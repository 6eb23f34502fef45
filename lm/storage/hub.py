"""Files of Hugging Face's hub: hf://datasets/OWNER/NAME[@REVISION]/PATH, in huggingface_hub's syntax; without
`datasets/` for models.

Files are read by ranges, listed by the tree of the repository, and written atomically by commits. The token is
HF_TOKEN, or that of `hf auth login`; HF_ENDPOINT selects another hub.
"""

import contextlib
import itertools
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, unquote

from lm.errors import UsageError, network_reason, shown
from lm.storage import http
from lm.storage.objects import ROUNDS, Object, StorageError, bounded, in_time, possible, settings

SERVER = "https://huggingface.co"
KINDS = {"datasets": "dataset", "spaces": "space"}
LATER = http.LATER - {403}
"""On the hub, 403 is permanent: the terms of a gated repository were not accepted."""
REMEDY = "Check the name; for a private or gated repository set HF_TOKEN to a token with access, and accept its terms."


class HubPath(NamedTuple):
    """Parts of an hf:// URL: `kind` "model", "dataset" or "space", `repository` OWNER/NAME, `revision` branch or
    commit."""

    kind: str
    repository: str
    revision: str
    path: str


def named(address: str) -> HubPath:
    """Parse an hf:// URL. Raises UsageError if it names no repository."""
    parts = address.removeprefix("hf://").split("/")
    kind = KINDS.get(parts[0], "model")
    owner, _, rest = "/".join(parts[kind != "model" :]).partition("/")
    name, _, path = rest.partition("/")
    name, _, revision = name.partition("@")
    if not owner or not name or "@" in owner:
        raise UsageError(
            f"{shown(address)} is not a file on the hub: give hf://datasets/OWNER/NAME/PATH, or with a revision "
            "hf://datasets/OWNER/NAME@REVISION/PATH."
        )
    if revision == "refs" and path.split("/")[0] in ("convert", "pr"):  # refs/convert/parquet
        first, second, *others = [*path.split("/"), ""]
        revision, path = f"refs/{first}/{second}", "/".join(others).rstrip("/")
    return HubPath(kind, f"{owner}/{name}", unquote(revision) or "main", path)


def endpoint() -> str:
    return (os.environ.get("HF_ENDPOINT") or SERVER).rstrip("/")


def address_of(address: str) -> str:
    """Return the HTTPS URL of the file at an hf:// URL."""
    one = named(address)
    room = next((f"{folder}/" for folder, kind in KINDS.items() if kind == one.kind), "")
    return f"{endpoint()}/{room}{one.repository}/resolve/{quote(one.revision, safe='')}/{quote(one.path)}"


def request_options() -> http.RequestOptions:
    from huggingface_hub import get_token

    token = get_token()

    def sign(request: Any) -> Any:
        if token:
            request.headers["Authorization"] = f"Bearer {token}"
        return request

    return http.RequestOptions(sign, LATER, linked=True, remedy=REMEDY)


def head(address: str) -> Object | None:
    """Return the size and ETag of a file, None if it does not exist. The ETag is its SHA-256, or for a small file git's
    hash. Raises StorageError if the hub does not report the size, or cannot be read."""
    from huggingface_hub import get_hf_file_metadata

    if not named(address).path:
        return None
    # Without following the redirect, which may be signed for GET only.
    look = lambda *_: get_hf_file_metadata(address_of(address), timeout=settings().timeout, endpoint=endpoint())
    try:
        found = asked(address, "read", look)
    except FileNotFoundError:
        return None
    if found.size is None:
        raise StorageError(f"{address}: the hub does not report the size of the file. Download it first.")
    return possible(address, Object(found.size, found.etag or ""))


def read(address: str, start: int, end: int | None, version: Object | None = None) -> bytes:
    """Return bytes [start, end) of the file; see lm.storage.http.read."""
    return http.read(address_of(address), start, end, version, request_options())


def asked[T](address: str, verb: str, request: Callable[[Any, HubPath], T]) -> T:
    """Return `request(api, path)` for huggingface_hub's HfApi and the parsed `address`, retrying transient errors.
    `verb`, such as "read", is for messages. Raises FileNotFoundError if there is no such file or folder, StorageError
    for any other failure."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError

    api, one = HfApi(endpoint=endpoint(), library_name="gristmill"), named(address)
    for left in reversed(range(ROUNDS)):
        try:
            return request(api, one)
        except EntryNotFoundError as error:
            raise FileNotFoundError(2, "No such file or folder on the hub", address) from error
        except Exception as error:
            network = type(error).__module__.startswith("httpx")  # or httpx2, depending on the version
            if not network and not isinstance(error, HfHubHTTPError | OSError | ValueError):
                raise
            response = getattr(error, "response", None)
            status = getattr(response, "status_code", None)
            # 409 and 412: concurrent commit
            passes = status in LATER | {409, 412} or (network and response is None)
            if left and passes:
                wait = http.seconds_asked(response.headers.get("Retry-After"), None) if response is not None else None
                time.sleep(min(wait or http.FIRST_PAUSE * 2 ** (ROUNDS - left), http.LONGEST_WAIT))
                continue
            reason = f"{status} {str(error).strip().splitlines()[0]}" if status else network_reason(error)
            raise StorageError(f"{address} cannot be {verb}: {reason[:400]}. {REMEDY}") from error
    raise AssertionError


def listing(address: str) -> dict[str, Object]:
    """Return {path relative to `address`: size and hash} of all files below the folder; {} if it does not exist."""

    def tree(api: Any, one: HubPath) -> dict[str, Object]:
        entries = api.list_repo_tree(
            one.repository, one.path or None, recursive=True, revision=one.revision, repo_type=one.kind
        )
        begin = len(one.path) + 1 if one.path else 0
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

    def commit(api: Any, one: HubPath) -> None:
        api.upload_file(
            path_or_fileobj=source, path_in_repo=one.path, repo_id=one.repository, repo_type=one.kind,
            revision=one.revision, commit_message=f"Write {one.path}",
        )  # fmt: skip

    asked(address, "written", commit)
    found = head(address)
    if found is None:
        raise StorageError(f"{address} was written, but is not on the hub. Write it again.")
    return found


def delete(addresses: Iterable[str]) -> None:
    """Delete each file by its own commit, ignoring missing ones."""

    def commit(api: Any, one: HubPath) -> None:
        api.delete_file(one.path, one.repository, repo_type=one.kind, revision=one.revision)

    for address in addresses:
        with contextlib.suppress(FileNotFoundError):
            asked(address, "deleted", commit)
