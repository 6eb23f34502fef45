"""Load fastText models whose SHA-256 the config names.

fastText does not validate models: a damaged or hostile file can crash the process, write outside of its memory, or
never end. So only files that the user has named by their contents are loaded.
"""

from pathlib import Path
from typing import Any

from lm.errors import InputError
from lm.storage import file_sha256


def load_fasttext(path: Path, sha256: str, option: str, hash_option: str) -> Any:
    """Return the fastText model in the file `path`. `option` and `hash_option` are the config fields that give `path`
    and `sha256`, for messages. Raises InputError if the file is unreadable or has another hash."""
    import fasttext

    try:
        found = file_sha256(path)
    except OSError as error:
        raise InputError(
            f"The fastText model {path} ({option}) cannot be read: {error.strerror or error}. Give a .bin or .ftz "
            "written by fastText."
        ) from error
    if not sha256:
        raise InputError(
            f"{option} is {path}, but {hash_option} is empty. fastText does not check models, and a damaged or hostile "
            f"file can crash this process or run code. If you trust the source of this file, set {hash_option} to its "
            f"SHA-256, {found}."
        )
    if found != sha256.lower():
        raise InputError(
            f"{path} has the SHA-256 {found}, but {hash_option} is {sha256}. Give the file that the config was "
            f"written for, or set {hash_option} to the hash of this file."
        )
    try:
        return fasttext.load_model(str(path))
    except (ValueError, RuntimeError, MemoryError) as error:
        raise InputError(
            f"The fastText model {path} ({option}) cannot be used: {error}. Give a .bin or .ftz written by fastText."
        ) from error
