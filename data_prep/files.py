"""Files that appear whole or not at all, and what is said when the disk does not take them."""

import contextlib
import hashlib
import os
import secrets
from collections.abc import Generator
from pathlib import Path

from lm.errors import InputError


@contextlib.contextmanager
def appearing(path: Path, scratch: Path) -> Generator[Path]:
    """The name under which to write what shall be `path`, in the folder `scratch` of the same disk.

    When the block ends well, the file is brought to the disk and moved to `path`; otherwise it is deleted. The name
    holds random digits: a worker that outlives a killed run by seconds, or one on another machine of the same disk,
    cannot write into it.
    """
    partial = scratch / f"{path.parent.name}-{path.name}.{secrets.token_hex(8)}.partial"
    try:
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def replace_file(path: Path, data: bytes, scratch: Path) -> None:
    """Writes `data` to `path`, or leaves what was there."""
    with appearing(path, scratch) as partial:
        partial.write_bytes(data)


@contextlib.contextmanager
def writing(what: object) -> Generator[None]:
    """Raises InputError, which names `what` and the remedy, for an error of a file in the block."""
    try:
        yield
    except ConnectionError:  # a pipe or socket: no file
        raise
    except OSError as error:
        raise InputError(
            f"{what} cannot be written: {error.strerror or error}. Make room on the disk, or mend the permissions."
        ) from error


def file_sha256(path: Path) -> str:
    """Of the file's bytes, 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
