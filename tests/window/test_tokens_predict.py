"""The pages "Tokens" and "Predict", as a reader uses them."""

import re
from urllib.parse import quote

import numpy as np
import pytest

from lm.inspect.inspector import Inspector
from tests.window.browser import settle

TEXT = "The miller </script> \U0001f469\u200d\U0001f4bb\n\u202eold"


def ids_shown(view) -> list[int]:
    return [int(one) for one in view.locator(".token").all_inner_texts()]


@pytest.fixture(scope="module")
def inspector(hostile) -> Inspector:
    return hostile.inspector


@pytest.mark.slow
def test_a_text_is_tokenized_without_a_server(hostile, open_page, inspector):
    page = open_page(hostile.exported + "#tokens")
    page.fill("#tokens-text", TEXT)
    page.select_option("#tokens-beside", "bytes")
    page.click("text=Ids")
    settle(page)
    left, right = page.locator(".tokens-view").all()
    ids = inspector.tokenizer.encode(TEXT)
    assert ids_shown(left) == ids and ids_shown(right) == list(TEXT.encode())
    figures = left.locator("dd").all_inner_texts()
    assert figures == [str(len(ids)), f"{len(TEXT.encode()) / len(ids):.2f}", str(len(TEXT)), str(len(TEXT.encode()))]

    # The longest token, by the keyboard: its bytes, and the halves that it was merged from.
    at = max(range(len(ids)), key=lambda i: len(inspector.tokenizer.token_bytes(ids[i])))
    left.locator(".strip").focus()
    page.keyboard.press("Home")
    for _ in range(at):
        page.keyboard.press("ArrowRight")
    part = inspector.tokenizer.token_bytes(ids[at])
    details = page.inner_text(".tokens-details")
    assert f"token {at + 1} of {len(ids)}, id {ids[at]}" in details and part.hex(" ") in details
    halves = page.locator(".tokens-tree > ul > li > code").all_inner_texts()
    assert "".join(halves) == part.decode().replace(" ", "␣") and len(halves) == 2
    assert right.locator(".there").count() == len(part)

    # The explanation of merges: bits, bytes, the first merge, all.
    slider, told = page.locator(".page-tokens .panel .slider input"), page.locator(".tokens-told")
    cells = page.locator(".tokens-story span")
    size = len(TEXT.encode())
    for value, words in (("0", f"bits: {8 * size} here"), ("1", f": {size} bytes here"), ("2", "Merge 1 of")):
        slider.fill(value)
        assert words in told.inner_text()
    assert cells.count() < size and page.locator(".tokens-story .just-made").count() > 0
    slider.fill(slider.get_attribute("max"))
    assert cells.count() == len(ids)

    # The URL restores the whole state.
    slider.fill("2")
    link = page.url
    page.goto("about:blank")
    page.goto(link)
    settle(page)
    assert page.input_value("#tokens-text") == TEXT and ids_shown(page.locator(".tokens-view").first) == ids
    assert "Merge 1 of" in told.inner_text() and page.input_value("#tokens-beside") == "bytes"


@pytest.mark.slow
def test_a_line_of_1_mb_is_tokenized_and_the_page_stays_responsive(hostile, open_page, inspector):
    page = open_page(hostile.exported + "#tokens")
    page.evaluate("""() => {
      const data = new DataTransfer();
      data.setData("text/plain", "abcdefgh".repeat(125000));
      const box = document.querySelector("#tokens-text");
      box.select();
      box.dispatchEvent(new ClipboardEvent("paste", {clipboardData: data, cancelable: true}));
    }""")
    count = len(inspector.tokenizer.encode("abcdefgh" * 125_000))
    page.wait_for_function(
        "(count) => document.querySelector('.tokens-figures dd')?.textContent === count", arg=f"{count:,}"
    )
    page.click("text=Next")
    assert "tokens 1,501 to 3,000" in page.inner_text(".tokens-pager")
    page.click("text=Clear")
    page.wait_for_selector("text=The text is empty")


