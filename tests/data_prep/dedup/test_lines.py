"""Lines that occur in several documents are removed from all except the first, as by a plain count."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.config import LineDedupConfig
from data_prep.dedup import lines, partitions, sorted_runs
from data_prep.dedup.lines import remove_lines
from data_prep.dedup.survivors import Survivor
from data_prep.dedup.words import words_of
from tests.data_prep.survivors import after, survivor

LINES = st.sampled_from(
    ["One two three.", "one  TWO three", "Four five six", "Short", "", "7 8 9 漢", "  ", "Ten, ten, ten"]
)
DRAWN = st.lists(
    st.lists(st.tuples(st.lists(LINES, max_size=7), st.integers(1, 3), st.sampled_from("dde")), max_size=4),
    min_size=1,
    max_size=3,
)


def corpus_of(drawn) -> list[list[Survivor]]:
    return [
        [survivor(file, row, "\n".join(text).strip(), day, scope) for row, (text, day, scope) in enumerate(rows)]
        for file, rows in enumerate(drawn)
    ]  # fmt: skip


def units_of(text: str, unit: str) -> list[str]:
    parts = text.split("\n") if unit == "line" else re.split(r"\n(?:\s*\n)+", text)
    return [part for part in parts if words_of(part)]


def spans(text: str, config: LineDedupConfig) -> list[tuple[tuple[str, ...], range]]:
    units = [words_of(unit) for unit in units_of(text, config.unit)]
    found = [
        (tuple(map(" ".join, units[n : n + config.span])), range(n, n + config.span))
        for n in range(len(units) - config.span + 1)
    ]
    return [(span, places) for span, places in found if sum(len(one.split()) for one in span) >= config.min_words]


def left_by_plain_count(corpus: list[list[Survivor]], config: LineDedupConfig) -> dict[str, list[str]]:
    """{id: remaining units}."""
    everything = sorted((one.when, file, one.row, one) for file, rows in enumerate(corpus) for one in rows)
    holders: dict[tuple, list[str]] = {}
    for *_, one in everything:
        for span in dict.fromkeys(span for span, _ in spans(one.text, config)):
            holders.setdefault((one.scope, span), []).append(one.id)
    left = {}
    for *_, one in everything:
        goes = set()
        for span, places in spans(one.text, config):
            ids = holders[one.scope, span]
            if len(ids) > config.max_documents and ids[0] != one.id:
                goes |= {*places}
        left[one.id] = [unit for n, unit in enumerate(units_of(one.text, config.unit)) if n not in goes]
    return left


@pytest.mark.fast_rows
@pytest.mark.parametrize(
    ("unit", "span", "most"), [("line", 1, 1), ("line", 2, 1), ("paragraph", 1, 1), ("line", 1, 2)]
)
@given(drawn=DRAWN)
@settings(max_examples=12, deadline=None)
def test_removed_lines_equal_those_of_a_plain_count(tmp_path_factory, drawn, unit, span, most):
    config = LineDedupConfig(unit=unit, span=span, max_documents=most, max_removed=1.0, min_words_left=0)
    corpus = corpus_of(drawn)
    left = after(remove_lines, corpus, config, tmp_path_factory.mktemp("corpus"))
    strip = lambda units: [unit.strip() for unit in units]
    assert {name: strip(units_of(text, unit)) for name, text in left.items()} == {
        name: strip(units) for name, units in left_by_plain_count(corpus, config).items()
    }


def test_many_small_runs_blocks_and_ranges_give_the_same_result(tmp_path, monkeypatch):
    """Rows of a key are in several blocks; there are many files to gather and many partitions."""
    words = [f"Line number {n} of it" for n in range(12)]
    corpus = [
        [survivor(file, row, "\n".join((words * 4)[file * 3 + row :][:5]), day=file % 3 + 1) for row in range(4)]
        for file in range(9)
    ]  # fmt: skip
    config = LineDedupConfig(max_removed=1.0, min_words_left=0)
    plain = after(remove_lines, corpus, config, tmp_path / "plain")
    monkeypatch.setattr(lines, "ROWS_AT_ONCE", 3)
    monkeypatch.setattr(partitions, "FILES_AT_ONCE", 2)
    monkeypatch.setattr(sorted_runs, "SAMPLE_ROWS", 2)
    assert after(remove_lines, corpus, config, tmp_path / "small") == plain
    assert {name: units_of(text, "line") for name, text in plain.items()} == left_by_plain_count(corpus, config)
    for folder in ("keys", "removed"):
        for suffix in ("runs", "gathered"):
            assert len([*(tmp_path / "small/parts/line_dedup").glob(f"*/{folder}/*.{suffix}")]) >= 3
