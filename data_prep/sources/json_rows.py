"""JSON lines, or one JSON array of objects: uncompressed, .gz or .zst; UTF-8, or UTF-16 with a byte order mark."""

import codecs
import contextlib
import gzip
import itertools
import json
import re
import zlib
from collections.abc import Generator, Iterator, Sequence
from typing import IO, Any

import pyarrow as pa

from data_prep.sources.columns import MAX_TEXT_BYTES
from data_prep.sources.formats import GZIP, UTF_8_BOM, UTF_16_BOMS, ZSTD, Table
from lm.errors import InputError
from lm.storage import Place, count_bytes, streamed

MAX_LINE_BYTES = 2 * MAX_TEXT_BYTES
"""Maximum bytes of a line or array element. Escapes make it longer than its text."""
MAX_STRUCTURE_BYTES = 8 << 20
"""Maximum bytes of an object outside of its strings. Each may take 24 bytes of memory in Python: "[]," is a list."""
PIECE = 1 << 20
"""Bytes per read."""
FIRST = 1 << 10
"""Bytes needed to recognize a byte order mark or an array."""
ARRAY = re.compile(rb"\s*+\[\s*+(?:[{\]]|\Z)")
LINE = re.compile(rb"\S[^\n]*+")
STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)  # also matches an unterminated string, in linear time
IN_STRING = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
BETWEEN_ELEMENTS = re.compile(rb'["\[\]{},]')
IN_ELEMENT = re.compile(rb'["\[\]{}]')


def rows(table: Table) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Yield (number of the line or array element from 0, its position for messages, the parsed object) for each JSON
    object. Blank lines are counted but not yielded. Raises InputError if the file cannot be read before its first
    object; later damage is quarantined."""
    number, found = -1, False
    try:
        pieces = text_pieces(table)
        first = next(pieces, b"")
        unit, split = ("element", elements_of) if ARRAY.match(first) else ("line", lines_of)
        for number, value in split(itertools.chain([first], pieces)):
            table.spend(0, 1)
            place = f"{unit} {number + 1}"
            if value is None:
                table.quarantine(number, place, "too_long", f"more than {MAX_LINE_BYTES:,} bytes")
            elif (row := object_of(value, number, place, table)) is not None:
                found = True
                yield number, place, row
    except (OSError, EOFError, zlib.error) as error:
        if not found:
            raise InputError(f"{table.path} cannot be read: {error}. Download it again, or remove it.") from error
        table.quarantine(number + 1, f"after {unit} {number + 1}", "damaged", f"{error}; the rest is lost")


def count(path: Place) -> None:
    return None


def check_columns(path: Place, names: Sequence[str]) -> None:
    """Do nothing: the columns are unknown until the file is read."""


def object_of(value: bytes, number: int, place: str, table: Table) -> dict[str, Any] | None:
    """Return the JSON object in a line or array element. If it is something else, call table.quarantine and return
    None."""
    if not value.startswith(b"{"):  # not parsed: "[" * n may take any amount of memory
        is_json = value[:1] in b'["-0123456789tfn'
        table.quarantine(number, place, "not_an_object" if is_json else "not_json", f"it begins with {value[:20]!r}")
        return None
    if len(value) > MAX_STRUCTURE_BYTES and len(STRING.sub(b"", value)) > MAX_STRUCTURE_BYTES:
        table.quarantine(number, place, "too_long", f"more than {MAX_STRUCTURE_BYTES:,} bytes outside of strings")
        return None
    try:
        row = json.loads(value.decode())
    except UnicodeDecodeError as error:
        table.quarantine(number, place, "not_utf8", str(error))
    except (ValueError, RecursionError) as error:
        table.quarantine(number, place, "not_json", str(error))
    else:
        return row
    return None


def text_pieces(table: Table) -> Iterator[bytes]:
    """Yield the decompressed file in pieces, as UTF-8 without byte order mark. The first piece has at least FIRST
    bytes, or the whole file."""
    with uncompressed_file(table) as file:
        head = b""
        while len(head) < FIRST and (more := file.read(PIECE)):
            head += more
        recode = codecs.getincrementaldecoder("utf-16")("replace").decode if head.startswith(UTF_16_BOMS) else None
        piece = head.removeprefix(UTF_8_BOM)
        while piece:
            count_bytes(unpacked=len(piece))
            table.spend(len(piece), 0)
            yield recode(piece).encode() if recode else piece
            piece = file.read(PIECE)


@contextlib.contextmanager
def uncompressed_file(table: Table) -> Generator[IO[bytes] | pa.NativeFile]:
    with streamed(table.path, table.version) as raw:
        begin = raw.read(len(ZSTD))
        raw.seek(0)
        if begin.startswith(GZIP):
            with gzip.open(raw) as file:
                yield file
        elif begin.startswith(ZSTD):  # unlike zstandard, Arrow detects a truncated file
            with pa.input_stream(raw, compression="zstd") as file:
                yield file
        else:
            yield raw


def with_line_feeds(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Replace each CR LF and CR by LF, which is safe because JSON strings contain line breaks only as escapes."""
    rest = b""
    for piece in pieces:
        if rest or b"\r" in piece:
            whole = rest + piece
            rest = b"\r" if whole.endswith(b"\r") else b""  # the next piece may begin with its LF
            piece = whole.removesuffix(b"\r").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        yield piece
    if rest:
        yield b"\n"


