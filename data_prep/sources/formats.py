"""Table formats, shared by listing, validation and reading.

A new format is an entry in FORMATS and a module with `rows`, `count` and `check_columns`; see
data_prep/sources/text_rows.py.
"""

import codecs
import contextlib
import gzip
import importlib
import io
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, cast

from lm.errors import InputError
from lm.storage import Place, Url
from lm.storage.objects import Object

if TYPE_CHECKING:
    import pyarrow as pa

NO_TEXT = "Set pages.text_field to the column with the text."
"""Remedy for a table without texts, for messages."""
GZIP, ZSTD, PARQUET, WARC = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"PAR1", b"WARC/"
UTF_8_BOM = codecs.BOM_UTF8
UTF_16_BOMS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
COMPRESSED = (".gz", ".zst")
BEGINNING_BYTES = 1 << 16
"""Bytes of a file read to detect its format. They contain several WARC records, since the first are small."""
MAX_WINDOW_BYTES = 1 << 27
"""Maximum memory that a zstd frame may request."""


Quarantine = Callable[..., None]
"""Callback that receives a row without a document: (row number from 0, position for messages, reason, detail)."""


@dataclass(frozen=True)
class Table:
    """One table file and the options for reading it, as passed to the Reader of its format."""

    path: Place
    text_field: str
    quarantine: Quarantine
    spend: Callable[[int, int], None]
    """Add (bytes, rows) to the amount read from the file. Raises RatioError above the file's limit (tables.py)."""
    version: Object | None = None
    """Size and ETag of the file when it was listed; it is an error if it has changed since."""
    keep_columns: tuple[str, ...] = ()
    """Columns to keep in the documents (pages.keep_columns). Readers yield them whatever the size of their values."""
    types: "dict[str, pa.DataType]" = field(default_factory=dict)
    """Types of the kept columns, filled in by the reader if the file declares them (data_prep/kept_columns.py)."""


class Reader(Protocol):
    """Functions that a module for a table format must have; see text_rows.py for a short one."""

    def rows(self, table: Table) -> Iterator[tuple[int, str, dict[str, Any]]]:
        """Yield (row number from 0, position for messages such as "line 17", {column: value}) of each row. Raises
        InputError if the file cannot be read."""
        ...

    def count(self, path: Place) -> int | None:
        """Return the number of rows; None if that requires reading the file. Raises InputError if it is truncated."""
        ...

    def check_columns(self, path: Place, names: Sequence[str]) -> None:
        """Raise InputError if the file's metadata shows that a column in `names` is missing or cannot be kept."""
        ...


@dataclass(frozen=True)
class Format:
    title: str
    endings: tuple[str, ...]
    """Lower-case file name extensions."""
    module: str
    """Module that implements Reader."""
    begins: re.Pattern[bytes] | None
    """Pattern of the first bytes of a file, uncompressed and in UTF-8; None if only the file name tells the format."""
    compressed: bool = False
    """Whether the file may also be compressed (.gz or .zst)."""

    @property
    def all_endings(self) -> tuple[str, ...]:
        packings = ("", *COMPRESSED) if self.compressed else ("",)
        return tuple(ending + packing for ending in self.endings for packing in packings)

    @property
    def reader(self) -> Reader:
        return cast(Reader, importlib.import_module(self.module))


PLAIN_TEXT = (".txt", ".md")
"""Extensions of plain text files, which cannot be recognized by their contents."""
PARQUET_START = re.compile(PARQUET)
JSON_START = re.compile(rb"\s*+(?:\{|\[\s*+[{\]])")
FORMATS = (
    Format("Parquet", (".parquet",), "data_prep.sources.parquet_rows", PARQUET_START),
    Format("plain text", PLAIN_TEXT, "data_prep.sources.text_rows", None),
    Format(
        "JSON lines or a JSON array", (".jsonl", ".ndjson", ".json"), "data_prep.sources.json_rows",
        JSON_START, compressed=True,
    ),
)  # fmt: skip
TABLE_ENDINGS = tuple(ending for one in FORMATS for ending in one.all_endings)


def format_of(path: Place, by_name: bool = True) -> Format:
    """Return the format of a table file.

    Plain text is recognized by its extension, other formats by their first bytes or else, if `by_name`, by their
    extension. Raises InputError if the file is empty or of no known format.
    """
    named = next((one for one in FORMATS if path.name.lower().endswith(one.all_endings)), None)
    if named and named.begins is None:
        return named
    begin = beginning(path)
    plain = uncompressed(begin)
    for one in FORMATS:
        if one.begins and one.begins.match(plain) and (one.compressed or not begin.startswith((GZIP, ZSTD))):
            return one
    if named and by_name and begin:
        return named
    if not begin:
        raise InputError(f"{path} is empty, 0 bytes: an interrupted download? Download it again, or remove it.")
    known = ", ".join(f"{one.title} ({', '.join(one.endings)})" for one in FORMATS)
    remedy = "Give it by pages.warc" if plain.startswith(WARC) else "Exclude it with a narrower pattern (pages.tables)"
    raise InputError(
        f"{path} is not a table of texts: it begins with {plain.lstrip()[:5]!r}. {remedy}. Formats of tables: {known}."
    )


def beginning(path: Place) -> bytes:
    """Return the first BEGINNING_BYTES of the file. Raises InputError if it cannot be read."""
    try:
        if isinstance(path, Url):
            return path.read_range(0, BEGINNING_BYTES)
        with path.open("rb") as file:
            return file.read(BEGINNING_BYTES)
    except OSError as error:
        raise InputError(
            f"{path} cannot be read: {error.strerror or error}. Check the path and its permissions."
        ) from error


def uncompressed(begin: bytes) -> bytes:
    """Return `begin`, a file's first bytes, decompressed (at most 1 KiB) and as UTF-8 without a byte order mark."""
    plain = decompressed(begin, 1 << 10)
    if plain.startswith(UTF_16_BOMS):
        plain = codecs.getincrementaldecoder("utf-16")("replace").decode(plain).encode()
    return plain.removeprefix(UTF_8_BOM)


def decompressed(begin: bytes, limit: int) -> bytes:
    """Return at most `limit` bytes of `begin`, a file's first bytes, decompressed; others are returned unchanged. Of
    damaged gzip data, the part before the damage is returned; of damaged zstd data, nothing."""
    if begin.startswith(ZSTD):
        import zstandard

        try:
            with zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW_BYTES).stream_reader(begin) as reader:
                return reader.read(limit)
        except zstandard.ZstdError:
            return b""
    if not begin.startswith(GZIP):
        return begin
    plain = b""
    with contextlib.suppress(OSError, EOFError, zlib.error), gzip.open(io.BytesIO(begin)) as members:
        while len(plain) < limit and (more := members.read1(limit - len(plain))):
            plain += more
    return plain
