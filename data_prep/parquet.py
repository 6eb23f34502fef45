"""Rows in and out of Parquet files: row group by row group, and a file appears whole or not at all."""

import hashlib
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from lm.errors import InputError
from lm.storage import Place, appearing, size_of, writing

END_BYTES, THREADS = 2**16, 16
ROWS_PER_GROUP = 1000
CHARACTERS_PER_GROUP = 32_000_000
"""A row group ends with the row that reaches either. They bound the memory of writer and readers, which hold a group;
fixed, since they shape the bytes."""


def write_rows(rows: Iterable[tuple[Path, dict]], schemas: dict[Path, pa.Schema], scratch: Path) -> None:
    """Writes each row to the file it names. All files of `schemas` appear at the end, those without rows too.

    They are built in the folder `scratch` of the same disk. The same rows give the same bytes. Raises InputError when
    the disk does not take them.
    """
    waiting: dict[Path, list[dict]] = {path: [] for path in schemas}
    characters = dict.fromkeys(schemas, 0)
    with writing(", ".join(map(str, schemas))), ExitStack() as stack:
        partials = {path: stack.enter_context(appearing(path, scratch)) for path in schemas}
        writers = {
            path: stack.enter_context(pq.ParquetWriter(partials[path], schema, compression="zstd"))
            for path, schema in schemas.items()
        }

        def flush(path: Path) -> None:
            writers[path].write_table(pa.Table.from_pylist(waiting[path], schemas[path]))
            waiting[path].clear()
            characters[path] = 0

        for path, row in rows:
            waiting[path].append(row)
            characters[path] += sum(len(value) for value in row.values() if isinstance(value, str))
            if len(waiting[path]) == ROWS_PER_GROUP or characters[path] >= CHARACTERS_PER_GROUP:
                flush(path)
        for path in schemas:
            if waiting[path]:
                flush(path)


def read_batches(
    place: Place, columns: list[str] | None = None, rows: int = ROWS_PER_GROUP, row_groups: Sequence[int] | None = None
) -> Iterator[pa.RecordBatch]:
    """The columns (None: all) of a file, or of some of its row groups, at most `rows` rows of one group at a time.

    Raises InputError when the file is damaged or lacks a column.
    """
    with opened(place) as file:
        check_columns(file, place, columns or ())
        groups = range(file.num_row_groups) if row_groups is None else row_groups
        for group in groups:  # a batch that spanned groups would not be bounded by them
            yield from file.iter_batches(rows, row_groups=[group], columns=columns)


@contextmanager
def opened(place: Place) -> Generator[pq.ParquetFile]:
    """A Parquet file, of a bucket read by ranges. Raises InputError, which names `place`, where it turns out in the
    block to be no whole one."""
    try:
        with ExitStack() as stack:
            source = place if isinstance(place, Path) else stack.enter_context(place.open("rb"))
            yield stack.enter_context(pq.ParquetFile(source))
    except (OSError, ValueError) as error:  # pyarrow's ArrowInvalid is a ValueError
        raise InputError(f"{place} is damaged: {error}. {remedy(place)}") from error


def parquet_files(folder: Place) -> list[Place]:
    """The files folder/*.parquet, by name."""
    if isinstance(folder, Path):
        return sorted(folder.glob("*.parquet"))
    return [folder / name for name in sorted(folder.files()) if name.endswith(".parquet") and "/" not in name]


def identities_of(places: Sequence[Place]) -> list[tuple[int, str]]:
    """(bytes, SHA-256 of the end) of each file: the end of a Parquet file tells the places and sizes of all columns of
    all row groups, and their least and greatest values."""
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(identity_of_file, places))


def identity_of_file(place: Place) -> tuple[int, str]:
    """As `identities_of`. Raises InputError where there is none."""
    size = size_of(place)
    if size is None:
        raise InputError(f"{place} is not there. {remedy(place)}")
    begin = max(size - END_BYTES, 0)
    if isinstance(place, Path):
        with place.open("rb") as file:
            file.seek(begin)
            end = file.read()
    else:
        end = place.read_range(begin, size)
    return size, hashlib.sha256(end).hexdigest()


def check_columns(file: pq.ParquetFile, path: Place, columns: Iterable[str]) -> None:
    """Raises InputError unless the file has the columns."""
    missing = [name for name in columns if name not in file.schema_arrow.names]
    if missing:
        raise InputError(f"{path} has no column {', '.join(missing)}. {remedy(path)}")


def remedy(path: Place) -> str:
    """What to do about a damaged file of a run folder."""
    script = "extract_texts" if path.parent.name == "texts" else "prepare_documents"
    return f"Delete it and make it again: python -m launch.{script}"


def read_rows(path: Place, columns: list[str] | None = None) -> Iterator[dict]:
    """The rows of a Parquet file in order, one row group in memory. Raises InputError as `read_batches`."""
    for batch in read_batches(path, columns):
        yield from batch.to_pylist()


def rows_in(path: Path) -> int | None:
    """How many rows a Parquet file holds; None when there is none, or it is not whole (its end holds the index)."""
    try:
        return pq.read_metadata(path).num_rows
    except (OSError, pa.ArrowInvalid):
        return None
