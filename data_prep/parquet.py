"""Read and write Parquet files one row group at a time. Files are written atomically."""

import hashlib
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lm.errors import InputError
from lm.storage import Place, StorageError, appearing, writing
from lm.storage.parquet import BoundedFile

END_BYTES, THREADS = 2**16, 16
ROWS_PER_GROUP = 1000
CHARACTERS_PER_GROUP = 32_000_000
"""A row group ends at ROWS_PER_GROUP rows or this many characters, to bound memory. Both affect the bytes of the
file."""

PLAIN = {pa.string(): str, pa.float64(): float, pa.int64(): int}


def write_rows(rows: Iterable[tuple[Path, dict]], schemas: dict[Path, pa.Schema], scratch: Path) -> None:
    """Write Parquet files from (path, row) pairs; `schemas` has the schema of each path. Files are built in `scratch`,
    a folder on the same disk, and all of them appear at the end, even those without rows. Equal rows give equal bytes.
    Raises InputError if the disk is full or not writable."""
    waiting: dict[Path, list[dict]] = {path: [] for path in schemas}
    characters = dict.fromkeys(schemas, 0)
    with writing(", ".join(map(str, schemas))), ExitStack() as stack:
        partials = {path: stack.enter_context(appearing(path, scratch)) for path in schemas}
        writers = {
            path: stack.enter_context(pq.ParquetWriter(partials[path], schema, compression="zstd"))
            for path, schema in schemas.items()
        }

        def flush(path: Path) -> None:
            writers[path].write_batch(batch_of(waiting[path], schemas[path]))
            waiting[path].clear()
            characters[path] = 0

        for path, row in rows:
            waiting[path].append(row)
            characters[path] += sum(map(characters_in, row.values()))
            if len(waiting[path]) == ROWS_PER_GROUP or characters[path] >= CHARACTERS_PER_GROUP:
                flush(path)
        for path in schemas:
            if waiting[path]:
                flush(path)


def characters_in(value: object) -> int:
    """Return the number of characters in a string or a list of strings; 0 for other values."""
    if isinstance(value, str):
        return len(value)
    return sum(len(one) for one in value if isinstance(one, str)) if isinstance(value, list) else 0


def batch_of(rows: Sequence[dict], schema: pa.Schema) -> pa.RecordBatch:
    """Return the rows as a record batch; missing values are null. Raises like `pa.array` if a value has the wrong
    type."""
    columns = [column_of([row.get(field.name) for row in rows], field.type) for field in schema]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def column_of(values: Sequence, kind: pa.DataType) -> pa.Array:
    """Return an array of type `kind`. Unlike `pa.array`, does not import pandas for strings and numbers, which would
    take a quarter of a second: half of a worker's startup time."""
    types = set(map(type, values))
    nulls = None
    if kind in PLAIN and types <= {PLAIN[kind], type(None)}:
        if type(None) in types:
            there = np.fromiter((value is not None for value in values), bool, len(values))
            nulls = pa.py_buffer(np.packbits(there, bitorder="little"))
        plain = [PLAIN[kind]() if value is None else value for value in values] if nulls else values
        if kind != pa.string():
            return pa.Array.from_buffers(kind, len(values), [nulls, pa.py_buffer(np.array(plain, PLAIN[kind]))])
        parts = [one.encode() for one in plain if isinstance(one, str)]  # all are strings
        ends = np.cumsum([0, *map(len, parts)])
        if ends[-1] < 2**31:
            offsets = pa.py_buffer(ends.astype(np.int32))
            return pa.StringArray.from_buffers(len(values), offsets, pa.py_buffer(b"".join(parts)), nulls)
    return pa.array(values, kind)


