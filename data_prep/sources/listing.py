"""Which files are named: shell patterns, folders, addresses (s3://, gs://, hf://, https://), and lists of them (@FILE).

What lies in a store is listed a folder at a time, never a file at a time. A web server lists nothing: its files are
named one by one, as lists do, and of many of them a few are asked for their size.
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
from lm.storage import Place, Url, is_url, place_of
from lm.storage.objects import Object
from lm.storage.stores import WEB

WILDCARD = re.compile(r"[*?[]")
ENDINGS = {
    "pages.warc": (".warc", ".warc.gz", ".warc.zst", ".wet", ".wet.gz", ".wet.zst"),
    "pages.tables": TABLE_ENDINGS,
}
"""{option: endings of the files that are read of a folder}; other options take tables."""
COMMON_CRAWL = "https://data.commoncrawl.org"
CRAWL_DATA = "crawl-data/"
"""What the paths in Common Crawl's own lists begin with; they are meant from the top of its server."""
ASKED = 16
"""Files of web servers that are asked for their size, at most."""
NAMED = 10
"""Files that are passed over and named, at most."""
MAX_LIST_BYTES, MAX_LISTED = 200_000_000, 5_000_000
"""Of a list of files: bytes, unpacked, and lines. Common Crawl's have 100,000."""


class Listed(NamedTuple):
    """A file that is named."""

    place: Place
    name: str
    """What documents call it."""
    bytes: int | None
    """None where it was not asked for."""
    etag: str = ""
    """Of a file in a store."""
    told_by: int | str | None = None
    """What changes when the file does, but in a copy too: of a disk, its time of change in ns; of a store, its ETag; of
    a web server that was asked, ETag or date."""


class Guessed(NamedTuple):
    """As Listed, with a size that may be a guess: of a file of a web server it counts as one, so that it is the same
    input among few and among many."""

    place: Place
    name: str
    bytes: int
    etag: str
    estimated: bool


Named = tuple[Place, str, Object | None]
"""(place, its name, what a store says of it)."""


def named_files(option: str, patterns: Iterable[str]) -> dict[Place, str]:
    """{place: name} of the files as `listed_files` finds them."""
    return {one.place: one.name for one in listed_files(option, patterns)}


def listed_files(option: str, patterns: Iterable[str]) -> list[Listed]:
    """The files that the shell patterns match (`**` goes into folders), each once. A folder stands for all files in it
    and in its folders whose names end as such files do (ENDINGS), but for hidden ones; @FILE for those that it lists.

    The name is the path inside the folder where the pattern's wildcards begin, or that is named, so that names and
    order are the same wherever that folder lies; of a file that a list names, its path as listed, of an address without
    server and bucket. Of several files of one name the first keeps it (`distinct_names`). Raises UsageError, which
    names the `option`, when a pattern, a folder or a list gives no file, or one whose path is not UTF-8.
    """
    found: dict[Place, tuple[str, Object | None]] = {}  # place: (name, what is said of it)
    for pattern in patterns:
        if not pattern.strip():
            raise UsageError(
                f"{option}: {pattern!r} names nothing. Leave it out, or give a file, a folder or a pattern."
            )
        if pattern.startswith("@"):
            some = of_list(option, pattern)
        else:
            some = of_address(option, pattern) if is_url(pattern) else of_disk(option, pattern)
        for place, name, told in some:
            found.setdefault(place, (name, told))
    for place in found:
        if isinstance(place, Path) and not is_utf8(str(place)):
            raise UsageError(
                f"{option}: the path {shown(os.fsencode(place))} is not UTF-8. Rename the file, or leave it out by a "
                "narrower pattern."
            )
    names = distinct_names({place: name for place, (name, _) in found.items()})
    listed = [Listed(place, names[place], *said_of(place, told)) for place, (_, told) in found.items()]
    return sorted(asked(option, listed), key=lambda one: one.name.split("/"))


