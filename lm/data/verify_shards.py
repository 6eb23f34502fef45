"""Shards held against the SHA-256 that their manifest has of each: what was flipped, cut or put in another's place."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

from lm.data.records import MANIFEST, read_manifest
from lm.errors import InputError
from lm.storage import HASHING_THREADS, Place, Wanted, as_files, digest


def verify_shards(
    splits: Iterable[tuple[Place, str]], share: tuple[int, int] = (0, 1), given_up: Event | None = None
) -> int:
    """Reads every shard of the (folder, split) pairs through, or part `share[0]` of `share[1]`; returns the bytes. Of
    one in a bucket, what it was brought to. Begins no further shard once `given_up` is set.

    Raises InputError that names the shards that are not what their manifest says.
    """
    shards = [(folder / s.file, s) for folder, split in splits for s in read_manifest(folder).splits[split].shards]
    files = as_files([Wanted(place, shard.bytes, shard.sha256) for place, shard in shards])
    named = {file: shard for file, (_, shard) in zip(files, shards, strict=True)}
    listed = dict(list(named.items())[share[0] :: share[1]])
    owners = {shard.sha256: path for path, shard in named.items()}
    with ThreadPoolExecutor(HASHING_THREADS) as pool:
        look = lambda path: (None, "given up") if given_up is not None and given_up.is_set() else read(path)
        found = dict(zip(listed, pool.map(look, listed), strict=True))
    wrong = []
    for path, shard in listed.items():
        size, sha = found[path]
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
    return sum(shard.bytes for shard in listed.values())


def read(path: Path) -> tuple[int | None, str]:
    """(bytes, SHA-256) of a file, or (None, why it cannot be read)."""
    try:
        return digest(path)
    except OSError as error:
        return None, error.strerror or str(error)
