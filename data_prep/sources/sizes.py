"""Estimate the amount of text in a run's inputs without reading all of it, for defaults that depend on the data."""

import json
from collections.abc import Sequence
from typing import NamedTuple

from data_prep.config import PagesConfig
from data_prep.parquet import read_footer
from data_prep.sources.columns import lookup
from data_prep.sources.formats import GZIP, PARQUET, PLAIN_TEXT, UTF_16_BOMS, ZSTD, beginning, gunzipped
from data_prep.sources.listing import Listed, listed_files, with_estimated_sizes
from lm.errors import InputError, UsageError

SAMPLED_FILES = 16
"""Maximum number of tables sampled, evenly spaced; the result is scaled to all tables."""
ZSTD_RATIO = 3.0
"""Assumed compression ratio of .zst files, which are not decompressed for an estimate."""
WARC_RATIO, BYTES_PER_PAGE = 8, 30_000
"""Compressed WARC bytes per byte of main text, and per page (Common Crawl)."""


class InputSizes(NamedTuple):
    """Estimated amount of text in the inputs of a run."""

    bytes: int
    """UTF-8 bytes of text."""
    documents: int


def input_sizes(pages: PagesConfig) -> InputSizes:
    """Estimate the text in the user's files: WARC and plain text from file sizes, Parquet from footers, JSON lines from
    the first 64 KiB of a file. Of many tables, at most SAMPLED_FILES are read.

    Raises UsageError if the config names no files or a pattern matches none, InputError if the files contain no text.
    """
    if pages.source == "warc":
        packed = sum(one.bytes for one in with_estimated_sizes(listed_files("pages.warc", pages.warc)))
        return InputSizes(packed // WARC_RATIO, max(packed // BYTES_PER_PAGE, 1))
    if pages.source != "tables":
        raise UsageError("pages.tables is empty. Give your files or their folder: --pages.tables notes/")
    files = [one for one in with_estimated_sizes(listed_files("pages.tables", pages.tables)) if one.bytes]
    plain = [one for one in files if one.place.name.lower().endswith(PLAIN_TEXT)]
    tables = [one for one in files if one not in plain]
    sampled = tables[:: -(-len(tables) // SAMPLED_FILES) or 1]
    found = [size_of_table(one, pages.text_field) for one in sampled]
    times = sum(one.bytes for one in tables) / max(sum(one.bytes for one in sampled), 1)
    total = InputSizes(
        sum(one.bytes for one in plain) + round(times * sum(one.bytes for one in found)),
        len(plain) + round(times * sum(one.documents for one in found)),
    )
    if not total.bytes:
        raise InputError(f"pages.tables = {' '.join(pages.tables)} has no text in {len(files)} files. Give others.")
    return total


def size_of_table(file: Listed, text_field: str) -> InputSizes:
    """Estimate the text of one Parquet or JSON table. A damaged Parquet footer counts as 0; the reader reports it."""
    begin = beginning(file.place)
    if begin.startswith(PARQUET):
        return size_of_parquet(file, text_field)
    ratio = ZSTD_RATIO if begin.startswith(ZSTD) else 1.0
    if begin.startswith(GZIP):
        head = begin
        begin = gunzipped(head, 1 << 22)
        ratio = len(begin) / len(head)
    unpacked = file.bytes * ratio
    if begin.startswith((ZSTD, *UTF_16_BOMS)) or begin.lstrip().startswith(b"["):
        return InputSizes(round(unpacked), max(round(unpacked / BYTES_PER_PAGE), 1))
    texts, seen = texts_of_lines(begin.split(b"\n"), text_field, whole=unpacked <= len(begin))
    times = unpacked / max(seen, 1)
    return InputSizes(round(times * sum(texts)), round(times * len(texts)))


def texts_of_lines(lines: Sequence[bytes], text_field: str, whole: bool) -> tuple[list[int], int]:
    """Return ([size of the text in each JSON line, in UTF-8 bytes], total size of the lines read).

    `whole` tells whether `lines` are a whole file. If not, the last of several lines is not read: it may be cut off.
    """
    texts, seen = [], 0
    for line in lines if whole or len(lines) == 1 else lines[:-1]:
        seen += len(line) + 1
        try:
            row = json.loads(line)
            text = lookup(row, text_field) if isinstance(row, dict) else None
        except (ValueError, RecursionError):
            cut = len(lines) == 1 and not whole  # the line is longer than the part of the file that was read
            text = line.decode(errors="replace") if cut else None
        if isinstance(text, str):
            texts.append(len(text.encode(errors="replace")))
    return texts, seen


def size_of_parquet(file: Listed, text_field: str) -> InputSizes:
    """Return the uncompressed bytes of the text column and the number of rows; (0, 0) if the footer is damaged."""
    try:
        footer = read_footer(file.place)
    except InputError:
        return InputSizes(0, 0)
    groups = map(footer.row_group, range(footer.num_row_groups))
    columns = (group.column(number) for group in groups for number in range(footer.num_columns))
    return InputSizes(
        sum(one.total_uncompressed_size for one in columns if one.path_in_schema == text_field), footer.num_rows
    )
