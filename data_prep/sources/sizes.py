"""Estimate the amount of text in a run's inputs without reading all of it, for defaults that depend on the data."""

from collections import deque
from typing import NamedTuple

from data_prep.config import PagesConfig
from data_prep.parquet import read_footer
from data_prep.sources.columns import NoDocumentError, document_of
from data_prep.sources.formats import (
    BEGINNING_BYTES,
    PARQUET,
    PLAIN_TEXT,
    Table,
    beginning,
    decompressed,
    format_of,
    uncompressed,
)
from data_prep.sources.inputs import read_input
from data_prep.sources.listing import Listed, listed_files, with_estimated_sizes
from data_prep.sources.manifest import InputFile
from lm.errors import InputError, UsageError

SAMPLED_FILES = 16
"""Maximum number of tables sampled, evenly spaced; the result is scaled to all tables."""
SAMPLED_BYTES = 2 << 20
"""Bytes, decompressed, from which only a sample of a table is read. Readers read 1 MiB at a time."""
WARC_RATIO, BYTES_PER_PAGE = 8, 30_000
"""Compressed WARC bytes per byte of main text, and per page (Common Crawl)."""


class EnoughError(Exception):
    """Raised if the sample of a table is large enough."""


class InputSizes(NamedTuple):
    """Estimated amount of text in the inputs of a run."""

    bytes: int
    """UTF-8 bytes of text."""
    documents: int
    """Pages of archives; rows of tables."""


class ConversationSizes(NamedTuple):
    """Size of the conversations of a run, and the memory to train on them."""

    conversations: int
    tokens: int
    """Tokens of all conversations, with those of the chat template."""
    longest: int
    """Tokens of the longest one."""
    rephrased: int
    """Conversations that could be held out while another question with the same answers remains."""
    memory: int
    """Bytes of memory of this machine; 0 if it has an accelerator, whose memory is not known before training."""


def input_sizes(pages: PagesConfig) -> InputSizes:
    """Estimate the text in the user's files: of WARC files from their sizes, of tables and plain text with their
    readers, from the beginnings of at most SAMPLED_FILES files of each kind.

    Raises UsageError if the config names no files or a pattern matches none, InputError if the files contain no text.
    """
    if pages.source == "warc":
        packed = sum(
            one.bytes for one in with_estimated_sizes(listed_files("pages.warc", pages.warc, pages.follow_links))
        )
        return InputSizes(packed // WARC_RATIO, max(packed // BYTES_PER_PAGE, 1))
    if pages.source != "tables":
        raise UsageError("pages.tables is empty. Give your files or their folder: --pages.tables notes/")
    files = [
        one for one in with_estimated_sizes(listed_files("pages.tables", pages.tables, pages.follow_links)) if one.bytes
    ]
    plain = [one for one in files if one.place.name.lower().endswith(PLAIN_TEXT)]
    total = InputSizes(0, 0)
    for some in (plain, [one for one in files if one not in plain]):
        sampled = some[:: -(-len(some) // SAMPLED_FILES) or 1]
        found = [size_of_file(one, pages.text_field) for one in sampled]
        times = sum(one.bytes for one in some) / max(sum(one.bytes for one in sampled), 1)
        size = round(times * sum(one.bytes for one in found))
        times = len(some) / len(sampled) if some is plain and some else times
        total = InputSizes(total.bytes + size, total.documents + round(times * sum(one.documents for one in found)))
    if not total.bytes:
        for one in files[:SAMPLED_FILES]:  # a file that cannot be read has the reason
            deque(read_input(InputFile(one.place, one.name, "table", one.bytes, text_field=pages.text_field)), 0)
        raise InputError(f"pages.tables = {' '.join(pages.tables)} has no text; files read: {len(files)}. Give others.")
    return total


def size_of_file(file: Listed, text_field: str) -> InputSizes:
    """Estimate the text of a table or plain text, as its reader reads it: exact for a small file, otherwise scaled from
    its beginning. A damaged file counts as 0; the reader reports it."""
    texts = documents = seen = rows = 0

    def spend(size: int, more: int) -> None:
        nonlocal seen, rows
        if size and seen >= SAMPLED_BYTES and documents:  # all rows of the bytes before have been read
            raise EnoughError
        seen, rows = seen + size, rows + more

    try:
        if file.place.name.lower().endswith(PLAIN_TEXT) and file.bytes > BEGINNING_BYTES:
            begin = beginning(file.place)
            return InputSizes(file.bytes * len(uncompressed(begin)) // len(begin), 1)
        reader = format_of(file.place).reader
        for number, _, row in reader.rows(Table(file.place, text_field, lambda *_: None, spend)):
            try:
                document = document_of(row, number, name=file.name, text_field=text_field)
            except NoDocumentError:
                continue
            texts, documents = texts + len(document.text.encode()), documents + 1
        return InputSizes(texts, documents)
    except EnoughError:
        begin = beginning(file.place)
        if begin.startswith(PARQUET):
            times = read_footer(file.place).num_rows / max(rows, 1)
        else:
            times = file.bytes * len(decompressed(begin, 1 << 22)) / len(begin) / seen
        return InputSizes(round(times * texts), round(times * documents))
    except InputError:
        return InputSizes(0, 0)
