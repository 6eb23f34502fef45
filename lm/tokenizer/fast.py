"""Encode with gigatoken, in a tenth of tiktoken's time, if its ids equal tiktoken's.

gigatoken cuts text with its own code instead of the regular expression, and uses a newer version of Unicode than
tiktoken, so the two classify a few thousand code points of rare scripts differently. Texts that contain one are encoded
by tiktoken. These code points are found by encoding every code point with both.
"""

import functools
import importlib.util
import itertools
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lm.errors import UsageError
from lm.tokenizer.base import Tokenizer
from lm.tokenizer.encoding import BytePairTokenizer, numbered, sections, write_ranks
from lm.tokenizer.patterns import SPLIT_PATTERNS

SCHEMES = {SPLIT_PATTERNS[name]: name for name in ("gpt2", "cl100k", "o200k")}
"""{split pattern: gigatoken's name for it}."""
CONTEXTS = "aA1! \n'"
"""Neighbors to test each character with: a lower-case and an upper-case letter, a digit, a punctuation mark, both kinds
of white space, and the beginning of "'s"."""
CODE_POINTS = (range(0x80, 0xD800), range(0xE000, 0x40000), range(0xE0000, 0xE1000))
"""Code points to test: all except ASCII, surrogates, planes without characters, and private use, which no version will
change."""
CODE_POINTS_AT_ONCE = 512


@dataclass(frozen=True)
class FastEncoder:
    """Callable that returns `tokenizer.encode_array(text)`, computed by gigatoken if that gives the same ids, else by
    tiktoken. Picklable, so `differing` is computed once for all workers."""

    tokenizer: BytePairTokenizer
    differing: str
    """Characters for which tiktoken's and gigatoken's ids differ."""

    def __call__(self, text: str) -> np.ndarray:
        """Return the token ids of `text`, uint32 (tokens,)."""
        parts = [self.part(part) for part in sections(text)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def part(self, text: str) -> np.ndarray:
        """Return the ids, uint32 (tokens,), of a text that has no run of white space longer than LONGEST_RUN."""
        try:
            data = text.encode()
        except UnicodeEncodeError:  # a lone surrogate
            return self.tokenizer.encode_array(text)
        return self.tokenizer.encode_array(text) if self.differs(data) else self._encode(data)

    def differs(self, data: bytes) -> bool:
        """Return whether a text, given as UTF-8, contains one of the differing characters."""
        # Searching for their first bytes is fastest; most texts have none and are not decoded.
        for first, begins in self._begins.items():
            if first in data and any(begin in data for begin in begins):
                return self._pattern.search(data.decode()) is not None
        return False

    @functools.cached_property
    def _encode(self):
        return gigatoken_of(self.tokenizer).encode

    @functools.cached_property
    def _begins(self) -> dict[bytes, list[bytes]]:
        """{first byte of differing characters: prefixes that begin with it: two bytes of 4-byte characters, others
        whole}."""
        begins = {utf8[:2] if len(utf8) == 4 else utf8 for utf8 in map(str.encode, self.differing)}
        return {first: list(some) for first, some in itertools.groupby(sorted(begins), key=lambda begin: begin[:1])}

    @functools.cached_property
    def _pattern(self):
        return re.compile(f"[{character_ranges(self.differing)}]")

    def __reduce__(self):  # without the cached properties
        return FastEncoder, (self.tokenizer, self.differing)


def fast_encoder(tokenizer: Tokenizer) -> FastEncoder:
    """Return a FastEncoder for a byte-level BPE with the split pattern of GPT-2, cl100k or o200k; takes a second or
    two. Raises UsageError for any other tokenizer, and if gigatoken is not installed."""
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
    """Return gigatoken's tokenizer with the same tokens, but no special tokens."""
    import gigatoken

    with tempfile.TemporaryDirectory() as folder:
        ranks = Path(folder) / "ranks.tiktoken"
        ranks.write_bytes(write_ranks(tokenizer.tokens))
        return gigatoken.Tokenizer.from_tiktoken(os.fspath(ranks), SCHEMES[tokenizer.pattern], {})


def differing_characters(pattern: str) -> Iterator[str]:
    """Yield the characters at which tiktoken and gigatoken cut text differently by this split pattern."""
    tiktokens = telling_tokenizer(pattern)
    gigatokens = gigatoken_of(tiktokens)

    def differs(text: str) -> bool:
        return gigatokens.encode(text).tolist() != tiktokens.encode(text)

    for points in CODE_POINTS:
        for start in range(points.start, points.stop, CODE_POINTS_AT_ONCE):
            characters = [chr(point) for point in range(start, min(start + CODE_POINTS_AT_ONCE, points.stop))]
            if differs("".join(map(surrounded, characters))):
                differing = [character for character in characters if differs(surrounded(character))]
                yield from differing or characters


def surrounded(character: str) -> str:
    """Return a text with the character between all neighbors in CONTEXTS."""
    return character.join((*CONTEXTS, "a"))


def telling_tokenizer(pattern: str) -> BytePairTokenizer:
    """Return a tokenizer whose ids show where the split pattern splits a text: its vocabulary merges the first and last
    byte of every character with the neighbor, unless a split is between them."""
    singles = [bytes([byte]) for byte in range(256)]
    first = [bytes([before, byte]) for before in CONTEXTS.encode() for byte in range(0xC2, 0xF5)]
    last = [bytes([byte, after]) for byte in range(0x80, 0xC0) for after in CONTEXTS.encode()]
    tokens = (*singles, *first, *last)
    return BytePairTokenizer(pattern, tokens, special_tokens=numbered(tokens, ("<|endoftext|>",)))


def character_ranges(characters: str, spell: Callable[[str], str] = str) -> str:
    """Return ascending characters as ranges for the brackets of a regular expression, such as "a-cx". `spell` writes a
    character in it."""
    ranges: list[list[str]] = []
    for character in characters:
        if ranges and ord(character) == ord(ranges[-1][1]) + 1:
            ranges[-1][1] = character
        else:
            ranges.append([character, character])
    return "".join(spell(first) + (f"-{spell(last)}" if last > first else "") for first, last in ranges)
