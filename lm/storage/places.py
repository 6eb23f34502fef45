"""Functions for a `Place`: a path or a Url. Writes are atomic: the new contents appear whole or not at all. Names from
a file, a listing or a server are checked before they are joined to a folder."""

import contextlib
import glob
import hashlib
import itertools
import json
import os
import re
import shutil
import tempfile
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import BinaryIO, cast, overload

from lm.errors import InputError, UsageError, shown
from lm.storage import objects, stores
from lm.storage.files import appearing_file
from lm.storage.meter import MeteredFile
from lm.storage.objects import Object
from lm.storage.url import Url, is_url

Place = Path | Url
DRIVE = re.compile("[A-Za-z]:")
WILDCARD = re.compile(r"[*?[]")


def place_of(text: object) -> Place:
    """Return a Url if `text` begins with a scheme, else a path, `~` expanded. Raises UsageError for an invalid one."""
    if isinstance(text, Url):
        return text
    if is_url(text):
        return Url(str(text))
    try:
        return Path(str(text)).expanduser()
    except RuntimeError as error:
        raise UsageError(f"{text} is the home of an unknown user. Give another path.") from error


def split_pattern(pattern: str) -> tuple[Path, str]:
    """Split a shell pattern before its first part with a wildcard: (path, rest of the pattern). A part that exists as
    it is written, such as "notes[1]", is a name and no wildcard. The rest of a path without wildcards is "". Raises
    UsageError for the home of an unknown user."""
    path = place_of(Path(pattern))
    assert isinstance(path, Path)
    folder = Path()
    for number, part in enumerate(path.parts):
        if WILDCARD.search(part) and not os.path.lexists(folder / part):
            return folder, "/".join(path.parts[number:])
        folder = folder / part
    return folder, ""


def matching_paths(pattern: str) -> list[Path]:
    """Return the paths that a shell pattern matches, sorted; `**` matches any number of folders. A path that exists is
    only itself, whatever its characters."""
    folder, rest = split_pattern(pattern)
    if not rest:
        return [folder] if os.path.lexists(folder) else []
    return [folder / name for name in sorted(glob.glob(rest, root_dir=folder, recursive=True))]  # noqa: PTH207


def relative_name(name: object, source: object) -> str:
    """Return `name` if it is a plain relative path such as `a/b.txt`. `source`, for messages, is the file or address
    that the name was read from.

    Raises InputError for an absolute path, a drive letter, an empty name, a part that is empty, `.` or `..`, a
    backslash, and a NUL: joined to a folder, such a name can point outside of it, here or on another system.
    """
    plain = (
        isinstance(name, str)
        and not {"", ".", ".."} & {*name.split("/")}
        and not {"\0", "\\"} & {*name}
        and not DRIVE.match(name)
    )
    if not plain:
        raise refused(name, source, "is not a plain relative path")
    return str(name)


@overload
def inside(folder: Path, name: object, source: object) -> Path: ...
@overload
def inside(folder: Url, name: object, source: object) -> Url: ...
def inside(folder: Path | Url, name: object, source: object) -> Path | Url:
    """Return `folder / name`, after checking that no `..` or link leads out of `folder`. Only the first folder of
    `name` may be a link, such as an output folder on another disk; the rest of `name` must stay within that. `source`,
    for messages, is the file or address that the name was read from. Raises InputError, also for names that
    `relative_name` refuses."""
    plain = relative_name(name, source)
    if isinstance(folder, Url):
        return folder / plain
    path, (first, *others) = folder / plain, plain.split("/")
    real, *homes = (Path(os.path.realpath(one)) for one in (path, folder, folder / first if others else folder))
    if not any(real.is_relative_to(home) for home in homes):
        raise refused(name, source, f"leads through a link to {real}")
    return path


def refused(name: object, source: object, why: str) -> InputError:
    return InputError(
        f"{source} names the file {shown(name)}, which {why}. Nothing was changed. Delete {source} and create or "
        "download it again, or restore it from a copy that you trust."
    )


def size_of(place: Place) -> int | None:
    """Return the size of a file or object in bytes; None if it does not exist."""
    if isinstance(place, Url):
        found = place.found()
        return None if found is None else found.size
    return place.stat().st_size if place.is_file() else None


def sizes_of(folder: Place, names: Iterable[str]) -> dict[str, int | None]:
    """Return {name: size in bytes, or None if it does not exist} of files in the folder; a bucket is listed once."""
    if isinstance(folder, Path):
        return {name: size_of(folder / name) for name in names}
    found = folder.files()
    return {name: found[name].size if name in found else None for name in names}


