"""A plain text file: one row, or several if it is too long for one document."""

import codecs
from collections.abc import Iterator, Sequence
from typing import Any

from data_prep.sources.columns import MAX_TEXT_BYTES
from data_prep.sources.formats import UTF_8_BOM, UTF_16_BOMS, Table
from lm.errors import InputError, shown
from lm.storage import Place, size_of, streamed

PART_BYTES = MAX_TEXT_BYTES // 8
"""Maximum UTF-8 bytes per part of a text that is too long for one document."""


def rows(table: Table) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Yield a text file as one row; above MAX_TEXT_BYTES, in parts of at most PART_BYTES that end after a paragraph,
    line or word. Raises InputError if it cannot be read, or is neither UTF-8 nor UTF-16 with a byte order mark."""
    path = table.path
    try:
        with streamed(path, table.version) as file:
            raw = file.read(MAX_TEXT_BYTES + len(UTF_8_BOM) + 1)
            decoder = codecs.getincrementaldecoder("utf-16" if raw.startswith(UTF_16_BOMS) else "utf-8-sig")()
            rest = decoder.decode(raw, final=not raw).encode()
            while len(rest) <= MAX_TEXT_BYTES and raw:  # UTF-16 may be shorter as UTF-8
                raw = file.read(MAX_TEXT_BYTES)
                rest += decoder.decode(raw, final=not raw).encode()
            if len(rest) <= MAX_TEXT_BYTES:
                yield 0, "the whole file", {table.text_field: rest.decode()}
                return
            number = 0
            while rest:
                while len(rest) <= PART_BYTES and raw:
                    raw = file.read(PART_BYTES)
                    rest += decoder.decode(raw, final=not raw).encode()
                end = len(rest) if len(rest) <= PART_BYTES else part_end(rest[:PART_BYTES])
                yield number, f"part {number}", {table.text_field: rest[:end].decode()}
                rest, number = rest[end:], number + 1
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error}. Download it again, or remove it.") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8: {error}. Convert it first, for example with iconv -t UTF-8.") from error


def part_end(part: bytes) -> int:
    """Return where to cut UTF-8 bytes: after the last paragraph, or else line, or word, or complete character."""
    for separator in (b"\n\n", b"\n", b" "):
        if (found := part.rfind(separator)) >= 0:
            return found + len(separator)
    end = len(part) - 1
    while end > len(part) - 4 and part[end] & 0xC0 == 0x80:
        end -= 1
    return end or len(part)


def check_columns(path: Place, names: Sequence[str]) -> None:
    """Raise InputError, because plain text has no columns."""
    raise InputError(
        f"{path} is plain text without a column {shown(names[0])} (pages.keep_columns). Remove the column, or give "
        "only tables."
    )


def count(path: Place) -> int | None:
    """Return 1, the number of rows; None for a text that is too long for one document."""
    size = size_of(path)
    return 1 if size is not None and size <= MAX_TEXT_BYTES else None
