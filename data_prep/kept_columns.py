"""Types of the columns of input tables that are kept with their documents (pages.keep_columns).

Parquet declares the type of a column, JSON and CSV that of each value; the column of a file has the `common_type` of
its values. Between reading and writing, values are plain Python. Timestamps and dates are Arrow's integers, so no unit,
time zone or year is out of range.
"""

import functools
from typing import Any

import pyarrow as pa

KINDS = "booleans, integers of up to 64 bits, floats, strings, timestamps, dates, and lists of strings"
"""The supported types, for messages. All others are refused by name."""
NO_TYPE, STRINGS = pa.null(), pa.list_(pa.string())


def kept_type(type: pa.DataType) -> pa.DataType | None:
    """Return the type in which a column of type `type` is stored; None if it is not supported."""
    kinds = pa.types
    if kinds.is_dictionary(type):
        return kept_type(type.value_type) if kept_type(type.value_type) == pa.string() else None
    if kinds.is_string(type) or kinds.is_large_string(type) or kinds.is_string_view(type):
        return pa.string()
    if kinds.is_list(type) or kinds.is_large_list(type):
        return STRINGS if kept_type(type.value_type) == pa.string() else None
    if kinds.is_date(type):
        return pa.date32()
    plain = kinds.is_null(type) or kinds.is_boolean(type) or kinds.is_integer(type) or kinds.is_timestamp(type)
    return type if plain or type in (pa.float32(), pa.float64()) else None


def in_words(value: object) -> str:
    """Describe the type of a value that is not supported, for messages, such as "an object"."""
    words = {dict: "an object", list: "a list of values that are not strings", int: "an integer of more than 64 bits"}
    return words.get(type(value), type(value).__name__)


def type_of(value: object) -> pa.DataType | None:
    """Return the type in which a value of JSON or CSV is stored; None if it is not supported."""
    if value is None:
        return NO_TYPE
    if isinstance(value, bool):
        return pa.bool_()
    if isinstance(value, int):
        return pa.int64() if -(2**63) <= value < 2**63 else None
    if isinstance(value, float):
        return pa.float64()
    if isinstance(value, str):
        return pa.string()
    strings = isinstance(value, list) and all(isinstance(one, str | None) for one in value)
    return STRINGS if strings else None


@functools.cache
def common_type(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """Return the type that holds values of both types, such as float64 for int64 and float32; None if there is none."""
    kinds = pa.types
    if one == other or kinds.is_null(other):
        return one
    if kinds.is_null(one):
        return other
    number = lambda type: kinds.is_integer(type) or kinds.is_floating(type)
    if number(one) and number(other):
        whole = kinds.is_integer(one) and kinds.is_integer(other)
        return pa.int64() if whole else pa.float64()  # `cast` refuses values that do not fit
    if kinds.is_timestamp(one) and kinds.is_timestamp(other) and bool(one.tz) == bool(other.tz):
        finest = max(one.unit, other.unit, key=["s", "ms", "us", "ns"].index)
        return pa.timestamp(finest, one.tz if one.tz == other.tz else "UTC")
    return None


def is_temporal(type: pa.DataType) -> bool:
    return pa.types.is_timestamp(type) or pa.types.is_date(type)


def as_integers(array: pa.Array) -> pa.Array:
    """Convert dates to days since 1970 (int32), or timestamps to their units since 1970 (int64)."""
    if pa.types.is_date(array.type):
        return array.cast(pa.date32()).cast(pa.int32())
    return array.cast(pa.int64())


def rows_of(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    """Return the rows as dicts, like `batch.to_pylist()`, with timestamps and dates as integers (`as_integers`)."""
    columns = [as_integers(column) if is_temporal(column.type) else column for column in batch.columns]
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names).to_pylist()
