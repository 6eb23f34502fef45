"""Parquet, by ranges of the columns that a document is made of, in bounded memory whatever the file says.

Arrow unpacks what it is given: a page of any size, and a word of a dictionary as often as rows name it. So the header
of each page is read before Arrow unpacks the page (parquet-format, src/main/thrift/parquet.thrift, in Thrift's compact
protocol), strings stay dictionaries until a row is made of them, and rows are made a few megabytes at a time.
"""

import bisect
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_prep.sources.columns import MAX_FIELD_BYTES, NAMES
from data_prep.sources.formats import Table
from lm.errors import InputError
from lm.storage import MeteredFile, Place, Url, count_bytes

ROWS_AT_ONCE = (1000, 50, 1)
"""Rows that are decoded at once: fewer if that many might take more than a quarter of MAX_PAGE_BYTES."""
BATCH_BYTES = 32 << 20
"""Bytes of strings that become rows at once, one row at least."""
MAX_PAGE_BYTES = 200 << 20
"""Bytes of the pages, one of each column, that are unpacked at the same time. Usual pages have one megabyte; of texts
of 100 kB, 1,024 of which pyarrow writes into a page at least, 100."""
MAX_HEADER_BYTES = 1 << 20
BUFFER = 4 << 20
"""Bytes of one column that are read at a time: a request, if the file lies elsewhere."""
DATA_PAGE, DICTIONARY_PAGE, DATA_PAGE_V2 = 0, 2, 3
DELTA_BYTE_ARRAY = 7
SIMPLE = {"PLAIN", "PLAIN_DICTIONARY", "RLE_DICTIONARY", "RLE", "BIT_PACKED"}
"""Encodings of which Arrow can make dictionaries."""
STRINGS = {pa.string(), pa.large_string(), pa.binary(), pa.large_binary()}
VIEWS = {pa.string_view(): pa.string(), pa.binary_view(): pa.binary()}
REMEDY = "Name the one with the text by pages.text_field (in the sets of a quality classifier it must be text)."


class PageTooLargeError(Exception):
    """Pages that would take too much memory."""


class BadPageError(Exception):
    """A page header that cannot be read."""


