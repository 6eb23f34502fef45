"""Find the files that options name: shell patterns, folders, addresses (s3://, gs://, hf://, https://) and lists of
them (@FILE).

Buckets are listed one folder at a time. Web servers cannot be listed; of many files there, only a few are queried for
their size.
"""

import glob
import gzip
import io
import itertools
import os
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

from data_prep.sources.formats import PLAIN_TEXT, TABLE_ENDINGS
from lm.errors import InputError, UsageError, shown
from lm.storage import Place, Url, is_url, place_of, sizes_below
from lm.storage.objects import Object
from lm.storage.stores import WEB

WILDCARD = re.compile(r"[*?[]")
ENDINGS = {
    "pages.warc": (".warc", ".warc.gz", ".warc.zst", ".wet", ".wet.gz", ".wet.zst"),
    "pages.tables": TABLE_ENDINGS,
}
"""{option: extensions of the files that are read from a folder}. Other options read tables."""
COMMON_CRAWL = "https://data.commoncrawl.org"
CRAWL_DATA = "crawl-data/"
"""Prefix of the paths in Common Crawl's own lists, which are relative to the root of its server."""
ASKED = 16
"""Maximum number of files on web servers that are queried for their size."""
NAMED = 10
"""Maximum number of ignored files that are listed by name."""
MAX_LIST_BYTES, MAX_LISTED = 200_000_000, 5_000_000
"""Maximum decompressed bytes and lines of a list of files. Common Crawl's lists have 100,000 lines."""


class Listed(NamedTuple):
    """A file that an option names."""

    place: Place
    name: str
    """Name of the file in its documents."""
    bytes: int = -1
    """Size; -1 if unknown."""
    etag: str = ""
    """ETag of a file in a bucket; otherwise empty."""
    told_by: int | str | None = None
    """Modification time in ns, ETag, or date: changes when the file changes, but also differs in a copy."""
    estimated: bool = False
    """Whether `bytes` is treated as an estimate (`guessed`)."""


def listed_on_disk(path: Path, name: str) -> Listed:
    stat = path.stat()
    return Listed(path.absolute(), name, stat.st_size, told_by=stat.st_mtime_ns)


def listed_in_store(url: Url, name: str, one: Object) -> Listed:
    return Listed(url, name, one.size, one.etag, one.etag or None)


def named_files(option: str, patterns: Iterable[str]) -> dict[Place, str]:
    """Return {place: name} of the files that `listed_files` finds."""
    return {one.place: one.name for one in listed_files(option, patterns)}


def listed_files(option: str, patterns: Iterable[str]) -> list[Listed]:
    """Return the files that the patterns match, each once, sorted by name.

    A folder stands for all files in it, recursively, that have one of the option's extensions (ENDINGS) and are not
    hidden; @FILE stands for the files that it lists.

    The name is the path relative to the named folder, or to the folder before the first wildcard, so that names and
    order do not depend on the location. In a list, it is the path as written; of an address, the part after the server
    or bucket. Names are unique (`distinct_names`). Raises UsageError with the name of the `option` if a pattern, folder
    or list has no files, or a path is not UTF-8.
    """
    found: dict[Place, Listed] = {}
    for pattern in patterns:
        if not pattern.strip():
            raise UsageError(
                f"{option}: {pattern!r} names nothing. Leave it out, or give a file, a folder or a pattern."
            )
        of = of_list if pattern.startswith("@") else of_address if is_url(pattern) else of_disk
        for one in of(option, pattern):
            found.setdefault(one.place, one)
    for place in found:
        written = str(place).encode(errors="ignore").decode()  # without lone surrogates, which are not UTF-8
        if isinstance(place, Path) and written != str(place):
            raise UsageError(
                f"{option}: the path {shown(os.fsencode(place))} is not UTF-8. Rename the file, or leave it out by a "
                "narrower pattern."
            )
    names = distinct_names({place: one.name for place, one in found.items()})
    listed = [one._replace(name=names[place]) for place, one in found.items()]
    return sorted(asked(option, listed), key=lambda one: one.name.split("/"))


def distinct_names(names: dict[Place, str]) -> dict[Place, str]:
    """Return {place: name} with unique names.

    The first file of a name keeps it, so that adding a second dump does not rename the first. The others are prefixed
    with as many of their parent folders as necessary, or with a number.
    """
    first = {name: place for place, name in reversed(names.items())}
    told, taken = dict(names), set(first)
    for place, name in names.items():
        if first[name] != place:
            folders = str(place).partition("://")[2].split("/") if isinstance(place, Url) else list(place.parts)
            folders = folders[: len(folders) - len(name.split("/"))]
            longer = ("/".join([*folders[-n:], name]) for n in range(1, len(folders) + 1))
            numbered = (f"{n}/{name}" for n in itertools.count(2))
            told[place] = next(one for one in itertools.chain(longer, numbered) if one not in taken)
            taken.add(told[place])
    return told


