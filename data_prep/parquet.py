"""Rows in and out of Parquet files: row group by row group, and a file appears whole or not at all."""

import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from lm.errors import InputError

ROWS_PER_GROUP = 1000
"""Bounds the memory of reader and writer; fixed, since it shapes the bytes."""


def write_rows(rows: Iterable[tuple[Path, dict]], schemas: dict[Path, pa.Schema], scratch: Path) -> None:
    """Writes each row to the file it names. All files of `schemas` appear at the end, those without rows too.

    They are built in the folder `scratch` of the same disk, under names that no other process uses: a worker that
    outlives a killed run cannot write into a file of the next one. The same rows give the same bytes. Raises InputError
    when the disk does not take them.
    """
    try:
        write_rows_or_fail(rows, schemas, scratch)
    except OSError as error:
        raise InputError(
            f"{', '.join(map(str, schemas))} cannot be written: {error.strerror or error}. "
            "Make room on the disk, or mend the permissions."
        ) from error


def write_rows_or_fail(rows: Iterable[tuple[Path, dict]], schemas: dict[Path, pa.Schema], scratch: Path) -> None:
    partials = {path: scratch / f"{path.parent.name}-{path.name}.{os.getpid()}.partial" for path in schemas}
    waiting: dict[Path, list[dict]] = {path: [] for path in schemas}
    with ExitStack() as stack:
        writers = {
            path: stack.enter_context(pq.ParquetWriter(partials[path], schema, compression="zstd"))
            for path, schema in schemas.items()
        }

        def flush(path: Path) -> None:
            writers[path].write_table(pa.Table.from_pylist(waiting[path], schemas[path]))
            waiting[path].clear()

        for path, row in rows:
            waiting[path].append(row)
            if len(waiting[path]) == ROWS_PER_GROUP:
                flush(path)
        for path in schemas:
            if waiting[path]:
                flush(path)
    for path, partial in partials.items():
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)


def read_rows(path: Path, columns: list[str] | None = None) -> Iterator[dict]:
    """The rows of a Parquet file in order, at most ROWS_PER_GROUP of them in memory."""
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=ROWS_PER_GROUP, columns=columns):
            yield from batch.to_pylist()


def rows_in(path: Path) -> int | None:
    """How many rows a Parquet file holds; None when there is none, or it is not whole (its end holds the index)."""
    try:
        return pq.read_metadata(path).num_rows
    except (OSError, pa.ArrowInvalid):
        return None
