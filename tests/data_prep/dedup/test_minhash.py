"""MinHash keys: collision probability, normalization, and the same keys on every machine."""

import dataclasses
import itertools
import math
import random
import re
import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nltk.tokenize import NLTKWordTokenizer

from configs.recipes.gristmill import MINHASH
from data_prep.dedup import minhash
from data_prep.dedup.keys import text_key
from data_prep.dedup.minhash import band_keys, hashed_shingles, hashed_words, least_hashes

UNION = 500
"""Shingles of a generated pair in total."""
WORDS = ["".join(letters) for letters in itertools.product("aeioklmnrs", repeat=5)]  # digits would all become 0


def similar_pair(similarity: float, rng: random.Random) -> tuple[str, str]:
    """Two texts of random words whose sets of 5-word shingles have exactly this Jaccard similarity."""
    shared = round(similarity * UNION)
    own = (UNION - shared) // 2
    words = rng.choices(WORDS, k=shared + 4 + 2 * own)
    begin, first, second = words[: shared + 4], words[shared + 4 : shared + 4 + own], words[shared + 4 + own :]
    return " ".join(begin + first), " ".join(begin + second)


@pytest.mark.fast_rows
@pytest.mark.parametrize("similarity", [0.72, 0.4, 0.6, 0.8, 0.9])
def test_pairs_collide_with_the_expected_probability(similarity):
    pairs, rng = 1500, random.Random(0)
    met = 0
    for _ in range(pairs):
        first, second = (band_keys(text, "", MINHASH) for text in similar_pair(similarity, rng))
        met += not set(first or ()).isdisjoint(second or ())
    expected = 1 - (1 - similarity**MINHASH.rows) ** MINHASH.bands
    deviation = math.sqrt(expected * (1 - expected) / pairs)
    assert abs(met / pairs - expected) < 4 * deviation + 1 / pairs


@pytest.mark.parametrize(
    "same",
    [
        ("Hello, WORLD! It's 3.14 (or 2,718).", "hello world it s 0 or 0"),
        ("naïve café Ångström", "naive cafe angstrom"),
        ("“quoted” — dash… don’t", "quoted dash don t"),
        ("a\u00a0b\u2003c\u200bd", "a b c d"),
        ("٣٤ years ４２", "0 years 0"),
        ("ÀÉ Ǆ", "ae ǆ"),
        ("日本語 text", "日 本 語 text"),
        ("1 22 333 2024-03-01", "7 7 7 7 7 7"),
        ("under_score a/b", "under score a b"),
        ("a\ud800b", "a b"),
    ],
)
def test_texts_with_the_same_normalised_words(same):
    first, second = (hashed_words(text).tolist() for text in same)
    assert first == second


@given(st.text())
def test_words_equal_those_of_the_whole_text_normalised_at_once(text):
    """Compare the fast implementation by words with a plain one by characters, except for numbers with decimal
    points."""
    text = "".join(" " if unicodedata.category(character)[0] == "N" else character for character in text)
    plain = []
    for character in unicodedata.normalize("NFD", text.lower()):
        category = unicodedata.category(character)
        if category != "Mn":
            kept = character if category[0] in "LM" else " "
            plain.append(f" {kept} " if minhash.WITHOUT_SPACE.match(character) else kept)
    words = "".join(plain).split()
    assert hashed_words(text).tolist() == [int(hashed_words(word)[0]) for word in words]


def test_a_text_shorter_than_a_shingle_has_no_keys():
    assert band_keys("only four words here", "d", MINHASH) is None
    assert band_keys("", "d", MINHASH) is None
    assert len(band_keys("now five words are here", "d", MINHASH) or ()) == MINHASH.bands


def test_keys_depend_on_dump_band_and_seed():
    text = "the quick brown fox jumps over the lazy dog"
    keys = band_keys(text, "a", MINHASH) or ()
    assert len(set(keys)) == MINHASH.bands and {len(key) for key in keys} == {16}
    assert set(keys).isdisjoint(band_keys(text, "b", MINHASH) or ())
    assert set(keys).isdisjoint(band_keys(text, "a", dataclasses.replace(MINHASH, seed=2)) or ())
    assert keys == band_keys(text.upper() + "!", "a", MINHASH)


def test_the_signature_of_a_long_text_does_not_depend_on_chunking():
    shingles = hashed_shingles(" ".join(str(number) + "x" for number in range(5000)), 5)
    parts = [least_hashes(part, MINHASH) for part in np.array_split(shingles, 7)]
    assert np.array_equal(least_hashes(shingles, MINHASH), np.minimum.reduce(parts))
    assert np.array_equal(least_hashes(shingles[::-1].copy(), MINHASH), least_hashes(shingles, MINHASH))


def test_keys_are_the_same_on_every_machine():
    """Keys of two dumps must be comparable after years. If this fails, fix the code: existing keys would be
    worthless."""
    keys = band_keys("It was the best of times, it was the worst of times – naïve, 1859.", "d", MINHASH) or ()
    assert [key.hex() for key in keys[:2]] == ["f7d0959db7307a076d4cc6a96ae88dd2", "e41840fb78f0ec457ed12c3bd055efcf"]


FINEWEB_2024 = dataclasses.replace(MINHASH, normalisation="fineweb_2024")
PUNCTUATION_2024 = "!/—”:％１〈&(、━\\【#%「」，】；+^]~“《„';’{|∶´[=-`*．（–？！：$～«〉,><》)?）。…@_.\"}►»"


def words_of_2024(text: str) -> list[str]:
    """simplify_text of datatrove at 05194d39, and NLTK's tokenizer as word_tokenize calls it for one sentence."""
    controls = "".join(map(chr, [*range(9), 11, 12, *range(13, 32), *range(127, 160)]))
    text = re.sub(r"\s+", " ", text.lower().strip()).translate(str.maketrans("", "", PUNCTUATION_2024 + controls))
    text = "".join(one for one in unicodedata.normalize("NFD", text) if unicodedata.category(one) != "Mn")
    return NLTKWordTokenizer().tokenize(re.sub(r"\d+", "0", text).strip())


PIECES = (
    "Don't", "cannot", "3.14", "naïve", "“quoted”", "‘so’", "a-b", "日本語。", "$5", "1,000", "x1y22", "Gonna", "e.g.",
    "ΑΣ", "…", "—", "\u00a0", "\n", "\x85", "it's", "(see)", "٣٤", "wanna-be",
)  # fmt: skip


@given(st.lists(st.sampled_from(PIECES), max_size=30).map(" ".join))
def test_the_2024_release_uses_its_own_words(text):
    expected = [int.from_bytes(minhash.word_hash(word.encode()), "little") for word in words_of_2024(text)]
    assert hashed_words(text, "fineweb_2024").tolist() == expected


def test_keys_of_texts_ignore_only_white_space_and_are_the_same_on_every_machine():
    assert text_key("a b\n\nc ", "d") == text_key(" a\tb c", "d") == text_key("a\u00a0b\u2003c", "d")
    assert len({text_key(text, "d") for text in ("a b c", "ab c", "A b c", "a b c.", "", "\ud800")}) == 6
    assert text_key("a b", "CC-MAIN-2024-10") != text_key("a b", "CC-MAIN-2024-18")
    assert text_key("abc", "d").hex() == "8aba90e1bebb392eaa5e5026b0e719b9"