def nulls_of(column: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Return (rows,) bool: whether each value is null. Unlike `column.is_null().to_numpy()`, does not import pandas."""
    if isinstance(column, pa.ChunkedArray):
        return np.concatenate([np.zeros(0, bool), *map(nulls_of, column.chunks)])
    there, first = column.buffers()[0], column.offset
    if there is None or not column.null_count:
        return np.zeros(len(column), bool)
    bits = np.unpackbits(np.frombuffer(there, np.uint8), count=first + len(column), bitorder="little")
    return bits[first:] == 0


def floats_of(column: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Return a copy as (rows,) float64, NaN for null. Unlike `column.to_numpy()`, does not import pandas."""
    if isinstance(column, pa.ChunkedArray):
        return np.concatenate([np.zeros(0), *map(floats_of, column.chunks)])
    if column.type != pa.float64():
        return column.to_numpy(zero_copy_only=False).astype(np.float64)
    first, buffer = column.offset, column.buffers()[1]
    numbers = np.frombuffer(buffer, np.float64, len(column), 8 * first) if len(column) else np.zeros(0)
    return np.where(nulls_of(column), np.nan, numbers)


def read_batches(
    place: Place, columns: list[str] | None = None, rows: int = ROWS_PER_GROUP, row_groups: Sequence[int] | None = None
) -> Iterator[pa.RecordBatch]:
    """Yield record batches of a Parquet file, each of at most `rows` rows and from one row group. `columns` and
    `row_groups` select what is read (None: all). Raises InputError if the file is damaged or lacks a column."""
    with opened(place) as file:
        check_columns(file, place, columns or ())
        groups = range(file.num_row_groups) if row_groups is None else row_groups
        for group in groups:  # a batch across groups would not be bounded by them
            yield from file.iter_batches(rows, row_groups=[group], columns=columns)


@contextmanager
def opened(place: Place, index: pq.FileMetaData | None = None) -> Generator[BoundedFile]:
    """Open a Parquet file; in a bucket, it is read by byte ranges. `index` is its footer, if already read. Raises
    InputError that names `place` if the file turns out to be damaged, or too large for memory, inside the `with`
    block."""
    try:
        with BoundedFile(place, index) as file:
            yield file
    except (OSError, ValueError) as error:
        raise InputError(f"{place} is damaged: {error}. {remedy(place)}") from error


def parquet_files(folder: Place) -> dict[Place, int]:
    """Return {path or URL: bytes} of folder/*.parquet, sorted by name. A bucket is listed once."""
    if isinstance(folder, Path):
        return {path: path.stat().st_size for path in sorted(folder.glob("*.parquet"))}
    found = sorted(folder.files().items())
    return {folder / name: one.size for name, one in found if name.endswith(".parquet") and "/" not in name}


def read_footer(place: Place) -> pq.FileMetaData:
    """Return the footer of a Parquet file: schema and row groups. Raises InputError if the file is not Parquet."""
    try:
        with place.open("rb") as file:
            return pq.read_metadata(file)
    except (OSError, ValueError) as error:  # pyarrow's ArrowInvalid is a ValueError
        raise InputError(f"{place} is not a readable Parquet file: {error}. {remedy(place)}") from error


def sha256_of_end(place: Place) -> str:
    """Return the SHA-256 of a file's last 64 KiB, which identifies a Parquet file: the footer has the offsets, sizes,
    minima and maxima of all columns."""
    with place.open("rb") as file:
        file.seek(max(file.seek(0, 2) - END_BYTES, 0))
        return hashlib.sha256(file.read()).hexdigest()


def text_bytes_of(footer: pq.FileMetaData) -> list[int]:
    """Return the uncompressed bytes of the column "text" in each row group; 0 if there is no such column."""
    column = footer.schema.names.index("text") if "text" in footer.schema.names else None
    groups = map(footer.row_group, range(footer.num_row_groups))
    return [0 if column is None else group.column(column).total_uncompressed_size for group in groups]


def check_columns(file: BoundedFile, path: Place, columns: Iterable[str]) -> None:
    """Raise InputError unless the file has the columns."""
    missing = [name for name in columns if name not in file.schema_arrow.names]
    if missing:
        raise InputError(f"{path} has no column {', '.join(missing)}. {remedy(path)}")


def remedy(path: Place) -> str:
    """Return a sentence for error messages: how to replace the damaged file `path` of a run folder."""
    script = "extract_texts" if path.parent.name == "texts" else "prepare_documents"
    return f"Delete it, and run: python -m launch.{script}"


def read_rows(path: Place, columns: list[str] | None = None) -> Iterator[dict]:
    """Yield the rows of a Parquet file in order, as dicts. Raises InputError like `read_batches`."""
    for batch in read_batches(path, columns):
        yield from batch.to_pylist()


def rows_in(place: Place) -> int | None:
    """Return the number of rows of a Parquet file; None if it is missing or damaged. Raises StorageError if a bucket
    cannot be read."""
    try:
        with opened(place) as file:
            return file.metadata.num_rows
    except StorageError:
        raise
    except InputError:
        return None
