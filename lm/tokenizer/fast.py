"""An encoder that takes a tenth of tiktoken's time, gigatoken, where its ids are tiktoken's.

gigatoken cuts text by code of its own in place of the regular expression, and knows other letters: those of its version
of Unicode, of which tiktoken has an older one. A text with a code point that the two take for different kinds, a few
thousand of rare scripts, is encoded by tiktoken. Which they are is found out by asking both about every code point.
"""

import functools
import importlib.util
import itertools
import os
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lm.errors import UsageError
from lm.tokenizer.base import Tokenizer
from lm.tokenizer.encoding import BytePairTokenizer, numbered, sections, write_ranks
from lm.tokenizer.patterns import SPLIT_PATTERNS

SCHEMES = {SPLIT_PATTERNS[name]: name for name in ("gpt2", "cl100k", "o200k")}
"""gigatoken's names of the split patterns that it has."""
BESIDE = "aA1! \n'"
"""A lower-case and an upper-case letter, a number, a mark, the two kinds of white space, and what begins "'s"."""
CODE_POINTS = (range(0x80, 0xD800), range(0xE000, 0x40000), range(0xE0000, 0xE1000))
"""All but ASCII, surrogates, planes without a character, and private use (which no version will change)."""
CODE_POINTS_AT_ONCE = 512


@dataclass(frozen=True)
class FastEncoder:
    """`tokenizer.encode_array`, by gigatoken where that is known to give the same. Picklable, so that who makes
    it finds out once for all workers."""

    tokenizer: BytePairTokenizer
    differing: str
    """The characters that make tiktoken's and gigatoken's ids differ."""

    def __call__(self, text: str) -> np.ndarray:
        """Token ids of `text`, uint32 (tokens,)."""
        parts = [self.part(part) for part in sections(text)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def part(self, text: str) -> np.ndarray:
        """Token ids of a text without long runs of white space."""
        try:
            data = text.encode()
        except UnicodeEncodeError:  # a lone surrogate
            return self.tokenizer.encode_array(text)
        return self.tokenizer.encode_array(text) if self.differs(data) else self._encode(data)

    def differs(self, data: bytes) -> bool:
        """Whether one of the differing characters is in a text, given as UTF-8."""
        # Where none of their first bytes is, which a processor finds soonest, nothing is decoded.
        for first, begins in self._begins.items():
            if first in data and any(begin in data for begin in begins):
                return self._pattern.search(data.decode()) is not None
        return False

    @functools.cached_property
    def _encode(self):
        return gigatoken_of(self.tokenizer).encode

    @functools.cached_property
    def _begins(self) -> dict[bytes, list[bytes]]:
        """{first byte of differing characters: how these begin, two bytes of four or all}."""
        begins = {utf8[:2] if len(utf8) == 4 else utf8 for utf8 in map(str.encode, self.differing)}
        return {first: list(some) for first, some in itertools.groupby(sorted(begins), key=lambda begin: begin[:1])}

    @functools.cached_property
    def _pattern(self):
        return re.compile(f"[{character_ranges(self.differing)}]")

    def __reduce__(self):  # without what is made at first use
        return FastEncoder, (self.tokenizer, self.differing)


def fast_encoder(tokenizer: Tokenizer) -> FastEncoder:
    """Of a byte-level BPE with one of GPT-2's, cl100k's and o200k's split patterns; takes a second or two.

    Raises UsageError for any other tokenizer, and where gigatoken is not installed.
    """
    if importlib.util.find_spec("gigatoken") is None:
        raise UsageError(
            "gigatoken is not installed. Install it (make add PACKAGE=gigatoken), or encode with tiktoken."
        )
    if not isinstance(tokenizer, BytePairTokenizer) or tokenizer.pattern not in SCHEMES:
        what = f"has the split pattern {tokenizer.pattern!r}" if isinstance(tokenizer, BytePairTokenizer) else "is none"
        raise UsageError(
            f"gigatoken encodes byte-level BPE with the split pattern {', '.join(SCHEMES.values())}, but this "
            f"tokenizer {what}. Encode with tiktoken."
        )
    return FastEncoder(tokenizer, "".join(differing_characters(tokenizer.pattern)))


def gigatoken_of(tokenizer: BytePairTokenizer):
    """gigatoken's tokenizer with the same tokens, none of them special."""
    import gigatoken

    with tempfile.TemporaryDirectory() as folder:
        ranks = Path(folder) / "ranks.tiktoken"
        ranks.write_bytes(write_ranks(tokenizer.tokens))
        return gigatoken.Tokenizer.from_tiktoken(os.fspath(ranks), SCHEMES[tokenizer.pattern], {})


def differing_characters(pattern: str) -> Iterator[str]:
    """The characters that tiktoken and gigatoken cut differently by the split pattern."""
    tiktokens = telling_tokenizer(pattern)
    gigatokens = gigatoken_of(tiktokens)

    def differs(text: str) -> bool:
        return gigatokens.encode(text).tolist() != tiktokens.encode(text)

    for points in CODE_POINTS:
        for start in range(points.start, points.stop, CODE_POINTS_AT_ONCE):
            characters = [chr(point) for point in range(start, min(start + CODE_POINTS_AT_ONCE, points.stop))]
            if differs("".join(map(surrounded, characters))):
                alone = [character for character in characters if differs(surrounded(character))]
                yield from alone or characters


def surrounded(character: str) -> str:
    """The character before and behind each of BESIDE."""
    return character.join((*BESIDE, "a"))


def telling_tokenizer(pattern: str) -> BytePairTokenizer:
    """A vocabulary that joins every character's first and last byte to what is beside it, where no cut is between: so
    that its ids tell all the cuts."""
    singles = [bytes([byte]) for byte in range(256)]
    first = [bytes([before, byte]) for before in BESIDE.encode() for byte in range(0xC2, 0xF5)]
    last = [bytes([byte, after]) for byte in range(0x80, 0xC0) for after in BESIDE.encode()]
    tokens = (*singles, *first, *last)
    return BytePairTokenizer(pattern, tokens, special_tokens=numbered(tokens, ("<|endoftext|>",)))


def character_ranges(characters: str) -> str:
    """Of characters in order, what stands for them between the brackets of a regular expression."""
    ranges: list[list[str]] = []
    for character in characters:
        if ranges and ord(character) == ord(ranges[-1][1]) + 1:
            ranges[-1][1] = character
        else:
            ranges.append([character, character])
    return "".join(f"{first}-{last}" for first, last in ranges)
