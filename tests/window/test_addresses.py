"""Impossible links, wrong keys and a server that is down are reported to the user, with a way to continue."""

import contextlib

import pytest

from tests.window.browser import settle, show

TOLD = "console: "
"""Chromium's message for an error response."""


@pytest.mark.slow
def test_a_missing_step_is_reported_with_a_way_back(hostile, open_page):
    page = open_page(hostile.window + "#predict?text=The&step=77", expected=TOLD)
    page.locator(".problem").get_by_role("button").click()
    settle(page)
    assert page.locator(".predict-bars li").count() and not page.locator(".problem").count()
    assert "step" not in page.evaluate("() => location.hash")


@pytest.mark.slow
def test_names_of_object_properties_are_neither_routes_nor_tokenizers(hostile, open_page):
    page = open_page(hostile.exported + "#tokens?way=__proto__&beside=constructor")
    assert page.locator(".token").count() and not page.locator(".problem").count()


@pytest.mark.slow
def test_a_key_is_requested_until_it_is_right_and_a_server_that_is_down_is_reported(hostile, open_page):
    page = open_page(hostile.exported, expected=(TOLD, "net::ERR_FAILED"))
    refused = {"status": 401, "json": {"error": {"message": "The API key is wrong.", "param": None}}}
    right = lambda route: route.request.headers.get("authorization") == "Bearer right"
    page.route("**/v1/**", lambda route: route.continue_() if right(route) else route.fulfill(**refused))
    page.goto(hostile.window)
    field, use = page.locator("#key input"), page.locator("#key button")
    for key in ("wrong", "schl\u00fcssel", "\u20ac", " right "):  # a header cannot contain a euro sign
        field.fill(key)
        with page.expect_navigation() if key.isascii() else contextlib.nullcontext():
            use.click()
    settle(page)
    assert not field.is_visible() and not page.locator(".problem").count()
    page.unroute_all()
    page.route("**/v1/**", lambda route: route.abort("failed"))
    page.click('nav a[data-page="trace"]')
    page.get_by_text("The server does not answer").first.wait_for()


@pytest.mark.slow
def test_the_reason_of_a_wait_is_shown(hostile, open_page):
    page, held = open_page(hostile.window), []
    page.route("**/v1/inspect/score", lambda route: held.append(route))  # Playwright marks the functions that it calls
    page.route("**/v1/inspect", lambda route: route.fulfill(json={"doing": "<b>a program is compiled</b>"}))
    page.click('nav a[data-page="predict"]')
    page.locator("#waiting", has_text="Waiting: <b>a program is compiled</b>.").wait_for()
    for route in held:
        route.continue_()
    settle(page)
    assert page.inner_text("#waiting") == "" and page.locator(".predict-bars li").count()


def go(page, hash: str) -> None:
    """Another URL of the same page, pasted or linked."""
    page.evaluate("(hash) => { location.hash = hash; }", hash)
    settle(page)


@pytest.mark.slow
def test_an_open_page_follows_the_url(hostile, open_page):
    page = open_page(hostile.window + "#predict?text=The")
    go(page, "#predict?text=The&temperature=0.7&top_k=3")
    assert "3 of" in page.inner_text(".predict-summary") and "0.70" in page.inner_text(".predict-sliders")
    go(page, "#tokens?text=The&merges=1")
    go(page, "#tokens?text=The&merges=0&beside=bytes")
    assert "bits: 24 here" in page.inner_text(".tokens-told") and page.locator(".tokens-view").count() == 2
    go(page, "#training?text=The&xlog=1")
    go(page, "#training?text=The&x=tokens&other=8")
    assert page.input_value("[aria-label='X axis']") == "tokens"
    assert page.input_value("[aria-label='Other step']") == "8"
    assert page.get_by_role("button", name="Log x axis").get_attribute("aria-pressed") == "false"


@pytest.mark.slow
def test_a_step_other_than_the_served_one_is_shown_on_every_page_with_a_way_back(hostile, open_page):
    page = open_page(hostile.window + "#inside?text=The&step=4")
    told, back = page.locator("#step"), page.get_by_role("button", name="Back to step 12")
    for id in ("inside", "predict"):
        show(page, id)
        assert "at step 4" in told.inner_text() and back.is_visible()
    first = page.inner_text(".predict-bars")
    assert page.get_by_role("button", name="Continue").is_disabled()
    back.click()
    settle(page)
    assert not told.is_visible() and "step" not in page.url and page.inner_text(".predict-bars") != first
    assert page.get_by_role("button", name="Continue").is_enabled() and "of step 4" not in page.inner_text("main")
    go(page, "#predict?text=The&step=4")
    assert page.inner_text(".predict-bars") == first
    go(page, "#predict?text=The")  # complete, and without a step
    assert not told.is_visible() and page.inner_text(".predict-bars") != first


@pytest.mark.slow
def test_another_page_begins_at_its_top_with_its_heading_in_focus(hostile, open_page):
    page = open_page(hostile.window + "#training?text=The", height=500)
    page.evaluate("() => scrollTo(0, document.body.scrollHeight)")
    assert page.evaluate("scrollY") > 0 and page.evaluate("document.activeElement === document.body")
    go(page, "#data?view=funnel")
    assert page.evaluate("scrollY") == 0 and page.evaluate("document.activeElement.textContent") == "Data"


@pytest.mark.slow
def test_a_page_continues_after_a_failed_request(hostile, open_page):
    page = open_page(hostile.window + "#training?text=The", expected=(TOLD, "net::ERR_FAILED"))
    page.wait_for_selector(".training-watch .token")
    settle(page)
    page.route("**/v1/inspect/*", lambda route: route.abort("failed"))
    page.get_by_label("Text", exact=True).fill("The old mill")
    page.locator(".training-answers > .problem").wait_for()
    page.unroute_all()
    page.locator(".training-player input").press("Home")
    page.locator(".training-watch .training-sums", has_text="At step 4:").wait_for()
    settle(page)
    assert not page.locator(".problem:visible").count()
    assert page.locator(".training-watch .strip").inner_text() == "The␣old␣mill"
    assert page.locator(".training-sides .training-prompt").all_inner_texts() == ["The old mill"] * 2
