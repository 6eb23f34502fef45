"""Find the files that options name: shell patterns, folders, addresses (s3://, gs://, hf://, https://) and lists of
them (@FILE).

Buckets are listed one folder at a time. Web servers cannot be listed; of many files there, only a few are queried for
their size.
"""

import contextlib
import gzip
import io
import itertools
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

from data_prep.sources.formats import PLAIN_TEXT, TABLE_ENDINGS
from lm.errors import InputError, UsageError, shown
from lm.storage import WILDCARD, Place, Url, is_url, matching_paths, place_of, split_pattern
from lm.storage.objects import WEB, Object

ENDINGS = {
    "pages.warc": (".warc", ".warc.gz", ".warc.zst", ".wet", ".wet.gz", ".wet.zst"),
    "pages.tables": TABLE_ENDINGS,
}
"""{option: extensions of the files that are read from a folder}. Other options read tables."""
COMMON_CRAWL = "https://data.commoncrawl.org"
CRAWL_DATA = "crawl-data/"
"""Prefix of the paths in Common Crawl's own lists, which are relative to the root of its server."""
QUERIED = 16
"""Maximum number of files on web servers that are queried for their size."""
NAMED = 10
"""Maximum number of ignored files that are listed by name."""
MAX_LIST_BYTES, MAX_LISTED = 200_000_000, 5_000_000
"""Maximum decompressed bytes and lines of a list of files. Common Crawl's lists have 100,000 lines."""


class Listed(NamedTuple):
    """A file that an option such as pages.tables names."""

    place: Place
    name: str
    """Name in Document.file_path: see `listed_files`."""
    bytes: int = -1
    """Size; -1 if unknown."""
    etag: str = ""
    """ETag of a file in a bucket; otherwise empty."""
    version: int | str | None = None
    """Modification time in ns, ETag, or date. Differs if the file changed, but also between copies of a file."""
    estimated: bool = False
    """Whether `bytes` may be an estimate (`with_estimated_sizes`)."""

    @classmethod
    def of(cls, place: Place, name: str, found: Object | None = None) -> "Listed":
        """Return the entry of a local file, or of a file in a bucket whose listing has `found`."""
        if found is not None:
            return cls(place, name, found.size, found.etag, found.etag or None)
        assert isinstance(place, Path)
        stat = place.stat()
        return cls(place.absolute(), name, stat.st_size, version=stat.st_mtime_ns)


def listed_files(option: str, patterns: Iterable[str], follow_links: bool = False) -> list[Listed]:
    """Return the files that the `patterns` of an option match, each once, sorted by name.

    A folder stands for all files in it, recursively, that have one of the option's extensions (ENDINGS) and are not
    hidden; @FILE stands for the paths and addresses in that text file, one per line.

    A file's name is its path relative to the given folder, or to the folder before the first wildcard, so names and
    order do not depend on the location. The name of a path in @FILE is the path as written; of an address in @FILE, the
    part after the server or bucket. Raises UsageError with the name of the `option` if a pattern, folder or list has no
    files, a file on a web server does not exist, a path is not UTF-8, or a link leads out of a folder (allowed with
    `follow_links`).
    """
    found: dict[Place, Listed] = {}
    for pattern in patterns:
        if not pattern.strip():
            raise UsageError(f"{option}: {pattern!r} is empty. Remove it, or give a file, a folder or a pattern.")
        if pattern.startswith("@"):
            some = files_in_list(option, pattern)
        else:
            some = remote_files(option, pattern) if is_url(pattern) else local_files(option, pattern, follow_links)
        for one in some:
            found.setdefault(one.place, one)
    for place in found:
        written = str(place).encode(errors="ignore").decode()  # without lone surrogates, which are not UTF-8
        if isinstance(place, Path) and written != str(place):
            raise UsageError(
                f"{option}: the path {shown(os.fsencode(place))} is not UTF-8. Rename the file, or exclude it with a "
                "narrower pattern."
            )
    names = distinct_names({place: one.name for place, one in found.items()})
    listed = [one._replace(name=names[place]) for place, one in found.items()]
    return sorted(with_known_sizes(option, listed), key=lambda one: one.name.split("/"))


