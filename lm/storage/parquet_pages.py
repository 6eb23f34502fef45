"""Protect against malicious Parquet files: read the header of each page before Arrow decompresses it (parquet-format,
src/main/thrift/parquet.thrift, in Thrift's compact protocol). Arrow decompresses pages of any size, and repeats a
dictionary entry as often as rows refer to it."""

import bisect
import io
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from lm.storage.meter import MeteredFile

MAX_PAGE_BYTES = 200 << 20
"""Maximum bytes of the pages, one per column, that are decompressed at the same time. A typical page has 1 MB. With
texts of 100 kB a page has 100 MB, since pyarrow writes at least 1,024 texts to a page."""
MAX_HEADER_BYTES = 1 << 20
DATA_PAGE, DICTIONARY_PAGE, DATA_PAGE_V2 = 0, 2, 3
DELTA_BYTE_ARRAY = 7
SIMPLE = {"PLAIN", "PLAIN_DICTIONARY", "RLE_DICTIONARY", "RLE", "BIT_PACKED"}
"""Encodings of columns that Arrow can read as dictionaries."""
LIST_VALUE_BYTES = 16
"""Bytes added to each value in a list: Arrow keeps a number for it, however few bytes of the file encode it."""


class PageTooLargeError(ValueError):
    """The pages of a Parquet file would take too much memory."""


class BadPageError(ValueError):
    """The header of a page is invalid."""


def may_stay_a_dictionary(file, number: int, leaf) -> bool:
    """Return whether Arrow can read column `number` of a pq.ParquetFile dictionary-encoded; `leaf` is its schema."""
    return leaf.physical_type != "BYTE_ARRAY" or encodings_of(file, number) <= SIMPLE


def encodings_of(file, number: int) -> set[str]:
    """Return the encodings of column `number` of a pq.ParquetFile."""
    groups = range(file.metadata.num_row_groups)
    return {code for group in groups for code in file.metadata.row_group(group).column(number).encodings}


@dataclass(slots=True)
class Chunk:
    """Column chunk (one column in one row group): bytes [start, end) of the file, and the state of reading it."""

    start: int
    end: int
    values: int
    """Number of values not read yet; Arrow reads pages until there are none."""
    next: int
    """Position of the next page header."""
    repeats: bool
    """Whether Arrow repeats a dictionary entry as often as rows refer to it."""
    rest: bytes = b""
    """First bytes of the next page header, if the last read ended within it."""
    heaviest: int = 0
    """Bytes in memory of the largest page; for lists, whose rows may span pages, of all pages since the last batch."""
    is_list: bool = False
    words: int = 0
    """Bytes of the dictionary page of a column of lists."""


class CheckedFile(MeteredFile):
    """File object for pyarrow that checks page headers as they are read. Raises BadPageError if one is invalid, and
    PageTooLargeError before pyarrow gets a page that would take too much memory."""

    def __init__(self, file: io.RawIOBase | io.BufferedReader):
        super().__init__(file)
        self.chunks: list[Chunk] = []
        self.rows_at_once = 1

    def watch(
        self, columns: dict[str, Any], dictionaries: set[str], rows_at_once: int, lists: Collection[str] = ()
    ) -> None:
        """Check the pages of `columns`, {name: pyarrow's ColumnChunkMetaData}, from now on. `dictionaries` names the
        dictionary-encoded columns, `lists` those of lists; pyarrow decodes `rows_at_once` rows at a time. Raises
        BadPageError if two columns overlap in the file."""
        self.rows_at_once = rows_at_once
        self.chunks = []
        for name, column in columns.items():
            start = column.data_page_offset
            if column.has_dictionary_page and 0 < (column.dictionary_page_offset or 0) < start:
                start = column.dictionary_page_offset
            end = start + column.total_compressed_size
            chunk = Chunk(start, end, column.num_values, start, name not in dictionaries, is_list=name in lists)
            self.chunks.append(chunk)
        self.chunks.sort(key=lambda chunk: chunk.start)
        for one, other in zip(self.chunks, self.chunks[1:], strict=False):
            if other.start < one.end:
                raise BadPageError("two columns share bytes of the file")

    def begin_batch(self) -> None:
        """Record that pyarrow has returned a batch of rows, and has freed the pages of lists read until now."""
        for chunk in self.chunks:
            if chunk.is_list:
                chunk.heaviest = chunk.words

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
                weight = weight + LIST_VALUE_BYTES * values if chunk.is_list else weight * max(pages, 1)
            elif chunk.is_list:
                chunk.words = weight
            elif chunk.repeats:
                weight *= self.rows_at_once
            chunk.heaviest = chunk.heaviest + weight if chunk.is_list else max(chunk.heaviest, weight)
            total = sum(one.heaviest for one in self.chunks)
            if total > (MAX_PAGE_BYTES if self.rows_at_once == 1 else MAX_PAGE_BYTES // 4):
                raise PageTooLargeError(f"pages of {total:,} bytes in memory; the limit is {MAX_PAGE_BYTES:,}")
            chunk.next += size + packed


def thrift_struct(data: bytes, start: int) -> tuple[dict[int, Any], int]:
    """Parse the struct at data[start:] in Thrift's compact protocol; return ({field number: value}, size in bytes). Of
    a string only the last byte is returned. Raises IndexError if the struct is cut off, BadPageError for types that no
    page header has."""
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
