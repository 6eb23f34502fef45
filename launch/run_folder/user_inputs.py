"""Detect input files that were replaced by other files with the same names and sizes.

The key of `pages` contains only the sizes of input files, so that a copy, with another modification time or ETag, is
the same input. `stages/pages.seen`, {path: [entry in the key, hint]}, outlives the marker and is in no key. The hint is
the modification time in ns of a file on a disk, the ETag of an object, the ETag or date of a file on the web. If the
hint changed, the contents are compared: on a disk, the SHA-256 with the one in the marker or quarantine record of the
unit that read the file; elsewhere, with the old ETag if that is a hash (`same_contents`). If they differ or cannot be
compared, the file is a new input: its entry in the key is then [bytes, SHA-256 or hint], and the manifest has the
latter as "contents".
"""

import contextlib
import hashlib
import itertools
import json
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from data_prep.engine.units import marker_of, quarantine_of, read_marker, read_quarantine
from lm.errors import InputError
from lm.run_paths import RunPaths
from lm.storage import HASHING_THREADS, Place, Url, file_sha256, is_url, shown_place, write_atomically
from lm.storage.ranges import BLOCK, Stream

SIZES = "bytes of input files"
"""Name of {path: bytes, or [bytes, SHA-256 or hint]} in the external inputs of `pages`."""
SEEN = "<seen>"
"""Name of {path: hint} there; not part of the key."""

ETAG = re.compile(r'(?:W/)?"?([0-9a-f]{32}|[0-9a-f]{40}|[0-9a-f]{64})(?:-([1-9][0-9]{0,4}))?"?')
PART_MIB = (5, 8, 10, 15, 16, 20, 25, 32, 50, 64, 100, 128, 200, 250, 256, 500, 512, 1024)
"""Common part sizes of multipart uploads."""


def recognised(workdir: Path, external: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return (external inputs, argument for `remember`) after comparing the files with those that the run in `workdir`
    has read. Raises InputError if a file cannot be read."""
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
            if told_by.setdefault(path, told_by_then) != told_by_then:  # of many on the web, none is asked
                changed.append(path)
    stored = [path for path in changed if is_url(path)]
    if stored:
        print(f"pages: {len(stored):,} addresses have another ETag; their contents are compared", flush=True)
    for path in stored:
        if not same_contents(Url(path), str(before[path][1]), str(told_by[path])):
            told[path] = [external[SIZES][path], told_by[path]]
    for path, (then, now) in digests(workdir, sorted(path for path in changed if not is_url(path))).items():
        if then != now:
            told[path] = [external[SIZES][path], now]
    return external | {SIZES: told}, {path: [told[path], told_by[path]] for path in sorted(told_by)}


def read_seen(workdir: Path) -> dict[str, list]:
    """Read what `remember` wrote; empty if it cannot be read."""
    try:
        found = json.loads(RunPaths(workdir).seen("pages").read_text())
        return {path: [was, told_by] for path, (was, told_by) in found.items()}
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return {}


def same_contents(url: Url, before: str, now: str) -> bool:
    """Whether the object at `url`, with ETag `now`, still has the contents that it had with ETag `before`.

    False if the old ETag is not a hash of the contents: SHA-256, git's SHA-1 (short files of the hub), MD5, or the MD5
    of the MD5s of parts ("...-3", S3). If it is, the object is read, unless the new ETag is another hash of the same
    kind.
    """
    old, new = ETAG.fullmatch(before), ETAG.fullmatch(now)
    if old is None or (new and not old[2] and not new[2] and len(old[1]) == len(new[1])):
        return False
    with url.stream() as file:
        return hash_is(old[1], int(old[2] or 0), file)


def hash_is(wanted: str, parts: int, file: Stream) -> bool:
    """Whether `wanted` is the hash of the file, as stores compute it for `parts` parts; 0: of the whole."""
    size = file.object.size
    if parts:
        sizes = [mib << 20 for mib in PART_MIB if -(-size // (mib << 20)) == parts] if parts > 1 else [max(size, 1)]
        digests = lambda part: (
            hashed("md5", pieces(file, start, min(start + part, size))) for start in range(0, max(size, 1), part)
        )
        return any(hashed("md5", digests(part)).hex() == wanted for part in sizes)
    kind = {32: "md5", 40: "sha1", 64: "sha256"}[len(wanted)]
    head = [f"blob {size}\0".encode()] if kind == "sha1" else []
    return hashed(kind, itertools.chain(head, pieces(file, 0, size))).hex() == wanted


def hashed(kind: str, data: Iterable[bytes]) -> bytes:
    digest = hashlib.new(kind, usedforsecurity=False)
    for one in data:
        digest.update(one)
    return digest.digest()


def pieces(file: Stream, start: int, end: int) -> Iterator[bytes]:
    """Yield bytes [start, end) of a file in blocks."""
    file.seek(start)
    while start < end and (data := file.read(min(BLOCK, end - start))):
        start += len(data)
        yield data


def remember(workdir: Path, seen: dict[str, Any]) -> None:
    """Record the hints of the files for the next run. If a file has a new ETag but the same contents, the manifest gets
    the new ETag, the version to read."""
    if not seen or seen == read_seen(workdir):
        return
    with contextlib.suppress(FileNotFoundError):
        write_versions(workdir, {path: hint for path, (_, hint) in seen.items()})
    write_atomically(RunPaths(workdir).seen("pages"), json.dumps(seen))


def write_versions(workdir: Path, etags: dict[str, Any]) -> None:
    """Write current ETags to the manifest, and its new size to the marker of `pages`."""
    path, marker = RunPaths(workdir).pages_manifest, RunPaths(workdir).marker("pages")
    manifest = json.loads(path.read_text(encoding="utf-8"))
    changed = [one for one in manifest["files"] if "etag" in one and etags.get(one["path"], one["etag"]) != one["etag"]]
    if changed:
        for entry in changed:
            entry["etag"] = etags[entry["path"]]
        data = json.dumps(manifest, indent=1, ensure_ascii=False) + "\n"
        told = json.loads(marker.read_text(encoding="utf-8"))
        told["files"][RunPaths.pages_manifest] = len(data.encode())
        write_atomically(path, data)
        write_atomically(marker, json.dumps(told, indent=1))


def digests(workdir: Path, paths: list[str]) -> dict[str, tuple[str, str]]:
    """{path: (SHA-256 of the file that was read, SHA-256 of the current file)}, if the first is known."""
    if not paths:
        return {}
    from data_prep.measure.run import TEXTS, unit_names  # with pyarrow, for those alone who need it
    from data_prep.sources.manifest import manifest_files

    place = shown_place(workdir)
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
    """SHA-256 of the file that a unit of `texts` read, by its marker or quarantine record; "" if there is none."""
    if marker := read_marker(marker_of(step, unit, place)):
        return marker.read
    record = read_quarantine(quarantine_of(step, unit, place))
    return str(record.get("read", "")) if record else ""


def note_replaced(workdir: Path, external: dict[str, Any]) -> None:
    """Write the hash or hint of files that replaced others to the manifest."""
    replaced = {path: told[1] for path, told in external.get(SIZES, {}).items() if isinstance(told, list)}
    path = RunPaths(workdir).pages_manifest
    if not replaced or not path.is_file():
        return
    manifest = json.loads(path.read_text(encoding="utf-8"))
    for entry in manifest["files"]:
        if entry["path"] in replaced:
            entry["contents"] = replaced[entry["path"]]
    write_atomically(path, json.dumps(manifest, indent=1, ensure_ascii=False) + "\n")
