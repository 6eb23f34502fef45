"""The one reader of Parquet files that may come from others: Arrow gets each page only after its header was checked
(parquet_pages.py), and only a bounded amount is decoded at once."""

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lm.storage.parquet_pages import SIMPLE, CheckedFile, PageTooLargeError
from lm.storage.places import Place

MAX_BATCH_BYTES = 1 << 28
"""Maximum bytes that a batch of rows may take, as decoded (`decoded_bytes`)."""
ROWS_AT_ONCE = (50, 1)
"""Rows decoded at once if the requested number might take too much memory."""
BUFFER = 4 << 20
"""Bytes of one column per read, if one has more."""
STRUCT_BYTES, VALUE_BYTES = 200, 16
"""Bytes counted per struct and per other value of a list, in addition to its contents: Python makes a dict of it."""


class BoundedFile:
    """An open Parquet file, read in bounded memory whatever it unpacks to. Reading raises OSError and ValueError
    (Arrow's errors, PageTooLargeError, BadPageError) if the file is damaged or would take too much memory."""

    def __init__(self, place: Place, index: pq.FileMetaData | None = None):
        """Open the file. `index` is its footer, if it was already read. Raises OSError if the file cannot be read, and
        ValueError if it is not Parquet."""
        # In a bucket, one request often brings several small columns, because it reads at least READ_AHEAD bytes.
        self.source = CheckedFile(place.open("rb"))
        try:
            about = pq.ParquetFile(self.source, metadata=index)
        except BaseException as error:
            self.source.close()
            if isinstance(error, pa.ArrowException):
                raise ValueError(str(error)) from error
            raise
        self.metadata, self.schema_arrow = about.metadata, about.schema_arrow
        self.num_row_groups: int = about.num_row_groups
        self.leaves = list(enumerate(about.schema))

    def __enter__(self) -> "BoundedFile":
        return self

    def __exit__(self, *_: object) -> None:
        self.source.close()

    def iter_batches(
        self, rows: int, row_groups: Sequence[int] | None = None, columns: Sequence[str] | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Yield record batches of at most `rows` rows, each from one row group. `columns` names the columns at the top,
        None for all; those that the file lacks are left out. A row group without rows gives no batch."""
        for group in range(self.num_row_groups) if row_groups is None else row_groups:
            yield from self._batches(rows, group, columns)

    def read_row_group(self, group: int, columns: Sequence[str] | None = None) -> pa.Table:
        """Return the columns of a row group. Raises PageTooLargeError if it takes more than MAX_BATCH_BYTES."""
        names = [name for name in self.schema_arrow.names if columns is None or name in columns]
        schema = pa.schema([self.schema_arrow.field(name) for name in names])
        batches, total = [], 0
        for batch in self._batches(max(self.metadata.row_group(group).num_rows, 1), group, names):
            total += check_size(batch, total)
            batches.append(batch)
        table = pa.Table.from_batches(batches, None if batches else schema)
        return table.select([name for name in columns or names if name in names])

    def _batches(self, rows: int, group: int, columns: Sequence[str] | None) -> Iterator[pa.RecordBatch]:
        chunks = self.metadata.row_group(group)
        if not chunks.num_rows:
            return
        wanted = [(n, leaf) for n, leaf in self.leaves if columns is None or leaf.path.split(".")[0] in columns]
        parts = {leaf.path: chunks.column(number) for number, leaf in wanted}
        # Arrow repeats a dictionary entry for each row, unless it reads the column as dictionaries.
        strings = [leaf.path for number, leaf in wanted if leaf.physical_type == "BYTE_ARRAY"]
        strings = [name for name in strings if {*parts[name].encodings} <= SIMPLE]
        lists = {leaf.path for _, leaf in wanted if leaf.max_repetition_level}
        largest = max((part.total_compressed_size for part in parts.values()), default=0)
        file = pq.ParquetFile(
            self.source, metadata=self.metadata, pre_buffer=False, read_dictionary=strings,
            buffer_size=BUFFER if largest > BUFFER else 0,
        )  # fmt: skip
        done = 0
        sizes = [rows, *(size for size in ROWS_AT_ONCE if size < rows)]
        for size in sizes:
            self.source.watch(parts, set(strings), size, lists)
            at = 0
            try:
                names = None if columns is None else list(columns)
                for batch in file.iter_batches(size, row_groups=[group], columns=names, use_threads=False):
                    new, at = batch.slice(max(done - at, 0)), at + batch.num_rows
                    check_size(new)
                    if len(new):
                        yield self._plain(new)
                    done = max(done, at)
                    self.source.begin_batch()
                return
            except PageTooLargeError:
                if size == sizes[-1]:
                    raise
            except pa.ArrowException as error:
                raise ValueError(str(error)) from error

    def _plain(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return the batch in the types of the file, without dictionaries."""
        fields = [self.schema_arrow.field(name) for name in batch.schema.names]
        columns = [
            column if column.type == field.type else column.cast(field.type)
            for column, field in zip(batch.columns, fields, strict=True)
        ]
        if not columns:
            return batch  # from_arrays would lose its number of rows
        return pa.RecordBatch.from_arrays(columns, schema=pa.schema(fields, self.schema_arrow.metadata))


def check_size(batch: pa.RecordBatch, before: int = 0) -> int:
    """Return the decoded bytes of a batch. Raises PageTooLargeError if they, with those `before`, exceed the limit."""
    size = sum(map(decoded_bytes, batch.columns))
    if before + size > MAX_BATCH_BYTES:
        raise PageTooLargeError(f"{len(batch):,} rows of {before + size:,} bytes; the limit is {MAX_BATCH_BYTES:,}")
    return size


def decoded_bytes(array: Any) -> int:
    """Return the size in bytes of an Arrow array's values, with dictionaries expanded."""
    kind = array.type
    if pa.types.is_dictionary(kind):
        words = pc.call_function("binary_length", [array.dictionary])
        return pc.call_function("sum", [words.take(array.indices.drop_null()).cast(pa.int64())]).as_py() or 0
    if pa.types.is_struct(kind):
        return STRUCT_BYTES * len(array) + sum(decoded_bytes(part) for part in array.flatten())
    if pa.types.is_map(kind):
        return decoded_bytes(array.keys) + decoded_bytes(array.items) + VALUE_BYTES * len(array.keys)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        values = array.flatten()
        return decoded_bytes(values) + VALUE_BYTES * len(values)
    return array.nbytes