def of_disk(option: str, pattern: str) -> list[Listed]:
    """Find the local files that the pattern or folder names."""
    try:
        expanded = Path(pattern).expanduser()
    except RuntimeError as error:
        raise UsageError(f"{option}: {pattern!r} names the home of a user that is not here. Mend it.") from error
    if expanded.is_dir():
        return [listed_on_disk(expanded / name, name) for name in of_kind(option, pattern, sizes_below(expanded))]
    folder = Path(*itertools.takewhile(lambda part: not WILDCARD.search(part), expanded.parts[:-1]))
    matched = [path for path in map(Path, glob.glob(str(expanded), recursive=True)) if path.is_file()]  # noqa: PTH207
    if not matched:
        raise UsageError(
            f"{option}: {pattern!r} matches no file (seen from {Path.cwd()}). Mend the pattern, and quote it so "
            "that the shell passes it on whole."
        )
    return [listed_on_disk(path, path.relative_to(folder).as_posix()) for path in matched]


def of_kind(option: str, pattern: str, sizes: Mapping[str, int]) -> list[str]:
    """Select the files of a folder, {name: bytes}, that have the option's extensions. Raises UsageError if there are
    none."""
    endings = ENDINGS.get(option, ENDINGS["pages.tables"])
    found, *_ = by_kind(endings, sizes)
    if found:
        return found
    seen = [name for name in sizes if not is_hidden(name)]
    others = [other for other, known in ENDINGS.items() if any(name.lower().endswith(known) for name in seen)]
    holds = f"holds {len(seen):,} files, but none" if seen else "is a folder without files, so none"
    empty = " (those files are empty)" if option in others else ""
    remedy = f"It has files for {others[0]}: give it there." if others else "Name another folder, or a pattern."
    remedy = "Name another folder, or a pattern." if empty else remedy
    raise UsageError(f"{option}: {pattern!r} {holds} whose name ends in {', '.join(endings)}{empty}. {remedy}")


def is_hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/"))


def by_kind(endings: tuple[str, ...], sizes: Mapping[str, int]) -> tuple[list[str], list[str], list[str]]:
    """Split the files of a folder into (files to read, files of other types, empty plain text files). Hidden files are
    ignored."""
    found, others, empty = [], [], []
    for name, size in sizes.items():
        if not is_hidden(name):
            kind = others if not name.lower().endswith(endings) else found
            kind = empty if kind is found and size == 0 and name.lower().endswith(PLAIN_TEXT) else kind
            kind.append(name)
    return found, others, empty


def passed_over(option: str, patterns: Iterable[str]) -> Iterator[str]:
    """Yield messages that list the files ignored in folders: those of other types, and empty text files."""
    endings = ENDINGS[option]
    others: list[str] = []
    empty: list[str] = []
    for pattern in patterns:
        folder = Url(pattern) if is_url(pattern) else Path(pattern).expanduser()
        can_be = (
            folder.is_dir() if isinstance(folder, Path) else folder.scheme not in WEB and not WILDCARD.search(pattern)
        )
        _, more_others, more_empty = by_kind(endings, sizes_below(folder) if can_be else {})
        others, empty = others + more_others, empty + more_empty
    for names, why in ((others, f"whose type is not read (read: {' '.join(endings)})"), (empty, "that are empty")):
        if names:
            more = f" and {len(names) - NAMED} more" if names[NAMED:] else ""
            yield f"passed over {len(names):,} files {why}: {', '.join(names[:NAMED])}{more}"


def of_address(option: str, pattern: str) -> list[Listed]:
    """Find the files in a bucket that the pattern or folder names; on a web server, the one file."""
    if pattern.partition("://")[0] in WEB:
        if "*" in pattern:
            raise UsageError(
                f"{option}: {pattern!r} is a pattern, but a web server does not list its files. Write their addresses "
                "into a text file, one a line, and give it as @FILE."
            )
        return [Listed(Url(pattern), Url(pattern).name)]
    if not WILDCARD.search(pattern):
        url = Url(pattern)
        if url.key and (one := url.found()) is not None:
            return [listed_in_store(url, url.name, one)]
        inside = url.files()
        if not inside:
            raise UsageError(f"{option}: {pattern!r} names no file: there is none, and none below it. Mend it.")
        names = of_kind(option, pattern, {name: one.size for name, one in inside.items()})
        return [listed_in_store(url / name, name, inside[name]) for name in names]
    parts = pattern.split("/")
    fixed = list(itertools.takewhile(lambda part: not WILDCARD.search(part), parts[:-1]))
    folder, wanted = Url("/".join(fixed)), [part for part in parts[len(fixed) :] if part]
    files = folder.files().items()
    matched = [listed_in_store(folder / name, name, one) for name, one in files if matches(name.split("/"), wanted)]
    if not matched:
        raise UsageError(
            f"{option}: {pattern!r} matches no file below {folder}. Mend the pattern, and quote it so that the shell "
            "passes it on whole."
        )
    return matched


