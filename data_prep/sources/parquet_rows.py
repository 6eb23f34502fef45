"""Read the needed columns of Parquet files by byte ranges, with bounded memory for any input.

Arrow decompresses pages of any size, and copies a dictionary value for every row that refers to it. Therefore each page
header is checked first (lm/storage/parquet_pages.py), strings stay dictionary-encoded, and only a few megabytes of rows
are converted at a time.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_prep.kept_columns import KINDS, as_integers, is_temporal, kept_type
from data_prep.kept_columns import STRINGS as STRING_LISTS
from data_prep.sources.columns import AS_INTEGER, MAX_FIELD_BYTES, MAX_TEXT_BYTES, NAMES, TOO_LONG
from data_prep.sources.formats import NO_TEXT, Table
from lm.errors import InputError, shown
from lm.storage import Place, Url, count_bytes
from lm.storage.parquet_pages import (
    LIST_VALUE_BYTES,
    BadPageError,
    CheckedFile,
    PageTooLargeError,
    encodings_of,
    may_stay_a_dictionary,
)

ROWS_AT_ONCE = (1000, 50, 1)
"""Rows decoded at once; the next smaller number is used if they might take more than a quarter of MAX_PAGE_BYTES."""
BATCH_BYTES = 32 << 20
"""Maximum bytes of strings converted to rows at once, but at least one row."""
BUFFER = 4 << 20
"""Bytes of one column per read; for a remote file, per request."""
STRINGS = {pa.string(), pa.large_string(), pa.binary(), pa.large_binary()}
VIEWS = {pa.string_view(): pa.string(), pa.binary_view(): pa.binary()}
OWN = {key for keys in NAMES.values() for key in keys}
"""Columns that fill the standard fields of a document."""


def rows(table: Table) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Yield (row number from 0, its position for messages, {column: value}) of each row, with nested columns as "a.b".

    If a row group is damaged or takes too much memory, its remaining rows are quarantined together. Columns of lists
    are read only if they are kept (pages.keep_columns), those of type fixed_size_binary never. Raises InputError if the
    file is not Parquet, has no text column, lacks a kept column or has one that cannot be kept, or all its row groups
    are damaged.
    """
    import pyarrow.parquet as pq

    path, text_field = table.path, table.text_field
    usable = {text_field, *OWN}
    try:
        source = opened(table)
        about = pq.ParquetFile(source)
        leaves = {leaf.path: (number, leaf) for number, leaf in enumerate(about.schema)}  # "metadata.url"
        fits = lambda leaf: leaf.max_repetition_level == 0 and leaf.physical_type != "FIXED_LEN_BYTE_ARRAY"
        wanted = [name for name, (_, leaf) in leaves.items() if name in usable and fits(leaf)]
        lists: set[str] = set()  # columns that store kept lists
        for name in table.keep_columns:
            kind = table.types[name] = type_in(about.schema_arrow, name, path)
            stored = next(one for one in leaves if one == name or one.startswith(f"{name}."))
            leaf, is_list = leaves[stored][1], kind == STRING_LISTS
            unbounded = is_list and about.metadata.num_row_groups and not may_stay_a_dictionary(about, *leaves[stored])
            if leaf.max_repetition_level != is_list or leaf.physical_type == "FIXED_LEN_BYTE_ARRAY" or unbounded:
                raise InputError(
                    f"{path}: the column {shown(name)} has an encoding that cannot be read in bounded memory "
                    f"({leaf.physical_type}, {', '.join(encodings_of(about, leaves[stored][0]))}). Write the file "
                    "again with plain or dictionary encoding, or remove the column from pages.keep_columns."
                )
            wanted.append(stored)
            lists |= {stored} if is_list else set()
        wanted = [*dict.fromkeys(wanted)]
        strings = [name for name in wanted if may_stay_a_dictionary(about, *leaves[name])]
        # pre_buffer would read whole column chunks.
        file = pq.ParquetFile(
            source, metadata=about.metadata, buffer_size=BUFFER, pre_buffer=False, read_dictionary=strings
        )
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path} is not a complete Parquet file: {error}. Get it again, or leave it out.") from error
    with source, file:
        if text_field not in wanted:
            if any(name == text_field or name.startswith(text_field + ".") for name in leaves):
                total = file.metadata.num_rows
                raise InputError(
                    f"{path} has no text in any of its {total:,} rows: {text_field!r} is not a string. {NO_TEXT}"
                )
            names = ", ".join(file.schema_arrow.names)
            raise InputError(f"{path} has no column {text_field!r}, but: {names}. {NO_TEXT}")
        start = damaged = 0
        last = ""
        for group in range(file.num_row_groups):
            chunks = file.metadata.row_group(group)
            number = start
            try:
                for size in ROWS_AT_ONCE:
                    columns = {name: chunks.column(leaves[name][0]) for name in wanted}
                    source.watch(columns, set(strings), size, lists)
                    at = start
                    try:
                        for batch in file.iter_batches(size, row_groups=[group], columns=wanted, use_threads=False):
                            skipped, at = max(number - at, 0), at + batch.num_rows
                            for row in rows_of(batch.slice(skipped), table):
                                yield number, f"row {number}", row
                                number += 1
                            source.begin_batch()
                        break
                    except PageTooLargeError:
                        if size == 1:
                            raise
            except (OSError, pa.ArrowException, UnicodeDecodeError, PageTooLargeError, BadPageError) as error:
                reason, last = "too_long" if isinstance(error, PageTooLargeError) else "damaged", str(error)
                damaged += 1
                table.quarantine(number, f"row group {group}, from row {number} on", reason, last)
            start += chunks.num_rows
        if damaged == file.num_row_groups and damaged:
            raise InputError(f"{path}: no row group can be read: {last}. Download it again, or remove it.")