def rows(table: Table) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Yield (row, its place in words, {column: value}).

    A row group that is damaged, or whose pages would take too much memory, is quarantined as one place. Columns that
    are lists, and those of fixed_size_binary, cannot be part of a document and are not read.
    """
    import pyarrow.parquet as pq

    path, text_field = table.path, table.text_field
    usable = {text_field, *(key for keys in NAMES.values() for key in keys)}
    try:
        source = opened(table)
        about = pq.ParquetFile(source)
        leaves = {leaf.path: (number, leaf) for number, leaf in enumerate(about.schema)}  # "metadata.url"
        fits = lambda leaf: leaf.max_repetition_level == 0 and leaf.physical_type != "FIXED_LEN_BYTE_ARRAY"
        wanted = [name for name, (_, leaf) in leaves.items() if name in usable and fits(leaf)]
        strings = [name for name in wanted if may_stay_a_dictionary(about, *leaves[name])]
        # Without pre_buffer, since with it a column's chunk comes whole.
        file = pq.ParquetFile(
            source, metadata=about.metadata, buffer_size=BUFFER, pre_buffer=False, read_dictionary=strings
        )
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path} is no whole Parquet file: {error}. Get it again, or leave it out.") from error
    with source, file:
        if text_field not in wanted:
            if any(name == text_field or name.startswith(text_field + ".") for name in leaves):
                total = file.metadata.num_rows
                raise InputError(
                    f"{path} has no text in any of its {total:,} rows: {text_field!r} is no string. {REMEDY}"
                )
            names = ", ".join(file.schema_arrow.names)
            raise InputError(f"{path} has no column {text_field!r}, but: {names}. {REMEDY}")
        start = damaged = 0
        last = ""
        for group in range(file.num_row_groups):
            chunks = file.metadata.row_group(group)
            number = start
            try:
                for size in ROWS_AT_ONCE:
                    source.watch({name: chunks.column(leaves[name][0]) for name in wanted}, set(strings), size)
                    at = start
                    try:
                        for batch in file.iter_batches(size, row_groups=[group], columns=wanted, use_threads=False):
                            skipped, at = max(number - at, 0), at + batch.num_rows
                            for row in rows_of(batch.slice(skipped), table):
                                yield number, f"row {number}", row
                                number += 1
                        break
                    except PageTooLargeError:
                        if size == 1:
                            raise
            except (OSError, pa.ArrowException, UnicodeDecodeError, PageTooLargeError, BadPageError) as error:
                reason, last = "too_long" if isinstance(error, PageTooLargeError) else "damaged", str(error)
                damaged += 1
                table.quarantine(number, f"row group {group}, from row {number} on", reason, last)
            start += chunks.num_rows
        if damaged == file.num_row_groups and damaged:
            raise InputError(f"{path}: no row group can be read: {last}. Get it again, or leave it out.")


def opened(table: Table) -> "CheckedFile":
    if isinstance(table.path, Url):
        return CheckedFile(table.path.open("rb", buffering=0, version=table.version))
    return CheckedFile(table.path.open("rb", buffering=0))


def count(path: Place) -> int | None:
    """Rows that the file says it has; None if it lies elsewhere: it would be a request for each file."""
    if isinstance(path, Url):
        return None
    import pyarrow.parquet as pq

    try:
        return pq.read_metadata(path).num_rows
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path} is no whole Parquet file: {error}. Get it again, or leave it out.") from error


def may_stay_a_dictionary(file, number: int, leaf) -> bool:
    """Whether Arrow can read column `number` as a dictionary."""
    groups = range(file.metadata.num_row_groups) if leaf.physical_type == "BYTE_ARRAY" else ()
    return {code for group in groups for code in file.metadata.row_group(group).column(number).encodings} <= SIMPLE


def rows_of(batch: pa.RecordBatch, table: Table) -> Iterator[dict[str, Any]]:
    """The rows of a batch, {column: value}: nested columns as "metadata.url", and None for a value of more than
    MAX_FIELD_BYTES, unless it is the text."""
    sizes = np.zeros(len(batch), np.int64)
    found: dict[str, pa.Array] = {}
    for name, array in leaves_of(batch.to_struct_array()):
        is_dictionary = pa.types.is_dictionary(array.type)
        words = array.dictionary if is_dictionary else array
        if words.type in VIEWS:
            words = words.cast(VIEWS[words.type])
        if words.type in STRINGS:
            lengths = pc.call_function("binary_length", [words]).fill_null(0).to_numpy()
            if name != table.text_field and lengths.max(initial=0) > MAX_FIELD_BYTES:
                missing = pa.scalar(None, words.type)
                words = pc.call_function("if_else", [pa.array(lengths > MAX_FIELD_BYTES), missing, words])
                lengths = np.minimum(lengths, MAX_FIELD_BYTES)
            array = pa.DictionaryArray.from_arrays(array.indices, words) if is_dictionary else words
            if is_dictionary:  # no word is named where a row has no value
                lengths = np.append(lengths, 0)[array.indices.fill_null(len(words)).to_numpy()]
            sizes += lengths
        found[name] = array
    count_bytes(unpacked=int(sizes.sum()))
    ends = np.cumsum(sizes)
    at = 0
    while at < len(batch):
        before = int(ends[at - 1]) if at else 0
        end = max(int(np.searchsorted(ends, before + BATCH_BYTES, "right")), at + 1)
        table.spend(int(ends[end - 1]) - before, end - at)
        parts = (array.slice(at, end - at) for array in found.values())
        values = [(part.dictionary_decode() if hasattr(part, "indices") else part).to_pylist() for part in parts]
        for row in zip(*values, strict=True):
            yield dict(zip(found, row, strict=True))
        at = end


def leaves_of(structs: pa.StructArray, above: str = "") -> Iterator[tuple[str, pa.Array]]:
    """(name, values) of the columns in nested columns, which are null where the outer one is."""
    for field, array in zip(structs.type, structs.flatten(), strict=True):
        if pa.types.is_struct(array.type):
            yield from leaves_of(array, f"{above}{field.name}.")
        else:
            yield above + field.name, array


@dataclass(slots=True)
class Chunk:
    """A column's bytes in a row group, and what was seen of its pages."""

    start: int
    end: int
    values: int
    """Values that are still to come; Arrow reads pages until there are none."""
    next: int
    """The position of the next page header."""
    repeats: bool
    """Whether Arrow repeats a word of its dictionary as often as rows name it."""
    rest: bytes = b""
    """The beginning of that header, if it was cut."""
    heaviest: int = 0
    """Bytes of memory that the heaviest page asks for."""


