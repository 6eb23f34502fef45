"""Features of the quality classifier: words and pairs of adjacent words, hashed into buckets, as in fastText (Joulin et
al. 2016, arXiv:1607.01759). The hash is BLAKE2, the same in every process and on every machine."""

import hashlib
from collections.abc import Sequence

import numpy as np

from data_prep.text.words import Memo, split_words

MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # 2**64 / golden ratio: spreads keys evenly (Knuth, vol. 3, section 6.4)
PROBE = (
    "The U.S. didn't pay $3.50 (or 4,000 yen) -- see https://example.com/a_b?c=d#e... Ähre, naïve; 中文字, слово! THE"
)


def hash_word(word: str) -> int:
    """Return a 32-bit hash of the word in lower case."""
    data = word.lower().encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(data, digest_size=4).digest(), "little")


HASHES = Memo(hash_word)


def word_hashes(words: Sequence[str]) -> np.ndarray:
    """uint32 [words]: the hash of each word, in order."""
    return np.fromiter(map(HASHES.__getitem__, words), np.uint32, len(words))


def ngram_buckets(hashes: np.ndarray, hash_bits: int) -> np.ndarray:
    """int64 [2 * words - 1]: the buckets, below 2**hash_bits, of all words, then of all pairs of adjacent words.

    `hashes` are those of the words of one text. Repeated n-grams are repeated in the result.
    """
    keys = hashes.astype(np.uint64)
    pairs = keys[:-1] << np.uint64(32) | keys[1:]
    # The product's highest bits depend on all bits of the key.
    return (np.concatenate([keys, pairs]) * MULTIPLIER >> np.uint64(64 - hash_bits)).astype(np.int64)


def features_sha256() -> str:
    """Return a hash that changes if texts are split or hashed differently; models trained before are then unusable."""
    return hashlib.sha256(ngram_buckets(word_hashes(split_words(PROBE)), 32).astype("<i8").tobytes()).hexdigest()
