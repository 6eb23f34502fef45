"""The funnel's page: whole, self-contained, harmless whatever the corpus holds, and every rule on it explained."""

import base64
import dataclasses
import hashlib
import re
from pathlib import Path
from typing import Any

import lxml.html
import pytest

from data_prep.funnel.report import FUNNEL, ClusterBin, Distribution, Funnel, ValueBin, read_funnel
from data_prep.pii import FINDERS
from data_prep.verdict import LANGUAGE_SCORE, Threshold, thresholds_of
from tests.data_prep.measured import CONFIG, VALUES, prose
from tests.launch.run_folder import Rejection, make_document, write_funnel_of
from tests.launch.test_report import HOSTILE
from viewer.explanations import PERSONAL_DATA, reason_sentence, signal_words, stage_name, stage_words
from viewer.formats import count, size
from viewer.report.distributions import columns_of, distribution_chart, round_numbers
from viewer.report.funnel_page import anchor, render

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


def funnel_of(folder: Path, kept=KEPT, dropped=DROPPED) -> Funnel:
    write_funnel_of(folder, kept, dropped, CONFIG)
    return read_funnel(folder / FUNNEL, folder / "texts", CONFIG)


@pytest.fixture(scope="module")
def funnel(tmp_path_factory) -> Funnel:
    return funnel_of(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def page(funnel: Funnel) -> lxml.html.HtmlElement:
    return lxml.html.document_fromstring(render(funnel, "mill", "A note.", back="index.html"))


def test_it_loads_nothing_and_runs_its_own_script_alone(page):
    assert not page.xpath("//@src | //link | //img | //iframe | //object | //embed | //form | //base")
    assert not page.xpath("//@*[starts-with(name(), 'on')]")
    assert not re.search(r"@import|url\(", lxml.html.tostring(page, encoding="unicode"))
    (policy,) = page.xpath("//meta[@http-equiv='Content-Security-Policy']/@content")
    (script,) = page.xpath("//script")
    digest = base64.b64encode(hashlib.sha256(script.text.encode()).digest()).decode()
    assert policy.startswith("default-src 'none'") and f"script-src 'sha256-{digest}'" in policy


def test_ids_are_unique_and_links_resolve(page):
    ids = page.xpath("//@id")
    assert len(ids) == len(set(ids))
    hrefs = page.xpath("//@href")
    assert {href for href in hrefs if not href.startswith("#")} == {"index.html"}
    assert {href[1:] for href in hrefs if href.startswith("#")} <= set(ids)


def test_every_rule_stands_there_with_its_line_and_its_count(page, funnel: Funnel):
    for one in thresholds_of(CONFIG, None):
        (details,) = page.xpath("//details[@id=$id]", id=anchor(one.stage, one.reason))
        text = " ".join(details.text_content().split())
        assert one.reason in text and one.option in text
    assert len(page.xpath("//div[@class='rule']")) == len({one.signal for one in thresholds_of(CONFIG, None)})
    (short,) = page.xpath("//details[@id='gopher_quality-gopher_short_document']")
    assert " ".join(short.xpath("summary")[0].text_content().split()).startswith("Below 50: 4 dropped (")
    assert len(short.xpath(".//blockquote")) == 4 + 10
    for reason in funnel.reasons:
        assert page.xpath("//details[@id=$id]", id=anchor(reason.stage, reason.reason))


def test_rules_that_dropped_nothing_are_folded_away_behind_those_that_did(page, funnel: Funnel):
    dropping = {reason.threshold.signal for reason in funnel.reasons if reason.threshold}
    folded = page.xpath("//details[contains(@class, 'more-examples')]//div[@class='rule']")
    open_ones = page.xpath("//div[@class='rule'][not(ancestor::details)]")
    assert len(open_ones) == len(dropping) == 1  # "words", by gopher_short_document
    assert len(folded) == len({one.signal for one in thresholds_of(CONFIG, None)}) - 1
    for rules in page.xpath("//details[contains(@class, 'more-examples')]/div[@class='rules']"):
        assert rules.xpath("../preceding-sibling::div[@class='rules']")


def test_stages_are_told_with_what_they_dropped_in_documents_and_bytes(page, funnel):
    (table,) = page.xpath("//table[caption[starts-with(., 'What came to each stage')]]")
    rows = [[cell.text_content() for cell in row.xpath("th|td")] for row in table.xpath("tbody/tr")]
    sizes = [size(one.dropped_bytes) if one.dropped_bytes else "–" for one in funnel.stages]
    told = [(stage_name(one.stage), count(one.entered), count(one.dropped)) for one in funnel.stages]
    assert rows == [[*row, dropped] for row, dropped in zip(told, sizes, strict=True)]
    assert sum(one.dropped_bytes for one in funnel.stages) == sum(reason.text_bytes for reason in funnel.reasons) > 0


def test_records_that_are_no_pages_are_told(page, funnel: Funnel):
    (pages_in,) = page.xpath("//dl/div[dt='pages in']")
    told = f"of {funnel.pages_read + 1100:,} records; 1,000 not a response, 100 not html"
    assert " ".join(pages_in.text_content().split()).endswith(told)


def test_everything_is_explained():
    words = [*map(signal_words, (*VALUES, LANGUAGE_SCORE)), *map(stage_words, CONFIG.stages)]
    assert all(name and (sentence.endswith((".", "…")) or ":" in sentence) for name, sentence in words)
    assert {*FINDERS} == PERSONAL_DATA.keys()
    assert reason_sentence("c4", "c4_no_lines") == "C4's rules on lines left none."
    assert reason_sentence("extract", "html_too_many_elements") == stage_words("extract")[1]  # no sentence of its own


def test_every_chart_has_a_text_and_no_colour_of_its_own(page):
    drawings = page.xpath("//svg[contains(@class, 'marks')]")
    assert len(drawings) == len({one.signal for one in thresholds_of(CONFIG, None)}) + 2 * 2  # the funnel and lengths
    for svg in drawings:
        assert svg.get("role") == "img" and len(svg.get("aria-label")) > 20
        colours = {c for c in svg.xpath(".//@fill | .//@stroke") if c not in ("none", "transparent")}
        assert all(colour.startswith("var(--") for colour in colours), colours


def test_a_hostile_corpus_runs_nothing(tmp_path: Path):
    address = f'https://evil.example/"><script>{HOSTILE}'
    kept = [make_document(i, HOSTILE + prose(i), url=address, language=HOSTILE) for i in range(3)]
    dropped = [
        Rejection(make_document(9, HOSTILE + "\ufeff\u202e", url=address), HOSTILE.replace("/", ""), HOSTILE),
        Rejection(make_document(10, HOSTILE), "gopher_quality", "gopher_short_document"),
    ]
    html = render(funnel_of(tmp_path, kept, dropped), HOSTILE, HOSTILE)
    page = lxml.html.document_fromstring(html)
    assert not page.xpath("//img | //@*[starts-with(name(), 'on')]")
    assert len(page.xpath("//style")) == len(page.xpath("//script")) == 1
    assert all(href.startswith("#") for href in page.xpath("//@href"))
    assert any(HOSTILE in "".join(text.itertext()) for text in page.xpath("//blockquote"))  # shown, letter by letter
    assert "\u202e" not in html
    ids = page.xpath("//@id")
    assert len(ids) == len(set(ids)) and all(re.fullmatch(r"[\w.-]+", one) for one in ids)


@pytest.mark.parametrize(("kept", "dropped"), [(KEPT, []), ([], DROPPED), (KEPT[:1], DROPPED[:1])])
def test_a_funnel_that_lacks_parts(tmp_path: Path, kept: list, dropped: list):
    page = lxml.html.document_fromstring(render(funnel_of(tmp_path, kept, dropped), "mill", "A note."))
    assert len(page.xpath("//section")) == 5
    assert not page.xpath("//@href[not(starts-with(., '#'))]")


def test_without_rules_it_says_so(funnel: Funnel):
    html = render(dataclasses.replace(funnel, distributions=()), "mill", "A note.")
    assert "No rule with a threshold was used." in html


def test_what_was_moved_stands_on_the_page_that_is_redrawn(funnel: Funnel):
    moved = "  documents.gopher_quality.min_words: 50 in the run, now 20  (gopher_short_document)"
    redrawn, unmoved = (
        lxml.html.document_fromstring(render(funnel, "mill", "A note.", changes=c)) for c in ([moved], [])
    )
    assert redrawn.xpath("//header//li/code/text()") == [moved.strip()]
    assert "the run's own" in unmoved.xpath("string(//header)")
    assert all("redrawn" in one.xpath("string(//title)") for one in (redrawn, unmoved))


def test_the_text_that_was_kept_is_told_as_extracted_and_as_written(page, funnel: Funnel):
    kept, written = page.xpath("//tfoot/tr")
    assert kept.xpath("string(td[last()])") == size(sum(len(one.text.encode()) for one in KEPT))
    assert written.xpath("string(td[last()])") == size(funnel.clean_text_bytes)


def test_the_same_funnel_gives_the_same_page(funnel: Funnel):
    assert render(funnel, "mill", "A note.") == render(funnel, "mill", "A note.")


def distribution(signal: str, bins: list[tuple], *lines: tuple[Any, float]) -> Distribution:
    thresholds = tuple(Threshold("s", f"r{i}", signal, drops, at, "o") for i, (drops, at) in enumerate(lines))
    return Distribution(signal, thresholds, tuple(ValueBin(*one) for one in bins), ((),) * len(lines))


def test_columns_hold_every_document_and_a_line_stands_at_an_edge():
    bins = [(n * 0.005, (n + 1) * 0.005, 100 - n % 7, 0, 3) for n in range(60)]
    bins += [(n * 0.005, (n + 1) * 0.005, 0, 2, 1) for n in range(60, 180)] + [(40.0, 40.005, 0, 1, 0)]
    one = distribution("short_lines", bins, ("above", 0.3))
    columns = columns_of(one)
    assert [sum(c) for c in zip(*columns.counts, strict=True)] == [sum(b[i] for b in bins) for i in (2, 3, 4)]
    assert any(abs(edge - 0.3) < 1e-9 for edge in columns.edges)
    assert columns.edges == sorted(columns.edges) and len(columns.edges) == len(columns.counts) + 1 < 90
    line = next(i for i, edge in enumerate(columns.edges) if abs(edge - 0.3) < 1e-9)
    assert all(not counts[1] for counts in columns.counts[:line])
    assert all(not counts[0] for counts in columns.counts[line:])
    assert (
        columns.edges[-1] < 1 and columns.above and columns.highest == 40.005
    )  # one far out does not squeeze the rest


@pytest.mark.parametrize(
    ("signal", "bins", "lines"),
    [
        ("words", [(0.0, 1.0, 1, 2, 3), (5.0, 6.0, 4, 0, 0), (92682.0, 101073.0, 1, 1, 1)],
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
    one = distribution(signal, bins, *lines)
    columns = columns_of(one)
    assert sum(map(sum, columns.counts)) == sum(sum(b[2:]) for b in bins)
    assert columns.edges[0] >= 0 and len(columns.edges) >= 2
    svg = distribution_chart(one, columns, "A chart.").drawings[0].svg
    assert "NaN" not in svg and "Infinity" not in svg
    assert len(re.findall("[←→]", svg)) >= len(lines)


def test_the_largest_whole_number_is_told_and_the_column_that_holds_more_says_so():
    bins = [(0.0, 1.0, 980, 0, 0), (1.0, 2.0, 0, 6, 7), (2.0, 3.0, 0, 9, 3), (51.0, 52.0, 0, 0, 1)]
    one = distribution("c4_curly_brackets", bins, ("above", 0))
    columns = columns_of(one)
    assert columns.highest == 51 and columns.above == 13
    assert ">1+<" in distribution_chart(one, columns, "A chart.").drawings[0].svg
    assert columns_of(distribution("words", [(60.0, 66.0, 1, 0, 0)], ("below", 50))).highest == 65


def test_a_line_off_the_grid_hides_nothing_below_the_first_column():
    bins = [(n * 0.005, (n + 1) * 0.005, 9, 0, 0) for n in range(134)]
    columns = columns_of(distribution("short_lines", bins, ("above", 0.67)))  # 0.67 is no multiple of three bins
    assert columns.edges[0] == 0 and columns.below == 0
    assert any(abs(edge - 0.67) < 1e-9 for edge in columns.edges)


def test_numbers_on_the_axis_are_round_and_apart():
    assert round_numbers(1) == [0, 1]
    assert round_numbers(1300) == [0, 200, 1000]
    assert all(len(round_numbers(10**power)) <= 5 for power in range(9))


def test_the_sizes_of_clusters_are_told_where_they_were_asked_for(funnel: Funnel, page):
    heads = lambda page: [row.text_content() for row in page.xpath("//table[contains(caption, 'cluster')]//tbody/tr")]
    assert heads(page) == []
    bins = (ClusterBin(1, 2, 7, 7), ClusterBin(5, 10, 2, 13), ClusterBin(1000, None, 1, 4321))
    drawn = render(dataclasses.replace(funnel, clusters=bins), "mill", "A note.")
    assert heads(lxml.html.document_fromstring(drawn)) == ["177", "5 to 9213", "1,000 or more14,321"]
