"""Texts as words without case, punctuation and diacritics, and hashes of the runs of these words. Pure. An apostrophe
is deleted, every other mark parts words; numbers stay, since examples of arithmetic differ in nothing else; in scripts
without spaces each character is a word. Hashes are the same on every machine."""

import unicodedata
from collections.abc import Iterator, Sequence

import numpy as np

from data_prep.dedup.minhash import LOWER_WORDS, MULTIPLIER, WordHashes, word_hash, written_without_spaces

APOSTROPHES = "'’‘ʼ＇`"


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
    return [word for piece in pieces(text) for word in words_of_piece(piece)]


_remembered = WordHashes(lambda piece: b"".join(word_hash(word.encode()) for word in words_of_piece(piece)))


def hashed_words(text: str) -> np.ndarray:
    """A hash of each word of `words_of`, in order, uint64."""
    return np.frombuffer(b"".join(map(_remembered.__getitem__, pieces(text))), "<u8").astype(np.uint64, copy=False)


def hashed_ngrams(words: np.ndarray, lengths: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
    """(n, hashes of all runs of n words, uint64 (words - n + 1,)) for each n of `lengths`, the shortest first; `words`
    are hashes, uint64 (words,). Two different runs have the same hash with a probability of about 2^-64, and 2^-58 if
    they are the same words in another order."""
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
