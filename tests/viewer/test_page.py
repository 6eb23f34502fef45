"""The HTML of the window: one policy, no external resources, and recorded texts that stay text."""

import json
import re

import lxml.html
import pytest

from tests.launch.run_folder import recorded_in
from tests.launch.test_report import HOSTILE
from viewer.page import key_of, sha256_source, window_html

ANSWERS = {key_of("model", {}): {"name": HOSTILE, "prompt": "\ud800\u2028" + HOSTILE}}


@pytest.mark.parametrize("recorded", [None, {}, ANSWERS])
def test_only_its_own_script_and_style_are_allowed_and_nothing_is_loaded(recorded):
    page = lxml.html.document_fromstring(window_html(recorded))
    assert not page.xpath("//@src | //link[not(@href='data:,')] | //img | //iframe | //object | //embed | //base")
    assert not page.xpath("//@*[starts-with(name(), 'on')]")
    (style,), script = page.xpath("//style"), page.xpath("//script")[-1]
    assert len(page.xpath("//script")) == (1 if recorded is None else 2)
    assert not re.search(r"@import|url\(", style.text)
    (policy,) = page.xpath("//meta[@http-equiv='Content-Security-Policy']/@content")
    assert policy == (
        f"default-src 'none'; script-src {sha256_source(script.text)}; style-src {sha256_source(style.text)}; img-src "
        f"data:; connect-src {'self' if recorded is None else 'none'!r}; base-uri 'none'; form-action 'none'"
    )


def test_recorded_texts_are_json_that_cannot_close_its_element(tmp_path):
    (tmp_path / "page.html").write_text(window_html(ANSWERS, pages=("tokens",)))
    assert recorded_in(tmp_path / "page.html") == {**ANSWERS, "pages": ["tokens"]}
    with pytest.raises(ValueError, match="JSON"):
        window_html({"model{}": float("nan")})
    assert json.loads(key_of("score", {"text": "\x7fé", "step": None}).removeprefix("score")) == {"text": "\x7fé"}
