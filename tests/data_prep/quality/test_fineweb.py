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


@given(st.text(st.sampled_from("\n \t"), max_size=10))
def test_blank_texts_do_not_divide_by_zero(text):
    assert values(text) == dict.fromkeys(SIGNALS, 0.0)
