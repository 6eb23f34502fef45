"""Links that say what cannot be, keys that are wrong, a server that is gone: the reader is told, and can go on."""

import pytest

from tests.window.browser import settle

TOLD = "console: "
"""What Chromium says of an answer that is an error."""


@pytest.mark.slow
def test_a_step_that_is_not_there_is_told_with_a_way_back(hostile, open_page):
    page = open_page(hostile.window + "#predict?text=The&step=77", expected=TOLD)
    page.locator(".problem").get_by_role("button").click()
    settle(page)
    assert page.locator(".predict-bars li").count() and not page.locator(".problem").count()
    assert "step" not in page.evaluate("() => location.hash")


def test_names_that_every_object_has_name_no_way_and_no_tokenizer(hostile, open_page):
    page = open_page(hostile.exported + "#tokens?way=__proto__&beside=constructor")
    settle(page)
    assert page.locator(".token").count() and not page.locator(".problem").count()


@pytest.mark.slow
def test_a_key_is_asked_for_until_it_is_right_and_a_server_that_is_gone_is_told(hostile, open_page):
    page = open_page(hostile.exported, expected=(TOLD, "net::ERR_FAILED"))
    refused = {"status": 401, "json": {"error": {"message": "The API key is wrong.", "param": None}}}
    right = lambda route: route.request.headers.get("authorization") == "Bearer right"
    page.route("**/v1/**", lambda route: route.continue_() if right(route) else route.fulfill(**refused))
    page.goto(hostile.window)
    field, use = page.locator("#key input"), page.locator("#key button")
    for key in ("wrong", "schl\u00fcssel", "\u20ac", " right "):  # a header holds no euro
        field.fill(key)
        use.click()
        page.wait_for_function("() => document.readyState === 'complete'")
    settle(page)
    assert not field.is_visible() and not page.locator(".problem").count()
    page.unroute_all()
    page.route("**/v1/**", lambda route: route.abort("failed"))
    page.click('nav a[data-page="trace"]')
    page.get_by_text("The server does not answer").first.wait_for()


@pytest.mark.slow
def test_who_waits_is_told_what_for(hostile, open_page):
    page, held = open_page(hostile.window), []
    settle(page)
    page.route("**/v1/inspect/score", lambda route: held.append(route))  # Playwright marks what it calls
    page.route("**/v1/inspect", lambda route: route.fulfill(json={"doing": "<b>a program is compiled</b>"}))
    page.click('nav a[data-page="predict"]')
    page.locator("#waiting", has_text="Waiting: <b>a program is compiled</b>.").wait_for()
    for route in held:
        route.continue_()
    settle(page)
    assert page.inner_text("#waiting") == "" and page.locator(".predict-bars li").count()
