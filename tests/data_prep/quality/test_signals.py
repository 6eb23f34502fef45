import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.config import DocumentsConfig
from data_prep.measure.row import measure
from data_prep.quality.c4 import C4Filter, clean
from tests.data_prep.measured import TABLE, VALUES
from tests.data_prep.pages import PROSE, demo_config

CONFIG = demo_config(steps=("gopher_repetition", "gopher_quality", "c4", "fineweb"))
WITHOUT_C4 = dataclasses.replace(CONFIG, steps=("gopher_quality", "fineweb"))
TEXT = f"{PROSE}\nTwo words\n{PROSE} [1]\nshort line here\nWe use cookies. - 12 # …"
FINEWEB_VALUES = VALUES[-4:]


def test_names_and_order():
    assert list(measure(TEXT, CONFIG)) == list(VALUES)
    assert len(set(VALUES)) == len(VALUES)
    assert set(VALUES) == {rule.signal for _, rule in TABLE}


@given(st.text(min_size=1, max_size=200) | st.text(st.sampled_from("\n #-…."), min_size=1))
def test_every_text_has_every_value(text):
    for config in (CONFIG, WITHOUT_C4):
        values = measure(text, config)
        assert all(type(value) is float and 0 <= value < float("inf") for value in values.values())


def changed(config: DocumentsConfig, section: str, **changes) -> DocumentsConfig:
    return dataclasses.replace(config, **{section: dataclasses.replace(getattr(config, section), **changes)})


def lower(value):
    return tuple(one / 2 for one in value) if isinstance(value, tuple) else type(value)(value / 2)


@pytest.mark.parametrize("section", ["gopher_repetition", "gopher_quality", "c4", "fineweb"])
def test_thresholds_do_not_affect_measurements(section):
    for field in dataclasses.fields(getattr(CONFIG, section)):
        if not field.metadata.get("measured"):
            value = getattr(getattr(CONFIG, section), field.name)
            assert measure(TEXT, changed(CONFIG, section, **{field.name: lower(value)})) == measure(TEXT, CONFIG)


def test_other_settings_do_not_affect_measurements():
    other = dataclasses.replace(WITHOUT_C4, dump="other", steps=("gopher_repetition", "fineweb", "exact_dedup"))
    assert measure(TEXT, other) == measure(TEXT, WITHOUT_C4)


@pytest.mark.parametrize(
    ("section", "changes", "signal"),
    [
        ("gopher_quality", {"stop_words": ("miller", "baker", "never")}, "stop_words"),
        ("c4", {"remove_citations": False}, "newlines_per_word"),
        ("c4", {"min_words_per_line": 1}, "c4_sentences"),
        ("c4", {"max_word_length": 5}, "c4_sentences"),
        ("c4", {"policy_phrases": ()}, "c4_sentences"),
        ("c4", {"script_phrases": ("miller",)}, "c4_sentences"),
        ("fineweb", {"short_line_length": 10}, "short_lines"),
    ],
)
def test_measured_fields_affect_measurements(section, changes, signal):
    fields = {field.name: field for field in dataclasses.fields(getattr(CONFIG, section))}
    assert all(fields[name].metadata.get("measured") for name in changes)
    assert measure(TEXT, changed(CONFIG, section, **changes))[signal] != measure(TEXT, CONFIG)[signal]


def test_finewebs_values_are_measured_after_c4():
    cleaned = clean(TEXT, CONFIG.get(C4Filter)).text
    with_c4, without, of_cleaned = measure(TEXT, CONFIG), measure(TEXT, WITHOUT_C4), measure(cleaned, WITHOUT_C4)
    assert [with_c4[signal] for signal in FINEWEB_VALUES] == [of_cleaned[signal] for signal in FINEWEB_VALUES]
    assert with_c4["short_lines"] != without["short_lines"]
    assert all(with_c4[signal] == without[signal] for signal in VALUES[:-4])
