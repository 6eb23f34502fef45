"""Files of your own, found by shell patterns, and told apart by how they begin: WARC, WET, or a table of texts."""

import glob
import re
import zlib
from collections.abc import Callable, Iterable
from itertools import takewhile
from pathlib import Path

from data_prep.config import PagesConfig
from data_prep.sources.manifest import InputFile
from lm.errors import InputError, UsageError

WILDCARD = re.compile(r"[*?[]")
GZIP, ZSTD, PARQUET, WARC = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"PAR1", b"WARC/"
ENDINGS = {
    "pages.warc": (".warc", ".warc.gz", ".warc.zst", ".wet", ".wet.gz", ".wet.zst"),
    "pages.tables": (
        ".parquet", ".txt", ".jsonl", ".jsonl.gz", ".jsonl.zst", ".ndjson", ".ndjson.gz", ".ndjson.zst", ".json",
        ".json.gz", ".json.zst",
    ),
}  # fmt: skip
"""{option: endings of the files that are read of a folder}; other options take tables."""
RECORD_TYPE = re.compile(rb"^WARC-Type:[ \t]*([a-z]+)", re.IGNORECASE | re.MULTILINE)
LOOKED_AT = 1 << 16  # bytes of a file's begin, as it lies on the disk: several records, since their first are small


def fetch(config: PagesConfig, out: Path, progress: Callable[[str], None]) -> tuple[list[InputFile], list[dict]]:
    """Files of your own, listed where they lie; nothing is brought. Raises as `own_files`."""
    return own_files(config.warc, config.tables, config.text_field), []


def inputs(config: PagesConfig) -> list[Path]:
    """The files that the patterns match. Raises UsageError when one matches nothing."""
    return [*named_files("pages.warc", config.warc), *named_files("pages.tables", config.tables)]


def own_files(warc: Iterable[str], tables: Iterable[str], text_field: str) -> list[InputFile]:
    """The files that the patterns match, listed where they lie.

    Raises UsageError when a pattern matches nothing, InputError when a file is of no kind that is asked for.
    """
    warcs = [
        InputFile(path, name, warc_kind(path), path.stat().st_size)
        for path, name in named_files("pages.warc", warc).items()
    ]
    texts = []
    for path, name in named_files("pages.tables", tables).items():
        refuse_no_table(path)
        texts.append(InputFile(path, name, "table", path.stat().st_size, rows_of(path), text_field=text_field))
    return warcs + texts


def named_files(option: str, patterns: Iterable[str]) -> dict[Path, str]:
    """{absolute path: name} of the files that the shell patterns match (`**` goes into folders), each once. A folder
    stands for all files in it and in its folders whose names end as such files do (ENDINGS), but for hidden ones.

    The name is the path inside the folder where the pattern's wildcards begin, or that is named, so that names and
    order are the same wherever that folder lies; the number of the pattern comes first where names alone would tell two
    files apart no more. Raises UsageError, which names the `option`, when a pattern or folder gives no file.
    """
    found: dict[Path, tuple[str, str]] = {}  # path: (number of the pattern, name)
    for number, pattern in enumerate(patterns):
        if not pattern.strip():
            raise UsageError(
                f"{option}: {pattern!r} names nothing. Leave it out, or give a file, a folder or a pattern."
            )
        try:
            expanded = Path(pattern).expanduser()
        except RuntimeError as error:
            raise UsageError(f"{option}: {pattern!r} names the home of a user that is not here. Mend it.") from error
        if expanded.is_dir():
            for path in files_in(expanded, option, pattern):
                found.setdefault(path.absolute(), (str(number), path.relative_to(expanded).as_posix()))
            continue
        folder = Path(*takewhile(lambda part: not WILDCARD.search(part), expanded.parts[:-1]))
        matched = [path for path in map(Path, glob.glob(str(expanded), recursive=True)) if path.is_file()]  # noqa: PTH207
        if not matched:
            raise UsageError(
                f"{option}: {pattern!r} matches no file (seen from {Path.cwd()}). Mend the pattern, and quote it so "
                "that the shell passes it on whole."
            )
        for path in matched:
            found.setdefault(path.absolute(), (str(number), path.relative_to(folder).as_posix()))
    unique = len({name for _, name in found.values()}) == len(found)
    names = {path: name if unique else f"{number}/{name}" for path, (number, name) in found.items()}
    return dict(sorted(names.items(), key=lambda item: item[1].split("/")))


