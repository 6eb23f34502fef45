"""MinHash signatures: two texts that share most of their shingles have a band key in common (Broder 1997). No I/O.

A shingle is a sequence of words of the normalized text. "datatrove_0_10" is FineWeb's normalization
(huggingface/datatrove, utils/text.py): lower case, every number becomes 0, punctuation becomes a space, diacritics are
removed; except that every character that is not a letter, mark or digit separates words, and that in scripts without
spaces each character is a word. "fineweb_2024" is the normalization of the published release (the same file at commit
05194d39): it deletes the punctuation of its list ("don't" is one word), then replaces numbers ("3.14" is one 0). Words
are separated only by white space, and by NLTK, which splits a few joined words ("cannot").

Hashes of words are cached. Arithmetic is on integers of fixed width and byte order, so a text has the same keys on
every machine.
"""

import functools
import hashlib
import re
import unicodedata
from collections.abc import Iterable

import numpy as np

from data_prep.config import MinHashConfig
from data_prep.dedup.keys import salt_of
from data_prep.text.words import Memo

DIGITS_TO_ZERO = bytes.maketrans(b"123456789", b"000000000")
NUMBER = re.compile(rb"00*(?:[.,]00*)?")  # begins with a literal: 6 times as fast as \d+
LOWER_WORDS = bytes(ord(chr(byte).lower()) if chr(byte).isalnum() else ord(" ") for byte in range(128)) + bytes(
    range(128, 256)
)
"""Translation table for UTF-8: ASCII letters to lower case, other ASCII characters except digits to spaces."""

MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
MIXERS = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
"""The constants of SplitMix64 (Steele et al. 2014, doi:10.1145/2660193.2660195)."""
SHINGLES_AT_ONCE = 1024
"""Shingles per block. It takes this times 4 bytes times the number of hash functions, which fits into a core's
cache."""
WITHOUT_SPACES = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai and Lao, Myanmar, Khmer
    "\u3005-\u3007\u3040-\u30ff"  # signs of repetition and zero, kana
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Han
)
"""Characters of scripts without spaces between words, for use in a regex character class."""
WITHOUT_SPACE = re.compile(f"[{WITHOUT_SPACES}]")
DELETED_2024 = {
    ord(character): None
    for character in "!/—”:％１〈&(、━\\【#%「」，】；+^]~“《„';’{|∶´[=-`*．（–？！：$～«〉,><》)?）。…@_.\"}►»"
    + "".join(map(chr, [*range(9), *range(11, 13), *range(13, 32), *range(127, 160)]))
}
"""Characters that "fineweb_2024" deletes: datatrove's PUNCTUATION at commit 05194d39, including control characters."""
PARTED_2024 = {"cannot": 3, "gimme": 3, "gonna": 3, "gotta": 3, "lemme": 3, "wanna": 3}
"""Words without punctuation that NLTK's Treebank tokenizer splits, and after how many letters."""


def band_keys(text: str, scope: str, config: MinHashConfig) -> tuple[bytes, ...] | None:
    """Return one 16-byte key per band of the text's MinHash signature; None if the text has fewer words than a shingle.
    Texts of the same scope (keys.py) with a common key are near-duplicates."""
    found = signature(text, config)
    return None if found is None else keys_of_signature(found, scope, config)


def signature(text: str, config: MinHashConfig) -> bytes | None:
    """Return the MinHash signature of a text, `least_hashes` as little-endian bytes; None if shorter than a shingle."""
    shingles = hashed_shingles(text, config.shingle_words, config.normalisation)
    return least_hashes(shingles, config).astype("<u4").tobytes() if len(shingles) else None


def keys_of_signature(rows: bytes, scope: str, config: MinHashConfig) -> tuple[bytes, ...]:
    """Return the 16-byte key of each band of a signature, `rows`. Only keys of the same scope can be equal."""
    size = 4 * config.rows
    salt = salt_of(scope)
    return tuple(
        hashlib.blake2b(rows[band * size : (band + 1) * size] + band.to_bytes(4, "little"), digest_size=16, key=salt)
        .digest()
        for band in range(config.bands)
    )  # fmt: skip


def least_hashes(shingles: np.ndarray, config: MinHashConfig) -> np.ndarray:
    """Return the MinHash signature, uint32 (bands * rows,): the minimum of each hash function over all shingles. The
    probability that two texts agree in one of these numbers is their Jaccard similarity."""
    factor, offset = hash_functions(config.bands * config.rows, config.seed)
    least = np.full(len(factor), np.iinfo(np.uint32).max, np.uint32)
    block = np.empty((len(factor), min(SHINGLES_AT_ONCE, len(shingles))), np.uint32)
    for start in range(0, len(shingles), SHINGLES_AT_ONCE):
        some = shingles[start : start + SHINGLES_AT_ONCE]
        values = block[:, : len(some)]
        np.multiply(factor, some, out=values)
        np.add(values, offset, out=values)
        np.minimum(least, values.min(axis=1), out=least)
    return least


