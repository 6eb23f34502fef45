"""Tables of texts to Documents, as a stream: Parquet with FineWeb's columns, and JSONL as it lies, gzip or zstd. A file
named .txt or .md is one text, or several if it is too long for one document.
"""

import contextlib
import gzip
import json
import zlib
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from typing import IO, Any

import pyarrow as pa

from data_prep.documents import Damage, Document
from data_prep.sources.archives import size
from data_prep.sources.columns import (
    MAX_TEXT_BYTES,
    NAMES,
    NoDocumentError,
    QuarantinedRow,
    document_of,
    lookup,
)
from data_prep.sources.local import GZIP, PARQUET, ZSTD, beginning, is_plain_text
from data_prep.sources.manifest import InputFile
from lm.errors import InputError
from lm.storage import MeteredFile, Place, Url, count_bytes, place_of, streamed
from lm.storage.objects import Object

ROWS_AT_ONCE = 100  # of Parquet: the memory beside the row group itself
MAX_LINE_BYTES = 2 * MAX_TEXT_BYTES  # of JSON: escapes make a text longer
PART_BYTES = MAX_TEXT_BYTES // 8
"""Bytes of a part of a plain text that is too long for one document."""
PIECE = 1 << 20
PARQUET_BUFFER = 4 << 20  # bytes of one column that are read at a time: a request, where the file lies elsewhere
BOM = b"\xef\xbb\xbf"
ABSENT = object()
__all__ = ["read", "read_table", "size"]
REMEDY = "Name the one with the text by pages.text_field (in the sets of a quality classifier it must be text)."


def read(file: InputFile, on_damage: Callable[[Damage], None], counts: Counter[str]) -> Iterator[Document]:
    """Its documents, as `read_table`; nothing is seen besides."""
    return read_table(
        file.path, name=file.name, text_field=file.text_field, on_quarantine=on_damage, version=file.version
    )


def read_table(
    path: Place,
    *,
    name: str | None = None,
    dump: str = "",
    text_field: str = "text",
    on_quarantine: Callable[[QuarantinedRow], None] | None = None,
    version: Object | None = None,
) -> Iterator[Document]:
    """The documents of a table, in its order; how columns are found and filled is told in columns.py.

    `name` is what documents call the file (default: its own name). Rows without a usable text, lines that are no JSON
    object and damaged places are handed to `on_quarantine` and passed over. The format is told by the first bytes, not
    by the name, but that a .txt or .md file is one document, its byte order mark aside (`plain_texts`). Lines are
    streamed; Parquet is read by ranges of the columns that are used. A file that lies elsewhere must be the `version`
    that was listed, if given.

    Raises InputError when the file cannot be read, no row has a text in `text_field`, or it holds nothing but damage.
    """
    path = place_of(path)
    called = name or path.name
    begin = beginning(path)

    def quarantine(number: int, place: str, reason: str, detail: str = "") -> None:
        if on_quarantine:
            on_quarantine(QuarantinedRow(number, reason, detail, called, place))

    if is_plain_text(path):
        rows = (
            (number, f"part {number}", {text_field: text}) for number, text in enumerate(plain_texts(path, version))
        )
    else:
        rows = (
            parquet_rows(path, text_field, quarantine, version)
            if begin.startswith(PARQUET)
            else json_rows(path, begin, quarantine, version)
        )
    seen = lacking = 0
    last = ""
    for number, place, row in rows:
        seen += 1
        try:
            yield document_of(row, number, name=called, dump=dump, text_field=text_field)
        except NoDocumentError as error:
            quarantine(number, place, error.reason, error.detail)
            if error.reason == "text_not_a_string" or lookup(row, text_field, ABSENT) is ABSENT:
                lacking += 1
                last = error.detail
    if seen and lacking == seen:
        raise InputError(f"{path} has no text in any of its {seen:,} rows: {last}. {REMEDY}")


def plain_texts(path: Place, version: Object | None = None) -> Iterator[str]:
    """A file's text; of a file that is longer than a document may be, parts of at most PART_BYTES, each up to the end
    of a line if there is one. Raises InputError when it cannot be read, or is not UTF-8."""
    try:
        with streamed(path, version) as file:
            rest = file.read(MAX_TEXT_BYTES + len(BOM) + 1).removeprefix(BOM)
            if len(rest) <= MAX_TEXT_BYTES:
                yield rest.decode()
                return
            while rest:
                rest += file.read(max(PART_BYTES + 1 - len(rest), 0))
                end = len(rest) if len(rest) <= PART_BYTES else part_end(rest[:PART_BYTES])
                yield rest[:end].decode()
                rest = rest[end:]
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error}. Bring it anew, or leave it out.") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8: {error}. Convert it first, as by iconv -t UTF-8.") from error


