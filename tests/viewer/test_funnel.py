"""The funnel: counts as in funnel.json, an explanation of every rule, and distributions of all documents."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_prep.funnel.counts import bin_edges, bins_of
from data_prep.funnel.report import FUNNEL, read_counts
from data_prep.verdict import LANGUAGE_SCORE, Threshold, thresholds_of
from tests.data_prep.measured import CONFIG, VALUES, prose
from tests.launch.run_folder import Rejection, make_document, recorded_in, write_funnel_of
from tests.launch.test_report import HOSTILE
from viewer.explanations import reason_sentence, signal_words, stage_words
from viewer.funnel import Columns, columns_of, funnel_answer, measured, preview_html
from viewer.page import key_of

KEPT = [make_document(i, prose(i)) for i in range(25)]
DROPPED = [
    *(Rejection(make_document(100 + i, "Too short."), "gopher_quality", "gopher_short_document") for i in range(4)),
    *(
        Rejection(make_document(200 + i, "Es war einmal.", language="de"), "language", "other_language")
        for i in range(3)
    ),
    Rejection(make_document(300, "", language=""), "extract", "no_text"),
    Rejection(make_document(400, prose(0)), "exact_dedup", "exact_duplicate"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    write_funnel_of(folder, KEPT, DROPPED, CONFIG)
    return folder


def answer_of(folder: Path) -> dict[str, Any]:
    return json.loads(json.dumps(funnel_answer(read_counts(folder / FUNNEL), CONFIG), allow_nan=False))


def test_stages_have_entered_and_dropped_counts_by_reason(folder: Path):
    answer = answer_of(folder)
    assert (answer["pages"], answer["kept"]) == (len(KEPT) + len(DROPPED), len(KEPT))
    entered = answer["pages"]
    for stage in answer["stages"]:
        assert stage["entered"] == entered
        assert stage["dropped"] == sum(reason["documents"] for reason in stage["reasons"])
        assert stage["bytes"] == sum(reason["bytes"] for reason in stage["reasons"])
        entered -= stage["dropped"]
    assert entered == answer["kept"]
    reasons = {one["name"]: one["documents"] for stage in answer["stages"] for one in stage["reasons"]}
    assert reasons == {"extract/no_text": 1, "language/other_language": 3, "gopher_quality/gopher_short_document": 4,
                       "exact_dedup/exact_duplicate": 1}  # fmt: skip
    assert answer["skipped"] == {"not_a_response": 1000, "not_html": 100}
    assert sum(count for _, _, count in answer["lengths"]) == answer["kept"]
    assert {name: documents for name, documents, _ in answer["languages"]} == {"en": len(KEPT) + 5, "de": 3}
    assert sum(documents for _, documents, _ in answer["domains"]) == answer["kept"]


def test_every_threshold_has_its_option_explanation_and_signal(folder: Path):
    answer = answer_of(folder)
    lines = [(one["stage"], one["reason"], one["option"], one["value"]) for one in answer["thresholds"]]
    assert lines == [(one.stage, one.reason, one.option, one.value) for one in thresholds_of(CONFIG)]
    assert {one["signal"] for one in answer["signals"]} == {one["signal"] for one in answer["thresholds"]}
    assert all(one["title"] and one["sentence"] for one in (*answer["thresholds"], *answer["signals"]))
    for one in answer["signals"]:
        assert sum(map(sum, one["counts"])) <= answer["pages"] and len(one["lines"]) >= 1


def test_everything_is_explained():
    words = [*map(signal_words, (*VALUES, LANGUAGE_SCORE)), *map(stage_words, CONFIG.stages)]
    assert all(name and (sentence.endswith((".", "…", ")")) or ":" in sentence) for name, sentence in words)
    assert reason_sentence("c4", "c4_no_lines") == "C4's line rules removed every line."
    assert reason_sentence("extract", "html_too_many_elements") == stage_words("extract")[1]  # no sentence of its own


@pytest.mark.parametrize(("kept", "dropped"), [(KEPT, []), ([], DROPPED), (KEPT[:1], DROPPED[:1])])
def test_an_incomplete_funnel(tmp_path: Path, kept: list, dropped: list):
    write_funnel_of(tmp_path, kept, dropped, CONFIG)
    answer = answer_of(tmp_path)
    assert (answer["kept"], len(answer["stages"])) == (len(kept), len({one.stage for one in dropped}))


def test_a_preview_has_examples_of_every_reason_and_documents_near_its_threshold(folder: Path, tmp_path: Path):
    (tmp_path / "page.html").write_text(preview_html(folder / FUNNEL, folder / "texts", CONFIG, "mill", ["now 20"]))
    recorded = recorded_in(tmp_path / "page.html")
    assert recorded["pages"] == ["data"] and recorded["model{}"] == {"name": "mill"}
    assert recorded["funnel{}"] == answer_of(folder) | {"preview": True, "changes": ["now 20"]}
    for stage in recorded["funnel{}"]["stages"]:
        for reason in stage["reasons"]:
            found = recorded[key_of("documents", {"reason": reason["name"], "limit": 5})]["documents"]
            assert len(found) == min(5, reason["documents"])
    short = "gopher_quality/gopher_short_document"
    (one, *_) = recorded[key_of("documents", {"reason": short, "limit": 5})]["documents"]
    assert (one["beginning"], one["value"]) == ("Too short.", 2)
    near = recorded[key_of("beside", {"reason": short})]["documents"]
    assert len(near) == 10 and all(one["value"] >= 50 for one in near)


def test_a_hostile_corpus_is_shown_as_text_in_a_preview(tmp_path: Path):
    kept = [
        make_document(i, HOSTILE + prose(i), url=f"https://evil.example/{HOSTILE}", language=HOSTILE) for i in (1, 2)
    ]
    dropped = [Rejection(make_document(9, HOSTILE + "\ufeff\u202e"), HOSTILE.replace("/", ""), HOSTILE)]
    write_funnel_of(tmp_path, kept, dropped, CONFIG)
    html = preview_html(tmp_path / FUNNEL, tmp_path / "texts", CONFIG, HOSTILE, None)
    (tmp_path / "page.html").write_text(html)
    assert HOSTILE not in html and html.count("</script>") == 2
    assert recorded_in(tmp_path / "page.html")["model{}"]["name"] == HOSTILE


@pytest.mark.parametrize(
    ("drops", "dropped"),
    [("below", [True, False, False]), ("at most", [True, True, False]), ("above", [False, False, True]),
     ("at least", [False, True, True])],
)  # fmt: skip
def test_sides_of_a_threshold(drops: Any, dropped: list[bool]):
    line = Threshold("s", "r", "words", drops, 5.0, "o")
    assert [measured([line], {"words": value}, "")[0][2] for value in (4, 5, 6)] == dropped


def columns(signal: str, bins: list[tuple], *lines: tuple[Any, float]) -> Columns:
    """Columns of bins given as (low, high, kept, dropped, dropped by other rules)."""
    thresholds = [Threshold("s", f"r{i}", signal, drops, at, "o") for i, (drops, at) in enumerate(lines)]
    groups: dict[str, dict[str, int]] = {"kept": {}, "dropped": {}, "elsewhere": {}}
    for low, high, *counts in bins:
        number = int(bins_of(signal, np.array([low]))[0])
        assert bin_edges(signal, number) == pytest.approx((low, high))
        for group, count in zip(groups, counts, strict=True):
            groups[group][str(number)] = count
    return columns_of(signal, thresholds, groups)


def test_columns_count_every_document_and_thresholds_are_at_an_edge():
    bins = [(n * 0.005, (n + 1) * 0.005, 100 - n % 7, 0, 3) for n in range(60)]
    bins += [(n * 0.005, (n + 1) * 0.005, 0, 2, 1) for n in range(60, 180)] + [(40.0, 40.005, 0, 1, 0)]
    found = columns("short_lines", bins, ("above", 0.3))
    assert [sum(c) for c in zip(*found.counts, strict=True)] == [sum(b[i] for b in bins) for i in (2, 3, 4)]
    assert any(abs(edge - 0.3) < 1e-9 for edge in found.edges)
    assert found.edges == sorted(found.edges) and len(found.edges) == len(found.counts) + 1 < 90
    line = next(i for i, edge in enumerate(found.edges) if abs(edge - 0.3) < 1e-9)
    assert all(not counts[1] for counts in found.counts[:line])
    assert all(not counts[0] for counts in found.counts[line:])
    assert found.edges[-1] < 1 and found.above and found.highest == 40.005  # an outlier does not squeeze the others


@pytest.mark.parametrize(
    ("signal", "bins", "lines"),
    [
        ("words", [(0.0, 1.0, 1, 2, 3), (5.0, 6.0, 4, 0, 0), (92682.0, 101071.0, 1, 1, 1)],
         [("below", 50), ("above", 100_000)]),
        ("words", [], [("below", 50), ("above", 100_000)]),
        ("c4_sentences", [(1.0, 2.0, 5, 0, 0)], [("below", 0)]),
        ("stop_words", [(0.0, 1.0, 0, 4, 0), (8.0, 9.0, 4, 0, 0)], [("below", 2)]),
        ("c4_lorem_ipsum", [(0.0, 1.0, 9, 0, 0)], [("above", 0)]),
        ("c4_lorem_ipsum", [(0.0, 1.0, 9, 0, 0), (900.0, 901.0, 0, 9, 0)], [("above", 0)]),
        ("short_lines", [], [("above", 0.67)]),
        ("words_with_letter", [(0.995, 1.0, 3, 0, 0), (1.0, 1.005, 900, 0, 0)], [("below", 0.8)]),
        ("language_score", [(0.5, 0.505, 0, 9, 0)], [("at most", 0.0)]),
        ("language_score", [(0.5, 0.505, 0, 9, 0)], [("at most", 1.0)]),
        ("mean_word_length", [(4.9, 5.0, 10**7, 0, 0), (10.1, 10.2, 0, 1, 0)], [("below", 3), ("above", 10)]),
    ],
)  # fmt: skip
def test_extreme_distributions_are_drawn(signal: str, bins: list, lines: list):
    found = columns(signal, bins, *lines)
    assert sum(map(sum, found.counts)) == sum(sum(b[2:]) for b in bins)
    assert found.edges[0] >= 0 and len(found.edges) >= 2
    assert found.edges == sorted(found.edges) and all(map(math.isfinite, found.edges))
    assert all(found.edges[0] <= line <= found.edges[-1] for line in found.lines)


def test_the_largest_integer_is_shown_and_a_column_with_larger_values_says_so():
    bins = [(0.0, 1.0, 980, 0, 0), (1.0, 2.0, 0, 6, 7), (2.0, 3.0, 0, 9, 3), (51.0, 52.0, 0, 0, 1)]
    found = columns("c4_curly_brackets", bins, ("above", 0))
    assert found.highest == 51 and found.above == 13
    assert columns("words", [(59.0, 64.0, 1, 0, 0)], ("below", 50)).highest == 63


def test_a_threshold_off_the_grid_hides_nothing_below_the_first_column():
    bins = [(n * 0.005, (n + 1) * 0.005, 9, 0, 0) for n in range(134)]
    found = columns("short_lines", bins, ("above", 0.67))  # 0.67 is no multiple of three bins
    assert found.edges[0] == 0 and found.below == 0
    assert any(abs(edge - 0.67) < 1e-9 for edge in found.edges)
