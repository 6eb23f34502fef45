"""Read rows of files of examples (.parquet, .jsonl, .txt; compressed or not) in bounded memory, even of hostile
files."""

import bz2
import contextlib
import gzip
import io
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lm.errors import InputError, shown
from lm.storage.parquet_pages import BadPageError, CheckedFile, PageTooLargeError, may_stay_a_dictionary

MAX_RATIO, RATIO_FROM_BYTES = 100, 1 << 26
"""A file may decompress to MAX_RATIO times its compressed size, or to RATIO_FROM_BYTES bytes if that is more."""
MAX_LINE_BYTES = 1 << 24
MAX_LINE_VALUES = 1_000_000
"""Maximum number of lists, objects and elements in one line of JSON."""
ROWS_AT_ONCE = (100, 1)
"""Rows of a Parquet file that are decoded at once: the second number if the first would take too much memory."""
MAX_BATCH_BYTES = 1 << 28
MAX_LIST_VALUES = 2_000_000
"""Maximum number of values in a column of lists, per row group."""
BUFFER = 4 << 20


class Unpacked(io.RawIOBase):
    """Readable stream of a decompressor `file` whose input has `packed` bytes. Reading raises EOFError after MAX_RATIO
    times `packed` bytes, or after `least` bytes if that is more."""

    def __init__(self, file: Any, packed: int, least: int):
        self.file, self.left = file, max(least, MAX_RATIO * packed)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        data = self.file.read(len(buffer))
        self.left -= len(data)
        if self.left < 0:
            raise EOFError(f"it unpacks to more than {MAX_RATIO} times its size")
        buffer[: len(data)] = data
        return len(data)


def read_lines(path: Path, remedy: str) -> Iterator[bytes]:
    """Yield the lines of a text file with their line ends, without a byte order mark; .gz, .bz2 and .zst are
    decompressed. Raises InputError if the file cannot be read, or if the file or a line is too large; the message ends
    with `remedy`."""
    import zstandard

    openers = {".bz2": bz2.open, ".gz": gzip.open, ".zst": zstandard.open}
    try:
        with openers.get(path.suffix, open)(path, "rb") as file:
            lines = io.BufferedReader(Unpacked(file, path.stat().st_size, RATIO_FROM_BYTES), 1 << 20)
            number = 0
            while line := lines.readline(MAX_LINE_BYTES + 1):
                number += 1
                if len(line) > MAX_LINE_BYTES:
                    raise EOFError(f"line {number:,} has more than {MAX_LINE_BYTES:,} bytes")
                yield line if number > 1 else line.removeprefix(b"\xef\xbb\xbf")
    except (OSError, EOFError, zstandard.ZstdError) as error:
        raise InputError(f"{path} cannot be read: {error}. {remedy}") from error


def read_text_lines(path: Path, remedy: str) -> Iterator[str]:
    """Yield the lines of a UTF-8 file without line ends; decompression and errors as for `read_lines`."""
    for number, line in enumerate(read_lines(path, remedy), 1):
        try:
            yield line.decode().rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise InputError(f"{path}, line {number:,}, is no UTF-8: {error}. {remedy}") from error


def read_text_examples(path: Path, lines: int, remedy: str) -> Iterator[tuple[str, ...]]:
    """Yield the examples of a text file, each a tuple of `lines` lines. Errors as for `read_lines`; also InputError if
    the last example is incomplete."""
    for part in itertools.batched(read_text_lines(path, remedy), lines):
        if len(part) < lines:
            raise InputError(f"{path} ends within an example: {part[0][:80]!r}. {remedy}")
        yield part


def read_json_rows(path: Path, remedy: str) -> Iterator[dict[str, Any]]:
    """Yield the JSON object of each line that is not blank. Errors as for `read_lines`; also InputError for a line that
    is not an object."""
    for number, line in enumerate(read_lines(path, remedy), 1):
        if line.strip():
            try:
                if (values := sum(map(line.count, (b",", b"[", b"{")))) > MAX_LINE_VALUES:
                    raise ValueError(f"it has up to {values:,} values; the limit is {MAX_LINE_VALUES:,}")
                row = json.loads(line.decode())
            except (ValueError, RecursionError) as error:
                raise InputError(f"{path}, line {number}, is no JSON: {error}. {remedy}") from error
            if not isinstance(row, dict):
                raise InputError(f"{path}, line {number}, is {shown(row)} instead of an object. {remedy}")
            yield row


def read_parquet_rows(path: Path, remedy: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of a Parquet file as {column: value}. Raises InputError, its message ending with `remedy`, if the
    file is damaged or too large."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with contextlib.ExitStack() as stack:
            source = stack.enter_context(CheckedFile(path.open("rb", buffering=0)))
            about = pq.ParquetFile(source)
            leaves = dict(enumerate(about.schema))
            strings = [leaf.path for number, leaf in leaves.items() if may_stay_a_dictionary(about, number, leaf)]
            file = pq.ParquetFile(
                source, metadata=about.metadata, buffer_size=BUFFER, pre_buffer=False, read_dictionary=strings
            )
            lists = {leaf.path for leaf in leaves.values() if leaf.max_repetition_level}
            for group in range(about.num_row_groups):
                chunks = about.metadata.row_group(group)
                columns = {leaf.path: chunks.column(number) for number, leaf in leaves.items()}
                if (values := max((columns[name].num_values for name in lists), default=0)) > MAX_LIST_VALUES:
                    raise PageTooLargeError(
                        f"lists of {values:,} values in a row group; the limit is {MAX_LIST_VALUES:,}"
                    )
                yield from rows_of_group(file, source, group, columns, set(strings), lists)
    except (OSError, pa.ArrowException, BadPageError, PageTooLargeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not a complete Parquet file, or too large: {error}. {remedy}") from error


def rows_of_group(
    file: Any, source: CheckedFile, group: int, columns: dict[str, Any], strings: set[str], lists: set[str]
) -> Iterator[dict[str, Any]]:
    """Yield the rows of row group number `group` as {column: value}. `columns` maps names to pyarrow's
    ColumnChunkMetaData; `strings` names the columns to read dictionary-encoded, `lists` the columns of lists. Raises
    PageTooLargeError and Arrow's errors."""
    done = 0
    for size in ROWS_AT_ONCE:
        source.watch(columns, strings, size, lists)
        at = 0
        try:
            for batch in file.iter_batches(size, row_groups=[group], use_threads=False):
                new = batch.slice(max(done - at, 0))
                at += batch.num_rows
                if (unpacked := decoded_bytes(new.to_struct_array())) > MAX_BATCH_BYTES:
                    raise PageTooLargeError(f"{len(new)} rows of {unpacked:,} bytes; the limit is {MAX_BATCH_BYTES:,}")
                yield from new.to_pylist()
                done = max(done, at)
            return
        except PageTooLargeError:
            if size == ROWS_AT_ONCE[-1]:
                raise


def decoded_bytes(array: Any) -> int:
    """Return the size in bytes of an Arrow array's values, with dictionaries expanded."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = array.type
    if pa.types.is_dictionary(kind):
        words = pc.call_function("binary_length", [array.dictionary])
        return pc.call_function("sum", [words.take(array.indices.drop_null()).cast(pa.int64())]).as_py() or 0
    if pa.types.is_struct(kind):
        return sum(decoded_bytes(part) for part in array.flatten())
    if pa.types.is_map(kind):
        return decoded_bytes(array.keys) + decoded_bytes(array.items)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return decoded_bytes(array.flatten())
    return array.nbytes
