"""Detect input files that were replaced by other files with the same names and sizes.

The key of the stage `pages` has only the sizes of input files, so that a copy, with another modification time, is the
same input. `stages/pages.seen`, {path: [entry, hint]}, outlives the marker. The hint is the modification time in ns of
a file on a disk, the ETag of an object, the ETag or date of a web file. A file with another hint is a new input, except
a file on a disk with the SHA-256 that the run recorded when it read the file. The entry, also in the key, is the size
or, for a new input, [size, SHA-256 or hint]; pages/manifest.json has that SHA-256 or hint as "contents".
"""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from launch.run_folder import bucket
from lm.errors import MALFORMED, InputError
from lm.run_paths import RunPaths
from lm.storage import HASHING_THREADS, file_sha256, is_url, shown_place, write_atomically

SIZES = "bytes of input files"
"""Name of {path: bytes, or [bytes, SHA-256 or hint]} in the external inputs of `pages`."""
SEEN = "<seen>"
"""Name of {path: modification time, ETag or date} there; not part of the key."""


def recognised(workdir: Path, external: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Compare the external inputs of the stage "pages" with those that the run recorded. Returns (external inputs, with
    a hash or ETag for each replaced file; dictionary for `remember`). Raises InputError if a file cannot be read."""
    external = dict(external)
    told_by = dict(external.pop(SEEN, {}))
    if SIZES not in external:
        return external, {}
    before, told = read_seen(workdir), dict(external[SIZES])
    changed = []
    for path in told.keys() & before.keys():
        was, told_by_then = before[path]
        if (was[0] if isinstance(was, list) else was) == told[path]:
            told[path] = was
            if told_by.setdefault(path, told_by_then) != told_by_then:  # web files are compared without a request
                changed.append(path)
    for path in filter(is_url, changed):
        told[path] = [external[SIZES][path], told_by[path]]
    for path, (then, now) in digests(workdir, {path for path in changed if not is_url(path)}).items():
        if then != now:
            told[path] = [external[SIZES][path], now]
    return external | {SIZES: told}, {path: [told[path], told_by[path]] for path in sorted(told_by)}


def read_seen(workdir: Path) -> dict[str, list]:
    """Read what `remember` wrote: {path: [size or [size, hash], modification time or ETag]}; {} if unreadable."""
    try:
        found = json.loads(RunPaths(workdir).seen("pages").read_text())
        return {path: [was, told_by] for path, (was, told_by) in found.items()}
    except (OSError, *MALFORMED):
        return {}


def remember(workdir: Path, seen: dict[str, Any]) -> None:
    """Record the input files, with their modification times or ETags, for the next command, on any machine."""
    if seen and seen != read_seen(workdir):
        path = RunPaths(workdir).seen("pages")
        write_atomically(path, json.dumps(seen))
        bucket.push(workdir, bucket.names_of(workdir, path))


def digests(workdir: Path, paths: set[str]) -> dict[str, tuple[str, str]]:
    """Return {path: (SHA-256 when the run read the file, SHA-256 now)} for files that the run has read. Raises
    InputError if a file cannot be read."""
    if not paths:
        return {}
    from data_prep.engine.units import marker_of, quarantine_of, read_marker, read_quarantine
    from data_prep.measure.run import TEXTS, unit_names  # imports pyarrow, which most commands do not need
    from data_prep.sources.manifest import manifest_files

    place = shown_place(workdir)
    try:
        files = manifest_files(place)
    except InputError:  # never created, or deleted: the files are unknown
        files = []
    known = {}
    for file, unit in zip(files, unit_names(files), strict=True):
        if (path := str(file.path)) in paths:  # recorded when the file was read
            marker = read_marker(marker_of(TEXTS, unit, place))
            record = {} if marker else read_quarantine(quarantine_of(TEXTS, unit, place)) or {}
            if digest := marker.read if marker else str(record.get("read", "")):
                known[path] = digest
    if known:
        print(f"pages: {len(known):,} files have a new modification time; comparing their contents", flush=True)
    try:
        with ThreadPoolExecutor(HASHING_THREADS) as pool:
            found = dict(zip(known, pool.map(lambda path: file_sha256(Path(path)), known), strict=True))
    except OSError as error:
        raise InputError(f"{error.filename} cannot be read: {error.strerror}. Fix its permissions.") from error
    return {path: (known[path], found[path]) for path in known}


def note_replaced(workdir: Path, external: dict[str, Any]) -> None:
    """Add the SHA-256 or ETag of files that replaced others to pages/manifest.json, as "contents"."""
    replaced = {path: told[1] for path, told in external.get(SIZES, {}).items() if isinstance(told, list)}
    path = RunPaths(workdir).pages_manifest
    if not replaced or not path.is_file():
        return
    manifest = json.loads(path.read_text(encoding="utf-8"))
    for entry in manifest["files"]:
        if entry["path"] in replaced:
            entry["contents"] = replaced[entry["path"]]
    write_atomically(path, json.dumps(manifest, indent=1, ensure_ascii=False) + "\n")