def lines_of(pieces: Iterator[bytes]) -> Iterator[tuple[int, bytes | None]]:
    """Yield (number from 0, stripped line) of each non-blank line; (number, None) if it exceeds MAX_LINE_BYTES."""
    number = length = 0
    waiting: list[bytes] = []
    for piece in itertools.chain(with_line_feeds(pieces), [b"\n"]):
        end = piece.find(b"\n")
        length += len(piece) if end < 0 else end
        if length <= MAX_LINE_BYTES:
            waiting.append(piece if end < 0 else piece[:end])
        else:
            waiting.clear()
        if end < 0:
            continue
        line = b"".join(waiting).strip()
        if line or length > MAX_LINE_BYTES:
            yield number, line if length <= MAX_LINE_BYTES else None
        at, last = end, piece.rfind(b"\n")
        for found in LINE.finditer(piece, end, last):  # skips blank lines without a Python iteration for each
            number += piece.count(b"\n", at, found.start())
            at = found.start()
            yield number, found[0].rstrip() if found.end() - at <= MAX_LINE_BYTES else None
        number += piece.count(b"\n", at, last + 1)
        waiting, length = [piece[last + 1 :]], len(piece) - last - 1


def elements_of(pieces: Iterator[bytes]) -> Iterator[tuple[int, bytes | None]]:
    """Yield (number from 0, stripped JSON text) of each array element; (number, None) if it exceeds MAX_LINE_BYTES.

    Only strings and brackets are parsed, so elements after a malformed one are still found. Raises EOFError if the
    array is not closed, or an element has more than MAX_STRUCTURE_BYTES brackets and strings.
    """
    number = depth = length = marks = 0
    in_string = False
    waiting: list[bytes] = []
    rest = b""
    for piece in pieces:
        piece = rest + piece
        rest, start, at = b"", 0, 0
        while at < len(piece):
            if in_string:
                found = IN_STRING.match(piece, at)
                at = found.end() if found else at
                if piece[at : at + 1] == b"\\":  # the character that it escapes is in the next piece
                    piece, rest = piece[:at], b"\\"
                in_string = at == len(piece)
                at += 1
                continue
            found = (BETWEEN_ELEMENTS if depth == 1 else IN_ELEMENT).search(piece, at)
            if not found:
                break
            at = found.end()
            marks += 1
            if marks > MAX_STRUCTURE_BYTES:
                raise EOFError(f"element {number + 1} has more than {MAX_STRUCTURE_BYTES:,} brackets and strings")
            if found[0] == b'"':
                in_string = True
            elif found[0] in b"[{":
                depth += 1
                if depth == 1:
                    waiting, length, start = [], 0, at
            elif found[0] in b"]}":
                depth = max(depth - 1, 0)
            if (depth == 1 and found[0] == b",") or (depth == 0 and found[0] in b"]}"):
                length += at - 1 - start
                element = b"".join([*waiting, piece[start : at - 1]]).strip() if length <= MAX_LINE_BYTES else None
                if element is None or element:
                    yield number, element
                number += 1
                waiting, length, start, marks = [], 0, at, 0
        length += len(piece) - start
        if length <= MAX_LINE_BYTES:
            waiting.append(piece[start:])
        else:
            waiting.clear()
    if depth:
        raise EOFError("the array does not end")