def is_utf8(text: str) -> bool:
    """Whether it can be written as UTF-8: a name of a file that is not has halves of surrogates in it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def distinct_names(names: dict[Place, str]) -> dict[Place, str]:
    """{place: name}, each name once. The first of several files of one name keeps it, so that a second dump whose files
    are called as those of the first changes no name of the first; the others get as many of their folders before it as
    are needed."""
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


def said_of(place: Place, told: Object | None) -> tuple[int | None, str, int | str | None]:
    """Its size, ETag, and what it is told by."""
    if isinstance(place, Path):
        stat = place.stat()
        return stat.st_size, "", stat.st_mtime_ns
    return (None, "", None) if told is None else (told.size, told.etag, told.etag or None)


def of_disk(option: str, pattern: str) -> list[Named]:
    """The files of this machine that the pattern or folder names."""
    try:
        expanded = Path(pattern).expanduser()
    except RuntimeError as error:
        raise UsageError(f"{option}: {pattern!r} names the home of a user that is not here. Mend it.") from error
    if expanded.is_dir():
        names = of_kind(option, pattern, sizes_inside(expanded))
        return [((expanded / name).absolute(), name, None) for name in names]
    folder = Path(*itertools.takewhile(lambda part: not WILDCARD.search(part), expanded.parts[:-1]))
    matched = [path for path in map(Path, glob.glob(str(expanded), recursive=True)) if path.is_file()]  # noqa: PTH207
    if not matched:
        raise UsageError(
            f"{option}: {pattern!r} matches no file (seen from {Path.cwd()}). Mend the pattern, and quote it so "
            "that the shell passes it on whole."
        )
    return [(path.absolute(), path.relative_to(folder).as_posix(), None) for path in matched]


def sizes_inside(folder: Path) -> dict[str, int]:
    """{path relative to the folder: bytes} of all files in it, sorted."""
    inside = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in inside}


def of_kind(option: str, pattern: str, sizes: Mapping[str, int]) -> list[str]:
    """Of the files in a folder, {name: bytes}, those of the option's kind. Raises UsageError when there is none."""
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
    """(files of a folder that are read, those of another type, plain texts without a byte); hidden ones are in none."""
    found, others, empty = [], [], []
    for name, size in sizes.items():
        if not is_hidden(name):
            kind = others if not name.lower().endswith(endings) else found
            kind = empty if kind is found and size == 0 and name.lower().endswith(PLAIN_TEXT) else kind
            kind.append(name)
    return found, others, empty


def passed_over(option: str, patterns: Iterable[str]) -> Iterator[str]:
    """Lines that name the files which a folder stands not for: those of other types, and empty texts."""
    endings = ENDINGS[option]
    others: list[str] = []
    empty: list[str] = []
    for pattern in patterns:
        if is_url(pattern):
            sizes = {}
            if pattern.partition("://")[0] not in WEB and not WILDCARD.search(pattern):
                sizes = {name: one.size for name, one in Url(pattern).files().items()}
        else:
            folder = Path(pattern).expanduser()
            sizes = sizes_inside(folder) if folder.is_dir() else {}
        _, more_others, more_empty = by_kind(endings, sizes)
        others, empty = others + more_others, empty + more_empty
    for names, why in ((others, f"whose type is not read (read: {' '.join(endings)})"), (empty, "that are empty")):
        if names:
            more = f" and {len(names) - NAMED} more" if names[NAMED:] else ""
            yield f"passed over {len(names):,} files {why}: {', '.join(names[:NAMED])}{more}"


def of_address(option: str, pattern: str) -> list[Named]:
    """The files of a store that the pattern or folder names; of a web server, the one file."""
    if pattern.partition("://")[0] in WEB:
        if "*" in pattern:
            raise UsageError(
                f"{option}: {pattern!r} is a pattern, but a web server does not list its files. Write their addresses "
                "into a text file, one a line, and give it as @FILE."
            )
        url = Url(pattern)
        return [(url, url.name, None)]
    parts = pattern.split("/")
    fixed = list(itertools.takewhile(lambda part: not WILDCARD.search(part), parts[:-1]))
    if not WILDCARD.search(pattern):
        url = Url(pattern)
        if url.key and (one := url.found()) is not None:
            return [(url, url.name, one)]
        inside = url.files()
        if not inside:
            raise UsageError(f"{option}: {pattern!r} names no file: there is none, and none below it. Mend it.")
        names = of_kind(option, pattern, {name: one.size for name, one in inside.items()})
        return [(url / name, name, inside[name]) for name in names]
    folder, wanted = Url("/".join(fixed)), [part for part in parts[len(fixed) :] if part]
    matched: list[Named] = [
        (folder / name, name, one) for name, one in folder.files().items() if matches(name.split("/"), wanted)
    ]
    if not matched:
        raise UsageError(
            f"{option}: {pattern!r} matches no file below {folder}. Mend the pattern, and quote it so that the shell "
            "passes it on whole."
        )
    return matched