def sizes_below(folder: Place) -> dict[str, int]:
    """Return {name relative to the folder: size in bytes}, sorted, of all files in it; a bucket is listed once."""
    if isinstance(folder, Url):
        return {name: one.size for name, one in folder.files().items()}
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.stat().st_size for path in files}


def digest(place: Place) -> tuple[int, str]:
    """Return (size in bytes, SHA-256 as 64 hex digits) of a file or object. An object is streamed, not copied."""
    if isinstance(place, Path):
        with place.open("rb") as file:
            return os.fstat(file.fileno()).st_size, hashlib.file_digest(file, "sha256").hexdigest()
    size, sha = 0, hashlib.sha256()
    with place.stream() as stream:
        while piece := stream.read(1 << 20):
            size += len(piece)
            sha.update(piece)
    return size, sha.hexdigest()


def file_sha256(place: Place) -> str:
    """Return the SHA-256 of a file or object as 64 hex digits."""
    return digest(place)[1]


def unused[P: Place](place: P) -> P:
    """Return the first of `place`-1, `place`-2, … that does not exist."""
    taken = {*place.parent.children()} if isinstance(place, Url) else ()
    is_free = lambda one: one.name not in taken if isinstance(one, Url) else not os.path.lexists(one)
    return cast(P, next(one for n in itertools.count(1) if is_free(one := place.with_name(f"{place.name}-{n}"))))


def delete_files(folder: Place, names: Iterable[str]) -> None:
    """Delete the named files that exist; on a disk also folders that are empty afterwards, `folder` included. Raises
    InputError for a name that leads through a link out of the folder."""
    if isinstance(folder, Url):
        stores.delete(f"{folder}/{name}" for name in names)
        return
    for name in names:
        inside(folder.parent, f"{folder.name}/{name}", folder).unlink(missing_ok=True)
    remove_empty_folders(folder)


def remove_empty_folders(place: Path) -> None:
    """Delete all folders below `place`, and `place` itself, that contain no files; links are kept."""
    if not place.is_dir():
        return
    for folder in [*sorted((one for one in place.rglob("*") if one.is_dir()), reverse=True), place]:
        if not folder.is_symlink():
            with contextlib.suppress(OSError):
                folder.rmdir()


def move_folder(folder: Place, target: Place) -> None:
    """Move a folder to `target`. On a disk `target` is replaced, and must be on the same disk; in a bucket, the objects
    are moved one by one, and others at `target` stay."""
    if isinstance(folder, Path) and isinstance(target, Path):
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(target, ignore_errors=True)
        folder.rename(target)
    else:
        for name in sizes_below(folder):
            objects.rename(f"{folder}/{name}", f"{target}/{name}")


def streamed(place: Place, version: Object | None = None) -> BinaryIO:
    """Open a file or object for sequential reads; seeking back costs at most one more request. The bytes read are
    reported to lm.storage.meter. A read raises StorageError if the object is no longer `version`."""
    raw = place.stream(version) if isinstance(place, Url) else place.open("rb", buffering=0)
    return cast(BinaryIO, MeteredFile(raw))


@contextlib.contextmanager
def appearing(place: Place, scratch: Path | None = None, durable: bool = True) -> Generator[Path]:
    """Yield the path of a temporary file to write to; when the block ends, its contents replace `place` atomically. If
    the block fails, `place` does not change.

    `scratch` and `durable` are as in lm.storage.files.appearing_file. The temporary file of an object is in `scratch`,
    or else in the system's temporary folder, and is uploaded at the end. Raises OSError, StorageError.
    """
    if isinstance(place, Path):
        with appearing_file(place, scratch, durable) as partial:
            yield partial
        stores.note_write(place)
        return
    with tempfile.TemporaryDirectory(prefix="gristmill-", dir=scratch) as folder:
        partial = Path(folder) / (place.name or "object")
        yield partial
        stores.upload(partial, place.address)


def write_atomically(place: Place, data: str | bytes, scratch: Path | None = None, durable: bool = True) -> None:
    """Write `data`, text as UTF-8, to `place` atomically. Raises the errors of `appearing`."""
    content = data.encode() if isinstance(data, str) else data
    if isinstance(place, Url):
        stores.upload(content, place.address)
        return
    with appearing(place, scratch, durable) as partial:
        partial.write_bytes(content)


def write_json(place: Place, value: object) -> None:
    """Write `value` as JSON atomically."""
    write_atomically(place, json.dumps(value, indent=1, ensure_ascii=False) + "\n")
