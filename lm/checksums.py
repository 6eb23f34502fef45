"""Checksums of a run's log files, with which damaged lines are found.

Logs (metrics.jsonl, goodput.json, samples, evaluation.json) do not change after their stage has finished. The stage's
marker, stages/STAGE.json, then has under "checksums" an entry for each log,

    {"bytes": size, "sha256": of the file, "lines": lines per block, "crc32": [of each block of lines]}

and under "damaged" the damage that was reported when an earlier, shorter training was continued.
"""

import hashlib
import itertools
import json
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lm.errors import MALFORMED
from lm.run_paths import RunPaths
from lm.storage import inside, local_copy_of

BLOCKS = 256
"""Maximum number of blocks of lines; a file with fewer lines has a checksum for each."""


def checksums(folder: Path, patterns: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return {relative name: entry} for the files in `folder` that match one of the shell patterns. An entry has the
    size, the SHA-256, and a CRC-32 per block of lines."""
    files = sorted({path for pattern in patterns for path in folder.glob(pattern) if path.is_file()})
    found = {}
    for path in files:
        data = path.read_bytes()
        per_block = max(1, -(-len(data.splitlines()) // BLOCKS))
        found[path.relative_to(folder).as_posix()] = {
            "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest(), "lines": per_block,
            "crc32": crc32_of_blocks(data, per_block),
        }  # fmt: skip
    return found


def crc32_of_blocks(data: bytes, per_block: int) -> list[int]:
    lines = data.splitlines(keepends=True)
    return [zlib.crc32(b"".join(lines[first : first + per_block])) for first in range(0, len(lines), per_block)]


def damage(folder: Path, written: Mapping[str, Mapping[str, Any]], source: object) -> list[str]:
    """Return a sentence for each damaged file, with its path and the first line that differs. `written`, read from the
    file `source`, is what `checksums` returned for `folder`. Raises InputError for a name outside `folder`."""
    found = []
    for name, entry in written.items():
        path = inside(folder, name, source)
        try:
            if difference := difference_of(path, entry):
                found.append(f"{path}, {difference}. Restore the file from a copy.")
        except MALFORMED as error:
            found.append(f"{source}: the checksums of {name} are damaged ({type(error).__name__}: {error}).")
    return found


def difference_of(path: Path, entry: Mapping[str, Any]) -> str:
    """Describe where a file differs from its entry in `checksums`: "line 7: not what was written"; else ""."""
    try:
        data = path.read_bytes()
    except OSError as error:
        return f"of {entry['bytes']:,} bytes, cannot be read: {error.strerror or error}"
    if hashlib.sha256(data).hexdigest() == entry["sha256"]:
        return ""
    per_block, written = int(entry["lines"]), [*entry["crc32"]]
    there = crc32_of_blocks(data, per_block)
    pairs = enumerate(itertools.zip_longest(there, written))
    same = next((number for number, (now, before) in pairs if now != before), len(there))
    first, last = same * per_block + 1, (same + 1) * per_block
    where = f"line {first:,}" if first == last else f"lines {first:,} to {last:,}"
    size = f" ({len(data):,} bytes, but {entry['bytes']:,} were written)" if len(data) != entry["bytes"] else ""
    return f"{where}: not what was written{size}"


def log_damage(workdir: Path, names: Iterable[str] = ()) -> list[str]:
    """Return a sentence for each damaged log of a run's finished stages, and for damage recorded earlier. With `names`,
    only these logs are checked, without earlier damage. Stage markers that cannot be read are skipped."""
    wanted, found = {*names}, []
    for path in sorted(RunPaths(workdir).stages.glob("*.json")):
        try:
            marker = json.loads(path.read_bytes())
            written, before = dict(marker.get("checksums", {})), [*marker.get("damaged", [])]
        except (OSError, *MALFORMED):
            continue
        is_local = local_copy_of(workdir) is None  # of a run in a bucket, not all files are here
        here = [name for name in written if is_local or (workdir / name).is_file()]
        checked = {name: written[name] for name in here if not wanted or name in wanted}
        found += damage(workdir, checked, path)
        found += [str(one) for one in before] if not wanted else []
    return found
