"""Any bytes as tokens where they are text, and as they are where they are not: two streams, and what lies where."""

import codecs
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from lm.errors import InputError
from lm.tokenizer import Tokenizer

SMALLEST = 256
"""Bytes: what is no text is found to within so many."""
MOST_BROKEN = 1 / 16
"""Of a text's bytes so many may be no UTF-8, as in a page in Latin-1: a tokenizer of bytes spells them in tokens."""
LONGEST_BROKEN = 16
"""Bytes that are no UTF-8 one behind the other: more are no slip of a text."""


class Pieces(NamedTuple):
    """A file's bytes, cut."""

    tokens: list[int]
    """Of all that is text, in order."""
    raw: bytes
    """All that is not, in order."""
    lengths: list[int]
    """Bytes of text, of what is none, of text, ... in turn, as they lie in the file; empty for an empty file."""


def cut_pieces(data: bytes, tokenizer: Tokenizer) -> Pieces:
    """The pieces of `data`, of which `joined` makes it again: what the tokenizer gives back exactly is text."""
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
        if len(lengths) % 2 == is_raw:  # the last length is not of this kind
            lengths.append(0)
        lengths[-1] += len(piece)
        if ids is None:
            raw.append(piece)
        else:
            tokens += ids
    return Pieces(tokens, b"".join(raw), lengths)


def joined(text: Iterable[bytes], raw: Iterable[bytes], lengths: Iterable[int]) -> Iterator[memoryview]:
    """Yield the file's bytes, in parts. `text` and `raw` come in parts too, and no more than one of each is held.
    Raises ValueError if the lengths are not those of `text` and `raw`."""
    streams = [filter(None, text), filter(None, raw)]
    parts = [memoryview(b""), memoryview(b"")]
    for number, length in enumerate(lengths):
        kind = number % 2
        while length:
            part = parts[kind] or memoryview(next(streams[kind], b""))
            if not part:
                raise ValueError(f"pieces that are {length:,} bytes longer than what is there")
            yield part[:length]
            parts[kind], length = part[length:], length - min(length, len(part))
    if any(map(len, parts)) or any(next(stream, b"") for stream in streams):
        raise ValueError("pieces that are shorter than what is there")


def puts_blank(tokenizer: Tokenizer) -> bool:
    """Whether the tokenizer puts a blank before every text, as Llama 2's does: then texts begin with a blank here."""
    try:
        return tokenizer.decode_bytes(tokenizer.encode("a")) == b" a"
    except InputError:  # it has no such character
        return False


def exact_tokens(data: bytes, tokenizer: Tokenizer) -> list[int] | None:
    """Tokens that decode to just these bytes; None where they are no text, or the tokenizer changes it or lacks one of
    its characters."""
    broken = broken_bytes(data)
    spell = getattr(tokenizer, "encode_bytes", None)
    if broken and (spell is None or len(broken) > MOST_BROKEN * len(data) or longest_run(broken) > LONGEST_BROKEN):
        return None
    for text in (data, data[1:]) if data.startswith(b" ") else (data,):  # the blank may be the tokenizer's own
        try:
            ids = spell(text) if broken and spell else tokenizer.encode(text.decode())
        except (InputError, ValueError):
            return None
        if tokenizer.decode_bytes(ids) == data:
            return ids
    return None


def broken_bytes(data: bytes) -> list[int]:
    """Where the bytes stand that are no UTF-8."""
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
    """The most of these rising numbers that follow one another by one."""
    longest = run = 0
    before = -2
    for place in places:
        run = run + 1 if place == before + 1 else 1
        longest, before = max(longest, run), place
    return longest


def character_start(data: bytes, place: int) -> int:
    """The last place up to `place` at which a character begins, if one is near: else `place`."""
    for near in range(place, max(0, place - 3), -1):
        if data[near] & 0xC0 != 0x80:
            return near
    return place