def part_end(part: bytes) -> int:
    """Where to cut a text: after its last paragraph, line or word, or else after its last whole character."""
    for separator in (b"\n\n", b"\n", b" "):
        if (found := part.rfind(separator)) >= 0:
            return found + len(separator)
    end = len(part) - 1
    while end > len(part) - 4 and part[end] & 0xC0 == 0x80:
        end -= 1
    return end or len(part)


def parquet_rows(
    path: Place, text_field: str, quarantine: Callable[..., None], version: Object | None = None
) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """(row, its place in words, {column: value}) of the columns that a document is made of. In memory are a buffer of
    each such column and the pages that a batch lies in, however large a row group is."""
    import pyarrow.parquet as pq

    try:
        raw = path.open("rb", buffering=0, version=version) if isinstance(path, Url) else path.open("rb", buffering=0)
        # Without pre_buffer, since with it a column's chunk comes whole.
        file = pq.ParquetFile(MeteredFile(raw), buffer_size=PARQUET_BUFFER, pre_buffer=False)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path} is no whole Parquet file: {error}. Bring it anew, or leave it out.") from error
    with raw, file:
        columns = [column.path for column in file.schema]  # of leaves: "metadata.url"
        usable = {text_field, *(key for keys in NAMES.values() for key in keys)}
        wanted = [column for column in columns if column in usable or column.split(".")[0] in usable]
        if not any(column == text_field or column.startswith(text_field + ".") for column in columns):
            names = ", ".join(file.schema_arrow.names)
            raise InputError(f"{path} has no column {text_field!r}, but: {names}. {REMEDY}")
        start = damaged = 0
        for group in range(file.num_row_groups):
            number = start
            try:
                for batch in file.iter_batches(ROWS_AT_ONCE, row_groups=[group], columns=wanted):
                    count_bytes(unpacked=batch.nbytes)
                    for row in batch.to_pylist():
                        yield number, f"row {number}", row
                        number += 1
            except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
                damaged += 1
                quarantine(number, f"row group {group}, from row {number} on", "damaged", str(error))
            start += file.metadata.row_group(group).num_rows
        if damaged == file.num_row_groups and damaged:
            raise InputError(f"{path}: every row group is damaged. Bring it anew, or leave it out.")


def json_rows(
    path: Place, begin: bytes, quarantine: Callable[..., None], version: Object | None = None
) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """(line from 0, its place in words, {key: value}) of every line with a JSON object; empty ones are passed over."""
    number, found = -1, False
    try:
        for number, line in enumerate(lines_of(path, begin, version)):
            place = f"line {number + 1}"
            if line is None:
                quarantine(number, place, "too_long", f"more than {MAX_LINE_BYTES:,} bytes")
                continue
            if not line.strip():
                continue
            try:
                row = json.loads((line.removeprefix(BOM) if number == 0 else line).decode())
            except UnicodeDecodeError as error:
                quarantine(number, place, "not_utf8", str(error))
            except (ValueError, RecursionError) as error:
                quarantine(number, place, "not_json", str(error))
            else:
                if isinstance(row, dict):
                    found = True
                    yield number, place, row
                else:
                    quarantine(number, place, "not_an_object", type(row).__name__)
    except (OSError, EOFError, zlib.error) as error:
        if not found:
            raise InputError(f"{path} cannot be read: {error}. Bring it anew, or leave it out.") from error
        quarantine(number + 1, f"after line {number + 1}", "damaged", f"{error}; what follows is lost")


def lines_of(path: Place, begin: bytes, version: Object | None = None) -> Iterator[bytes | None]:
    """The lines of a file, without their ends; None for one of more than MAX_LINE_BYTES."""
    with unpacked(path, begin, version) as file:
        waiting: list[bytes] = []
        length = 0
        while piece := file.read(PIECE):
            count_bytes(unpacked=len(piece))
            *ended, rest = piece.split(b"\n")
            for end in ended:
                length += len(end)
                yield b"".join([*waiting, end]) if length <= MAX_LINE_BYTES else None
                waiting, length = [], 0
            length += len(rest)
            if length <= MAX_LINE_BYTES:
                waiting.append(rest)
            else:
                waiting.clear()
        if length:
            yield b"".join(waiting) if length <= MAX_LINE_BYTES else None


@contextlib.contextmanager
def unpacked(path: Place, begin: bytes, version: Object | None = None) -> Generator[IO[bytes] | pa.NativeFile]:
    with streamed(path, version) as raw:
        if begin.startswith(GZIP):
            with gzip.open(raw) as file:
                yield file
        elif begin.startswith(ZSTD):  # Arrow's reader, unlike zstandard's, notices a file that ends too early
            with pa.input_stream(raw, compression="zstd") as file:
                yield file
        else:
            yield raw
