"""A folder of Parquet files as one sequence of documents, reading few at a time; and lists of its documents, part by
part: all of them, those dropped by one rule, or those with some words.

Keeps only the number of rows per file, and only up to the last file that was requested.
"""

import functools
import re
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from pyarrow.compute import MatchSubstringOptions, SliceOptions, call_function

from data_prep.kept_columns import rows_of
from data_prep.parquet import column_of, opened, parquet_files, read_footer, rows_in
from data_prep.verdict import Threshold
from lm.errors import InputError
from lm.storage import Place, StorageError
from viewer.training_data import finite

FILES_AT_ONCE, THREADS = 64, 8
TEXTS = frozenset(
    ("id", "url", "text", "date", "file_path", "dump", "language", "language_script", "stage", "reason", "duplicate_of")
)
"""Text columns; files made by other programs may lack all except "text"."""
INDICES = 8
"""Number of file footers to keep, those that were read last."""


class Piece(NamedTuple):
    """Rows of one row group of a Parquet file: all, or all after the first `skipped` rows."""

    file: int
    """Index of its file in the order of names."""
    group: int
    skipped: int
    """Rows of the group before the first one."""
    row: int
    """Number of the first row in the file."""
    position: int
    """Position of the first row in the folder."""
    rows: int
    """Number of rows."""


class ParquetFolder:
    """Files of documents/ or dropped/ as one sequence of rows; a position is the number of a row over all files."""

    def __init__(self, path: Place):
        """`path`: the folder; files in a bucket are read by ranges of bytes."""
        self.path = path
        self._stamp = -1
        self._names: list[str] = []
        self._firsts = [0]  # position of the first row of each counted file, and the end of the last one
        self.unreadable: set[str] = set()
        """Files with an unreadable footer or a damaged row group."""
        self._index = functools.lru_cache(INDICES)(lambda name: read_footer(self.path / name))

    def refresh(self) -> bool:
        """List the files again if the folder has changed; return whether there are any. Call this before other methods.
        A bucket is not listed again once files were found."""
        try:
            stamp = self.path.stat().st_mtime_ns if isinstance(self.path, Path) else 0
        except OSError:
            stamp = 0
        if stamp != self._stamp or not self._names:
            self._names, self._firsts = [place.name for place in parquet_files(self.path)], [0]
            self._stamp = stamp
            self.unreadable.clear()
            self._index.cache_clear()
        return bool(self._names)

    @property
    def counted(self) -> int | None:
        """Number of rows of all files; None if some have not been counted yet."""
        return self._firsts[-1] if len(self._firsts) > len(self._names) else None

    def name(self, file: int) -> str:
        return self._names[file]

    def first_of(self, name: str) -> int:
        """Position in the folder of the first row of a file. Raises InputError if there is no such file."""
        if name not in self._names:
            raise InputError(f"{self.path} has no file {name!r}. Give one that /v1/inspect/documents lists.")
        file = self._names.index(name)
        while len(self._firsts) <= file + 1:  # including its end
            self._count_more()
        return self._firsts[file]

    def locate(self, position: int) -> tuple[int, int] | None:
        """Return (index of the file, row in the file) of a position in the folder; None after the end."""
        while self._firsts[-1] <= position and self.counted is None:
            self._count_more()
        if position >= self._firsts[-1]:
            return None
        file = bisect_right(self._firsts, position) - 1
        return file, position - self._firsts[file]

    def pieces(self, position: int) -> Iterator[Piece]:
        """Yield the rows from `position` on, by row group."""
        while place := self.locate(position):
            file, row = place
            begin = self._firsts[file]
            index = self._index(self._names[file])
            for group in range(index.num_row_groups):
                rows = index.row_group(group).num_rows
                if begin + rows > position:
                    skipped = position - begin
                    yield Piece(file, group, skipped, row, position, rows - skipped)
                    position, row = begin + rows, row + rows - skipped
                begin += rows
            position = max(position, self._firsts[file + 1])

    def can_hold(self, piece: Piece, column: str, value: str) -> bool:
        """Whether a row of the group may have this value in the column, by the statistics of the file."""
        found = self._index(self._names[piece.file])
        names = found.schema.names
        if column not in names:
            return True
        statistics = found.row_group(piece.group).column(names.index(column)).statistics
        # The statistics may truncate long values, and exclude nulls.
        return not (statistics and statistics.has_min_max) or statistics.min <= value <= statistics.max

    def read(self, piece: Piece, columns: Sequence[str]) -> pa.Table:
        """Read columns of a piece, without those that the file lacks; missing text columns are null. Raises InputError
        if the file is damaged or a text column has another type, StorageError if a bucket cannot be read."""
        place = self.path / self._names[piece.file]
        try:
            index = self._index(place.name)
            there = [name for name in columns if name in index.schema.names]
            with opened(place, index) as file:
                return with_texts(file.read_row_group(piece.group, there), columns).slice(piece.skipped)
        except StorageError:
            raise
        except InputError:
            self.unreadable.add(place.name)
            raise

    def row(self, name: str, row: int, columns: Sequence[str] | None = None) -> dict:
        """Return {column: value} of row `row` in the file `name`; timestamps and dates are integers. Raises InputError
        if there is no such file or row, or if the file is damaged."""
        first = self.first_of(name)
        rows = self._index(name).num_rows
        if not 0 <= row < rows:
            raise InputError(f"{self.path / name} has {rows:,} rows, numbered from 0; there is no row {row:,}.")
        piece = next(self.pieces(first + row))
        columns = [*dict.fromkeys([*self._index(name).schema.names, "text"])] if columns is None else columns
        return rows_of(self.read(piece, columns).slice(0, 1).combine_chunks().to_batches()[0])[0]

    def _count_more(self) -> None:
        """Count the rows of the next files."""
        begin = len(self._firsts) - 1
        names = self._names[begin : begin + FILES_AT_ONCE]
        with ThreadPoolExecutor(THREADS) as pool:
            counts = list(pool.map(lambda name: rows_in(self.path / name), names))
        for name, rows in zip(names, counts, strict=True):
            if rows is None:
                self.unreadable.add(name)
            self._firsts.append(self._firsts[-1] + (rows or 0))


