"""Every page of the window, served and exported, for every kind of run: it opens, runs no text or name of the run as
code, shows the numbers of the Python API, and works with a keyboard, a screen reader and a phone."""

import re
import shlex
from pathlib import Path

import pytest

from tests.window import runs
from tests.window.axe import grave_faults
from tests.window.browser import PHONE, WIDE, page_ids, settle, show
from tests.window.driven import ONLY_POINTED_AT, use_all, walk
from viewer.page import STATIC

HOSTILE_TEXT = "\n".join(line[:200] for line in runs.LINES.values())
INERT = """() => {
  const count = (selector, wrong = () => true) => [...document.querySelectorAll(selector)].filter(wrong).length;
  return {
    scripts: count("main script"),
    handlers: count("*", (one) => one.getAttributeNames().some((name) => /^on/i.test(name))),
    outside: count("main img:not([src^='data:']), iframe, object, embed, base, meta[http-equiv=refresh]"),
    links: count("a[href]", (one) => !["http:", "https:", "file:"].includes(one.protocol)),
  };
}"""
"""Counts of elements that no text may create."""
SLOW = pytest.mark.slow
RUNS = ("hostile", *(pytest.param(name, marks=SLOW) for name in ("assistant", "stories", "demo")))
FORMS = ("window", "exported")
"""Views of LookedAt: served, and in a file."""
MOST_USED = 8
"""Number of controls of each kind that are used on a page."""


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("form", ("window", pytest.param("exported", marks=SLOW)))
def test_every_page_opens_and_shows_all_texts_as_text(looked_at, open_page, run, form):
    page = open_page(getattr(looked_at(run), form))
    assert looked_at(run).folder.name in page.text_content(".kicker span")
    assert len(page_ids(page)) == len({*page_ids(page)})
    for id in page_ids(page):
        show(page, id)
        assert page.get_attribute("nav [aria-current=page]", "data-page") == id
        assert page.inner_text("main h1") and len(page.inner_text("main")) > 200
        assert not "".join(page.locator("main .problem").all_inner_texts())
        assert looked_at(run).folder.name in page.title()
        assert set(page.evaluate(INERT).values()) == {0}, (id, page.evaluate(INERT))


@pytest.mark.slow
@pytest.mark.parametrize("run", ("hostile", "stories", "demo"))
@pytest.mark.parametrize("form", FORMS)
def test_typing_dragging_and_clicking_cause_no_error(looked_at, open_page, run, form):
    address = getattr(looked_at(run), form)
    page = open_page(address)
    for id in page_ids(page):
        show(page, id)
        used = use_all(page, HOSTILE_TEXT, MOST_USED)
        told = page.inner_text("body")
        assert used or "python -m" in told or "imported" in told, f"{id}: nothing in it could be used, and no word why"
        assert set(page.evaluate(INERT).values()) == {0}, (id, page.evaluate(INERT))
        page.goto("about:blank")
        page.goto(address)  # the text returns to the run's own


@pytest.mark.parametrize("form", ("window", pytest.param("exported", marks=SLOW)))
def test_a_planted_script_does_not_run(hostile, open_page, form):
    page = open_page(getattr(hostile, form), expected="Content Security Policy")
    page.evaluate("""() => {
      const script = document.createElement("script");
      script.textContent = "window.hacked = 1";
      document.body.append(script);
      const button = document.createElement("button");
      button.setAttribute("onclick", "window.hacked = 1");
      document.body.append(button);
      button.click();
    }""")
    refused = page.evaluate("fetch('https://outside.example/').then(() => 'went out', () => 'refused')")
    assert refused == "refused"
    policy = page.get_attribute("meta[http-equiv=Content-Security-Policy]", "content")
    assert "default-src 'none'" in policy and "unsafe" not in policy