@functools.lru_cache(maxsize=4)
def hash_functions(number: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the odd factors and the offsets of `number` hash functions x -> factor * x + offset modulo 2^32, each
    uint32 (number, 1). They are permutations of uint32; `hashed_shingles` distributes their inputs uniformly."""
    digits = hashlib.shake_256(f"minhash {seed}".encode()).digest(8 * number)
    factor, offset = np.frombuffer(digits, "<u4").astype(np.uint32).reshape(2, number, 1)
    return factor | np.uint32(1), offset


def hashed_shingles(text: str, words: int, normalisation: str = "datatrove_0_10") -> np.ndarray:
    """Return the hashes of all sequences of `words` normalized words, in text order, uint32 (shingles,); (0,) for a
    shorter text."""
    hashes = hashed_words(text, normalisation)
    count = len(hashes) - words + 1
    if count <= 0:
        return np.empty(0, np.uint32)
    mixed = hashes[:count].copy()
    for position in range(1, words):
        mixed *= MULTIPLIER
        mixed += hashes[position : position + count]
    for shift, mixer in zip((np.uint64(30), np.uint64(27)), MIXERS, strict=True):
        mixed ^= mixed >> shift
        mixed *= mixer
    return (mixed >> np.uint64(32)).astype(np.uint32)


def hashed_words(text: str, normalisation: str = "datatrove_0_10") -> np.ndarray:
    """Return the hash of each normalized word of the text, in order, uint64 (words,)."""
    if normalisation == "fineweb_2024":
        memo, words = HASHES_2024, [word.encode("utf-8", "surrogatepass") for word in text.lower().split()]
    else:
        data = text.encode("utf-8", "surrogatepass").translate(DIGITS_TO_ZERO)
        memo, words = HASHES_0_10, NUMBER.sub(b"0", data).translate(LOWER_WORDS).split()
    return joined_hashes(memo, words)


def joined_hashes(memo: Memo[bytes, bytes], words: Iterable[bytes]) -> np.ndarray:
    """Return the hashes that `memo` has for `words`, one or several each, in order, uint64 (hashes,)."""
    return np.frombuffer(b"".join(map(memo.__getitem__, words)), "<u8").astype(np.uint64, copy=False)


def word_hash(word: bytes) -> bytes:
    return hashlib.blake2b(word, digest_size=8).digest()


WORD_HASHES = Memo(word_hash)
"""Cache of word hashes, for scripts without spaces, where each character is a word and occurs often."""


def hashes_0_10(word: bytes) -> bytes:
    """Return the hashes, concatenated, of the "datatrove_0_10" words of a UTF-8 text without spaces. ASCII characters
    must be normalized already."""
    if word.isascii():
        return word_hash(word)
    text = unicodedata.normalize("NFD", word.decode("utf-8", "surrogatepass").lower())
    words = re.sub("00+", "0", "".join(map(replacement, re.sub(r"\d", "0", text)))).encode("utf-8").split()
    return b"".join(map(WORD_HASHES.__getitem__, words))


HASHES_0_10 = Memo(hashes_0_10)
HASHES_2024 = Memo(
    lambda word: b"".join(map(WORD_HASHES.__getitem__, words_2024(word.decode("utf-8", "surrogatepass"))))
)
"""Caches from text without spaces (UTF-8) to the concatenated 8-byte hashes of its normalized words; for "fineweb_2024"
the text must be in lower case."""


def words_2024(word: str) -> list[bytes]:
    """Return the "fineweb_2024" words, in UTF-8, of a lower-case text without white space; usually one."""
    decomposed = unicodedata.normalize("NFD", word.translate(DELETED_2024))
    kept = "".join(character for character in decomposed if unicodedata.category(character) != "Mn")
    words = []
    for one in re.sub(r"\d+", "0", kept).replace("‘", " ‘ ").split():  # NLTK splits off that quotation mark
        cut = PARTED_2024.get(one, len(one))
        words += [part.encode("utf-8", "surrogatepass") for part in (one[:cut], one[cut:]) if part]
    return words


@functools.cache
def replacement(character: str) -> str:
    """Return what replaces a character of decomposed text in the normalized text: itself for a letter, mark or
    number."""
    category = unicodedata.category(character)
    if category[0] not in "LNM":
        return " "
    if category == "Mn":
        return ""
    return f" {character} " if WITHOUT_SPACE.match(character) else character
