"""The table of rules has every threshold; verdicts on many rows equal those of the rules applied to each row."""

import dataclasses
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.config import DocumentsConfig
from data_prep.quality.c4 import C4Filter
from data_prep.verdict import columns_needed, read_measured, thresholds_of, values_of, verdicts
from tests.data_prep.measured import CONFIG, TABLE, TEXT_SCHEMA, THRESHOLDS, random_rows, write_texts

STEPS = ("gopher_repetition", "gopher_quality", "c4", "fineweb")


def one_by_one(row: dict, config: DocumentsConfig) -> tuple[str, str] | None:
    """The verdict on one row by the table of rules."""
    if row["stage"]:
        return row["stage"], row["reason"]
    if row["language_score"] <= config.language.min_score:
        return "language", "low_language_score"
    if config.language.languages and row["language"] not in config.language.languages:
        return "language", "other_language"
    for stage, rule in TABLE:
        value, limit = row[rule.signal], rule.limit(getattr(config, stage))
        if stage not in config.steps or value is None:
            continue
        if {"below": value < limit, "at most": value <= limit, "above": value > limit}[rule.drops]:
            return stage, rule.reason
    return None


@given(seed=st.integers(0, 2**32), steps=st.sets(st.sampled_from(STEPS)), languages=st.sampled_from([(), ("en",)]))
@settings(max_examples=60, deadline=None)
def test_verdicts_equal_those_of_the_rules_row_by_row(seed: int, steps: set[str], languages: tuple[str, ...]):
    language = dataclasses.replace(CONFIG.language, languages=languages)
    config = dataclasses.replace(CONFIG, steps=tuple(s for s in STEPS if s in steps), language=language)
    rows = random_rows(seed, 40)
    table = pa.Table.from_pylist(rows, TEXT_SCHEMA)
    assert verdicts(table, config) == [one_by_one(row, config) for row in rows]


def test_every_stage_and_many_reasons_occur_in_these_rows():
    config = dataclasses.replace(CONFIG, steps=STEPS, c4=dataclasses.replace(CONFIG.get(C4Filter), min_sentences=0))
    table = pa.Table.from_pylist(random_rows(0, 4000), TEXT_SCHEMA)
    found = set(verdicts(table, config))
    assert {verdict[0] for verdict in found if verdict} == {"extract", "language", *STEPS}
    wanted = {(stage, rule.reason) for stage, rule in TABLE if rule.reason != "c4_too_few_sentences"}
    assert found >= {*wanted, None}


def test_verdicts_do_not_depend_on_the_batches_of_a_table():
    table = pa.Table.from_pylist(random_rows(1, 90), TEXT_SCHEMA)
    whole = verdicts(table, CONFIG)
    batches = table.to_batches(max_chunksize=7)
    assert [verdict for batch in batches for verdict in verdicts(batch, CONFIG)] == whole
    assert verdicts(pa.Table.from_batches(batches), CONFIG) == whole
    assert verdicts(table.slice(0, 0), CONFIG) == []


def test_thresholds_have_their_place_in_the_config():
    for threshold in thresholds_of(dataclasses.replace(CONFIG, steps=STEPS)):
        path, _, place = threshold.option.removesuffix("]").partition("[")
        value: Any = CONFIG
        for name in path.split(".")[1:]:
            value = getattr(value, name)
        if isinstance(value, tuple):
            value = value[int(place)]
        assert threshold.value == value


def test_rows_without_a_text_have_no_values():
    rows = random_rows(3, 200)
    values = values_of(pa.Table.from_pylist(rows, TEXT_SCHEMA), thresholds_of(CONFIG))
    for number, row in enumerate(rows):
        for signal, column in values.items():
            expected = None if row["stage"] else row[signal]
            assert (
                column[number] == pytest.approx(expected, nan_ok=True)
                if expected is not None
                else column[number] != (column[number])
            )


def test_measured_rows_are_read_in_order_for_any_row_groups(tmp_path):
    table = write_texts(tmp_path / "a.parquet", random_rows(4, 50), rows_per_group=3)
    columns = columns_needed(CONFIG)
    assert pa.concat_tables(read_measured(tmp_path / "a.parquet", columns)).to_pylist() == (
        table.select(columns).to_pylist()
    )
    write_texts(tmp_path / "none.parquet", [])
    assert list(read_measured(tmp_path / "none.parquet", columns)) == []


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