def type_in(schema: pa.Schema, name: str, path: Place) -> pa.DataType:
    """Return the type in which documents keep the column. Raises InputError if it is missing or cannot be kept."""
    fields: list[pa.Field] = list(schema)
    rest, found = name, None
    while found is None:
        found = next((field for field in fields if field.name == rest), None)
        outer = next((one for one in fields if pa.types.is_struct(one.type) and rest.startswith(f"{one.name}.")), None)
        if found is None and outer is None:
            raise InputError(
                f"{path} has no column {shown(name)} (pages.keep_columns); it has "
                f"{', '.join(map(shown, schema.names))}. Remove the column or the file."
            )
        if found is None and outer is not None:
            rest, fields = rest.removeprefix(f"{outer.name}."), list(outer.type)
    kind = kept_type(found.type)
    if kind is None:
        inner = pa.types.is_struct(found.type) and found.type.num_fields
        remedy = (
            f"Give a part of it, such as {shown(f'{name}.{found.type.field(0).name}')}, or remove it"
            if inner
            else "Leave it out"
        )
        raise InputError(
            f"{path}: the column {shown(name)} is {shown(str(found.type), quotes=False)}, which cannot be kept "
            f"(pages.keep_columns). Supported: {KINDS}. {remedy}."
        )
    return kind


def check_columns(path: Place, names: Sequence[str]) -> None:
    """Raise InputError if one of the columns `names` is missing or cannot be kept."""
    schema = footer_of(path).schema.to_arrow_schema()
    for name in names:
        type_in(schema, name, path)


def count(path: Place) -> int | None:
    """Return the number of rows, from the footer; None for a remote file, to avoid one request per file."""
    return None if isinstance(path, Url) else footer_of(path).num_rows


def footer_of(path: Place) -> Any:
    import pyarrow.parquet as pq

    try:
        with path.open("rb") as file:
            return pq.read_metadata(file)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path} is not a complete Parquet file: {error}. Get it again, or leave it out.") from error


def opened(table: Table) -> CheckedFile:
    if isinstance(table.path, Url):
        return CheckedFile(table.path.open("rb", buffering=0, version=table.version))
    return CheckedFile(table.path.open("rb", buffering=0))


