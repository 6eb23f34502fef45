"""Texts as words without case, punctuation and diacritics, and hashes of the runs of these words. Pure.

An apostrophe is deleted ("don't" is "dont"), every other mark parts words; numbers stay, since examples of arithmetic
differ in nothing else. In scripts written without spaces each character is a word. What was made of a word is
remembered, since words come again and again; hashes are the same on every machine.
"""

import hashlib
import unicodedata
from collections.abc import Iterator, Sequence

import numpy as np

from data_prep.dedup.minhash import LOWER_WORDS, MULTIPLIER, written_without_spaces

APOSTROPHES = "'’‘ʼ＇`"
WORDS_REMEMBERED = 1 << 18
LONGEST_REMEMBERED = 64


def pieces(text: str) -> list[bytes]:
    """The text's words in UTF-8 as far as ASCII tells them apart; `words_of_piece` goes on."""
    return text.encode("utf-8", "surrogatepass").translate(LOWER_WORDS, b"'`").split()


def words_of_piece(piece: bytes) -> list[str]:
    if piece.isascii():
        return [piece.decode()]
    decomposed = unicodedata.normalize("NFKD", piece.decode("utf-8", "surrogatepass").lower())
    return "".join(map(_replacements.__getitem__, decomposed)).lower().split()


class _Replacements(dict[str, str]):
    """From a character of decomposed text to what stands for it in the normalised text."""

    def __missing__(self, character: str) -> str:
        category = unicodedata.category(character)
        if character in APOSTROPHES or category == "Mn":
            replacement = ""
        elif category[0] not in "LNM":
            replacement = " "
        else:
            replacement = f" {character} " if written_without_spaces(character) else character
        self[character] = replacement
        return replacement


_replacements = _Replacements()


def words_of(text: str) -> list[str]:
    """The normalised words of a text, in order."""
    return [word for piece in pieces(text) for word in words_of_piece(piece)]


class _WordHashes(dict[bytes, bytes]):
    """From a piece to the hashes, 8 bytes each, of its words."""

    def __missing__(self, piece: bytes) -> bytes:
        hashes = b"".join(hashlib.blake2b(word.encode(), digest_size=8).digest() for word in words_of_piece(piece))
        if len(piece) <= LONGEST_REMEMBERED:
            if len(self) >= WORDS_REMEMBERED:
                self.clear()
            self[piece] = hashes
        return hashes


_remembered = _WordHashes()


def hashed_words(text: str) -> np.ndarray:
    """A hash of each word of `words_of`, in order, uint64."""
    return np.frombuffer(b"".join(map(_remembered.__getitem__, pieces(text))), "<u8").astype(np.uint64, copy=False)


def hashed_ngrams(words: np.ndarray, lengths: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
    """(n, hashes of all runs of n words, uint64 (words - n + 1,)) for each n of `lengths`, the shortest first.

    `words` are the hashes of words, uint64 (words,). A run is hashed as a polynomial of its words: two different runs
    have the same hash with a probability of about 2^-64, and 2^-58 if they are the same words in another order.
    """
    mixed = words.copy()
    for n in range(1, max(lengths, default=0) + 1):
        if n > len(words):
            return
        if n > 1:
            mixed = mixed[:-1]
            mixed *= MULTIPLIER
            mixed += words[n - 1 :]
        if n in lengths:
            yield n, mixed.copy()
