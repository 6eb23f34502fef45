import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.words import is_symbol, split_words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The end. Really?!", ["The", "end", ".", "Really", "?", "!"]),
        ("wait... -- ====", ["wait", "...", "--", "===="]),
        ("don't it’s 'quoted'", ["don", "'t", "it", "’s", "'", "quoted", "'"]),
        ("3.14 12:30 1,000 lm.records __init__ _ __", ["3.14", "12:30", "1,000", "lm.records", "__init__", "_", "__"]),
        ("well-known a/b", ["well", "-", "known", "a", "/", "b"]),
        ("naïve Übung привет", ["naïve", "Übung", "привет"]),
        ("", []),
        (" \n\t", []),
    ],
)
def test_split(text, words):
    assert list(split_words(text)) == words


@given(st.text())
def test_words_hold_all_that_is_not_white_space(text):
    assert "".join(split_words(text)) == "".join(text.split()) or any(c.isspace() for w in split_words(text) for c in w)


@given(st.text())
def test_symbols_hold_no_letter_and_no_digit(text):
    for word in split_words(text):
        assert is_symbol(word) == (not any(character.isalnum() for character in word))


def test_split_once_a_document():
    text = "one text " * 10
    assert split_words(text) is split_words(text)