def with_texts(table: pa.Table, columns: Sequence[str]) -> pa.Table:
    """Add missing text columns as nulls. Raises ValueError if a text column has another type."""
    for name in TEXTS.intersection(columns):
        if name not in table.column_names:
            table = table.append_column(name, pa.nulls(len(table), pa.string()))
        elif table[name].type not in (pa.string(), pa.large_string(), pa.null()):
            raise ValueError(f"its column {name} is {table[name].type}, instead of string")
    return table


BEGINNING = 200
"""Characters of a document in the list."""
BEFORE = 60
"""Characters to show before a search word."""
MOST_ADDRESS = 2000
"""Maximum characters of a URL, an id or a file name."""
NO_ROWS = pa.Table.from_arrays([], names=[])
COLUMNS = ("url", "text", "language", "language_score", "stage", "reason", "text_bytes")


@dataclass(frozen=True)
class DocumentFilter:
    """Criteria for documents to list."""

    reason: str = ""
    """"stage/reason" that dropped them; "" for any."""
    words: tuple[str, ...] = ()
    """Words that must all occur in the document, case-insensitively."""
    in_address: bool = False
    """Search for the words only in the URL, instead of URL and text."""


def list_documents(
    folder: ParquetFolder, wanted: DocumentFilter, offset: int, limit: int, threshold: Threshold | None, seconds: float
) -> dict[str, Any]:
    """Return as JSON at most `limit` matching documents from position `offset` of the folder on. "next" is the position
    to continue from, None at the end. Stops after `seconds` seconds. The values that `threshold` compares are shown.
    Lists damaged files as "unreadable". Raises StorageError if a bucket cannot be read."""
    until = time.monotonic() + seconds
    found = []
    position = offset
    for piece in folder.pieces(offset):
        if position > offset and time.monotonic() > until:
            break
        position = piece.position + piece.rows
        try:
            rows, table = matching(folder, piece, wanted, threshold)
        except StorageError:
            raise
        except InputError:
            continue
        left = limit - len(found)
        table = table.slice(0, left)
        shown = truncate(table, {"text": BEGINNING, "url": MOST_ADDRESS}).to_pylist() if len(rows) else []
        sizes = call_function("binary_length", [table["text"]]).to_pylist() if shown else []
        for index, (row, size, values) in enumerate(zip(rows[:left].tolist(), sizes, shown, strict=True)):
            dropped = values.get("stage") is not None
            found.append({
                "file": f"{folder.path.name}/{folder.name(piece.file)}", "row": piece.row + row,
                "position": piece.position + row, "url": values["url"] or "",
                "beginning": " ".join(values["text"].split()),
                "bytes": values.get("text_bytes") if dropped else size, "language": values["language"] or "",
                "name": f"{values['stage']}/{values['reason']}" if dropped else "",
                "value": finite(values.get(threshold.signal)) if threshold else None,
                "passage": around(table["text"][index].as_py() or "", wanted.words[0]) if wanted.words else "",
            })  # fmt: skip
        if len(rows) > left or len(found) == limit:
            position = piece.position + int(rows[left - 1]) + 1
            break
    return {
        "offset": offset, "next": position if folder.locate(position) else None, "documents": found,
        "rows": folder.counted, "unreadable": sorted(folder.unreadable)[:20],
    }  # fmt: skip


