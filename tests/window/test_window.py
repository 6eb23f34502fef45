"""Every page of the window, served and exported, on every kind of run."""

import pytest

from tests.window.browser import page_ids, settle, show


@pytest.mark.parametrize("run", ["hostile", "stories"])
@pytest.mark.parametrize("form", ["window", "exported"])
def test_every_page_opens(looked_at, open_page, run, form):
    page = open_page(getattr(looked_at(run), form))
    settle(page)
    for id in page_ids(page):
        show(page, id)
        assert page.inner_text("main h1") and len(page.inner_text("main")) > 100
        assert page.get_attribute("nav [aria-current=page]", "data-page") == id
        assert page.locator("main .problem").count() == 0, page.inner_text("main .problem")
