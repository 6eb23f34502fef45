"""FastTextFilter.keep_share: the score that the wanted share of documents reaches, exact for any files and workers."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.quality.fasttext import FastTextFilter
from data_prep.select.keep_share import histogram, merge, threshold
from lm.errors import UsageError

SCORES = st.lists(st.integers(0, 10**6).map(lambda millionths: millionths / 10**6), max_size=30)


@given(SCORES, st.integers(1, 1000))
def test_the_lowest_score_keeps_at_least_the_share_and_no_more_than_equal_scores_need(scores, thousandths):
    lowest, wanted = threshold(histogram(np.array(scores)), thousandths / 1000), thousandths * len(scores) / 1000
    assert sum(score >= lowest for score in scores) >= math.ceil(wanted)
    assert sum(score > lowest for score in scores) < wanted or not scores
    assert lowest in scores or not scores


def test_a_share_is_an_exact_decimal():
    scores = np.arange(100) / 100
    for keep_share, kept in ((0.07, 7), (0.29, 29), (1.0, 100), (0.001, 1)):  # as floats 0.07 * 100 is above 7
        assert sum(scores >= threshold(histogram(scores), keep_share)) == kept
    assert threshold(histogram(np.empty(0)), 0.5) == threshold(merge([]), 0.5) == 0.0


@settings(max_examples=10)  # a merge counts over all possible scores
@given(st.lists(SCORES, max_size=5), st.randoms())
def test_histograms_add_up_in_any_order_and_grouping(files, generator):
    whole = histogram(np.array([score for file in files for score in file]))
    counted = [histogram(np.array(file)) for file in files]
    generator.shuffle(counted)
    cut = len(counted) // 2
    assert np.array_equal(merge(counted), whole)
    assert np.array_equal(merge([merge(counted[:cut]), merge(counted[cut:])]), whole)


def test_a_share_out_of_range_is_rejected():
    for wrong in (0.0, 1.5, -1.0, float("nan")):
        with pytest.raises(UsageError, match="keep_share"):
            dataclasses.replace(FastTextFilter(0.0, "model.bin", "hq"), keep_share=wrong)
