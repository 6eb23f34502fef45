"""Convert one row of a table or dataset to a Document.

Only the text is required. The other fields are read from the first column found among their usual names (NAMES:
FineWeb, datatrove, dolma, C4, DCLM). Defaults: `id` is the file's name and the row number, `file_path` is the file's
name, and the rest are "", 0.0 or None. A language is used only if it is a two-letter code and has a score; otherwise it
is detected. Values longer than MAX_FIELD_BYTES are ignored, but kept columns (pages.keep_columns) may be as long as a
text.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa

from data_prep.dates import COMPACT, NUMBER, iso_of, read_date
from data_prep.documents import Document
from data_prep.kept_columns import in_words, type_of
from lm.errors import shown

ABSENT = object()
MAX_TEXT_BYTES = 32_000_000
"""Maximum UTF-8 bytes of one text. Longer texts are quarantined, because measuring a text takes 30 times its size in
memory. The King James Bible has 4.3 MB."""
NAMES = {
    "id": ("id", "metadata.id", "metadata.WARC-Record-ID", "doc_id"),
    "dump": ("dump", "metadata.dump", "metadata.cc_dump"),
    "url": ("url", "metadata.url", "metadata.WARC-Target-URI", "source_url"),
    "date": ("date", "metadata.date", "metadata.WARC-Date", "timestamp", "created", "metadata.created"),
    "file_path": ("file_path", "metadata.file_path"),
    "language": ("language", "metadata.language", "lang", "metadata.lang"),
    "language_score": ("language_score", "metadata.language_score"),
    "token_count": ("token_count", "metadata.token_count"),
}
MAX_FIELD_BYTES = 64 << 10
"""Maximum size of any other value. A longer one is ignored, like one of a wrong type."""
AS_INTEGER = "\0"
"""Prefix of the name of a timestamp or date column whose values are the integers that Arrow stores."""
TOO_LONG = object()
"""Placeholder for a value of a kept column with more than MAX_TEXT_BYTES."""
LONE_SURROGATE = re.compile("[\ud800-\udfff]")
LARGEST_COUNT = 2**63 - 1
LANGUAGE_CODE = re.compile(r"([a-z]{2})(?:[-_][a-z0-9-_]+)?")  # ISO 639-1, optionally with a region or script: "en-US"
LARGEST_SCORE = 1.001  # a float32 sum may slightly exceed 1; percentages are larger


class UnkeptValueError(Exception):
    """Raised if a value of a column in pages.keep_columns has a type that cannot be stored."""


class NoDocumentError(Exception):
    """Raised for a row without a usable text; `reason` is one of those of Damage."""

    def __init__(self, reason: str, detail: str = ""):
        super().__init__(reason)
        self.reason, self.detail = reason, detail


def lookup(row: Mapping[str, Any], name: str, absent: Any = None) -> Any:
    """Return `row[name]`, or else the value at the dotted path `name`, such as "metadata.url", or else `absent`."""
    if name in row:
        return row[name]
    head, dot, rest = name.partition(".")
    inner = row.get(head) if dot else None
    return lookup(inner, rest, absent) if isinstance(inner, Mapping) else absent


def document_of(row: Mapping[str, Any], number: int, *, name: str, text_field: str) -> Document:
    """Convert a row of a table or dataset to a Document. Without an id column, the id is "NAME/NUMBER", where `number`
    counts rows from 0. Raises NoDocumentError if `text_field` has no usable text."""
    text = lookup(row, text_field)
    if text is None:
        raise NoDocumentError("no_text", f"{text_field!r} is not among {', '.join(map(repr, list(row)[:12]))}")
    if isinstance(text, bytes):
        try:
            text = text.decode()
        except UnicodeDecodeError as error:
            raise NoDocumentError("not_utf8", str(error)) from error
    if not isinstance(text, str):
        raise NoDocumentError("text_not_a_string", f"{text_field!r} is {type(text).__name__}")
    if not text.strip():
        raise NoDocumentError("empty_text")
    if len(text) > MAX_TEXT_BYTES // 4 and len(text.encode(errors="replace")) > MAX_TEXT_BYTES:
        raise NoDocumentError("too_long", f"more than {MAX_TEXT_BYTES:,} bytes of text")

    def first(column: str, read: Callable[[Any], Any]) -> Any:
        return next((v for key in NAMES[column] if (v := read(lookup(row, key))) is not None), None)

    language, score = first("language", as_language), first("language_score", as_score)
    if language is None or score is None:
        language, score = "", 0.0
    return Document(
        text=storable(text),
        id=first("id", as_id) or f"{name}/{number}",
        dump=first("dump", as_text) or "",
        url=first("url", as_text) or "",
        date=first("date", as_date) or "",
        file_path=first("file_path", as_text) or name,
        language=language,
        language_score=score,
        token_count=first("token_count", as_count),
    )


def kept_of(
    row: Mapping[str, Any], names: Iterable[str], types: Mapping[str, pa.DataType]
) -> tuple[tuple[str, pa.DataType, Any], ...]:
    """Return (name, type, value) of each column in `names` (pages.keep_columns) that the row has. `types` are the
    column types that the file declares; other types are derived from the values.

    Raises NoDocumentError if a value is too long, UnkeptValueError if its type cannot be stored.
    """
    found = []
    for name in names:
        value = row[AS_INTEGER + name] if AS_INTEGER + name in row else lookup(row, name, ABSENT)
        if value is ABSENT:
            continue
        strings = [one for one in value if isinstance(one, str)] if isinstance(value, list) else [value]
        characters = sum(len(one) for one in strings if isinstance(one, str))
        if value is TOO_LONG or (
            characters > MAX_TEXT_BYTES // 4
            and sum(len(one.encode(errors="replace")) for one in strings) > MAX_TEXT_BYTES
        ):
            raise NoDocumentError("too_long", f"more than {MAX_TEXT_BYTES:,} bytes in {name!r}")
        kind = types.get(name) or type_of(value)
        if kind is None:
            raise UnkeptValueError(f"the column {shown(name)} has {in_words(value)}, which cannot be kept")
        if isinstance(value, str):
            value = storable(value)
        elif isinstance(value, list):
            value = [one if one is None else storable(one) for one in value]
        found.append((name, kind, value))
    return tuple(found)


def storable(text: str) -> str:
    """Replace lone surrogates, which JSON can express ("\\ud800") but UTF-8 cannot encode, by U+FFFD."""
    return LONE_SURROGATE.sub("\ufffd", text)


def as_text(value: object) -> str | None:
    if isinstance(value, bytes):
        value = value[: MAX_FIELD_BYTES + 1].decode(errors="replace")
    if isinstance(value, datetime):  # no time zone: UTC, as everywhere in WARC
        try:
            value = iso_of(value)
        except OverflowError:  # UTC may be before the year 1 or after 9999
            return None
    elif isinstance(value, date) or (isinstance(value, int) and not isinstance(value, bool)):
        value = str(value)
    return storable(value) if isinstance(value, str) and 0 < len(value) <= MAX_FIELD_BYTES else None


def as_id(value: object) -> str | None:
    """Return `value` as text; a whole float without its fraction: pandas turns integers into floats if one is
    missing."""
    if isinstance(value, float | Decimal) and math.isfinite(value):
        value = int(value) if value == int(value) else str(value)
    return as_text(value)


def as_date(value: object) -> str | None:
    """Return a Unix time as ISO 8601 in UTC, and other values as text, also if they are not dates (read_date)."""
    text = as_id(value)
    if (
        not text
        or not NUMBER.fullmatch(text)
        or (text.isdecimal() and len(text) in COMPACT and text[:2] in ("19", "20"))
    ):
        return text
    moment = read_date(text)
    return iso_of(moment) if moment else text


def as_language(value: object) -> str | None:
    """Return a two-letter ISO 639-1 code, "en" for "EN" or "en-US"; None for others ("eng_Latn", "English")."""
    code = LANGUAGE_CODE.fullmatch((as_text(value) or "").strip().lower())
    return code[1] if code else None


def as_score(value: object) -> float | None:
    """Return `value` as a probability, at most 1.0; None if it is not a number from 0 to LARGEST_SCORE."""
    fits = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= LARGEST_SCORE
    return min(float(value), 1.0) if fits else None


def as_count(value: object) -> int | None:
    fits = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= LARGEST_COUNT
    return value if fits else None