def bars(page) -> dict[int, float]:
    """{id: percent of the sampling distribution} of the visible bars, 0 for excluded tokens."""
    found = {}
    for button in page.locator(".predict-bars button[data-id]").all():
        percent = re.search(r", (?:< )?([\d.e-]+) %(, excluded)?, without sampling", button.get_attribute("aria-label"))
        assert percent
        found[int(button.get_attribute("data-id"))] = float(percent[1])
    return found


@pytest.mark.slow
def test_next_tokens_come_from_the_model_and_are_added_one_by_one(hostile, open_page, inspector):
    page = open_page(f"{hostile.window}#predict?text={quote('The miller')}")
    logits_V = inspector.next_logits("The miller").logits_V.astype(np.float64)
    chances_V = np.exp(logits_V - logits_V.max()) / np.exp(logits_V - logits_V.max()).sum()
    found = bars(page)
    assert list(found) == np.argsort(-logits_V, kind="stable")[: len(found)].tolist()
    np.testing.assert_allclose(list(found.values()), 100 * chances_V[list(found)], atol=0.051)

    for index, value in enumerate(("0.5", "3")):
        page.locator(".predict-sliders input").nth(index).fill(value)
    sharp = chances_V**2 * (chances_V >= np.sort(chances_V)[-3])
    np.testing.assert_allclose(list(bars(page).values()), 100 * (sharp / sharp.sum())[list(found)], atol=0.051)
    assert "3 of" in page.inner_text(".predict-summary") and "temperature=0.5" in page.url and "top_k=3" in page.url
    page.reload()
    settle(page)
    assert "3 of" in page.inner_text(".predict-summary")
    page.click("text=Reset")
    assert bars(page) == found

    id = next(id for id in found if inspector.tokenizer.token_bytes(id).isascii() and id != inspector.tokenizer.bos_id)
    page.click(f".predict-bars button[data-id='{id}']")
    settle(page)
    taken = "The miller" + inspector.tokenizer.token_bytes(id).decode()
    assert page.input_value("#prompt") == taken
    assert list(bars(page)) == np.argsort(-inspector.next_logits(taken).logits_V, kind="stable")[: len(found)].tolist()


def test_branches_open_by_the_keyboard_and_have_their_paths_probability(hostile, open_page, inspector):
    page = open_page(f"{hostile.window}#predict?text=The")
    chances = lambda ids: (
        np.exp((x := inspector.next_logits(ids).logits_V.astype(np.float64)) - x.max()) / np.exp(x - x.max()).sum()
    )
    ids = inspector.tokenizer.encode("The")
    first_V = chances(ids)
    order = np.argsort(-first_V, kind="stable").tolist()[:6]
    place = next(i for i, id in enumerate(order) if id != inspector.tokenizer.bos_id)
    second_V = chances([*ids, order[place]])
    page.locator("[role=treeitem]").nth(place).focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_selector("[role=treeitem] [role=treeitem]")
    page.keyboard.press("ArrowRight")
    total = 100 * first_V[order[place]] * second_V.max()
    assert f"2 tokens, probability {total:{'.1g' if total < 0.1 else '.1f'}} %" in page.inner_text(".predict-chosen")
    assert page.evaluate("document.activeElement.getAttribute('aria-level')") == "2"
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    assert page.locator("[role=treeitem] [role=treeitem]").count() == 0


def test_a_tokens_surprise_is_shown_and_the_text_continues_from_an_alternative(hostile, open_page, inspector):
    page = open_page(f"{hostile.window}#predict?text={quote(TEXT)}")
    score = inspector.score(TEXT, 5)
    strip = page.locator(".page-predict .strip")
    assert strip.locator(".token").count() == len(score.ids_N)
    assert f"this model {score.bits_per_byte_N[-1]:.2f}" in page.inner_text(".predict-chart")
    assert f"gzip {score.gzip_bits_per_byte_N[-1]:.2f}" in page.inner_text(".predict-chart")
    strip.locator(".token").nth(2).hover()
    told = page.inner_text(".predict-details [role=status]")
    assert f"{score.bits_N[2]:.2f} bits" in told
    page.locator(".predict-details button:not(:disabled)").first.click()
    settle(page)
    special = set(inspector.tokenizer.special_tokens.values())
    other = next(id for id in score.top_ids_NK[2].tolist() if id not in special)
    expected = b"".join(map(inspector.tokenizer.token_bytes, [*score.ids_N[:2].tolist(), other]))
    assert page.input_value("#prompt").encode() == expected.decode("utf-8", "ignore").encode()