def matches(parts: Sequence[str], patterns: Sequence[str]) -> bool:
    """Whether a path is one of a shell pattern, as glob has it: `**` stands for folders, however many."""
    if not patterns:
        return not parts
    hidden = bool(parts) and parts[0].startswith(".") and not patterns[0].startswith(".")
    if patterns[0] == "**":
        return matches(parts, patterns[1:]) or (bool(parts) and not hidden and matches(parts[1:], patterns))
    return bool(parts) and not hidden and fnmatchcase(parts[0], patterns[0]) and matches(parts[1:], patterns[1:])


def of_list(option: str, pattern: str) -> list[Named]:
    """The files that a text file lists, a path or an address a line: gzip or not, on a disk or elsewhere. A path is
    meant from where the list lies; one of Common Crawl's own lists, from the top of its server."""
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
    named: list[Named] = []
    for line in lines:
        if not line.startswith("#"):
            try:
                place = place_of(line) if is_url(line) else top(source, line) / line
            except UsageError as error:
                raise UsageError(f"{option}: the list {source}: {error}") from error
            name = place.key if is_url(line) and isinstance(place, Url) else line
            named.append((place if isinstance(place, Url) else place.absolute(), name.lstrip("/"), None))
    if not named:
        raise UsageError(f"{option}: the list {source} names no file. Write one path or address a line.")
    gone = [place for place, _, _ in named if isinstance(place, Path) and not place.is_file()]
    if gone:
        raise UsageError(f"{option}: {gone[0]}, which {source} lists, is not there. Mend the list.")
    return told_of(option, named)


def top(source: Place, line: str) -> Place:
    """What a path in a list is relative to."""
    if not line.startswith(CRAWL_DATA):
        return source.parent
    before, found, _ = str(source).partition(f"/{CRAWL_DATA}")
    return place_of(before) if found else Url(COMMON_CRAWL)


def told_of(option: str, named: list[Named]) -> list[Named]:
    """The same, with what stores say of them, by a listing of each folder. Raises UsageError for one that is gone."""
    stored = {place for place, _, _ in named if isinstance(place, Url) and place.scheme not in WEB}
    folders = {place.parent for place in stored}
    said = {folder / name: one for folder in sorted(folders) for name, one in folder.files().items()}
    for place in sorted(stored):
        if place not in said:
            raise UsageError(f"{option}: {place} is not there. Mend the list.")
    return [(place, name, said.get(place) if isinstance(place, Url) else None) for place, name, _ in named]


def asked(option: str, listed: list[Listed]) -> list[Listed]:
    """The same; where few are on web servers, with their sizes. Raises UsageError for one that is gone."""
    web = [one for one in listed if isinstance(one.place, Url) and one.bytes is None]
    if not 0 < len(web) <= ASKED:
        return listed
    said = dict(zip(web, heads([one.place for one in web if isinstance(one.place, Url)]), strict=True))
    for one, told in said.items():
        if told is None:
            raise UsageError(f"{option}: {one.place} is not there. Mend the address.")
    return [
        one if (told := said.get(one)) is None else one._replace(bytes=told.size, told_by=told.etag or None)
        for one in listed
    ]


def heads(urls: list[Url]) -> list[Object | None]:
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(Url.found, urls))


def guessed(listed: list[Listed]) -> list[Guessed]:
    """The same; where sizes are not known, all are taken for the mean of some that are spread over them."""
    unknown = [one.place for one in listed if one.bytes is None and isinstance(one.place, Url)]
    mean = 0
    if unknown:
        spread = [unknown[number * len(unknown) // ASKED] for number in range(ASKED)]
        sizes = [one.size for one in heads(list(dict.fromkeys(spread))) if one is not None]
        mean = sum(sizes) // max(len(sizes), 1)
    return [
        Guessed(one.place, one.name, mean if one.bytes is None else one.bytes, one.etag, is_on_the_web(one.place))
        for one in listed
    ]


def is_on_the_web(place: Place) -> bool:
    return isinstance(place, Url) and place.scheme in WEB
