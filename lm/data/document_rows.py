"""Rows of the tables of documents of a folder of shards, by document number."""

import contextlib
from bisect import bisect_right
from collections import deque
from collections.abc import Generator, Sequence
from typing import Any

import pyarrow as pa

from lm.data.records import MAKE_SHARDS
from lm.errors import InputError
from lm.storage import Place
from lm.storage.parquet import BoundedFile

GROUPS_HELD, BYTES_HELD = 32, 1 << 28
"""Maximum number of row groups in memory, and their bytes if there are several."""
MAX_FIELD_BYTES = 64 << 10
"""Characters of an id or URL that are returned; the index may be a stranger's."""


@contextlib.contextmanager
def opened_table(place: Place, remedy: str = MAKE_SHARDS) -> Generator[BoundedFile]:
    """Open a table of documents. Raises InputError, with its path and the remedy, if it is missing or turns out to be
    damaged inside the `with` block."""
    try:
        with BoundedFile(place) as table:
            yield table
    except (OSError, ValueError, IndexError) as error:
        raise InputError(f"{place} cannot be read: {error}. {remedy}") from error


class DocumentRows:
    """Reads one row group at a time, and keeps the last GROUPS_HELD, or fewer if they are large."""

    def __init__(self, tables: Sequence[Place], columns: Sequence[str], remedy: str = MAKE_SHARDS):
        """`tables` are in the order of document numbers; `remedy` is the advice for a missing or damaged one."""
        self.tables, self.columns, self.remedy = tables, list(columns), remedy
        self._firsts = [0]
        """Number of the first document of each table opened so far, and the end of the last one."""
        self._groups: deque[tuple[int, pa.Table]] = deque(maxlen=GROUPS_HELD)

    def at(self, number: int) -> dict[str, Any] | None:
        """Return the row of a document; None if there is no such document. Raises InputError if a table cannot be
        read."""
        for first, rows in tuple(self._groups):
            if first <= number < first + len(rows):
                (row,) = rows.slice(number - first, 1).to_pylist()
                cut = lambda value: value[:MAX_FIELD_BYTES] if isinstance(value, str) else value
                return {name: cut(value) for name, value in row.items()}
        while self._firsts[-1] <= number and len(self._firsts) <= len(self.tables):
            with opened_table(self.tables[len(self._firsts) - 1], self.remedy) as table:
                self._firsts.append(self._firsts[-1] + table.metadata.num_rows)
        if number >= self._firsts[-1]:
            return None
        index = bisect_right(self._firsts, number) - 1
        first, group = self._firsts[index], 0
        with opened_table(self.tables[index], self.remedy) as table:
            while number >= first + (rows := table.metadata.row_group(group).num_rows):
                first, group = first + rows, group + 1
            self._groups.append((first, table.read_row_group(group, self.columns)))
        while len(self._groups) > 1 and sum(rows.nbytes for _, rows in self._groups) > BYTES_HELD:
            self._groups.popleft()
        return self.at(number)
