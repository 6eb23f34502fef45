import re
import string
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.dedup.minhash import hashed_words
from data_prep.extract.hints import hints_of_name
from data_prep.text import words
from data_prep.text.marks import END, LETTER, TERMINAL, kind_of
from data_prep.text.words import Memo, count_sentences, count_words, line_kinds, split
from tests.growth import superlinear

TEXT = st.text(st.sampled_from("abAB1 .,:'’n't-/…#()é\n\t@°") | st.characters(), max_size=60)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The end. Really?!", "The end . Really ? !"),
        ("wait... -- ====", "wait ... -- = = = ="),
        ("don't it’s they're 'quoted'", "do n't it ’s they 're ' quoted '"),
        ("the burn'd house cannot isnt", "the burn'd house can not is nt"),
        ("3.14 12:30 1,000 lm.data.records", "3.14 12:30 1,000 lm.data.records"),
        ("__init__ _", "_ _ init _ _ _"),
        ("well-known a/b and/or 2020-21", "well - known a / b and/or 2020 - 21"),
        ("e.g. Mr. Fox, the U.S., Plan B. And", "e.g. Mr. Fox , the U.S. , Plan B. And"),
        ("(see http://a-b.com/c-d?e=f).", "( see http://a-b.com/c-d?e=f ) ."),
        ("me@a-b.com the end.Next NATO.", "me@a-b.com the end . Next NATO ."),
        ("5km 20% 7pm $5 10€", "5 km 20 % 7 pm $ 5 10 €"),
        ("(so): one", "( so ): one"),
        ("naïve Übung привет", "naïve Übung привет"),
        ("they'd've couldn’t’ve Thats wed", "they 'd 've could n’t ’ve That s we d"),
        ("tell 'em, nothin' goin’ c'mon y'all", "tell 'em , nothin' goin’ c'm on y' all"),
        ("7p.m. (12am) 13pm", "7 p.m. ( 12 am ) 13pm"),
        ("US$5.00, A$5 5m² 20°C.", "US$ 5.00 , A$ 5 5 m² 20 ° C ."),
        ("ok :-) (fun :)) <3.", "ok :-) ( fun :)) <3 ."),
        ("👍🏽. 🥰 ☃! 日.本", "👍 🏽. 🥰 ☃ ! 日 . 本"),
        ("8.8.8.8/a-b a@8.8.8.8 1--2", "8.8.8.8/a-b a@8.8.8.8 1 - -2"),
        ("", ""),
        (" \n\t", ""),
    ],
)
def test_words_equal_those_of_spacy(text, words):
    assert " ".join(split(text)[0]) == words


@given(TEXT)
def test_words_are_the_text_without_white_space(text):
    assert "".join(split(text)[0]) == "".join(text.split())


@given(TEXT, TEXT)
def test_white_space_separates_words(left, right):
    assert split(f"{left} {right}")[0] == split(left)[0] + split(right)[0]


@given(TEXT)
def test_each_word_has_a_kind(text):
    found, kinds = split(text)
    assert kinds == "".join(map(kind_of, found))
    for word, kind in zip(found, kinds, strict=True):
        assert (kind == LETTER) == any(character.isalpha() for character in word)
        assert (kind == END) == (word in TERMINAL)


@pytest.mark.parametrize(
    ("line", "sentences"),
    [
        ("", 1),
        ("no end", 1),
        ("One. Two! Three?", 3),
        ("One?! Two.", 2),
        ('He said "Go." Then he went.', 2),
        ("Mr. Fox, e.g. the one in Plan B. was late", 1),
        ("wait... what", 1),
        ("A cat. ", 1),
        ("A cat.  ", 2),
        ("A cat.\tA dog.", 2),
        ("One.\ttwo", 2),
        ("「一。」 二", 2),
        ("一。二 三", 1),  # written without blanks: the mark is not a separate word
    ],
)
def test_sentences_equal_those_of_spacy(line, sentences):
    assert count_sentences(line_kinds([line])) == sentences


LINE = st.text(st.sampled_from("ab .!?,\t\u00a0"), max_size=30)


@given(st.lists(LINE, min_size=1, max_size=5))
def test_lines_add_up(lines):
    kinds = line_kinds(lines)
    assert count_words(kinds) == sum(len(split(line)[0]) for line in lines)
    assert count_sentences(kinds) == sum(count_sentences(line_kinds([line])) for line in lines)


@given(LINE)
def test_sentences_equal_those_of_a_plain_loop(line):
    """spaCy's rule, token by token: white space beyond one blank after a chunk is a token."""
    tokens = []
    for piece in re.findall(r"\S+ ?|\s+", line):
        tokens += [piece] if piece.isspace() else split(piece)[0]
    count, ended = 1, False
    for token in tokens:
        if token in TERMINAL:
            ended = True
        elif ended and not re.fullmatch(r"[,.!?]+", token):
            count, ended = count + 1, False
    assert count_sentences(line_kinds([line])) == count


def test_a_full_memo_is_cleared_and_gives_the_same_results(monkeypatch):
    monkeypatch.setattr(words, "MEMO_CHARACTERS", 1000)
    memo = Memo(str.upper)
    for number in range(1000):
        assert memo[f"key {number % 300}"] == f"KEY {number % 300}"
        assert len(memo) < 100


@pytest.mark.fast_rows(2)
@pytest.mark.parametrize(
    "look_up",
    [
        hints_of_name,
        lambda word: hashed_words(f"a {word} b"),
        lambda word: hashed_words(f"a {word} b", "fineweb_2024"),
    ],
    ids=["hints", "word hashes", "word hashes of 2024"],
)
def test_caches_keyed_by_page_content_are_bounded_in_bytes(look_up):
    tracemalloc.start()
    try:
        for number in range(40):
            look_up(string.ascii_letters[number] * (500_000 + number))
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 10_000_000  # of 20 MB of keys


@pytest.mark.parametrize(
    "unit",
    ["a", "(", ")", ".", "..)", "a.", "a-", "/a", "a@", "'ll", "n't", "[1", ".A", "5$", "😀", "\0", "a..)", "1.2."],
)
def test_steps_are_linear_in_the_length(unit):
    assert not superlinear(words.split_chunk, lambda size: unit * (size // len(unit)), 1000)
