"""Compare shards with the SHA-256 in their manifest: detects bit flips, truncated files and swapped files.

Training does this for shards on a disk (lm/training/shard_verification.py). Shards in a bucket are read only as far as
needed; `python -m launch.verify_shards` verifies them completely.

An intact shard is not read again at the next start if its size and times are unchanged; programs cannot set the change
time of a file (ctime). If a disk later corrupts a file without a write, the CRC-32 of the record detects it on reading.
"""

import json
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

from lm.data.records import MANIFEST, read_manifest
from lm.errors import InputError
from lm.storage import HASHING_THREADS, Place, StorageError, digest

Verified = dict[str, list[Any]]
"""{path of an intact shard: [SHA-256, bytes, modification time, change time]}; times in nanoseconds."""


def verify_shards(
    splits: Iterable[tuple[Place, str]],
    share: tuple[int, int] = (0, 1),
    given_up: Event | None = None,
    known: Mapping[str, list[Any]] | None = None,
) -> Verified:
    """Compare shards with the SHA-256 in their manifests. Return the intact ones, to pass as `known` at the next start.

    `splits` are (folder, split) pairs. `share` (i, n) verifies only every n-th shard from the i-th. Local shards
    unchanged since `known`, an earlier return value, are skipped. Once `given_up` is set, the remaining shards count as
    unreadable. Raises InputError that lists the shards that differ from their manifest.
    """
    named = {folder / s.file: s for folder, split in splits for s in read_manifest(folder).splits[split].shards}
    listed = dict(list(named.items())[share[0] :: share[1]])
    owners = {shard.sha256: path for path, shard in named.items()}
    stamps = {path: stamp(path, shard.sha256) for path, shard in listed.items()}
    to_read = [path for path, now in stamps.items() if now is None or (known or {}).get(key_of(path)) != now]
    with ThreadPoolExecutor(HASHING_THREADS) as pool:
        look = lambda path: (None, "given up") if given_up is not None and given_up.is_set() else read(path)
        found = dict(zip(to_read, pool.map(look, to_read), strict=True))
    wrong = []
    for path, (size, sha) in found.items():
        shard = listed[path]
        if size is None:
            wrong.append(f"{path} cannot be read: {sha}")
        elif size != shard.bytes:
            wrong.append(f"{path} has {size} bytes instead of {shard.bytes}")
        elif sha != shard.sha256:
            other = f", and has the contents of {owners[sha]}" if sha in owners else ""
            wrong.append(f"{path} has the SHA-256 {sha} instead of {shard.sha256}{other}")
    if wrong:
        raise InputError(
            f"{len(wrong)} of {len(listed)} shards differ from {MANIFEST}: "
            f"{'; '.join(wrong[:5])}{'; …' if len(wrong) > 5 else ''}. Restore them from a copy, or delete the folder "
            "and write it again: python -m launch.write_shards"
        )
    return {key_of(path): now for path, now in stamps.items() if now is not None}


def key_of(place: Place) -> str:
    return str(place.absolute() if isinstance(place, Path) else place)


def stamp(path: Place, sha256: str) -> list[Any] | None:
    """Return [`sha256`, size, modification time, change time] of a local file; None if it is missing or in a bucket."""
    if not isinstance(path, Path):
        return None
    try:
        now = path.stat()
    except OSError:
        return None
    return [sha256, now.st_size, now.st_mtime_ns, now.st_ctime_ns]


def read(place: Place) -> tuple[int | None, str]:
    """Return (bytes, SHA-256) of a file or object, or (None, error message) if it cannot be read."""
    try:
        return digest(place)
    except StorageError as error:
        return None, str(error)
    except OSError as error:
        return None, error.strerror or str(error)


def known_shards(note: Path) -> Verified:
    """Return the intact shards that an earlier start listed in the file `note`; {} if it is missing or damaged."""
    try:
        found = json.loads(note.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
