"""Input files of your own that were replaced by others of the same names and sizes.

The key of `pages` has the sizes of such files, so that a copy of them, with other times of change, is the same input.
`stages/pages.seen`, {path: [what the key has of it, what it was told by]}, outlives the marker and is in no key: a file
of a disk is told by its time of change in ns, one of a web server by its ETag or date. Where that is another, the
file's SHA-256 is held against the one in the marker or quarantine record of the unit that read it. Where that is
another too, the file is another input: the key then has [bytes, SHA-256] of it, and the manifest the latter as ETag.
What lies in a store has an ETag in any case.
"""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from data_prep.engine.units import marker_of, quarantine_of, read_marker, read_quarantine
from launch.folder import in_bucket
from launch.folder.units import folders
from lm.errors import InputError
from lm.run_paths import RunPaths
from lm.storage import HASHING_THREADS, Place, file_sha256, is_url, write_atomically

SIZES = "bytes of input files"
"""What the external inputs of `pages` call {path: bytes, or [bytes, ETag or SHA-256]}."""
SEEN = "<seen>"
"""Besides, in what the stage tells and not in its key: {path: time of change, ETag or date}."""


def recognised(place: Place, external: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(the external inputs, what `remember` takes), once it is known which of the files are still those that the run in
    `place` has read. Raises InputError when a file cannot be read."""
    external = dict(external)
    told_by = dict(external.pop(SEEN, {}))
    if SIZES not in external:
        return external, {}
    before, told = read_seen(place), dict(external[SIZES])
    changed = []
    for path in told.keys() & before.keys():
        was, told_by_then = before[path]
        if (was[0] if isinstance(was, list) else was) == told[path]:
            told[path] = was
            if told_by.setdefault(path, told_by_then) != told_by_then:  # of many on the web, none is asked
                changed.append(path)
    told |= {path: [None, told_by[path]] for path in changed if is_url(path)}
    for path, (then, now) in digests(place, sorted(path for path in changed if not is_url(path))).items():
        if then != now:
            told[path] = [external[SIZES][path], now]
    return external | {SIZES: told}, {path: [told[path], told_by[path]] for path in sorted(told_by)}


def read_seen(place: Place) -> dict[str, list]:
    """What `remember` has written; nothing where that cannot be read."""
    try:
        found = json.loads(seen_of(place).read_text())
        return {path: [was, told_by] for path, (was, told_by) in found.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def remember(place: Place, seen: dict[str, Any]) -> None:
    """Notes what the files of a finished stage were told by, for the next run."""
    if seen and seen != read_seen(place):
        write_atomically(seen_of(place), json.dumps(seen))


def seen_of(place: Place) -> Place:
    return place / RunPaths(Path()).seen("pages").as_posix()


def digests(place: Place, paths: list[str]) -> dict[str, tuple[str, str]]:
    """{path: (SHA-256 of what was read, SHA-256 of what is there)}, of those of which the first is known."""
    if not paths:
        return {}
    from data_prep.measure.run import TEXTS, unit_names  # with pyarrow, for those alone who need it
    from data_prep.sources.manifest import manifest_files

    if isinstance(place, Path):
        in_bucket.fetch(place, (), (RunPaths.pages_manifest, *folders((TEXTS,))))
    try:
        files = manifest_files(place)
    except InputError:  # it was never made, or is gone: nothing is known of the files
        files = []
    units = {str(file.path): name for file, name in zip(files, unit_names(files), strict=True)}
    known = {path: digest for path in paths if path in units and (digest := digest_in(place, TEXTS, units[path]))}
    if known:
        print(f"pages: {len(known):,} files have another time of change; their contents are compared", flush=True)
    try:
        with ThreadPoolExecutor(HASHING_THREADS) as pool:
            found = dict(zip(known, pool.map(lambda path: file_sha256(Path(path)), known), strict=True))
    except OSError as error:
        raise InputError(f"{error.filename} cannot be read: {error.strerror}. Mend its permissions.") from error
    return {path: (known[path], found[path]) for path in known}


def digest_in(place: Place, step: str, unit: str) -> str:
    """SHA-256 of the file that the unit of `texts` has read, by what it left; "" where it left nothing."""
    for folder in (place / f"{RunPaths.unfinished}/{RunPaths.texts}/out", place):
        if marker := read_marker(marker_of(step, unit, folder)):
            return marker.read
        if record := read_quarantine(quarantine_of(step, unit, folder)):
            return str(record.get("read", ""))
    return ""


def note_replaced(out: Path, external: dict[str, Any]) -> None:
    """Writes into the manifest in `out` what tells the files that replaced others."""
    replaced = {path: told[1] for path, told in external.get(SIZES, {}).items() if isinstance(told, list)}
    path = out / RunPaths.pages_manifest
    if not replaced or not path.is_file():
        return
    manifest = json.loads(path.read_text(encoding="utf-8"))
    for entry in manifest["files"]:
        if "etag" not in entry and entry["path"] in replaced:
            entry["etag"] = replaced[entry["path"]]
    write_atomically(path, json.dumps(manifest, indent=1, ensure_ascii=False) + "\n")