def matching(
    folder: ParquetFolder, piece: Piece, wanted: DocumentFilter, threshold: Threshold | None
) -> tuple[np.ndarray, pa.Table]:
    """Return (indices of matching rows in a row group, their columns for the list). Reads texts only if needed."""
    rows = np.arange(piece.rows)
    if wanted.reason:
        stage, _, reason = wanted.reason.partition("/")
        if not (folder.can_hold(piece, "stage", stage) and folder.can_hold(piece, "reason", reason)):
            return rows[:0], NO_ROWS
        marks = folder.read(piece, ("stage", "reason"))
        same = [equal(marks["stage"], stage), equal(marks["reason"], reason)]
        rows = true_rows(call_function("and", same))
    if wanted.words and wanted.in_address and len(rows):
        rows = rows[holds_words(take_rows(folder.read(piece, ("url",)), rows), wanted.words)]
    if not len(rows):
        return rows, NO_ROWS
    signal = (threshold.signal,) if threshold else ()
    table = take_rows(folder.read(piece, list(dict.fromkeys([*COLUMNS, *signal]))), rows)
    if wanted.words and not wanted.in_address:
        hit = holds_words(table, wanted.words)
        rows, table = rows[hit], take_rows(table, hit)
    return rows, table


def true_rows(mask: pa.ChunkedArray) -> np.ndarray:
    """Indices of true values; null counts as false."""
    if not len(mask):  # Arrow ends the process for an array without chunks
        return np.zeros(0, np.int64)
    return np.array(call_function("indices_nonzero", [mask]).to_pylist(), np.int64)


def take_rows(table: pa.Table, rows: np.ndarray) -> pa.Table:
    """Rows of a table with these indices."""
    return table.take(column_of(rows.tolist(), pa.int64()))


def constant(text: str) -> pa.Scalar:
    """Like pa.scalar(text), but does not import pandas, which takes 0.4 s."""
    return column_of([text], pa.string())[0]


def equal(column: pa.ChunkedArray, text: str) -> pa.ChunkedArray:
    return call_function("equal", [column, constant(text)])


def holds_words(table: pa.Table, words: tuple[str, ...]) -> np.ndarray:
    """Indices of the rows that contain all words, in the URL or the text, ignoring case."""
    found = None
    for word in words:
        same = MatchSubstringOptions(word, ignore_case=True)
        for_word = None
        for name in ("url", "text"):
            if name in table.column_names:
                hit = call_function("match_substring", [table[name]], same)
                for_word = hit if for_word is None else call_function("or_kleene", [for_word, hit])
        found = for_word if found is None else call_function("and_kleene", [found, for_word])
    assert found is not None
    return true_rows(found)


def around(text: str, word: str) -> str:
    """Text around the first occurrence of a word, ignoring case; "" if it does not occur."""
    found = re.search(re.escape(word), text, re.IGNORECASE)
    if found is None:
        return ""
    begin = max(0, found.start() - BEFORE)
    return " ".join(text[begin : begin + BEGINNING].split())


def truncate(table: pa.Table, lengths: dict[str, int]) -> pa.Table:
    """Truncate text columns; `lengths` is {column: maximum characters}."""
    for name, length in lengths.items():
        place = table.column_names.index(name)
        text = call_function(
            "utf8_slice_codeunits", [call_function("coalesce", [table[name], constant("")])], SliceOptions(0, length)
        )
        table = table.set_column(place, name, text)
    return table


def find_id(
    folder: ParquetFolder, id: str, name: str = "", stop: Callable[[], bool] = lambda: False
) -> tuple[str, int] | None:
    """Return (file, row) of the first document with this id, if given only in the file `name`; None if there is none,
    or if `stop` returns True. Skips damaged row groups. Raises InputError if there is no such file."""
    for piece in folder.pieces(folder.first_of(name) if name else 0):
        file = folder.name(piece.file)
        if name not in ("", file):
            return None
        try:
            found = true_rows(equal(folder.read(piece, ("id",))["id"], id))
        except StorageError:
            raise
        except InputError:
            continue
        if len(found):
            return file, piece.row + int(found[0])
        if stop():
            return None
    return None
