"""Files of your own, found by shell patterns, and told apart by how they begin: WARC, WET, or a table of texts."""

import dataclasses
import re
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

from data_prep.config import PagesConfig
from data_prep.sources.columns import MAX_TEXT_BYTES
from data_prep.sources.listing import ENDINGS, PLAIN_TEXT, Listed, guessed, listed_files, passed_over
from data_prep.sources.manifest import InputFile
from lm.errors import InputError
from lm.storage import Place, Url

GZIP, ZSTD, PARQUET, WARC = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"PAR1", b"WARC/"
RECORD_TYPE = re.compile(rb"^WARC-Type:[ \t]*([a-z]+)", re.IGNORECASE | re.MULTILINE)
LOOKED_AT = 1 << 16  # bytes of a file's begin, as it lies on the disk: several records, since their first are small


def fetch(config: PagesConfig, out: Path, progress: Callable[[str], None]) -> tuple[list[InputFile], list[dict]]:
    """Files of your own, listed where they lie; nothing is brought. Files of a folder that are not read are named.
    Raises as `own_files`."""
    files = own_files(config.warc, config.tables, config.text_field)
    for option, patterns in (("pages.warc", config.warc), ("pages.tables", config.tables)):
        for line in passed_over(option, patterns):
            progress(line)
    return files, []


def inputs(config: PagesConfig) -> list[Listed]:
    """The files that the patterns match. Raises UsageError when one matches nothing."""
    return [*listed_files("pages.warc", config.warc), *listed_files("pages.tables", config.tables)]


def own_files(warc: Iterable[str], tables: Iterable[str], text_field: str) -> list[InputFile]:
    """The files that the patterns match, listed where they lie.

    Raises UsageError when a pattern matches nothing, InputError when a file is of no kind that is asked for.
    """
    files = []
    for one in guessed(listed_files("pages.warc", warc)):
        kind = warc_kind(one.place)
        files.append(InputFile(one.place, one.name, kind, one.bytes, etag=one.etag, estimated=one.estimated))
    for one in guessed(listed_files("pages.tables", tables)):
        refuse_no_table(one.place)
        rows = rows_of(one.place, one.bytes)
        file = InputFile(one.place, one.name, "table", one.bytes, rows, text_field=text_field)
        files.append(dataclasses.replace(file, etag=one.etag, estimated=one.estimated))
    return files


def told_by_name(place: Place, option: str) -> bool:
    """Whether the name of a file that lies elsewhere tells what it is: then no request is made for it."""
    return isinstance(place, Url) and place.name.lower().endswith(ENDINGS[option])


def warc_kind(path: Place) -> str:
    """Whether a file holds pages (warc) or a crawl's plain text (wet), by its name, else by its first records.

    Raises InputError when it cannot be read, does not begin as a WARC file does, or holds metadata alone (WAT).
    """
    begin = GZIP if told_by_name(path, "pages.warc") else beginning(path)
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


def beginning(path: Place) -> bytes:
    """Its first bytes. Raises InputError when it cannot be read."""
    try:
        if isinstance(path, Url):
            return path.read_range(0, LOOKED_AT)
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


def is_plain_text(path: Place) -> bool:
    """Whether the file is one text and no table. Nothing in it could tell: a text may begin as a table does."""
    return path.name.lower().endswith(PLAIN_TEXT)


def refuse_no_table(path: Place) -> None:
    """Raises InputError when a file is neither plain text by its name, nor Parquet or lines of JSON, as they lie or
    compressed."""
    if told_by_name(path, "pages.tables"):
        return
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
            f"of JSON), and is not named {' or '.join(PLAIN_TEXT)}. "
            f"{'Give it by pages.warc.' if warc else 'Leave it out by a narrower pattern (pages.tables).'}"
        )


def rows_of(path: Place, size: int) -> int | None:
    """Rows of a Parquet file, by its index; 1 for a plain text, unless its `size` makes it several documents; None for
    JSON lines, and for files elsewhere, where the answer would be a request for each. Raises InputError when a Parquet
    file's end is missing."""
    if is_plain_text(path):
        return 1 if size <= MAX_TEXT_BYTES else None
    if isinstance(path, Url) or not beginning(path).startswith(PARQUET):
        return None
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_metadata(path).num_rows
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(f"{path} is no whole Parquet file: {error}. Bring it anew, or leave it out.") from error