class CheckedFile(MeteredFile):
    """The file as Arrow reads it. Raises PageTooLargeError and BadPageError before a page reaches it that would take
    too much memory."""

    def __init__(self, file: io.RawIOBase | io.BufferedReader):
        super().__init__(file)
        self.chunks: list[Chunk] = []
        self.rows_at_once = 1

    def watch(self, columns: dict[str, Any], dictionaries: set[str], rows_at_once: int) -> None:
        """Look at the pages of these columns from here on: {name: pyarrow's ColumnChunkMetaData}."""
        self.rows_at_once = rows_at_once
        self.chunks = []
        for name, column in columns.items():
            start = column.data_page_offset
            if column.has_dictionary_page and 0 < (column.dictionary_page_offset or 0) < start:
                start = column.dictionary_page_offset
            end = start + column.total_compressed_size
            self.chunks.append(Chunk(start, end, column.num_values, start, name not in dictionaries))
        self.chunks.sort(key=lambda chunk: chunk.start)
        for one, other in zip(self.chunks, self.chunks[1:], strict=False):
            if other.start < one.end:
                raise BadPageError("two columns lie at the same place")

    def read(self, size: int = -1) -> bytes:
        start = self.file.tell()
        data = super().read(size)
        at = bisect.bisect_right(self.chunks, start, key=lambda chunk: chunk.start) - 1
        if at >= 0 and start < self.chunks[at].end:
            self.look(self.chunks[at], start, data)
        return data

    def look(self, chunk: Chunk, start: int, data: bytes) -> None:
        data = chunk.rest + data
        start -= len(chunk.rest)
        chunk.rest = b""
        while chunk.values > 0 and start <= chunk.next < start + len(data):
            try:
                header, size = thrift_struct(data, chunk.next - start)
            except IndexError:
                chunk.rest = data[chunk.next - start :]
                if len(chunk.rest) > MAX_HEADER_BYTES:
                    raise BadPageError(f"a page header of more than {MAX_HEADER_BYTES:,} bytes") from None
                return
            kind, unpacked, packed = (header.get(field) for field in (1, 2, 3))
            if not (isinstance(kind, int) and isinstance(unpacked, int) and isinstance(packed, int) and packed >= 0):
                raise BadPageError(f"a page header without a type and sizes: {header}")
            about = header.get({DATA_PAGE: 5, DATA_PAGE_V2: 8}.get(kind, 7), {})
            if not isinstance(about, dict):
                raise BadPageError(f"a page header without its part of type {kind}: {header}")
            weight = max(unpacked, packed)
            if kind in (DATA_PAGE, DATA_PAGE_V2):
                values = about.get(1)
                if not isinstance(values, int) or values < 0:
                    raise BadPageError(f"a page with {values} values")
                chunk.values -= values
                encoding = about.get(2 if kind == DATA_PAGE else 4)
                # A batch takes parts of several pages with few values; and each value of DELTA_BYTE_ARRAY may repeat
                # the one before it.
                pages = self.rows_at_once if encoding == DELTA_BYTE_ARRAY else self.rows_at_once // max(values, 1)
                weight *= max(pages, 1)
            elif chunk.repeats:
                weight *= self.rows_at_once
            chunk.heaviest = max(chunk.heaviest, weight)
            total = sum(one.heaviest for one in self.chunks)
            if total > (MAX_PAGE_BYTES if self.rows_at_once == 1 else MAX_PAGE_BYTES // 4):
                raise PageTooLargeError(f"pages of {total:,} bytes in memory; {MAX_PAGE_BYTES:,} are read")
            chunk.next += size + packed


def thrift_struct(data: bytes, start: int) -> tuple[dict[int, Any], int]:
    """(fields by number, bytes) of a struct in Thrift's compact protocol at `start`, without its strings; IndexError if
    it is cut. Raises BadPageError for what is in no page header."""
    at = start

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value
            if shift > 63:
                raise BadPageError("a number of more than 64 bits")

    def zigzag() -> int:
        value = varint()
        return value >> 1 ^ -(value & 1)

    def struct(depth: int) -> dict[int, Any]:
        nonlocal at
        fields: dict[int, Any] = {}
        number = 0
        while head := data[at]:
            at += 1
            kind, delta = head & 15, head >> 4
            number = number + delta if delta else zigzag()
            if number in fields:
                raise BadPageError(f"field {number} twice in a page header")
            if kind in (1, 2):
                fields[number] = kind == 1
            elif kind == 3:
                fields[number] = data[at]
                at += 1
            elif kind in (4, 5, 6):
                fields[number] = zigzag()
            elif kind == 7:
                at += 8
                fields[number] = data[at - 1]
            elif kind == 8:
                length = varint()
                at += length
                fields[number] = data[at - 1]
            elif kind == 12 and depth < 4:
                fields[number] = struct(depth + 1)
            else:
                raise BadPageError(f"a field of type {kind} in a page header")
        at += 1
        return fields

    found = struct(0)
    return found, at - start
