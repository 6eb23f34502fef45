"""Look up ids and URLs of documents by their number, reading few rows of the tables at a time."""

import bisect
import contextlib
import functools
from collections.abc import Generator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from lm.data.records import MAKE_SHARDS, document_tables
from lm.errors import InputError
from lm.storage import Place, appearing, writing

COLUMNS = ("id", "url")
ROWS = 8192
"""Rows of a row group in a copy, which one lookup reads."""


class DocumentNames:
    """Names in the tables of documents of some shards, or in a copy. Read lazily."""

    def __init__(self, tables: Sequence[Place], remedy: str = MAKE_SHARDS):
        """`remedy` is the advice for a missing or damaged table."""
        self.places, self.remedy = tables, remedy

    def of(self, number: int) -> tuple[str, str]:
        """Return (id, URL) of a document by its number. Raises InputError if the tables do not have it, or are
        damaged."""
        index = bisect.bisect_right(self.tables, number, key=lambda one: one[1]) - 1
        table, first = self.tables[index]
        at = number - first
        for group in range(table.metadata.num_row_groups):
            rows = table.metadata.row_group(group).num_rows
            if at < rows:
                names = self.in_group(index, group)
                return names["id"][at].as_py() or "", names["url"][at].as_py() or ""
            at -= rows
        raise InputError(f"Document {number:,} is not in the tables of {self.places[-1].parent}.")

    @functools.cached_property
    def tables(self) -> list[tuple[pq.ParquetFile, int]]:
        """(table of documents, number of its first row)."""
        found, first = [], 0
        for place in self.places:
            with readable(place, self.remedy):
                table = pq.ParquetFile(place)
            found.append((table, first))
            first += table.metadata.num_rows
        return found

    @functools.lru_cache(maxsize=32)  # noqa: B019  (an index lives as long as its server)
    def in_group(self, table: int, group: int) -> pa.Table:
        """Names of the documents in a row group of a table."""
        with readable(self.places[table], self.remedy):
            return self.tables[table][0].read_row_group(group, list(COLUMNS))


def copy_names(shards: Place, out: Path) -> None:
    """Write the names of all documents in a folder of shards, which may be in a bucket, to the file `out`. Raises
    InputError on read or write errors."""
    schema = pa.schema([(name, pa.string()) for name in COLUMNS])
    with writing(out), appearing(out) as path, pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for place in document_tables(shards):
            with readable(place, MAKE_SHARDS), place.open("rb") as file, pq.ParquetFile(file) as table:
                for batch in table.iter_batches(ROWS, columns=list(COLUMNS)):
                    writer.write_table(pa.Table.from_batches([batch]).select(COLUMNS).cast(schema))


@contextlib.contextmanager
def readable(table: Place, remedy: str) -> Generator[None]:
    """Convert errors in reading the table to InputError, with its path and the remedy."""
    try:
        yield
    except (OSError, ValueError) as error:  # pyarrow's ArrowInvalid is a ValueError
        raise InputError(f"{table} cannot be read: {error}. {remedy}") from error
