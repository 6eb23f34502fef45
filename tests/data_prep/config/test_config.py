"""Configs reject out-of-range values with the bounds."""

import dataclasses

import pytest

from lm.errors import UsageError
from tests.data_prep.pages import demo_config

CONFIG = demo_config()


def changed(section: str, **fields) -> None:
    dataclasses.replace(getattr(CONFIG, section), **fields)


THRESHOLDS = [
    (section, field.name)
    for section in ("gopher_repetition", "gopher_quality", "c4", "fineweb")
    for field in dataclasses.fields(getattr(CONFIG, section))
    if field.type in (int, float) or str(field.type).startswith("tuple[float")
]


@pytest.mark.parametrize(("section", "name"), THRESHOLDS)
def test_a_share_is_at_most_one(section, name):
    value = getattr(getattr(CONFIG, section), name)
    if isinstance(value, float) and value <= 1 and "per_word" not in name:
        changed(section, **{name: 1.0})
        with pytest.raises(UsageError, match=r"is 1\.5; it must be from 0 to 1"):
            changed(section, **{name: 1.5})


@pytest.mark.parametrize(("code", "near"), [("EN", "mean en\\?"), ("english", "GlotLID"), ("", "GlotLID")])
def test_an_unknown_language_is_rejected(code, near):
    with pytest.raises(UsageError, match=rf"has '{code}', which lid.176 does not know.*{near}"):
        changed("language", languages=("de", code))
    changed("language", languages=("de", "zh", "als"))


def test_the_languages_are_those_of_the_model():
    from data_prep.config.language import LANGUAGES
    from data_prep.language import LABEL_PREFIX, model

    labels, _ = model().predict("a", k=1000, threshold=-1.0)
    assert {label.removeprefix(LABEL_PREFIX) for label in labels} == LANGUAGES


@pytest.mark.parametrize("region", ["XX", "us", "USA", ""])
def test_a_country_without_phone_numbers_is_rejected(region):
    with pytest.raises(UsageError, match=f"phone_regions has '{region}'"):
        changed("personal_data", phone_regions=("US", region))
