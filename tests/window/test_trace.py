"""The page Memorization equals the Python API, shows hostile documents as text, and reports missing parts."""

import json
import shutil
from urllib.parse import quote, urlencode

import pytest

from lm.corpus_index.index import CorpusIndex
from lm.corpus_index.lookups import overlap_of, ways_to_write
from lm.corpus_index.spans import trace
from lm.tokenizer import load
from tests.server_process import quick_environment, serving
from tests.window.axe import grave_faults
from tests.window.browser import PHONE, settle
from tests.window.runs import BIDI, HANDLER, SCRIPT


def at(address: str, **parameters: object) -> str:
    return f"{address}#trace?{urlencode(parameters, quote_via=quote)}"


@pytest.mark.slow
def test_a_run_without_training_text_shows_the_reason(stories, open_page):
    page = open_page(at(stories.window))
    assert "imported" in page.inner_text(".panel") and "launch.index_corpus" not in page.inner_text(".panel")


@pytest.mark.slow
def test_a_text_is_found_as_often_as_in_the_index_and_links_to_its_document(hostile, open_page):
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


@pytest.mark.slow
@pytest.mark.parametrize("width", [1200, PHONE])
def test_a_hostile_text_is_traced_by_the_keyboard_and_stays_text(hostile, open_page, width):
    index, tokenizer = CorpusIndex(hostile.folder), load(hostile.folder / "tokenizer")
    text = f"{SCRIPT} and more"
    spans = trace(index, tokenizer, tokenizer.encode(text))
    page = open_page(at(hostile.window, text=text), width=width)
    page.get_by_role("button", name="Trace the prompt").click()
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


@pytest.mark.slow
def test_the_model_continues_the_text(hostile, open_page):
    page = open_page(at(hostile.window, text="The miller"), dark=True)
    page.get_by_role("button", name="Continue and trace").click()
    page.wait_for_selector(".trace-result [role=status]:has-text('training text')")
    settle(page)
    assert page.inner_text(".trace-passage").startswith("The miller")


@pytest.mark.slow
@pytest.mark.parametrize(("width", "dark"), [(1200, True), (PHONE, False)])
def test_questions_are_looked_up_by_the_keyboard_with_the_counts_of_the_index(hostile, open_page, width, dark):
    index, tokenizer = CorpusIndex(hostile.folder), load(hostile.folder / "tokenizer")
    document = index.sampled("train", 1, 4, 64)
    assert document is not None
    known = max(tokenizer.decode(document.tokens.tolist()).split("\n"), key=len)[:200].strip()
    questions = [known, f"{SCRIPT} quagga okapi zebra {HANDLER}", "quagga"]
    expected = [overlap_of(index, tokenizer, one, 13)[1] for one in questions]
    assert expected[0].found and not expected[2].found
    page = open_page(at(hostile.window, search="mill"), width=width, dark=dark)
    page.wait_for_selector("#trace-questions")
    page.fill("#trace-questions", "\n\n".join(questions))
    page.get_by_role("button", name="Check").focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("[role=status]:has-text('3 questions')")
    settle(page)
    section = page.locator(".trace-section:has(> #trace-contamination)")
    found, ngrams = sum(one.found for one in expected), sum(one.ngrams for one in expected)
    status = section.locator("[role=status]").inner_text()
    touched = sum(one.found > 0 for one in expected)
    assert status.startswith(f"{touched} of 3") and f"{found:,} of {ngrams:,} 13-grams" in status
    assert section.locator(".trace-passage").all_inner_texts() == questions
    assert section.locator(".trace-questions > li").nth(0).locator(".trace-documents mark").count() >= 1
    page.locator(".trace-questions .trace-span").first.focus()
    page.keyboard.press("Enter")
    assert page.locator(".trace-questions .trace-span").first.get_attribute("aria-pressed") == "true"
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert not grave_faults(page)
    section.get_by_role("slider").fill("4")
    page.wait_for_selector("[role=status]:has-text('4-grams in total')")
    assert "ngram=4" in page.url and "search=mill" in page.url and quote("quagga okapi").replace("%20", "+") in page.url
    page.reload()
    page.wait_for_selector("[role=status]:has-text('4-grams in total')")
    assert page.input_value("#trace-questions").split("\n\n") == questions


@pytest.mark.slow
def test_a_rejected_request_is_reported_and_the_next_answer_is_shown(hostile, open_page):
    page = open_page(at(hostile.window, text="zq" * 900), expected=("1,024 at most", "400 (Bad Request)"))
    page.get_by_role("button", name="Trace the prompt").click()
    page.wait_for_selector(".problem:has-text('1,024 at most')")
    page.fill("#trace-questions", "zq" * 900 + "\nquagga okapi")
    page.get_by_role("button", name="Check").click()
    page.wait_for_selector("[role=status]:has-text('2 questions')")
    assert "1,024 at most" in page.locator(".trace-questions .problem").inner_text()
    page.fill("#prompt", f"{SCRIPT} and more")
    settle(page)
    page.get_by_role("button", name="Trace the prompt").click()
    page.wait_for_selector(".trace-result .trace-documents")
    assert page.locator(".trace-result .problem").count() == 0


@pytest.mark.slow
def test_examples_of_an_evaluation_set_of_the_config_are_looked_up_in_batches(hostile, open_page, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(hostile.folder, run)
    rows = [{"question": f"{number} {SCRIPT} {BIDI}?", "choices": ["quagga okapi", "no"]} for number in range(30)]
    (tmp_path / "quiz.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = json.loads((run / "config.json").read_text())
    config["documents"]["decontamination"]["sets"] = [str(tmp_path / "quiz.jsonl"), "hf://datasets/a/b/c.jsonl"]
    (run / "config.json").write_text(json.dumps(config))
    with serving(run, environment=quick_environment()) as server:
        page = open_page(at(f"{server.url}/window", set="quiz", ngram=2))
        page.wait_for_selector("[role=status]:has-text('20 questions')")
        settle(page)
        assert "hf://datasets/a/b/c.jsonl is not on this machine" in page.inner_text(".page-trace")
        assert page.locator(".trace-questions > li").count() == 20
        page.get_by_role("button", name="Next 20").click()
        page.wait_for_selector("[role=status]:has-text('10 questions')")
        settle(page)
        first = page.locator(".trace-questions .trace-passage").first
        assert first.get_attribute("aria-label") == "Example 21 of quiz"
        assert first.inner_text().startswith(f"20 {SCRIPT}") and "\\u202e" in first.inner_text()
        assert "offset=20" in page.url and "set=quiz" in page.url and "questions" not in page.url
        assert not page.get_by_role("button", name="Next 20").is_visible()
        page.reload()
        page.wait_for_selector("[role=status]:has-text('10 questions')")
