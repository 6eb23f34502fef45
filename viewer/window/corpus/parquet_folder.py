"""A folder of Parquet files as one sequence of documents, reading few at a time.

Keeps only the number of rows per file, and only up to the last file that was requested.
"""

import functools
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from data_prep.kept_columns import rows_of
from data_prep.parquet import opened, parquet_files, read_footer, rows_in
from lm.errors import InputError
from lm.storage import Place, StorageError

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
        rows = self._firsts[self._names.index(name) + 1] - first
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
