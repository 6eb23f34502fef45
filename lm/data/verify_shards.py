"""Compare shards with the SHA-256 in their manifest: finds flipped bytes, cut files and files in another's place.

Training does that with shards on a disk (lm/training/shard_verification.py). Those in a bucket are only read as far as
they are needed; `python -m launch.verify_shards` reads them through.

A shard that was found whole is not read again at the next start while its file is the same by size and times; the time
of the last change of a file (ctime) is one that no program can set. What the disk alone changes later, under a file
that nobody wrote to, the CRC-32 of every record finds when it is read.
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
"""{path of a shard that was whole: its SHA-256, bytes, and times of the last change in nanoseconds}"""


def verify_shards(
    splits: Iterable[tuple[Place, str]],
    share: tuple[int, int] = (0, 1),
    given_up: Event | None = None,
    known: Mapping[str, list[Any]] | None = None,
) -> Verified:
    """Reads every shard of the (folder, split) pairs through, or part `share[0]` of `share[1]`, but those that are as
    they were when they became `known`; returns what to know at the next start. One in a bucket is always read. Begins
    no further shard once `given_up` is set.

    Raises InputError that names the shards that are not what their manifest says.
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
            wrong.append(f"{path} has {size} bytes, but {shard.bytes} were written")
        elif sha != shard.sha256:
            other = f", and holds what {owners[sha]} should" if sha in owners else ""
            wrong.append(f"{path} has a SHA-256 of {sha}, but {shard.sha256} was written{other}")
    if wrong:
        raise InputError(
            f"{len(wrong)} of {len(listed)} shards are not what {MANIFEST} says: {'; '.join(wrong[:5])}"
            f"{'; …' if len(wrong) > 5 else ''}. Bring them back from a copy, or delete the folder and write it again: "
            "python -m launch.write_shards"
        )
    return {key_of(path): now for path, now in stamps.items() if now is not None}


def key_of(place: Place) -> str:
    return str(place.absolute() if isinstance(place, Path) else place)


def stamp(path: Place, sha256: str) -> list[Any] | None:
    """What changes whenever the file is written to, and the hash that it is to have; None where it cannot be seen."""
    if not isinstance(path, Path):
        return None
    try:
        now = path.stat()
    except OSError:
        return None
    return [sha256, now.st_size, now.st_mtime_ns, now.st_ctime_ns]


def read(place: Place) -> tuple[int | None, str]:
    """(bytes, SHA-256) of a file or object, or (None, why it cannot be read)."""
    try:
        return digest(place)
    except StorageError as error:
        return None, str(error)
    except OSError as error:
        return None, error.strerror or str(error)


def known_shards(note: Path) -> Verified:
    """What an earlier start has left in `note`; nothing where there is none, or it is damaged: all is read then."""
    try:
        found = json.loads(note.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
