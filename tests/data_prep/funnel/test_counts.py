"""Counts of parts add up to those of the whole and follow their definitions."""

import collections
import itertools
import json
import random

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.funnel import counts as counts_module
from data_prep.funnel.counts import (
    EXAMPLES,
    Counts,
    bin_edges,
    bins_of,
    count_rows,
    empty_counts,
    host,
    merge,
    order_of,
)
from data_prep.verdict import thresholds_of, values_of, verdicts
from tests.data_prep.measured import CONFIG, TEXT_SCHEMA, VALUES, random_rows

THRESHOLDS = thresholds_of(CONFIG)
WHOLE = ("words", "stop_words", "c4_lorem_ipsum", "c4_curly_brackets", "c4_sentences")
"""Integer signals."""


def count(rows: list[dict], file: int = 0, first: int = 0) -> Counts:
    table = pa.Table.from_pylist(rows, TEXT_SCHEMA)
    columns = {name: table[name].to_pylist() for name in ("id", "url", "language", "text_bytes")}
    found, values = verdicts(table, CONFIG), values_of(table, THRESHOLDS)
    return count_rows(columns, values, found, (file, first), THRESHOLDS)


def without_places(counts: Counts) -> Counts:
    """`counts` without file positions in examples, which depend on the files."""
    keyed = {
        kind: {name: [place[0] for place in places] for name, places in counts[kind].items()}
        for kind in ("examples", "near")
    }
    return counts | keyed


@given(seed=st.integers(0, 2**32), cuts=st.lists(st.integers(0, 60), max_size=5), shuffle=st.randoms())
@settings(max_examples=20, deadline=None)
def test_counts_of_parts_add_up_to_those_of_the_file(seed: int, cuts: list[int], shuffle: random.Random):
    rows = random_rows(seed, 60)
    edges = sorted({0, *cuts, len(rows)})
    parts = [count(rows[low:high], first=low) for low, high in itertools.pairwise(edges)]
    shuffle.shuffle(parts)
    assert json.dumps(merge(parts)) == json.dumps(merge([count(rows)]))


@given(seed=st.integers(0, 2**32), files=st.integers(1, 6))
@settings(max_examples=10, deadline=None)
def test_counts_do_not_depend_on_the_number_and_order_of_files(seed: int, files: int):
    rows = random_rows(seed, 60)
    whole = without_places(count(rows))
    parts = [count(rows[file::files], file) for file in range(files)]
    assert without_places(merge(parts)) == merge([]) | whole
    assert merge(parts) == merge(parts[::-1]) == merge([merge(parts[:2]), merge(parts[2:])])


def judged(seed: int, number: int) -> tuple[list[dict], list]:
    """(random rows, the verdict of each)."""
    rows = random_rows(seed, number)
    return rows, verdicts(pa.Table.from_pylist(rows, TEXT_SCHEMA), CONFIG)


def test_counts_equal_those_of_the_rows():
    rows, found = judged(5, 800)
    counts = count(rows)
    tally = collections.Counter(verdict and "/".join(verdict) for verdict in found)
    assert (counts["rows"], counts["kept"][0]) == (800, tally.pop(None))
    assert {name: pair[0] for name, pair in counts["reasons"].items()} == tally
    assert sum(pair[1] for pair in counts["reasons"].values()) + counts["kept"][1] == sum(r["text_bytes"] for r in rows)
    kept = [row for row, verdict in zip(rows, found, strict=True) if verdict is None]
    assert counts["lengths"] == collections.Counter(str(row["text_bytes"].bit_length() - 1) for row in kept)
    assert {name: pair[0] for name, pair in counts["languages"].items()} == collections.Counter(
        row["language"] for row in rows if row["language"]
    )
    assert {name: pair[0] for name, pair in counts["domains"].items()} == collections.Counter(
        host(row["url"]) for row in kept
    )


def test_domains_with_the_most_bytes_are_counted(monkeypatch):
    monkeypatch.setattr(counts_module, "COUNTED_DOMAINS", 2)
    parts = [
        empty_counts() | {"domains": {"a": [1, 5], "b": [2, 6], name: [1, size]}}
        for name, size in (("c", 11), ("d", 20))
    ]
    assert merge(parts)["domains"] == {"b": [4, 12], "d": [1, 20]}


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://www.a.example/x", "a.example"), ("http://A.example:80", "a.example"), ("http://[", ""), ("", ""),
        (None, ""),
    ],
)  # fmt: skip
def test_host(url: str | None, expected: str):
    assert host(url) == expected


def test_each_value_is_counted_in_one_group():
    rows, found = judged(6, 500)
    counts = count(rows)
    for signal in {one.signal for one in THRESHOLDS}:
        mine = {(one.stage, one.reason) for one in THRESHOLDS if one.signal == signal}
        expected = collections.Counter(
            "kept" if verdict is None else "dropped" if verdict in mine else "elsewhere"
            for row, verdict in zip(rows, found, strict=True)
            if row[signal] is not None and row["stage"] is None
        )
        assert {group: sum(bins.values()) for group, bins in counts["values"][signal].items()} == {
            group: expected[group] for group in ("kept", "dropped", "elsewhere")
        }


def test_near_are_the_kept_rows_closest_to_each_threshold():
    rows, found = judged(7, 400)
    counts = count(rows, file=3, first=1000)
    for one in THRESHOLDS:
        distances = sorted(
            (abs(row[one.signal] - one.value), 3, 1000 + number)
            for number, (row, verdict) in enumerate(zip(rows, found, strict=True))
            if verdict is None and row[one.signal] is not None
        )
        assert counts["near"][f"{one.stage}/{one.reason}"] == [list(place) for place in distances[:EXAMPLES]]


def test_examples_are_sampled_by_id():
    rows, found = judged(8, 400)
    examples = count(rows)["examples"]
    orders = {order_of(row["id"]): number for number, row in enumerate(rows)}
    for name, places in examples.items():
        mine = [order for order, n in orders.items() if "/".join(found[n] or ("kept",)) == name]
        assert places == [[order, 0, orders[order]] for order in sorted(mine)[:EXAMPLES]]
    assert {"kept", "extract/no_text"} <= examples.keys()


@given(st.sampled_from(VALUES), st.integers(0, 10**7), st.floats(0, 20))
def test_a_value_is_in_its_bin(signal: str, whole: int, share: float):
    value = float(whole) if signal in WHOLE else share
    (number,) = bins_of(signal, np.array([value])).tolist()
    low, high = bin_edges(signal, int(number))
    assert low - 1e-8 <= value < high + 1e-8
    if signal in WHOLE:
        assert (low, high) == (int(low), int(high))
        assert low <= value < high
        assert high - low <= max(1, value / 8)


@pytest.mark.parametrize("one", thresholds_of(CONFIG), ids=lambda one: one.reason)
def test_finewebs_thresholds_are_bin_edges(one):
    """So no column of a chart has both kept and dropped values, except values at the threshold."""
    if one.reason == "gopher_long_document":
        return
    (number,) = bins_of(one.signal, np.array([one.value])).tolist()
    assert bin_edges(one.signal, int(number))[0] == pytest.approx(one.value)
