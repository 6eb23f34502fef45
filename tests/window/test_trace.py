"""The page Recite and trace shows what the Python API finds, takes hostile documents as text, and tells what a run
lacks."""

from urllib.parse import quote, urlencode

import pytest

from lm.corpus_index.index import CorpusIndex
from lm.corpus_index.report import ways_to_write
from lm.corpus_index.spans import trace
from lm.tokenizer import load
from tests.window.axe import grave_faults
from tests.window.browser import PHONE, settle
from tests.window.runs import SCRIPT


def at(address: str, **parameters: object) -> str:
    return f"{address}#trace?{urlencode(parameters, quote_via=quote)}"


@pytest.mark.slow
def test_a_run_without_an_index_is_told_how_to_make_one(stories, open_page):
    page = open_page(at(stories.window))
    settle(page)
    assert "python -m launch.index_corpus" in page.inner_text(".panel")


@pytest.mark.slow
def test_a_text_is_found_as_often_as_the_index_has_it_and_its_document_is_a_link_away(hostile, open_page):
    index, tokenizer = CorpusIndex(hostile.folder), load(hostile.folder / "tokenizer")
    text = "behind the church"
    count = sum(index.find(ids, "train").count for ids in ways_to_write(tokenizer, text))
    page = open_page(at(hostile.window))
    page.wait_for_selector("#trace-query")
    page.fill("#trace-query", text)
    page.keyboard.press("Enter")
    page.wait_for_selector(".trace-documents")
    assert count > 10 and f"{count:,} times in the training text" in page.inner_text(".trace-section")
    assert {one.strip() for one in page.locator(".trace-documents mark").all_inner_texts()} == {text}
    assert f"search={quote(text).replace('%20', '+')}" in page.url
    page.locator(".trace-source a").first.click()
    page.wait_for_selector(".page-data h2")
    page.go_back()
    page.wait_for_selector(".trace-documents")


@pytest.mark.parametrize("width", [1200, PHONE])
def test_a_hostile_text_is_traced_by_the_keyboard_and_stays_text(hostile, open_page, width):
    index, tokenizer = CorpusIndex(hostile.folder), load(hostile.folder / "tokenizer")
    text = f"{SCRIPT} and more"
    spans = trace(index, tokenizer, tokenizer.encode(text))
    page = open_page(at(hostile.window, text=text), width=width)
    page.get_by_role("button", name="Trace the text as it is").click()
    settle(page)
    assert page.inner_text(".trace-passage") == text
    buttons = page.locator(".trace-spans").first.get_by_role("button")
    assert spans and buttons.all_inner_texts() == [tokenizer.decode(tokenizer.encode(text)[a:b]) for a, b, *_ in spans]
    mark = page.locator(".trace-span").first
    mark.focus()
    page.keyboard.press("Enter")
    assert mark.get_attribute("aria-pressed") == "true"
    assert page.locator(".trace-result .trace-documents mark").count() >= 1
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert not grave_faults(page)


def test_the_model_writes_on(hostile, open_page):
    page = open_page(at(hostile.window, text="The miller"), dark=True)
    page.get_by_role("button", name="Write on and trace").click()
    page.wait_for_selector(".trace-note:has-text('training text')")
    settle(page)
    assert page.inner_text(".trace-passage").startswith("The miller")