def rows_of(batch: pa.RecordBatch, table: Table) -> Iterator[dict[str, Any]]:
    """Yield the rows of a batch as {column: value}, with nested columns as "metadata.url".

    Values longer than MAX_FIELD_BYTES become None, except the text and kept columns. A kept list of more than
    MAX_TEXT_BYTES becomes TOO_LONG. A kept timestamp or date is an integer under the key AS_INTEGER + column.
    """
    sizes = np.zeros(len(batch), np.int64)
    found: dict[str, pa.Array] = {}
    too_long: dict[str, np.ndarray] = {}
    for name, array in leaves_of(batch.to_struct_array()):
        if pa.types.is_list(array.type) or pa.types.is_large_list(array.type):
            lengths = list_bytes(array)
            too_long[name] = lengths > MAX_TEXT_BYTES
            sizes += np.where(too_long[name], 0, lengths)
            found[name] = array
            continue
        if name in table.types and is_temporal(array.type):
            found[AS_INTEGER + name] = as_integers(array)
            if name not in OWN:
                continue
        is_dictionary = pa.types.is_dictionary(array.type)
        words = array.dictionary if is_dictionary else array
        if words.type in VIEWS:
            words = words.cast(VIEWS[words.type])
        if words.type in STRINGS:
            lengths = pc.call_function("binary_length", [words]).fill_null(0).to_numpy()
            if name != table.text_field and name not in table.types and lengths.max(initial=0) > MAX_FIELD_BYTES:
                missing = pa.scalar(None, words.type)
                words = pc.call_function("if_else", [pa.array(lengths > MAX_FIELD_BYTES), missing, words])
                lengths = np.minimum(lengths, MAX_FIELD_BYTES)
            array = pa.DictionaryArray.from_arrays(array.indices, words) if is_dictionary else words
            if is_dictionary:  # null rows have no index into the dictionary
                lengths = np.append(lengths, 0)[array.indices.fill_null(len(words)).to_numpy()]
            sizes += lengths
        found[name] = array
    count_bytes(unpacked=int(sizes.sum()))
    ends = np.cumsum(sizes)
    at = 0
    while at < len(batch):
        before = int(ends[at - 1]) if at else 0
        end = max(int(np.searchsorted(ends, before + BATCH_BYTES, "right")), at + 1)
        table.spend(int(ends[end - 1]) - before, end - at)
        values = [
            [TOO_LONG if long else array[at + n].as_py() for n, long in enumerate(too_long[name][at:end])]
            if name in too_long
            else values_in(array.slice(at, end - at))
            for name, array in found.items()
        ]
        for row in zip(*values, strict=True):
            yield dict(zip(found, row, strict=True))
        at = end


def values_in(array: pa.Array) -> list:
    """Return the values like `to_pylist`, but None for timestamps that Python cannot represent."""
    plain = array.dictionary_decode() if isinstance(array, pa.DictionaryArray) else array
    if not is_temporal(array.type):
        return plain.to_pylist()
    found = []
    for one in array:
        try:
            found.append(one.as_py())
        except (ArithmeticError, ValueError, LookupError):  # LookupError: no such time zone
            found.append(None)
    return found


def list_bytes(array: pa.Array) -> np.ndarray:
    """Return (rows,) the size of each row's list of strings: their UTF-8 bytes plus LIST_VALUE_BYTES per string."""
    values = array.flatten()  # without values of null rows
    words = values.dictionary if isinstance(values, pa.DictionaryArray) else values
    lengths = pc.call_function("binary_length", [words]).fill_null(0).to_numpy(zero_copy_only=False)
    if isinstance(values, pa.DictionaryArray):
        lengths = np.append(lengths, 0)[values.indices.fill_null(len(words)).to_numpy(zero_copy_only=False)]
    counts = pc.call_function("list_value_length", [array]).fill_null(0).to_numpy(zero_copy_only=False)
    ends = np.cumsum(counts)
    before = np.concatenate(([0], np.cumsum(lengths, dtype=np.int64)))
    return before[ends] - before[ends - counts] + LIST_VALUE_BYTES * counts.astype(np.int64)


def leaves_of(structs: pa.StructArray, above: str = "") -> Iterator[tuple[str, pa.Array]]:
    """Yield (dotted name, values) of each innermost column. Names get the prefix `above`; values in a null struct are
    null."""
    for field, array in zip(structs.type, structs.flatten(), strict=True):
        if pa.types.is_struct(array.type):
            yield from leaves_of(array, f"{above}{field.name}.")
        else:
            yield above + field.name, array