def files_in(folder: Path, option: str, pattern: str) -> list[Path]:
    """The files of the option's kind in a folder and its folders. Raises UsageError when there is none."""
    endings = ENDINGS.get(option, ENDINGS["pages.tables"])
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    seen = [path for path in paths if not any(part.startswith(".") for part in path.relative_to(folder).parts)]
    if found := [path for path in seen if path.name.lower().endswith(endings)]:
        return found
    others = [name for name, known in ENDINGS.items() if any(path.name.lower().endswith(known) for path in seen)]
    holds = f"holds {len(seen):,} files, but none" if seen else "is a folder without files, so none"
    remedy = f"It has files for {others[0]}: give it there." if others else "Name another folder, or a pattern."
    raise UsageError(f"{option}: {pattern!r} {holds} whose name ends in {', '.join(endings)}. {remedy}")


def warc_kind(path: Path) -> str:
    """Whether a file holds pages (warc) or a crawl's plain text (wet), by its name, else by its first records.

    Raises InputError when it cannot be read, does not begin as a WARC file does, or holds metadata alone (WAT).
    """
    begin = beginning(path)
    if begin.startswith(ZSTD) and path.name.lower().endswith(".warc.zst"):
        return "warc"
    if not begin.startswith((GZIP, WARC)):
        table = begin.startswith((PARQUET, ZSTD, b"{"))
        raise InputError(
            f"{path} is no WARC file: it begins with {begin[:5]!r}, not with {GZIP!r} (gzip) or {WARC!r}. "
            + ("It looks like a table of texts: give it by pages.tables." if table else "")
            + ("" if table else "Leave it out by a narrower pattern (pages.warc).")
        )
    suffixes = path.name.lower().split(".")[1:]
    if "wet" in suffixes:
        return "wet"
    types = RECORD_TYPE.findall(unzipped(begin))
    told = [kind for kind in types if kind not in (b"warcinfo", b"metadata")]  # these stand in every kind of file
    if "wat" in suffixes or (b"metadata" in types and not told):
        raise InputError(
            f"{path} holds metadata of pages (WAT), but no page. Give the WARC or WET files of the same crawl."
        )
    return "wet" if told[:1] == [b"conversion"] else "warc"


def beginning(path: Path) -> bytes:
    """Its first bytes. Raises InputError when it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(LOOKED_AT)
    except OSError as error:
        raise InputError(
            f"{path} cannot be read: {error.strerror or error}. Check the path and its permissions."
        ) from error


def unzipped(begin: bytes, limit: int = LOOKED_AT) -> bytes:
    """At most `limit` bytes of what the begin of a file unpacks to, over several gzip members; damage ends it."""
    if not begin.startswith(GZIP):
        return begin
    unpacked = b""
    while begin.startswith(GZIP) and len(unpacked) < limit:
        member = zlib.decompressobj(wbits=31)
        try:
            unpacked += member.decompress(begin, limit - len(unpacked))
        except zlib.error:
            break
        begin = member.unused_data
    return unpacked


def is_plain_text(path: Path) -> bool:
    """Whether the file is one text and no table. Nothing in it could tell: a text may begin as a table does."""
    return path.suffix.lower() == ".txt"


def refuse_no_table(path: Path) -> None:
    """Raises InputError when a file is neither plain text by its name, nor Parquet or lines of JSON, as they lie or
    compressed."""
    begin = beginning(path)
    if not begin:
        raise InputError(f"{path} is empty, 0 bytes: a download that broke off? Bring it anew, or leave it out.")
    if is_plain_text(path) or begin.startswith((PARQUET, ZSTD)):
        return
    text = unzipped(begin, 1 << 10).removeprefix(b"\xef\xbb\xbf").lstrip()
    if not text.startswith(b"{"):
        warc = text.startswith(WARC)
        raise InputError(
            f"{path} is no table of texts: it begins with {text[:5]!r}, not with {PARQUET!r} (Parquet) or b'{{' (lines "
            "of JSON), and is not named .txt. "
            f"{'Give it by pages.warc.' if warc else 'Leave it out by a narrower pattern (pages.tables).'}"
        )


def rows_of(path: Path) -> int | None:
    """How many rows a Parquet file tells that it has, 1 of a plain text, None of a JSONL. Raises InputError when a
    Parquet file's end is missing."""
    if is_plain_text(path):
        return 1
    if not beginning(path).startswith(PARQUET):
        return None
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_metadata(path).num_rows
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(f"{path} is no whole Parquet file: {error}. Bring it anew, or leave it out.") from error
