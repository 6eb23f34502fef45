"""Parquet, by ranges of the columns that a document is made of, in bounded memory whatever the file says.

Arrow unpacks what it is given: a page of any size, and a word of a dictionary as often as rows name it. So the header
of each page is read before Arrow unpacks the page (parquet-format, src/main/thrift/parquet.thrift, in Thrift's compact
protocol), strings stay dictionaries until a row is made of them, and rows are made a few megabytes at a time.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_prep.sources.columns import MAX_FIELD_BYTES, NAMES
from data_prep.sources.formats import Table
from lm.errors import InputError
from lm.storage import Place, Url, count_bytes
from lm.storage.parquet_pages import BadPageError, CheckedFile, PageTooLargeError, may_stay_a_dictionary

ROWS_AT_ONCE = (1000, 50, 1)
"""Rows that are decoded at once: fewer if that many might take more than a quarter of MAX_PAGE_BYTES."""
BATCH_BYTES = 32 << 20
"""Bytes of strings that become rows at once, one row at least."""
BUFFER = 4 << 20
"""Bytes of one column that are read at a time: a request, if the file lies elsewhere."""
STRINGS = {pa.string(), pa.large_string(), pa.binary(), pa.large_binary()}
VIEWS = {pa.string_view(): pa.string(), pa.binary_view(): pa.binary()}
REMEDY = "Name the one with the text by pages.text_field (in the sets of a quality classifier it must be text)."


def rows(table: Table) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Yield (row, its place in words, {column: value}).

    A row group that is damaged, or whose pages would take too much memory, is quarantined as one place. Columns that
    are lists, and those of fixed_size_binary, cannot be part of a document and are not read.
    """
    import pyarrow.parquet as pq

    path, text_field = table.path, table.text_field
    usable = {text_field, *(key for keys in NAMES.values() for key in keys)}
    try:
        source = opened(table)
        about = pq.ParquetFile(source)
        leaves = {leaf.path: (number, leaf) for number, leaf in enumerate(about.schema)}  # "metadata.url"
        fits = lambda leaf: leaf.max_repetition_level == 0 and leaf.physical_type != "FIXED_LEN_BYTE_ARRAY"
        wanted = [name for name, (_, leaf) in leaves.items() if name in usable and fits(leaf)]
        strings = [name for name in wanted if may_stay_a_dictionary(about, *leaves[name])]
        # Without pre_buffer, since with it a column's chunk comes whole.
        file = pq.ParquetFile(
            source, metadata=about.metadata, buffer_size=BUFFER, pre_buffer=False, read_dictionary=strings
        )
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path} is no whole Parquet file: {error}. Get it again, or leave it out.") from error
    with source, file:
        if text_field not in wanted:
            if any(name == text_field or name.startswith(text_field + ".") for name in leaves):
                total = file.metadata.num_rows
                raise InputError(
                    f"{path} has no text in any of its {total:,} rows: {text_field!r} is no string. {REMEDY}"
                )
            names = ", ".join(file.schema_arrow.names)
            raise InputError(f"{path} has no column {text_field!r}, but: {names}. {REMEDY}")
        start = damaged = 0
        last = ""
        for group in range(file.num_row_groups):
            chunks = file.metadata.row_group(group)
            number = start
            try:
                for size in ROWS_AT_ONCE:
                    source.watch({name: chunks.column(leaves[name][0]) for name in wanted}, set(strings), size)
                    at = start
                    try:
                        for batch in file.iter_batches(size, row_groups=[group], columns=wanted, use_threads=False):
                            skipped, at = max(number - at, 0), at + batch.num_rows
                            for row in rows_of(batch.slice(skipped), table):
                                yield number, f"row {number}", row
                                number += 1
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
            raise InputError(f"{path}: no row group can be read: {last}. Get it again, or leave it out.")


def opened(table: Table) -> CheckedFile:
    if isinstance(table.path, Url):
        return CheckedFile(table.path.open("rb", buffering=0, version=table.version))
    return CheckedFile(table.path.open("rb", buffering=0))


def count(path: Place) -> int | None:
    """Rows that the file says it has; None if it lies elsewhere: it would be a request for each file."""
    if isinstance(path, Url):
        return None
    import pyarrow.parquet as pq

    try:
        return pq.read_metadata(path).num_rows
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path} is no whole Parquet file: {error}. Get it again, or leave it out.") from error


def rows_of(batch: pa.RecordBatch, table: Table) -> Iterator[dict[str, Any]]:
    """The rows of a batch, {column: value}: nested columns as "metadata.url", and None for a value of more than
    MAX_FIELD_BYTES, unless it is the text."""
    sizes = np.zeros(len(batch), np.int64)
    found: dict[str, pa.Array] = {}
    for name, array in leaves_of(batch.to_struct_array()):
        is_dictionary = pa.types.is_dictionary(array.type)
        words = array.dictionary if is_dictionary else array
        if words.type in VIEWS:
            words = words.cast(VIEWS[words.type])
        if words.type in STRINGS:
            lengths = pc.call_function("binary_length", [words]).fill_null(0).to_numpy()
            if name != table.text_field and lengths.max(initial=0) > MAX_FIELD_BYTES:
                missing = pa.scalar(None, words.type)
                words = pc.call_function("if_else", [pa.array(lengths > MAX_FIELD_BYTES), missing, words])
                lengths = np.minimum(lengths, MAX_FIELD_BYTES)
            array = pa.DictionaryArray.from_arrays(array.indices, words) if is_dictionary else words
            if is_dictionary:  # no word is named where a row has no value
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
        parts = (array.slice(at, end - at) for array in found.values())
        values = [(part.dictionary_decode() if hasattr(part, "indices") else part).to_pylist() for part in parts]
        for row in zip(*values, strict=True):
            yield dict(zip(found, row, strict=True))
        at = end


def leaves_of(structs: pa.StructArray, above: str = "") -> Iterator[tuple[str, pa.Array]]:
    """(name, values) of the columns in nested columns, which are null where the outer one is."""
    for field, array in zip(structs.type, structs.flatten(), strict=True):
        if pa.types.is_struct(array.type):
            yield from leaves_of(array, f"{above}{field.name}.")
        else:
            yield above + field.name, array
