"""List documents page by page: kept ones, those dropped by one rule, or those with some words."""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow.compute import MatchSubstringOptions, SliceOptions, call_function

from data_prep.parquet import column_of
from data_prep.verdict import Threshold
from lm.errors import InputError
from lm.storage import StorageError
from viewer.training_data import finite
from viewer.window.corpus.parquet_folder import ParquetFolder, Piece

BEGINNING = 200
"""Characters of a document in the list."""
BEFORE = 60
"""Characters to show before a search word."""
MOST_ADDRESS = 2000
"""Maximum characters of a URL, an id or a file name."""
NO_ROWS = pa.Table.from_arrays([], names=[])
COLUMNS = ("url", "text", "language", "language_score", "stage", "reason", "text_bytes")


@dataclass(frozen=True)
class DocumentFilter:
    """Criteria for documents to list."""

    reason: str = ""
    """"stage/reason" that dropped them; "" for any."""
    words: tuple[str, ...] = ()
    """Words that must all occur in the document, case-insensitively."""
    in_address: bool = False
    """Search for the words only in the URL, instead of URL and text."""


def list_documents(
    folder: ParquetFolder, wanted: DocumentFilter, offset: int, limit: int, threshold: Threshold | None, seconds: float
) -> dict[str, Any]:
    """Return as JSON at most `limit` matching documents from position `offset` of the folder on. "next" is the position
    to continue from, None at the end. Stops after `seconds` seconds. The values that `threshold` compares are shown.
    Lists damaged files as "unreadable". Raises StorageError if a bucket cannot be read."""
    until = time.monotonic() + seconds
    found = []
    position = offset
    for piece in folder.pieces(offset):
        if position > offset and time.monotonic() > until:
            return answer(found, offset, position, folder)
        position = piece.position + piece.rows
        try:
            rows, table = matching(folder, piece, wanted, threshold)
        except StorageError:
            raise
        except InputError:
            continue
        left = limit - len(found)
        table = table.slice(0, left)
        shown = truncate(table, {"text": BEGINNING, "url": MOST_ADDRESS}).to_pylist() if len(rows) else []
        sizes = call_function("binary_length", [table["text"]]).to_pylist() if shown else []
        for index, (row, size, values) in enumerate(zip(rows[:left].tolist(), sizes, shown, strict=True)):
            dropped = values.get("stage") is not None
            found.append({
                "file": f"{folder.path.name}/{folder.name(piece.file)}", "row": piece.row + row,
                "position": piece.position + row, "url": values["url"] or "",
                "beginning": " ".join(values["text"].split()),
                "bytes": values.get("text_bytes") if dropped else size, "language": values["language"] or "",
                "name": f"{values['stage']}/{values['reason']}" if dropped else "",
                "value": finite(values.get(threshold.signal)) if threshold else None,
                "passage": around(table["text"][index].as_py() or "", wanted.words[0]) if wanted.words else "",
            })  # fmt: skip
        if len(rows) > left or len(found) == limit:
            position = piece.position + int(rows[left - 1]) + 1
            return answer(found, offset, position if folder.locate(position) else None, folder)
    return answer(found, offset, None, folder)


def answer(found: list[dict[str, Any]], offset: int, position: int | None, folder: ParquetFolder) -> dict[str, Any]:
    return {
        "offset": offset, "next": position, "documents": found, "rows": folder.counted,
        "unreadable": sorted(folder.unreadable)[:20],
    }  # fmt: skip


def matching(
    folder: ParquetFolder, piece: Piece, wanted: DocumentFilter, threshold: Threshold | None
) -> tuple[np.ndarray, pa.Table]:
    """Return (indices of matching rows in a row group, their columns for the list). Reads texts only if needed."""
    rows = np.arange(piece.rows)
    if wanted.reason:
        stage, _, reason = wanted.reason.partition("/")
        if not (folder.can_hold(piece, "stage", stage) and folder.can_hold(piece, "reason", reason)):
            return rows[:0], NO_ROWS
        marks = folder.read(piece, ("stage", "reason"))
        same = [equal(marks["stage"], stage), equal(marks["reason"], reason)]
        rows = true_rows(call_function("and", same))
    if wanted.words and wanted.in_address and len(rows):
        rows = rows[holds_words(take_rows(folder.read(piece, ("url",)), rows), wanted.words)]
    if not len(rows):
        return rows, NO_ROWS
    signal = (threshold.signal,) if threshold else ()
    table = take_rows(folder.read(piece, list(dict.fromkeys([*COLUMNS, *signal]))), rows)
    if wanted.words and not wanted.in_address:
        hit = holds_words(table, wanted.words)
        rows, table = rows[hit], take_rows(table, hit)
    return rows, table


def true_rows(mask: pa.ChunkedArray) -> np.ndarray:
    """Indices of true values; null counts as false."""
    if not len(mask):  # Arrow ends the process for an array without chunks
        return np.zeros(0, np.int64)
    return np.array(call_function("indices_nonzero", [mask]).to_pylist(), np.int64)


def take_rows(table: pa.Table, rows: np.ndarray) -> pa.Table:
    """Rows of a table with these indices."""
    return table.take(column_of(rows.tolist(), pa.int64()))


def constant(text: str) -> pa.Scalar:
    """Like pa.scalar(text), but does not import pandas, which takes 0.4 s."""
    return column_of([text], pa.string())[0]


def equal(column: pa.ChunkedArray, text: str) -> pa.ChunkedArray:
    return call_function("equal", [column, constant(text)])


def holds_words(table: pa.Table, words: tuple[str, ...]) -> np.ndarray:
    """Indices of the rows that contain all words, in the URL or the text, ignoring case."""
    found = None
    for word in words:
        same = MatchSubstringOptions(word, ignore_case=True)
        for_word = None
        for name in ("url", "text"):
            if name in table.column_names:
                hit = call_function("match_substring", [table[name]], same)
                for_word = hit if for_word is None else call_function("or_kleene", [for_word, hit])
        found = for_word if found is None else call_function("and_kleene", [found, for_word])
    assert found is not None
    return true_rows(found)


def around(text: str, word: str) -> str:
    """Text around the first occurrence of a word, ignoring case; "" if it does not occur."""
    found = re.search(re.escape(word), text, re.IGNORECASE)
    if found is None:
        return ""
    begin = max(0, found.start() - BEFORE)
    return " ".join(text[begin : begin + BEGINNING].split())


def truncate(table: pa.Table, lengths: dict[str, int]) -> pa.Table:
    """Truncate text columns; `lengths` is {column: maximum characters}."""
    for name, length in lengths.items():
        place = table.column_names.index(name)
        text = call_function(
            "utf8_slice_codeunits", [call_function("coalesce", [table[name], constant("")])], SliceOptions(0, length)
        )
        table = table.set_column(place, name, text)
    return table


def find_id(
    folder: ParquetFolder, id: str, name: str = "", stop: Callable[[], bool] = lambda: False
) -> tuple[str, int] | None:
    """Return (file, row) of the first document with this id, if given only in the file `name`; None if there is none,
    or if `stop` returns True. Skips damaged row groups. Raises InputError if there is no such file."""
    for piece in folder.pieces(folder.first_of(name) if name else 0):
        file = folder.name(piece.file)
        if name not in ("", file):
            return None
        try:
            found = true_rows(equal(folder.read(piece, ("id",))["id"], id))
        except StorageError:
            raise
        except InputError:
            continue
        if len(found):
            return file, piece.row + int(found[0])
        if stop():
            return None
    return None