def distinct_names(names: dict[Place, str]) -> dict[Place, str]:
    """Return {place: name} with unique names.

    The first file of a name keeps it, so that adding a second dump does not rename the first. Others are prefixed with
    parent folders until they are unique, or else with a number.
    """
    first = {name: place for place, name in reversed(names.items())}
    unique, taken = dict(names), set(first)
    for place, name in names.items():
        if first[name] != place:
            folders = str(place).partition("://")[2].split("/") if isinstance(place, Url) else list(place.parts)
            folders = folders[: len(folders) - len(name.split("/"))]
            longer = ("/".join([*folders[-n:], name]) for n in range(1, len(folders) + 1))
            numbered = (f"{n}/{name}" for n in itertools.count(2))
            unique[place] = next(one for one in itertools.chain(longer, numbered) if one not in taken)
            taken.add(unique[place])
    return unique


def local_files(option: str, pattern: str, follow_links: bool) -> list[Listed]:
    """Return the local files that match a shell pattern; for a folder, those in it with one of the option's extensions.
    Raises UsageError if there are none, or a link leads out of the folder."""
    try:
        folder, rest = split_pattern(pattern)
    except UsageError as error:
        raise UsageError(f"{option}: {error}") from error
    if not rest and folder.is_dir():
        names = files_to_read(option, pattern, files_below(option, folder, follow_links))
        return [Listed.of(folder / name, name) for name in names]
    matched = [path for path in matching_paths(pattern) if path.is_file()]
    if rest and not follow_links:
        for path in matched:
            refuse_link_out(option, path, os.path.realpath(folder))
    if not matched:
        raise UsageError(
            f"{option}: {pattern!r} matches no file (seen from {Path.cwd()}). Correct the pattern, and quote it so "
            "that the shell does not expand it."
        )
    folder = folder if rest else folder.parent
    return [Listed.of(path, path.relative_to(folder).as_posix()) for path in matched]


def files_below(option: str, folder: Path, follow_links: bool) -> dict[str, int]:
    """Return {name relative to the folder: bytes} of all files in it that are not hidden. Links to folders are followed
    only with `follow_links`. Raises UsageError if a link leads out of the folder, or a path is too long."""
    home, found, waiting, seen = os.path.realpath(folder), dict[str, int](), [("", str(folder))], set[tuple[int, int]]()
    path = str(folder)
    try:
        while waiting:
            prefix, path = waiting.pop()
            with contextlib.suppress(PermissionError), os.scandir(path) as entries:
                about = Path(path).stat()
                if (about.st_dev, about.st_ino) in seen:  # a link to a folder above it
                    continue
                seen.add((about.st_dev, about.st_ino))
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    path = entry.path
                    is_link = entry.is_symlink()
                    if is_link and not follow_links:
                        refuse_link_out(option, Path(path), home)
                    if entry.is_dir():
                        if follow_links or not is_link:
                            waiting.append((f"{prefix}{entry.name}/", path))
                    elif entry.is_file():
                        found[prefix + entry.name] = entry.stat().st_size
    except OSError as error:
        raise UsageError(
            f"{option}: {shown(path)} of {len(path):,} characters, in {str(folder)!r}, cannot be read: "
            f"{error.strerror}. Move the file, or give another folder."
        ) from error
    return found


def refuse_link_out(option: str, path: Path, home: str) -> None:
    """Raise UsageError if the real path of a file is not in `home`, the real path of a folder."""
    target = os.path.realpath(path)
    if target != home and not target.startswith(home.rstrip("/") + "/"):
        remedy = ", or give --pages.follow-links True to read such links" if option.startswith("pages.") else ""
        raise UsageError(
            f"{option}: {str(path)!r} is a link to {target!r}, outside of {home!r}. Copy the file there, or remove the "
            f"link{remedy}."
        )


