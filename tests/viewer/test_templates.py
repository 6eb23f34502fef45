"""What every page has from its filling: escaped texts, one policy, and no text that stops it."""

import base64
import hashlib
import re
from pathlib import Path

import pytest

from tests.run_files import REPOSITORY
from viewer.templates import STYLE, fill

PAGE = '{% from "macros.html" import preamble with context %}{{ preamble(name) }}<p>{{ name }}</p>{{ 1234 | count }}'


@pytest.fixture
def template(tmp_path: Path) -> Path:
    (tmp_path / "page.html").write_text(PAGE)
    return tmp_path / "page.html"


def test_texts_are_escaped_and_a_lone_surrogate_stops_nothing(template):
    html = fill(template, name="<b>\ud800")
    assert "<p>&lt;b&gt;?</p>1,234" in html and "<title>&lt;b&gt;?</title>" in html
    html.encode()


def test_no_name_of_a_class_stands_in_a_page_s_text():
    """As after a renaming that went too far."""
    for page in (REPOSITORY / "viewer").rglob("*.html"):
        text = re.sub(r"\{[{%#].*?[}%#]\}|<[^>]*>|<style>.*?</style>", " ", page.read_text("utf-8"), flags=re.DOTALL)
        assert not (found := re.findall(r"\b[A-Z][a-z]+[A-Z][A-Za-z]+\b", text)), f"{page}: {found}"


def test_one_is_no_plural(template):
    (template.parent / "page.html").write_text(
        '{{ 0 | counted("page") }}, {{ 1 | counted("page") }}, {{ n | counted("page") }}'
    )
    assert fill(template, n=1234) == "0 pages, 1 page, 1,234 pages"


@pytest.mark.parametrize("script", ["", "x()"])
def test_no_script_but_the_page_s_own_may_run(template, script):
    policy = fill(template, script=script, name="").split('content="')[1].split('"')[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    allowed = f"script-src 'sha256-{digest}'; " if script else ""
    assert policy == f"default-src 'none'; style-src 'unsafe-inline'; {allowed}base-uri 'none'; form-action 'none'"


def test_a_page_s_style_comes_behind_that_of_all(template):
    assert f"<style>{STYLE}p {{ }}</style>" in fill(template, style="p { }", name="")
