import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.recipes.gristmill import FINEWEB
from data_prep.quality.fineweb import FineWebFilter
from data_prep.text.passage import Passage

SIGNALS = [signal.name for signal in FineWebFilter.signals]


def values(text: str) -> dict[str, float]:
    return dict(zip(SIGNALS, FINEWEB.measure(Passage(text)), strict=True))


@pytest.mark.parametrize("mark", [".", "!", "?", "…", "。", "।", "؟", "։", "‽", ":", '"', ". "])
def test_terminal_punctuation(mark):
    ends = mark in ".!?。।؟։‽"
    assert values(f"no end here\n \nan end{mark}")["terminal_punctuation_lines"] == ends / 2


def test_a_line_of_thirty_characters_is_short():
    assert values("x" * 30 + "\n\n" + "y" * 31)["short_lines"] == 0.5


def test_characters_of_lines_that_stood_before():
    assert values("abc\nabc\nde\nabc")["fineweb_duplicate_line_characters"] == 6 / 11


def test_newlines_per_word():
    assert values("one\n\ntwo three four")["newlines_per_word"] == 0.5


@given(st.text(st.sampled_from("\n \t"), max_size=10))
def test_blank_texts_divide_by_nothing(text):
    assert values(text) == dict.fromkeys(SIGNALS, 0.0)
