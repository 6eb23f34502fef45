"""gigatoken's ids equal tiktoken's on all texts, including code points that the two classify differently."""

import pickle
import random
import re
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lm.config import TokenizerConfig
from lm.errors import UsageError
from lm.tokenizer import BytePairTokenizer, train_bpe
from lm.tokenizer.characters import train_characters
from lm.tokenizer.encoding import LONGEST_RUN
from lm.tokenizer.fast import CODE_POINTS, SCHEMES, FastEncoder, character_ranges, fast_encoder, surrounded
from lm.tokenizer.patterns import SPLIT_PATTERNS
from tests.run_files import LICENSE

LETTERS = "aA1٣ \u00a0\u3000\t\n\r'’ſsST.,!-…éÉ́中あア한กकः😀👩\u200d\ufffd\ue000\U0001f1e9"

gigatoken = pytest.importorskip("gigatoken")


@pytest.fixture(scope="module", params=SCHEMES.values())
def encoder(request) -> FastEncoder:
    text = LICENSE + "".join(random.Random(0).choices(LETTERS, k=20_000))
    return fast_encoder(train_bpe([text], TokenizerConfig(700, request.param, 10**6)))


def same(encoder: FastEncoder, text: str) -> None:
    ids = encoder(text)
    assert ids.dtype == np.uint32 and ids.tolist() == encoder.tokenizer.encode(text), repr(text[:200])


@pytest.mark.slow
def test_all_strings_of_four_critical_letters(encoder):
    source = random.Random(0)
    for _ in range(4_000):
        same(encoder, "".join(source.choices(LETTERS, k=source.randrange(1, 9))))


@pytest.mark.fast_rows
def test_every_code_point(encoder):
    """Each with its neighbors, and each differing code point by itself, for which gigatoken's ids differ."""
    for points in CODE_POINTS:
        for start in range(points.start, points.stop, 1000):
            same(encoder, "".join(surrounded(chr(point)) for point in range(start, min(start + 1000, points.stop))))
    for character in encoder.differing[::50]:
        same(encoder, f"a{character}b {character}1{character}{character}")
    assert all(encoder.differs(f"some text {character}".encode()) for character in encoder.differing)
    assert not encoder.differs((LICENSE + LETTERS).encode())


@pytest.mark.fast_rows
def test_any_text(encoder):
    @settings(max_examples=400, deadline=None)
    @given(st.text(max_size=60) | st.text(st.sampled_from(LETTERS + encoder.differing[:5]), max_size=60))
    def check(text):
        same(encoder, text)

    check()


def test_lone_surrogates_and_runs_of_white_space(encoder):
    for text in ("a\ud800b", "\ud83d\ude00 pair", " " * (2 * LONGEST_RUN + 7) + "a", "x" + "\n " * LONGEST_RUN + "y"):
        same(encoder, text)


def test_it_can_be_pickled_for_workers(encoder):
    copy = pickle.loads(pickle.dumps(encoder))
    assert copy == encoder
    same(copy, LICENSE)


def test_a_difference_is_detected(monkeypatch):
    """A gigatoken that classifies a letter as punctuation: texts with it use tiktoken, and the ids are right."""
    import lm.tokenizer.fast as fast

    class Other:
        def __init__(self, tokenizer: BytePairTokenizer):
            self.tokenizer = tokenizer

        def encode(self, text: str | bytes) -> np.ndarray:
            text = text if isinstance(text, str) else text.decode()
            return np.array(self.tokenizer.encode(text.replace("ж", "§")), np.uint32)

    monkeypatch.setattr(fast, "gigatoken_of", Other)
    tokenizer = train_bpe([LICENSE + "жж ж"], TokenizerConfig(400, "cl100k", 10**6))
    found = fast_encoder(tokenizer)
    assert found.differing == "ж"
    for text in ("a ж b", "й ж", "§"):
        same(found, text)


@pytest.mark.parametrize("characters", ["ж", "abc", "acd\u2028\u2029\U0001f600", "\U00010940\U00010941\U00010943"])
def test_ranges_cover_the_characters(characters):
    assert "".join(re.findall(f"[{character_ranges(characters)}]", "".join(map(chr, range(0x20000))))) == characters


def test_unknown_patterns_are_rejected(monkeypatch):
    ours = train_bpe([LICENSE], TokenizerConfig(300, r"\w+|\W", 10**6))
    with pytest.raises(UsageError, match=r"pattern gpt2, cl100k, o200k, but this tokenizer has the split pattern"):
        fast_encoder(ours)
    with pytest.raises(UsageError, match="but this tokenizer is none"):
        fast_encoder(train_characters(["ab"], TokenizerConfig(3, "gpt2", 10, algorithm="characters")))
    monkeypatch.setitem(sys.modules, "gigatoken", None)
    with pytest.raises(UsageError, match="gigatoken is not installed"):
        fast_encoder(replace(ours, pattern=SPLIT_PATTERNS["gpt2"]))
