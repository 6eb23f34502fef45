"""The table of rules: each has its threshold in the config, and drops values beyond it but not at it."""

import dataclasses

import numpy as np
import pytest

from data_prep.config import DocumentsConfig, Rule
from data_prep.verdict import thresholds_of
from tests.data_prep.measured import TABLE, THRESHOLDS, verdict_on
from tests.data_prep.pages import demo_config

STEPS = ("gopher_repetition", "gopher_quality", "c4", "fineweb")
CONFIG = demo_config(steps=STEPS)


def at_thresholds(config: DocumentsConfig) -> dict[str, float]:
    """Return values at the thresholds; at the first if a signal has two."""
    values: dict[str, float] = {}
    for stage, rule in THRESHOLDS:
        values.setdefault(rule.signal, float(rule.limit(getattr(config, stage))))
    return values


def test_the_table_is_complete():
    assert len({rule.reason for _, rule in TABLE}) == len(TABLE)
    assert list(dict.fromkeys(stage for stage, _ in TABLE)) == list(STEPS)
    thresholds = [(stage, rule.option, rule.place, rule.signal) for stage, rule in THRESHOLDS]
    assert len(set(thresholds)) == len(THRESHOLDS)
    for _, rule in THRESHOLDS:
        assert rule.option.startswith({"below": "min_", "above": "max_"}[rule.drops])
    for stage in STEPS:  # every threshold of the config has its rule
        section = getattr(CONFIG, stage)
        fields = {field.name for field in dataclasses.fields(section) if not field.metadata.get("measured")}
        fields -= {rule.limit_falls for own, rule in THRESHOLDS if own == stage}
        assert fields == {rule.option for own, rule in THRESHOLDS if own == stage}
        for name in fields:
            value = getattr(section, name)
            places = [rule.place for own, rule in THRESHOLDS if (own, rule.option) == (stage, name)]
            if isinstance(value, tuple):
                assert places == list(range(len(value)))


@pytest.mark.parametrize(("stage", "rule"), THRESHOLDS, ids=[rule.reason for _, rule in THRESHOLDS])
def test_a_value_at_its_threshold_passes_and_a_value_beyond_fails(stage: str, rule: Rule):
    values = at_thresholds(CONFIG)
    assert verdict_on(values, CONFIG) is None
    threshold = float(rule.limit(getattr(CONFIG, stage)))
    beyond = np.nextafter(threshold, -np.inf if rule.drops == "below" else np.inf)
    assert verdict_on({**values, rule.signal: float(beyond)}, CONFIG) == (stage, rule.reason)


@pytest.mark.parametrize("steps", [(), ("c4",), ("gopher_repetition", "fineweb"), (*STEPS, "exact_dedup")])
def test_only_enabled_steps_count(steps):
    config = dataclasses.replace(CONFIG, steps=steps)
    drawn = [one.reason for one in thresholds_of(config) if one.stage != "language"]
    assert drawn == [rule.reason for stage, rule in THRESHOLDS if stage in steps]
    for stage, rule in THRESHOLDS:
        far = -1.0 if rule.drops == "below" else 1e9
        verdict = verdict_on({**at_thresholds(config), rule.signal: far}, config)
        assert (verdict is not None) == (stage in steps)
