"""Split a file's bytes into pieces of text, as tokens, and of other bytes: two streams, and the pieces' lengths."""

import codecs
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from lm.errors import InputError
from lm.tokenizer import Tokenizer

SMALLEST = 256
"""Bytes of the smallest piece that is divided to separate text from other bytes."""
MOST_BROKEN = 1 / 16
"""Maximum share of a text's bytes that are not UTF-8, as in a Latin-1 page: a byte-level tokenizer encodes them too."""
LONGEST_BROKEN = 16
"""Maximum number of consecutive bytes that are not UTF-8; a longer run is not text."""


class Pieces(NamedTuple):
    """The two streams of a file, and the lengths of its pieces."""

    tokens: list[int]
    """Tokens of all pieces of text, in order."""
    raw: bytes
    """Bytes of all other pieces, in order."""
    lengths: list[int]
    """Length of each piece in bytes: text, other, text, ... alternating, in file order; empty for an empty file."""


def cut_pieces(data: bytes, tokenizer: Tokenizer) -> Pieces:
    """Split `data` into pieces; `joined` is the inverse. A piece is text if the tokenizer reproduces it exactly."""
    tokens: list[int] = []
    raw: list[bytes] = []
    lengths: list[int] = []
    at_blanks = puts_blank(tokenizer)
    start = max(0, data.find(b" ")) if at_blanks else 0
    waiting = [piece for piece in (data[start:], data[:start]) if piece]
    while waiting:
        piece = waiting.pop()
        ids = exact_tokens(piece, tokenizer)
        if ids is None and len(piece) > SMALLEST:
            middle = character_start(piece, len(piece) // 2)
            middle = max(middle, piece.find(b" ", middle)) if at_blanks else middle
            waiting += [piece[middle:], piece[:middle]]
            continue
        is_raw = ids is None
        if not lengths and is_raw:
            lengths.append(0)
        if len(lengths) % 2 == is_raw:  # the last length is of the other kind
            lengths.append(0)
        lengths[-1] += len(piece)
        if ids is None:
            raw.append(piece)
        else:
            tokens += ids
    return Pieces(tokens, b"".join(raw), lengths)


def joined(text: Iterable[bytes], raw: Iterable[bytes], lengths: Iterable[int]) -> Iterator[memoryview]:
    """Yield the file's bytes, in parts, from its pieces. `text` and `raw` are the two streams, in parts of any size;
    one part of each is in memory at a time. Raises ValueError if the lengths do not match the streams."""
    streams = [filter(None, text), filter(None, raw)]
    parts = [memoryview(b""), memoryview(b"")]
    for number, length in enumerate(lengths):
        kind = number % 2
        while length:
            part = parts[kind] or memoryview(next(streams[kind], b""))
            if not part:
                raise ValueError(f"pieces that are {length:,} bytes longer than the data")
            yield part[:length]
            parts[kind], length = part[length:], length - min(length, len(part))
    if any(map(len, parts)) or any(next(stream, b"") for stream in streams):
        raise ValueError("pieces that are shorter than the data")


def puts_blank(tokenizer: Tokenizer) -> bool:
    """Return whether the tokenizer prepends a space to texts (Llama 2's does): then text pieces begin with a space."""
    try:
        return tokenizer.decode_bytes(tokenizer.encode("a")) == b" a"
    except InputError:  # its vocabulary lacks the character
        return False


def exact_tokens(data: bytes, tokenizer: Tokenizer) -> list[int] | None:
    """Return tokens that decode to exactly these bytes; None if they are not text, or the tokenizer changes the text or
    lacks one of its characters."""
    broken = broken_bytes(data)
    spell = getattr(tokenizer, "encode_bytes", None)
    if broken and (spell is None or len(broken) > MOST_BROKEN * len(data) or longest_run(broken) > LONGEST_BROKEN):
        return None
    for text in (
        (data, data[1:]) if data.startswith(b" ") else (data,)
    ):  # the space may be one that the tokenizer prepends
        try:
            ids = spell(text) if broken and spell else tokenizer.encode(text.decode())
        except (InputError, ValueError):
            return None
        if tokenizer.decode_bytes(ids) == data:
            return ids
    return None


def broken_bytes(data: bytes) -> list[int]:
    """Return the positions of the bytes that are not UTF-8."""
    try:
        data.decode()
    except UnicodeDecodeError:
        pass
    else:
        return []
    found: list[int] = []

    def note(error: UnicodeError) -> tuple[str, int]:
        assert isinstance(error, UnicodeDecodeError)
        found.extend(range(error.start, error.end))
        return "", error.end

    codecs.register_error("gristmill.note", note)
    data.decode(errors="gristmill.note")
    return found


def longest_run(places: list[int]) -> int:
    """Return the length of the longest run of consecutive numbers; `places` is ascending."""
    longest = run = 0
    before = -2
    for place in places:
        run = run + 1 if place == before + 1 else 1
        longest, before = max(longest, run), place
    return longest


def character_start(data: bytes, place: int) -> int:
    """Return the last position up to `place` where a UTF-8 character begins; `place` if none is within 3 bytes."""
    for near in range(place, max(0, place - 3), -1):
        if data[near] & 0xC0 != 0x80:
            return near
    return place