FORBIDDEN = re.compile(
    r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|setTimeout\(\s*[\"'`]|javascript:|"
    r"createContextualFragment|DOMParser|https?://(?!www\.w3\.org)"
)


@pytest.mark.parametrize("path", sorted(STATIC.glob("*.js")), ids=lambda path: path.name)
def test_no_script_inserts_text_as_html_or_names_another_host(path):
    text = path.read_text()
    code = re.sub(r"^\s*//.*$", "", text, flags=re.MULTILINE)
    assert FORBIDDEN.findall(code) == []
    assert len(text.splitlines()) <= 400, f"{path.name} has {len(text.splitlines())} lines"


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize(
    ("width", "dark"),
    [(PHONE, True), pytest.param(WIDE, False, marks=SLOW), pytest.param(WIDE, True, marks=SLOW),
     pytest.param(PHONE, False, marks=SLOW)],
)  # fmt: skip
def test_axe_finds_no_serious_fault_and_nothing_is_wider_than_the_screen(looked_at, open_page, run, width, dark):
    page = open_page(looked_at(run).window, width=width, dark=dark)
    for id in page_ids(page):
        show(page, id)
        assert not (found := grave_faults(page)), f"{id}:\n" + "\n".join(found)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, id


@SLOW
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [PHONE, WIDE])
def test_axe_finds_no_serious_fault_in_the_exported_page(hostile, open_page, width, dark):
    page = open_page(hostile.exported, width=width, dark=dark)
    for id in page_ids(page):
        show(page, id)
        assert not (found := grave_faults(page)), f"{id}:\n" + "\n".join(found)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, id


@pytest.mark.parametrize("run", RUNS)
def test_a_keyboard_reaches_everything_with_a_visible_focus_and_is_never_trapped(looked_at, open_page, run):
    page = open_page(looked_at(run).window)
    for id in page_ids(page):
        show(page, id)
        unreached, wrong = walk(page)
        assert not unreached and not wrong, (id, unreached, wrong)
        assert not (found := page.evaluate(ONLY_POINTED_AT)), f"{id}: for a pointer alone: {found}"


def test_the_keyboard_opens_every_page(hostile, open_page):
    page = open_page(hostile.window)
    for id in page_ids(page):
        page.focus(f'nav a[data-page="{id}"]')
        page.keyboard.press("Enter")
        settle(page)
        assert page.get_attribute("nav [aria-current=page]", "data-page") == id


def test_a_url_restores_the_view(hostile, open_page):
    page = open_page(hostile.window)
    for id in page_ids(page):
        show(page, id)
        if page.locator("textarea#prompt").count():
            page.fill("textarea#prompt", HOSTILE_TEXT[:500])
            settle(page)
            again = open_page(page.url)
            assert again.input_value("textarea#prompt") == HOSTILE_TEXT[:500]
            assert again.inner_text("main h1") == page.inner_text("main h1")
            return
    pytest.fail("no page has a box for a text")


@pytest.mark.parametrize("form", ("window", pytest.param("exported", marks=SLOW)))
def test_the_first_page_explains_every_other_and_links_the_tour(hostile, open_page, form):
    page = open_page(getattr(hostile, form))
    assert page_ids(page)[0] == "report" and page.get_attribute("nav [aria-current=page]", "data-page") == "report"
    listed = page.eval_on_selector_all(".page-list a", "links => links.map((link) => link.hash.slice(1).split('?')[0])")
    assert listed == page_ids(page)[1:]
    assert "docs/tour.md" in page.inner_html(".page-report")
    page.click(".page-list a >> nth=1")
    page.wait_for_selector(".page-predict")


@pytest.mark.parametrize("form", ("window", pytest.param("exported", marks=SLOW)))
def test_the_names_of_all_pages_are_visible_on_a_phone(hostile, open_page, form):
    page = open_page(getattr(hostile, form), width=PHONE)
    for link in page.locator("nav a[data-page]").all():
        box = link.bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= PHONE


def test_the_longest_bar_of_a_distribution_fills_its_track(hostile, open_page):
    page = open_page(hostile.window + "#predict")
    shares = page.eval_on_selector_all(
        ".predict-bar", "bars => bars.map((bar) => parseFloat(bar.style.getPropertyValue('--share')))"
    )
    numbers = [float(text.removesuffix(" %")) for text in page.locator(".predict-number").all_inner_texts()]
    assert max(shares) == 100 and len(shares) > 5
    for share, number in zip(shares, numbers, strict=True):
        assert share == pytest.approx(100 * number / max(numbers), abs=100 * 0.06 / max(numbers))


@pytest.mark.slow
def test_the_command_of_an_exported_page_serves_its_run(hostile, open_page):
    page = open_page(hostile.exported)
    python, dash_m, script, run = shlex.split(page.inner_text("footer .serve-command"))
    assert (python, dash_m, script, Path(run)) == (".venv/bin/python", "-m", "launch.serve", hostile.folder)