def remote_files(option: str, pattern: str) -> list[Listed]:
    """Return the files in a bucket that a pattern, folder or address names, or the one file at an address on a web
    server. Raises UsageError if there are none, or for a pattern on a web server, which does not list its files."""
    url = Url(pattern)
    if url.scheme in WEB:
        if "*" in pattern:
            raise UsageError(
                f"{option}: {pattern!r} is a pattern, but a web server does not list its files. Write their addresses "
                "into a text file, one per line, and give it as @FILE."
            )
        return [Listed(url, url.name)]
    if WILDCARD.search(pattern):
        parts = pattern.split("/")
        fixed = list(itertools.takewhile(lambda part: not WILDCARD.search(part), parts[:-1]))
        folder, wanted = Url("/".join(fixed)), [part for part in parts[len(fixed) :] if part]
        files, name = folder.files(), "/".join(wanted)  # a name may have the characters of a pattern
        if name in files:
            return [Listed.of(url, url.name, files[name])]
        if not any(one.startswith(f"{name}/") for one in files):
            matched = [one for one in files if matches(one.split("/"), wanted)]
            if not matched:
                raise UsageError(
                    f"{option}: {pattern!r} matches no file below {folder}. Correct the pattern, and quote it so that "
                    "the shell does not expand it."
                )
            return [Listed.of(folder / one, one, files[one]) for one in matched]
    elif url.key and (one := url.found()) is not None:
        return [Listed.of(url, url.name, one)]
    files = url.files()
    if not files:
        raise UsageError(f"{option}: {pattern!r} is neither a file nor a folder with files. Correct the address.")
    names = files_to_read(option, pattern, {name: one.size for name, one in files.items()})
    return [Listed.of(url / name, name, files[name]) for name in names]


def matches(parts: Sequence[str], patterns: Sequence[str]) -> bool:
    """Whether path components match those of a shell pattern, as in glob: `**` matches any number of folders."""
    if not patterns:
        return not parts
    hidden = bool(parts) and parts[0].startswith(".") and not patterns[0].startswith(".")
    if patterns[0] == "**":
        return matches(parts, patterns[1:]) or (bool(parts) and not hidden and matches(parts[1:], patterns))
    return bool(parts) and not hidden and fnmatchcase(parts[0], patterns[0]) and matches(parts[1:], patterns[1:])


def files_in_list(option: str, pattern: str) -> list[Listed]:
    """Return the files in the list @FILE: one path or address per line, # for comments, optionally gzip-compressed.

    Relative paths start at the list's folder; those of Common Crawl's own lists, at the root of its server. Raises
    InputError if the list cannot be read or is too long, UsageError if it is empty or names a file that does not exist.
    """
    source = place_of(pattern[1:])
    try:
        content = source.read_bytes()
        if content.startswith(b"\x1f\x8b"):
            with gzip.open(io.BytesIO(content)) as members:
                content = members.read(MAX_LIST_BYTES + 1)
            if len(content) > MAX_LIST_BYTES:
                raise ValueError(f"more than {MAX_LIST_BYTES:,} bytes unpacked")
        written = (line.strip() for line in io.TextIOWrapper(io.BytesIO(content), encoding="utf-8-sig"))
        lines = list(itertools.islice(filter(None, written), MAX_LISTED + 1))
        if len(lines) > MAX_LISTED:
            raise ValueError(f"more than {MAX_LISTED:,} lines")
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise InputError(
            f"{option}: the list {source} cannot be read: {error}. Correct the list, or name another."
        ) from error
    names: list[tuple[Place, str]] = []
    for line in lines:
        if not line.startswith("#"):
            try:
                base = source.parent
                if line.startswith(CRAWL_DATA):
                    before, found, _ = str(source).partition(f"/{CRAWL_DATA}")
                    base = place_of(before) if found else Url(COMMON_CRAWL)
                place = place_of(line) if is_url(line) else base / line
            except UsageError as error:
                raise UsageError(f"{option}: the list {source}: {error}") from error
            name = place.key if is_url(line) and isinstance(place, Url) else line
            names.append((place, name.lstrip("/")))
    if not names:
        raise UsageError(f"{option}: the list {source} has no path or address. Write one path or address per line.")
    folders = {place.parent for place, _ in names if isinstance(place, Url) and not is_on_the_web(place)}
    objects = {folder / name: one for folder in sorted(folders) for name, one in folder.files().items()}
    found = []
    for place, name in names:
        if is_on_the_web(place):
            found.append(Listed(place, name))
        elif place in objects or (isinstance(place, Path) and place.is_file()):
            found.append(Listed.of(place, name, objects[place] if isinstance(place, Url) else None))
        else:
            raise UsageError(f"{option}: {place} in the list {source} does not exist. Correct the list.")
    return found


