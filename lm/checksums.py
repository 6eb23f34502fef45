"""Checksums of a run's logs in the markers of its stages, by which a damaged line is found and named.

Logs (metrics.jsonl, goodput.json, samples, evaluation.json) are text that a stage no longer changes once it is
finished. Its marker `stages/<stage>.json` then holds, under "checksums", for each of them

    {"bytes": size, "sha256": of the file, "lines": lines per block, "crc32": [of each block of lines]}

and under "damaged" the damage that was reported when an earlier, shorter training was continued.
"""

import hashlib
import json
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lm.run_paths import RunPaths
from lm.storage import inside, local_copy_of

BLOCKS = 256
"""Blocks of lines of a file, at most: a shorter file has a checksum for each line."""


def checksums(folder: Path, patterns: Iterable[str]) -> dict[str, dict[str, Any]]:
    """{name: entry, as above} of the files in `folder` that match a shell pattern."""
    files = sorted({path for pattern in patterns for path in folder.glob(pattern) if path.is_file()})
    return {path.relative_to(folder).as_posix(): entry_of(path.read_bytes()) for path in files}


def entry_of(data: bytes) -> dict[str, Any]:
    lines = data.splitlines(keepends=True)
    per_block = max(1, -(-len(lines) // BLOCKS))
    return {
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "lines": per_block,
        "crc32": crc32_of_blocks(lines, per_block),
    }


def crc32_of_blocks(lines: list[bytes], per_block: int) -> list[int]:
    return [zlib.crc32(b"".join(lines[first : first + per_block])) for first in range(0, len(lines), per_block)]


def damage(folder: Path, written: Mapping[str, Mapping[str, Any]], source: object) -> list[str]:
    """A sentence for each file in `folder` that differs from `written` (the result of `checksums`, read from the file
    `source`), with its path and the first line that differs. Raises InputError for a name that leads out of the
    folder."""
    found = []
    for name, entry in written.items():
        path = inside(folder, name, source)
        try:
            if difference := difference_of(path, entry):
                found.append(f"{path}, {difference}. Restore the file from a copy.")
        except (ValueError, KeyError, TypeError) as error:
            found.append(f"{source}: the checksums of {name} are damaged ({type(error).__name__}: {error}).")
    return found


def difference_of(path: Path, entry: Mapping[str, Any]) -> str:
    """Where the file differs from its entry; "" if it does not."""
    try:
        data = path.read_bytes()
    except OSError as error:
        return f"of {entry['bytes']:,} bytes, cannot be read: {error.strerror or error}"
    if hashlib.sha256(data).hexdigest() == entry["sha256"]:
        return ""
    per_block, written = int(entry["lines"]), [*entry["crc32"]]
    there = crc32_of_blocks(data.splitlines(keepends=True), per_block)
    equal = [a == b for a, b in zip(there, written, strict=False)]
    same = equal.index(False) if False in equal else len(equal)
    first, last = same * per_block + 1, (same + 1) * per_block
    where = f"line {first:,}" if first == last else f"lines {first:,} to {last:,}"
    size = f" ({len(data):,} bytes, but {entry['bytes']:,} were written)" if len(data) != entry["bytes"] else ""
    return f"{where}: not what was written{size}"


def log_damage(workdir: Path, names: Iterable[str] = ()) -> list[str]:
    """`damage` of all logs of finished stages of a run, or those in `names`, and earlier damage by their markers. An
    unreadable marker is ignored here: the stage itself refuses it."""
    wanted, found = {*names}, []
    for path in sorted(RunPaths(workdir).stages.glob("*.json")):
        try:
            marker = json.loads(path.read_bytes())
            written, before = dict(marker.get("checksums", {})), [*marker.get("damaged", [])]
        except (OSError, ValueError, TypeError, AttributeError, RecursionError):
            continue
        here = lambda name: local_copy_of(workdir) is None or (workdir / name).is_file()  # of a bucket, not all is here
        checked = {name: one for name, one in written.items() if (not wanted or name in wanted) and here(name)}
        found += damage(workdir, checked, path)
        found += [str(one) for one in before] if not wanted else []
    return found
