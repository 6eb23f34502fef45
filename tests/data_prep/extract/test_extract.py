"""Requirements on every extraction engine."""

import dataclasses
import itertools
import re

import pytest

from configs.recipes.gristmill import EXTRACT
from data_prep.config.extract import ENGINES
from data_prep.extract import extract_text, normalise
from lm.errors import UsageError
from tests.bench.extraction import config_for
from tests.data_prep.pages import GERMAN, PROSE, html, page

CONFIGS = {engine: config_for(engine, EXTRACT.min_probability) for engine in ENGINES}
engines = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())


def nested(levels: int) -> bytes:
    """A page of nested <div>, with text after them."""
    return html("<div>" * levels + PROSE + "</div>" * levels, PROSE.replace("miller", "baker"))


@engines
def test_main_text_without_navigation(config):
    body = html(PROSE, GERMAN).replace(b"<article>", b"<nav><a href=/>Home</a><a href=/b>Shop now</a></nav><article>")
    assert extract_text(page(body), config) == (f"{PROSE}\n{GERMAN}", None)


@engines
def test_charset_of_the_header_reaches_the_text(config):
    body = html(GERMAN).decode().encode("cp1252")
    assert extract_text(page(body, content_type="text/html; charset=iso-8859-1"), config) == (GERMAN, None)


@engines
def test_tables_are_optional(config):
    table = "<table><tr><td>Barley and oats</td><td>Four bushels</td></tr></table>"
    body = html(PROSE, PROSE[::-1]).replace(b"</article>", table.encode() + b"</article>")
    assert "Barley" in extract_text(page(body), config)[0]
    assert "Barley" not in extract_text(page(body), dataclasses.replace(config, include_tables=False))[0]


@engines
@pytest.mark.parametrize("body", [b"", b"   \n", b"<html><head><title>t</title></head><body></body></html>"])
def test_no_text(body, config):
    assert extract_text(page(body), config) == ("", "no_text")


@engines
@pytest.mark.parametrize(
    "body",
    [b"\x00\x01\x02\x03", b"%PDF-1.4 \xff\xff", b"<", pytest.param(b"\xff" * 99, id="99 of 0xff"), b"<!DOCTYPE", b"<a"],
)
def test_invalid_html_gives_no_text(body, config):
    text, reason = extract_text(page(body), config)
    assert (text == "") == (reason in ("no_text", "unreadable_html"))
    assert len(text) <= len(body)


def test_unreadable_pages_are_distinguished_from_pages_without_text():
    for body, reason in ((b"no page", "unreadable_html"), (b"<html><body></body></html>", "no_text")):
        assert extract_text(page(body), CONFIGS["trafilatura"]) == ("", reason)


@engines
def test_html_one_byte_above_the_limit_is_rejected(config):
    body = html(PROSE)
    at_limit = dataclasses.replace(config, max_bytes=len(body))
    assert extract_text(page(body), at_limit) == (PROSE, None)
    assert extract_text(page(body + b" "), at_limit) == ("", "html_too_large")


@engines
def test_depth_and_number_of_elements_and_attributes_at_the_limit_and_one_above(config):
    # html, head, title, body, article, p, div x n, and the second p; the deepest is the last div
    limits = dataclasses.replace(config, max_depth=30, max_elements=40, max_attributes=3)
    assert extract_text(page(nested(20)), limits)[1] is None
    assert extract_text(page(nested(40)), limits) == ("", "html_too_deep")
    many = html(*[PROSE] * 50)
    assert extract_text(page(many), limits) == ("", "html_too_many_elements")
    assert extract_text(page(many), dataclasses.replace(limits, max_elements=55))[1] is None
    three = html(PROSE).replace(b"<article>", b"<article a=1 b=2 c=3>")
    assert extract_text(page(three), limits)[1] is None
    assert extract_text(page(three.replace(b"c=3", b"c=3 d")), limits) == ("", "html_too_many_attributes")


@engines
def test_the_parser_never_truncates_a_page_silently(config):
    """At every depth the text after the nesting is extracted, or the page is rejected with a reason."""
    outcomes = {levels: extract_text(page(nested(levels)), config) for levels in [*range(245, 260, 2), 3000]}
    assert {reason for _, reason in outcomes.values()} == {None, "html_too_deep"}
    assert all("he was a man" in text.rpartition("baker that")[2] for text, reason in outcomes.values() if not reason)


@pytest.mark.parametrize(
    ("engine", "change", "message"),
    [
        ("trafilatura", {"max_depth": 256}, "max_depth is 256"),
        ("trafilatura", {"max_elements": 10_001}, "max_elements is 10001"),
        ("resiliparse", {"max_elements": 200_001}, "max_elements is 200001"),
        ("gristmill", {"max_elements": 1_000_001}, "max_elements is 1000001"),
        ("gristmill", {"max_depth": 0}, "it must be from 1 to 10000"),
        ("gristmill", {"min_probability": 1.0}, "min_probability is 1.0"),
        ("gristmill", {"max_bytes": 0}, "max_bytes is 0"),
    ],
)
def test_an_invalid_config_is_rejected(engine, change, message):
    with pytest.raises(UsageError, match=message):
        dataclasses.replace(CONFIGS[engine], **change)


@engines
def test_the_text_of_a_page_does_not_depend_on_earlier_pages(config):
    pages = [page(html(PROSE, f"{GERMAN} {number}")) for number in range(5)]
    first = [extract_text(one, config) for one in pages]
    assert [extract_text(one, config) for one in pages * 3] == first * 3
    assert first[4] == (f"{PROSE}\n{GERMAN} 4", None)  # a filter of repeated text would drop PROSE here


def test_normalise():
    assert normalise("\r\n a\x00b \t\r\nc\x86d\x1f\u00a0\n\n\te\ud800 ") == "ab\ncd\n\n\te"
    assert normalise("e\u0301 \u212b") == "e\u0301 \u212b"  # no Unicode normalization


def test_normalise_separates_words_at_every_line_break():
    for line_break in ("\n", "\r\n", "\r", "\f", "\v", "\x85", "\u2028", "\u2029"):
        assert normalise(f"one page {line_break}another") == "one page\nanother"
    assert normalise("one\n\r\n\rtwo") == "one\n\n\ntwo"


def test_normalise_strips_each_line_like_the_regular_expression_for_blanks():
    blanks = re.compile(r"[^\S\n]+$", re.MULTILINE)
    pieces = ["a", "\n", " ", "\t", "\u2003", "\u3000", "\u00a0", "\u200b"]
    for text in map("".join, itertools.product(pieces, repeat=4)):
        assert normalise(text) == blanks.sub("", text).strip()
