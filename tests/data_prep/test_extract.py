import dataclasses
import itertools
import re
import time

import pytest

from data_prep import extract
from data_prep.config import ExtractConfig
from data_prep.extract import depth_of, engine, extract_text, normalise
from lm.errors import UsageError
from tests.data_prep.pages import GERMAN, PROSE, html, page

CONFIG = ExtractConfig(
    engine="trafilatura", favor_precision=True, include_tables=True, max_bytes=1_000_000, max_depth=255
)


def nested(levels: int) -> bytes:
    """A page of that many nested <div>, with text behind them."""
    return html("<div>" * levels + PROSE + "</div>" * levels, PROSE.replace("miller", "baker"))


def test_main_text_without_navigation():
    body = html(PROSE, GERMAN).replace(b"<article>", b"<nav><a href=/>Home</a><a href=/b>Shop now</a></nav><article>")
    assert extract_text(page(body), CONFIG) == (f"{PROSE}\n{GERMAN}", None)


def test_charset_of_the_header_reaches_the_text():
    body = html(GERMAN).decode().encode("cp1252")
    assert extract_text(page(body, content_type="text/html; charset=iso-8859-1"), CONFIG) == (GERMAN, None)


def test_tables_are_a_choice():
    table = "<table><tr><td>Barley and oats</td><td>Four bushels</td></tr></table>"
    body = html(PROSE, PROSE[::-1]).replace(b"</article>", table.encode() + b"</article>")
    assert "Barley" in extract_text(page(body), CONFIG)[0]
    assert "Barley" not in extract_text(page(body), dataclasses.replace(CONFIG, include_tables=False))[0]


@pytest.mark.parametrize("body", [b"", b"   \n", b"<html><head><title>t</title></head><body></body></html>"])
def test_no_text(body):
    assert extract_text(page(body), CONFIG) == ("", "no_text")


@pytest.mark.parametrize("body", [b"just a few words", b"\x00\x01\x02\x03", b"%PDF-1.4 \xff\xff"])
def test_unreadable_html(body):
    assert extract_text(page(body), CONFIG) == ("", "unreadable_html")


def test_html_too_large_is_one_byte_above_the_limit():
    body = html(PROSE)
    at_limit = dataclasses.replace(CONFIG, max_bytes=len(body))
    assert extract_text(page(body), at_limit) == (PROSE, None)
    assert extract_text(page(body + b" "), at_limit) == ("", "html_too_large")


def test_html_too_deep_is_one_level_above_the_limit():
    load_html, _ = engine()
    depth = depth_of(load_html(nested(20)))
    assert extract_text(page(nested(20)), dataclasses.replace(CONFIG, max_depth=depth))[1] is None
    assert extract_text(page(nested(21)), dataclasses.replace(CONFIG, max_depth=depth)) == ("", "html_too_deep")


def test_no_page_is_cut_silently_by_the_parser():
    """At every depth the text behind the nesting is there, or the page is refused by name."""
    outcomes = {levels: extract_text(page(nested(levels)), CONFIG) for levels in [*range(245, 260), 3000]}
    assert {reason for _, reason in outcomes.values()} == {None, "html_too_deep"}
    assert all("he was a man" in text.rpartition("baker that")[2] for text, reason in outcomes.values() if not reason)
    with pytest.raises(UsageError, match="max_depth is 256"):
        dataclasses.replace(CONFIG, max_depth=256)


def test_a_page_gives_the_same_text_whatever_came_before():
    pages = [page(html(PROSE, f"{GERMAN} {number}")) for number in range(5)]
    first = [extract_text(one, CONFIG) for one in pages]
    assert [extract_text(one, CONFIG) for one in pages * 3] == first * 3
    assert first[4] == (f"{PROSE}\n{GERMAN} 4", None)  # a filter of what was seen before would drop PROSE here


def test_normalise():
    assert normalise("\r\n a\x00b \t\r\nc\x85d\x1f\u00a0\n\n\te\ud800 ") == "ab\ncd\n\n\te"
    assert normalise("e\u0301 \u212b") == "e\u0301 \u212b"  # no Unicode normalisation


def test_long_runs_of_blanks_take_linear_time():
    body = html(PROSE).replace(b"</article>", b"<pre>a" + b" " * 990_000 + b"b</pre></article>")
    started = time.perf_counter()
    text, reason = extract_text(page(body), CONFIG)
    assert reason is None
    assert text.startswith(PROSE)
    normalise("a" + " " * 1_000_000 + "b")
    assert time.perf_counter() - started < 5  # an hour and more when each blank of the run is tried anew


def test_normalise_strips_each_line_as_the_regular_expression_for_blanks_does():
    blanks = re.compile(r"[^\S\n]+$", re.MULTILINE)
    pieces = ["a", "\n", " ", "\t", "\u2028", "\u3000", "\u00a0", "\u200b"]
    for text in map("".join, itertools.product(pieces, repeat=4)):
        assert normalise(text) == blanks.sub("", text).strip()


def test_want_of_memory_is_no_fault_of_the_page(monkeypatch):
    def starving(*_, **__):
        raise MemoryError

    monkeypatch.setattr(extract, "engine", lambda: (engine()[0], starving))
    with pytest.raises(MemoryError):
        extract_text(page(html(PROSE)), CONFIG)
