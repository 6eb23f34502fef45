"""Stream the documents of tables of texts. See formats.py for the formats."""

import dataclasses
from collections import Counter
from collections.abc import Iterator

from data_prep.documents import Damage, Document, OnDamage
from data_prep.kept_columns import KINDS
from data_prep.sources.columns import (
    ABSENT,
    NoDocumentError,
    UnkeptValueError,
    document_of,
    kept_of,
    lookup,
)
from data_prep.sources.formats import NO_TEXT, Table, format_of
from data_prep.sources.inputs import size
from data_prep.sources.manifest import InputFile
from lm.errors import InputError
from lm.storage import Place, place_of, size_of
from lm.storage.objects import Object

RATIO, RATIO_FROM_BYTES = 100, 1 << 29
"""A file may unpack to RATIO times its size, or to RATIO_FROM_BYTES if that is more."""
ROW_BYTES = 256
"""Bytes counted per row in addition to its contents, so that empty rows are limited too."""
LISTED = 100
"""Number of consecutive bad rows with the same reason that are reported individually; the rest are reported as one."""
__all__ = ["read", "read_table", "size"]


class RatioError(Exception):
    """Raised if a file unpacks to more than RATIO times its size and more than RATIO_FROM_BYTES."""


def read(file: InputFile, on_damage: OnDamage, counts: Counter[str]) -> Iterator[Document]:
    """Yield the documents of the file; see `read_table`. `counts` is not used."""
    return read_table(
        file.path, name=file.name, text_field=file.text_field, on_quarantine=on_damage, version=file.version,
        keep_columns=file.keep_columns,
    )  # fmt: skip


class BadRows:
    """Pass quarantined rows on to `on_quarantine`. Of consecutive rows with the same reason, the first (at most LISTED,
    a number) are passed one by one, and the rest as one row."""

    def __init__(self, called: str, on_quarantine: OnDamage):
        self.called, self.on_quarantine = called, on_quarantine
        self.reason, self.listed = "", 0
        self.rest: list[tuple[int, str, str]] = []  # (number, place, detail) of the first, and the place of the last
        self.more = 0
        self.last = (-1, "the beginning")

    def __call__(self, number: int, place: str, reason: str, detail: str = "") -> None:
        self.last = (number, place)
        if reason != self.reason:
            self.end()
            self.reason = reason
        if self.listed < LISTED:
            self.listed += 1
            self.on_quarantine(Damage(number, reason, detail, self.called, place))
        else:
            self.rest[self.more > 0 :] = [(number, place, detail)]
            self.more += 1

    def end(self) -> None:
        """Report the rest of the current sequence of bad rows, if any. Call this before each document and after the
        last row."""
        if self.more:
            (number, place, detail), (_, last, _) = self.rest[0], self.rest[-1]
            detail += f"; {self.more:,} consecutive rows, up to {last}" if self.more > 1 else ""
            self.on_quarantine(Damage(number, self.reason, detail, self.called, place))
        self.reason, self.listed, self.more, self.rest = "", 0, 0, []


def read_table(
    path: Place,
    *,
    name: str | None = None,
    text_field: str = "text",
    on_quarantine: OnDamage | None = None,
    version: Object | None = None,
    keep_columns: tuple[str, ...] = (),
) -> Iterator[Document]:
    """Yield the documents of a table file (Parquet, JSON lines or plain text) in order; see columns.py for fields.

    `name` is their file_path (default: the file's name). Rows without a usable text, lines that are not JSON objects,
    damaged parts, and the rest of a file that decompresses to more than RATIO times its size are passed to
    `on_quarantine`. A remote file must be the `version` that was listed. Raises InputError if the file cannot be read,
    no row has a text in `text_field`, or a value of `keep_columns` cannot be kept.
    """
    path = place_of(path)
    called = name or path.name
    quarantine = BadRows(called, on_quarantine or (lambda row: None))
    limit = 0
    unpacked = 0

    def spend(size: int, rows: int) -> None:
        nonlocal limit, unpacked
        unpacked += size + ROW_BYTES * rows
        if unpacked > max(RATIO_FROM_BYTES, limit):
            limit = RATIO * (version.size if version else size_of(path) or 0)
            if unpacked > max(RATIO_FROM_BYTES, limit):
                raise RatioError(f"more than {RATIO} times the file's size; the rest is not read")

    seen = lacking = 0
    last, number, place = "", *quarantine.last
    table = Table(path, text_field, quarantine, spend, version, keep_columns)
    try:
        for number, place, row in format_of(path).reader.rows(table):
            seen += 1
            try:
                document = document_of(row, number, name=called, text_field=text_field)
                if keep_columns:
                    document = dataclasses.replace(document, kept=kept_of(row, keep_columns, table.types))
            except UnkeptValueError as error:
                raise InputError(
                    f"{path}, {place}: {error} (pages.keep_columns). Supported: {KINDS}. Give a part of an object "
                    "with a dot, or remove the column."
                ) from None
            except NoDocumentError as error:
                quarantine(number, place, error.reason, error.detail)
                if error.reason == "text_not_a_string" or lookup(row, text_field, ABSENT) is ABSENT:
                    lacking += 1
                    last = error.detail
            else:
                quarantine.end()
                yield document
    except RatioError as error:
        number, place = max((number, place), quarantine.last)
        quarantine(number + 1, f"after {place}", "ratio_too_high", f"{unpacked:,} bytes unpacked: {error}")
    quarantine.end()
    if seen and lacking == seen:
        raise InputError(f"{path} has no text in any of its {seen:,} rows: {last}. {NO_TEXT}")