def test_continue_samples_with_the_sliders(hostile, open_page):
    page = open_page(f"{hostile.window}#predict?temperature=0&text=The")
    page.locator(".predict-write input").fill("8")
    page.click("text=Continue")
    page.wait_for_selector("text=characters generated")
    once = page.input_value("#prompt")
    page.fill("#prompt", "The")
    settle(page)
    page.click("text=Continue")
    page.wait_for_function("() => /generated/.test(document.querySelector('.predict-writing').textContent)")
    assert page.input_value("#prompt") == once and once.startswith("The") and len(once) > 3


@pytest.mark.slow
def test_the_exported_page_predicts_with_recorded_answers(hostile, open_page, inspector):
    page = open_page(hostile.exported + "#predict")
    texts = page.locator("#predict-recorded option").all_inner_texts()
    assert "The miller" in texts
    page.select_option("#predict-recorded", "The miller")
    settle(page)
    found = bars(page)
    logits_V = inspector.next_logits("The miller").logits_V
    assert list(found) == np.argsort(-logits_V, kind="stable")[: len(found)].tolist()
    page.locator(".predict-sliders input").nth(1).fill("1")
    assert max(bars(page).values()) == 100.0 and page.locator("#prompt").count() == 0


@pytest.mark.slow
def test_llamas_tokens_are_merged_from_characters(stories, open_page):
    page = open_page(stories.window + "#tokens?text=The+caf\u00e9")
    slider, told = page.locator(".page-tokens .panel .slider input"), page.locator(".tokens-told")
    for value, words in (("0", "bits: 80 here"), ("1", ": 10 bytes here"), ("2", "characters"), ("3", "Merge 1 of")):
        slider.fill(value)
        assert words in told.inner_text()
    slider.fill(slider.get_attribute("max"))
    tokens = page.locator(".tokens-view .token").all_inner_texts()
    assert page.locator(".tokens-story .token").all_inner_texts() == tokens and len(tokens) > 1
    page.locator(".tokens-view .strip").press("ArrowRight")
    halves = page.locator(".tokens-tree > ul > li > code").all_inner_texts()
    assert "".join(halves) == tokens[0] and len(halves) == 2


@pytest.mark.slow
@pytest.mark.parametrize(("id", "said"), [("tokens", ".tokens-chosen"), ("predict", ".predict-details [role=status]")])
def test_each_token_is_announced_in_one_live_region(hostile, open_page, id, said):
    page = open_page(f"{hostile.window}#{id}?text=The")
    assert page.evaluate("(one) => { window.said = document.querySelector(one); return window.said.role; }", said)
    page.locator(".strip").first.focus()
    for key in ("ArrowRight", "End"):
        page.keyboard.press(key)
        assert page.evaluate("() => window.said.isConnected && window.said.textContent")
    page.fill("textarea", "The mill")
    settle(page)
    page.locator(".strip").first.press("ArrowRight")
    assert page.evaluate("() => window.said.isConnected && window.said.textContent")


@pytest.mark.slow
def test_a_character_in_several_tokens_is_shown_whole(hostile, open_page):
    text = "Encyclopædia 字 😀"
    page = open_page(f"{hostile.window}#predict?text={quote(text)}")
    shown = page.locator(".page-predict .strip .token").all_text_contents()
    assert len(shown) > len(text) and "".join(shown).replace("\u200a", "").replace("␣", " ") == text