def files_to_read(option: str, pattern: str, sizes: Mapping[str, int]) -> list[str]:
    """Return the names in `sizes` ({name: bytes} of a folder's files) with one of the option's extensions. Raises
    UsageError if there are none."""
    endings = ENDINGS.get(option, ENDINGS["pages.tables"])
    found, *_ = by_type(endings, sizes)
    if found:
        return found
    seen = [name for name in sizes if not is_hidden(name)]
    others = [other for other, known in ENDINGS.items() if any(name.lower().endswith(known) for name in seen)]
    holds = f"holds {len(seen):,} files, but none" if seen else "is a folder without files"
    empty = " (those files are empty)" if option in others else ""
    remedy = (
        f"It has files for {others[0]}: give it as that option." if others else "Give another folder, or a pattern."
    )
    remedy = "Give another folder, or a pattern." if empty else remedy
    raise UsageError(f"{option}: {pattern!r} {holds} with the ending {', '.join(endings)}{empty}. {remedy}")


def is_hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/"))


def by_type(endings: tuple[str, ...], sizes: Mapping[str, int]) -> tuple[list[str], list[str], list[str]]:
    """Split the names in `sizes`, {name: bytes}, into (names with one of `endings`, other names, empty plain text
    files). Hidden files are left out."""
    found, others, empty = [], [], []
    for name, size in sizes.items():
        if not is_hidden(name):
            kind = found if name.lower().endswith(endings) else others
            (empty if kind is found and not size and name.lower().endswith(PLAIN_TEXT) else kind).append(name)
    return found, others, empty


def skipped_files(option: str, patterns: Iterable[str], follow_links: bool) -> Iterator[str]:
    """Yield a message about the files of other types in the named folders, and one about the empty plain text files.
    Raises UsageError like `listed_files`."""
    endings = ENDINGS[option]
    others: list[str] = []
    empty: list[str] = []
    for pattern in patterns:
        folder = Url(pattern) if is_url(pattern) else Path(pattern).expanduser()
        sizes: Mapping[str, int] = {}
        if isinstance(folder, Path):
            sizes = files_below(option, folder, follow_links) if folder.is_dir() else {}
        elif folder.scheme not in WEB and not WILDCARD.search(pattern):
            sizes = {name: one.size for name, one in folder.files().items()}
        _, more_others, more_empty = by_type(endings, sizes)
        others, empty = others + more_others, empty + more_empty
    for names, why in ((others, f"of other types (read: {' '.join(endings)})"), (empty, "that are empty")):
        if names:
            more = f" and {len(names) - NAMED} more" if names[NAMED:] else ""
            yield f"skipped {len(names):,} files {why}: {', '.join(names[:NAMED])}{more}"


def with_known_sizes(option: str, listed: list[Listed]) -> list[Listed]:
    """Request the sizes of files on web servers, if at most QUERIED are unknown, and fill them in. Raises UsageError if
    a file does not exist."""
    unknown = [one.place for one in listed if isinstance(one.place, Url) and one.bytes < 0]
    if len(unknown) > QUERIED:
        return listed
    found: dict[Place, Object | None] = dict(zip(unknown, query(unknown), strict=True))
    if missing := [place for place, one in found.items() if one is None]:
        raise UsageError(f"{option}: {missing[0]} does not exist. Correct the address.")
    return [
        one._replace(bytes=now.size, version=now.etag or None) if (now := found.get(one.place)) else one
        for one in listed
    ]


def with_estimated_sizes(listed: list[Listed]) -> list[Listed]:
    """Fill in unknown sizes with the mean size of up to QUERIED files, whose sizes are requested from their servers.

    Sizes of files on web servers are always marked as estimates, so that a file has the same identity
    (InputFile.identity) in a short and in a long list.
    """
    unknown = [one.place for one in listed if one.bytes < 0 and isinstance(one.place, Url)]
    spread = [unknown[number * len(unknown) // QUERIED] for number in range(QUERIED)] if unknown else []
    sizes = [one.size for one in query(list(dict.fromkeys(spread))) if one is not None]
    mean = sum(sizes) // max(len(sizes), 1)
    size = lambda one: mean if one.bytes < 0 else one.bytes
    return [one._replace(bytes=size(one), estimated=is_on_the_web(one.place)) for one in listed]


def query(urls: list[Url]) -> list[Object | None]:
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(Url.found, urls))


def is_on_the_web(place: Place) -> bool:
    return isinstance(place, Url) and place.scheme in WEB
