"""Each value compared with its definition in plain Python on texts with few distinct words."""

import re
from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from data_prep.quality import repetition
from data_prep.quality.repetition import DUPLICATE, TOP, GopherRepetitionFilter, equals, measure, ngram_characters

SIGNALS = [signal.name for signal in GopherRepetitionFilter.signals]
WORDS = st.lists(st.sampled_from(["a", "b", "cd", "efg", "h,"]), max_size=80)
LINES = st.lists(st.sampled_from(["one", "two, three", "", "", "one "]), min_size=1, max_size=30)


def words_of(text: str) -> list[str]:
    return text.split()


def plain_top(words: list[str], n: int) -> int:
    ngrams = [" ".join(words[i : i + n]) for i in range(len(words) - n + 1)]
    if not ngrams:
        return 0
    counts = Counter(ngrams)
    best = max(counts.values())
    return best * len(next(ngram for ngram in ngrams if counts[ngram] == best))


def plain_duplicates(words: list[str], n: int) -> int:
    seen, characters, i = set(), 0, 0
    while i + n <= len(words):
        ngram = tuple(words[i : i + n])
        if ngram in seen:
            characters += sum(map(len, ngram))
            i += n
        else:
            seen.add(ngram)
            i += 1
    return characters


def plain_before(items: list[str]) -> list[str]:
    return [item for i, item in enumerate(items) if item in items[:i]]


@given(WORDS | WORDS.map(lambda words: words * 2))
def test_ngrams(words):
    expected = [plain_top(words, n) for n in TOP] + [plain_duplicates(words, n) for n in DUPLICATE]
    assert ngram_characters(words) == expected


@given(LINES.map("\n".join).filter(bool))
def test_lines_and_paragraphs(text):
    lines, paragraphs = re.split("\n+", text), re.split("\n{2,}", text.strip())
    values = dict(zip(SIGNALS, measure(text, text.split()), strict=True))
    again = plain_before(paragraphs)
    assert values["duplicate_paragraphs"] == len(again) / len(paragraphs)
    assert values["duplicate_paragraph_characters"] == sum(map(len, again)) / len(text)
    again = plain_before(lines)
    assert values["duplicate_lines"] == len(again) / len(lines)
    assert values["duplicate_line_characters"] == sum(map(len, again)) / len(text)


@given(WORDS.filter(bool))
def test_shares_are_fractions_of_all_characters(words):
    text = " ".join(words)
    assert measure(text, words)[4:] == [characters / len(text) for characters in ngram_characters(words)]


def test_colliding_keys_are_distinguished(monkeypatch):
    monkeypatch.setattr(repetition, "MULTIPLIER", np.uint64(0))  # all collide in slot 0
    keys = [5, 7, 5, 9, 7, 5, 1]
    found = equals(np.array(keys, np.int64)).tolist()
    assert [keys[index] for index in found] == keys
    assert len(set(found)) == 4
