"""Read rows of files of examples (.parquet, .jsonl, .txt; compressed or not) in bounded memory, even of hostile
files."""

import bz2
import gzip
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lm.errors import InputError, shown
from lm.storage.parquet_pages import PageTooLargeError
from lm.storage.places import Place, size_of

MAX_RATIO, RATIO_FROM_BYTES = 100, 1 << 26
"""A file may decompress to MAX_RATIO times its compressed size, or to RATIO_FROM_BYTES bytes if that is more."""
MAX_LINE_BYTES = 1 << 24
MAX_LINE_VALUES = 1_000_000
"""Maximum number of lists, objects and elements in one line of JSON."""
PARQUET_ROWS = 100
"""Rows of a Parquet file that are decoded at once, if they fit."""


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


def read_text_examples(path: Path, lines: int, remedy: str) -> Iterator[list[str]]:
    """Yield the examples of a UTF-8 file, each a list of `lines` lines without line ends. Errors as for `read_lines`;
    also InputError if the last example is incomplete."""
    example: list[str] = []
    for number, line in enumerate(read_lines(path, remedy), 1):
        try:
            example.append(line.decode().rstrip("\r\n"))
        except UnicodeDecodeError as error:
            raise InputError(f"{path}, line {number:,}, is no UTF-8: {error}. {remedy}") from error
        if len(example) == lines:
            yield example
            example = []
    if example:
        raise InputError(f"{path} ends within an example: {example[0][:80]!r}. {remedy}")


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


def read_parquet_rows(
    place: Place, remedy: str, columns: Sequence[str] | None = None, least: int = RATIO_FROM_BYTES
) -> Iterator[dict[str, Any]]:
    """Yield the rows of a Parquet file as {column: value}; `columns` names those that are read, None for all; the
    first is required. Raises InputError, its message ending with `remedy`, if the file is damaged, or if a row or the
    whole file (MAX_RATIO, `least` bytes) unpacks to too much."""
    from lm.storage.parquet import BoundedFile, check_size

    try:
        left = max(least, MAX_RATIO * (size_of(place) or 0))
        with BoundedFile(place) as file:
            names = file.schema_arrow.names
            if columns and columns[0] not in names:
                raise InputError(f"{place} has no column {columns[0]}, but: {shown(', '.join(names))}. {remedy}")
            for batch in file.iter_batches(PARQUET_ROWS, columns=columns):
                left -= check_size(batch)
                if left < 0:
                    raise PageTooLargeError(f"it unpacks to more than {MAX_RATIO} times its size")
                yield from batch.to_pylist()
    except (OSError, ValueError) as error:  # Arrow's errors of damaged files are ValueErrors
        raise InputError(f"{place} is not a complete Parquet file, or too large: {error}. {remedy}") from error
