"""Punkt's sentences and rules of NLTK's words, compared with NLTK 3.8.1; quality/test_datatrove.py compares words."""

import itertools
import random

import pytest

from data_prep.text.nltk_words import MARKS, PARTED, RULES, rules_for, sentence_spans
from data_prep.text.passage import Passage
from tests.data_prep.measured import fetch_punkt


@pytest.fixture(autouse=True, scope="module")
def punkt():
    fetch_punkt()


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("Dr. Smith met J. Bach. They sang!", ["Dr. Smith met J. Bach.", "They sang!"]),
        ("It was 1990. In May it rained.", ["It was 1990.", "In May it rained."]),
        ("(One.) Two? Three... four", ["(One.)", "Two?", "Three... four"]),
        ("Really?! Yes.", ["Really?!", "Yes."]),
        ("a sentence e.g. this one, etc. and so on", ["a sentence e.g.", "this one, etc.", "and so on"]),
        ("", []),
    ],
)
def test_sentences(text, sentences):
    assert [text[start:stop] for start, stop in sentence_spans(text)] == sentences


def test_sentences_are_in_order_and_cover_all_text_except_blanks():
    text = 'A. B? (C.) "D!" -- e.g. F... G.H. I?)" 3. J.\nK'
    spans = sentence_spans(text)
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(spans))
    assert "".join("".join(text[start:stop].split()) for start, stop in spans) == "".join(text.split())


def test_a_passage_counts_by_either_library():
    passage = Passage("It is ok. then we can't go.\nYes.")
    assert (passage.sentence_count("spacy"), passage.sentence_count("punkt")) == (3, 2)
    assert passage.word_count_by("nltk") == len(passage.words_by("nltk")) == len(passage.kinds_by("nltk"))


def test_rules_left_out_would_have_changed_nothing():
    source = random.Random(40)
    of = [*"«“‘„`\"'.,:;@#$%&?!*][(){}<>-»”’ßé9", *PARTED, "'tis", "d'ye", "more'n", "n't", "'ll", "--", "..."]
    for _ in range(20_000):
        inside = "".join(source.choices(of, k=source.randint(1, 6)))
        for text in (inside, f" {inside} "):
            every = rules = text
            for pattern, replacement, _needs in RULES:
                every = pattern.sub(replacement, every)
            for pattern, replacement in rules_for(MARKS.intersection(text)):
                rules = pattern.sub(replacement, rules)
            assert rules == every