def matches(parts: Sequence[str], patterns: Sequence[str]) -> bool:
    """Whether a path matches a shell pattern, as in glob: `**` matches any number of folders."""
    if not patterns:
        return not parts
    hidden = bool(parts) and parts[0].startswith(".") and not patterns[0].startswith(".")
    if patterns[0] == "**":
        return matches(parts, patterns[1:]) or (bool(parts) and not hidden and matches(parts[1:], patterns))
    return bool(parts) and not hidden and fnmatchcase(parts[0], patterns[0]) and matches(parts[1:], patterns[1:])


def of_list(option: str, pattern: str) -> list[Listed]:
    """Read a list of files, one path or address per line, gzip-compressed or not.

    Paths are relative to the list; in Common Crawl's own lists, to the root of its server.
    """
    source = place_of(pattern[1:])
    try:
        content = source.read_bytes()
        if content.startswith(b"\x1f\x8b"):
            with gzip.open(io.BytesIO(content)) as members:
                content = members.read(MAX_LIST_BYTES + 1)
            if len(content) > MAX_LIST_BYTES:
                raise ValueError(f"more than {MAX_LIST_BYTES:,} bytes unpacked")
        written = (line.strip() for line in io.TextIOWrapper(io.BytesIO(content), encoding="utf-8"))
        lines = list(itertools.islice(filter(None, written), MAX_LISTED + 1))
        if len(lines) > MAX_LISTED:
            raise ValueError(f"more than {MAX_LISTED:,} lines")
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise InputError(f"{option}: the list {source} cannot be read: {error}. Mend it, or name another.") from error
    named: list[tuple[Place, str]] = []
    for line in lines:
        if not line.startswith("#"):
            try:
                place = place_of(line) if is_url(line) else top(source, line) / line
            except UsageError as error:
                raise UsageError(f"{option}: the list {source}: {error}") from error
            name = place.key if is_url(line) and isinstance(place, Url) else line
            named.append((place, name.lstrip("/")))
    if not named:
        raise UsageError(f"{option}: the list {source} names no file. Write one path or address a line.")
    folders = {place.parent for place, _ in named if isinstance(place, Url) and not is_on_the_web(place)}
    said = {folder / name: one for folder in sorted(folders) for name, one in folder.files().items()}
    found = []
    for place, name in named:
        if isinstance(place, Path) and place.is_file():
            found.append(listed_on_disk(place, name))
        elif place in said and isinstance(place, Url):
            found.append(listed_in_store(place, name, said[place]))
        elif is_on_the_web(place):
            found.append(Listed(place, name))
        else:
            raise UsageError(f"{option}: {place}, which {source} lists, is not there. Mend the list.")
    return found


def top(source: Place, line: str) -> Place:
    """Return the folder that a path in a list is relative to."""
    if not line.startswith(CRAWL_DATA):
        return source.parent
    before, found, _ = str(source).partition(f"/{CRAWL_DATA}")
    return place_of(before) if found else Url(COMMON_CRAWL)


def asked(option: str, listed: list[Listed]) -> list[Listed]:
    """Query the sizes of the files on web servers if there are at most ASKED. Raises UsageError if one of them does not
    exist."""
    web = [one.place for one in listed if isinstance(one.place, Url) and one.bytes < 0]
    if not 0 < len(web) <= ASKED:
        return listed
    said = dict(zip(web, heads(web), strict=True))
    if gone := [place for place, one in said.items() if one is None]:
        raise UsageError(f"{option}: {gone[0]} is not there. Mend the address.")
    sized = {place: Listed(place, "", one.size, told_by=one.etag or None) for place, one in said.items() if one}
    with_size = lambda one, found: one._replace(bytes=found.bytes, told_by=found.told_by)
    return [with_size(one, sized.get(one.place, one)) for one in listed]


def heads(urls: list[Url]) -> list[Object | None]:
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(Url.found, urls))


def guessed(listed: list[Listed]) -> list[Listed]:
    """Fill in unknown sizes with the mean of a sample of them.

    Sizes of files on web servers are always marked as estimates, so that a file is the same input among few files and
    among many.
    """
    unknown = [one.place for one in listed if one.bytes < 0 and isinstance(one.place, Url)]
    mean = 0
    if unknown:
        spread = [unknown[number * len(unknown) // ASKED] for number in range(ASKED)]
        sizes = [one.size for one in heads(list(dict.fromkeys(spread))) if one is not None]
        mean = sum(sizes) // max(len(sizes), 1)
    size = lambda one: mean if one.bytes < 0 else one.bytes
    return [one._replace(bytes=size(one), estimated=is_on_the_web(one.place)) for one in listed]


def is_on_the_web(place: Place) -> bool:
    return isinstance(place, Url) and place.scheme in WEB
