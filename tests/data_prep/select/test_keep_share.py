"""FastTextFilter.keep_share: the score that the wanted share of documents reaches, exact for any files and workers."""

import dataclasses
import math
import random
from fractions import Fraction

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.recipes import gristmill as recipe
from data_prep.measure.row import text_schema
from data_prep.prepare import prepare_documents
from data_prep.quality.fasttext import FastTextFilter
from data_prep.select.keep_share import histogram, merge, threshold
from lm.errors import UsageError
from tests.data_prep.measured import plain_row, write_records, write_texts

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


def test_a_share_out_of_range_is_rejected():
    for wrong in (0.0, 1.5, -1.0, float("nan")):
        with pytest.raises(UsageError, match="keep_share"):
            dataclasses.replace(FastTextFilter(0.0, "model.bin", "hq"), keep_share=wrong)


@pytest.mark.parametrize(("keep_share", "files"), [(0.07, 3), (0.5, 1)])
def test_the_best_share_of_documents_that_pass_the_other_rules_is_kept(tmp_path, keep_share, files):
    scored = FastTextFilter(0.0, "not read again", "hq", keep_share)
    config = recipe.documents("demo", recipe.URL_FILTER_WITHOUT_LISTS, scored, measure_other_languages=True)
    config = dataclasses.replace(config, steps=("fasttext",))
    draw, rows = random.Random(1), []
    for number in range(150):
        score = draw.choice([number / 150, 0.25, 0.5, 0.75])  # many are equal
        row = plain_row(f"Text {number}.", f"<urn:{number}>", language="de" if number % 3 == 0 else "en")
        rows.append(row | {"fasttext_score": score})
    for number in range(files):
        write_texts(tmp_path / f"texts/{number}.parquet", rows[number::files], schema=text_schema(config))
    write_records(tmp_path / "texts", len(rows))
    prepare_documents(tmp_path / "texts", config, tmp_path)
    kept = {one for path in (tmp_path / "documents").iterdir() for one in pq.read_table(path)["id"].to_pylist()}
    english = sorted((row for row in rows if row["language"] == "en"), key=lambda row: -row["fasttext_score"])
    lowest = english[math.ceil(Fraction(str(keep_share)) * len(english)) - 1]["fasttext_score"]
    assert kept == {row["id"] for row in english if row["fasttext_score"] >= lowest}
