"""Split texts into words without case, punctuation and diacritics, and hash their n-grams. No I/O. Apostrophes are
deleted, other punctuation separates words. Numbers are kept, since arithmetic examples differ only in numbers. In
scripts without spaces each character is a word. Hashes are the same on every machine."""

import unicodedata
from collections.abc import Iterator, Sequence

import numpy as np

from data_prep.dedup.minhash import LOWER_WORDS, MULTIPLIER, joined_hashes, replacement, word_hash
from data_prep.text.words import Memo

APOSTROPHES = dict.fromkeys(map(ord, "'’‘ʼ＇`"))
"""Table for str.translate."""


def pieces(text: str) -> list[bytes]:
    """Split a text at white space and ASCII punctuation, after converting ASCII letters to lower case and deleting
    ASCII apostrophes. Returns UTF-8 pieces, of which `words_of_piece` makes words."""
    return text.encode("utf-8", "surrogatepass").translate(LOWER_WORDS, b"'`").split()


def words_of_piece(piece: bytes) -> list[str]:
    if piece.isascii():
        return [piece.decode()]
    decomposed = unicodedata.normalize("NFKD", piece.decode("utf-8", "surrogatepass").lower()).translate(APOSTROPHES)
    return "".join(map(replacement, decomposed)).lower().split()


def words_of(text: str) -> list[str]:
    return [word for piece in pieces(text) for word in words_of_piece(piece)]


HASHES = Memo(lambda piece: b"".join(word_hash(word.encode()) for word in words_of_piece(piece)))


def hashed_words(text: str) -> np.ndarray:
    """Return the hash of each word of `words_of`, in order, uint64 (words,)."""
    return joined_hashes(HASHES, pieces(text))


def hashed_ngrams(words: np.ndarray, lengths: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (n, hashes of all sequences of n words, uint64 (words - n + 1,)) for each n of `lengths`, in ascending
    order. `words` are hashes, uint64 (words,). Two different sequences have the same hash with a probability of about
    2^-64, or 2^-58 if they have the same words in another order."""
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
