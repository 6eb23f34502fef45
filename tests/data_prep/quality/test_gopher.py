"""Gopher's counts by a plain loop, and invalid settings; test_datatrove.py covers the rules."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.recipes.gristmill import GOPHER_QUALITY
from data_prep.text.passage import Passage
from lm.errors import UsageError

SIGNALS = [signal.name for signal in GOPHER_QUALITY.signals]


def values(text: str) -> dict[str, float]:
    return dict(zip(SIGNALS, GOPHER_QUALITY.measure(Passage(text)), strict=True))


@given(st.lists(st.sampled_from(["bread", "2026", "•", "‘", ",", "...", "$", ".", "é", "1st", "€"]), min_size=1))
def test_words_and_their_mean_length_by_a_plain_loop(tokens):
    counted = [token for token in tokens if token not in (",", "...", "$", ".")]
    found = values(" ".join(tokens))
    assert found["words"] == len(counted)
    assert found["mean_word_length"] == (sum(map(len, counted)) / len(counted) if counted else 0)
    assert found["words_with_letter"] == sum(token in ("bread", "é", "1st") for token in tokens) / len(tokens)


@pytest.mark.parametrize("impossible", [{"min_words": 10**6}, {"min_mean_word_length": 10.5}, {"min_stop_words": 9}])
def test_unsatisfiable_settings_are_rejected(impossible):
    with pytest.raises(UsageError, match="nothing could pass"):
        dataclasses.replace(GOPHER_QUALITY, **impossible)
