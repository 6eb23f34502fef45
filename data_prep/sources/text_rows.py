"""A file of plain text: one row."""

import codecs
from collections.abc import Iterator
from typing import Any

from data_prep.sources.columns import MAX_TEXT_BYTES
from data_prep.sources.formats import UTF_8_BOM, UTF_16_BOMS, Table
from lm.errors import InputError
from lm.storage import Place, size_of, streamed


def rows(table: Table) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Yield the file's text as one row.

    Raises InputError if it cannot be read, is too long for one document, or is neither UTF-8 nor UTF-16 with a byte
    order mark.
    """
    path = table.path
    try:
        with streamed(path, table.version) as file:
            content = file.read(2 * MAX_TEXT_BYTES + len(UTF_8_BOM))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error}. Bring it anew, or leave it out.") from error
    encoding = "utf-16" if content.startswith(UTF_16_BOMS) else "utf-8-sig"
    try:
        # Incremental: where a file is longer than what was read, its last character may be cut.
        text = codecs.getincrementaldecoder(encoding)().decode(content, final=len(content) < 2 * MAX_TEXT_BYTES)
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8: {error}. Convert it first, as by iconv -t UTF-8.") from error
    del content
    if len(text) > MAX_TEXT_BYTES // 4 and len(text.encode()) > MAX_TEXT_BYTES:
        raise InputError(
            f"{path} is one document of {size_of(path):,} bytes, but the longest may have {MAX_TEXT_BYTES:,}. "
            "Split it into files below that."
        )
    yield 0, "the whole file", {table.text_field: text}


def count(path: Place) -> int:
    return 1
