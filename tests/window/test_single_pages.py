"""Exported single pages: of tokenizers, of a funnel with other thresholds, of a ladder of models."""

import json
from pathlib import Path
from urllib.parse import quote

import pytest

from lm.config import TokenizerConfig
from lm.scaling.study import study
from lm.tokenizer import train_bpe
from tests.data_prep.measured import CONFIG
from tests.launch.run_folder import write_funnel_of
from tests.launch.test_report import HOSTILE
from tests.lm.scaling.test_study import found, rung
from tests.viewer.test_funnel import DROPPED, KEPT
from tests.window.axe import grave_faults
from tests.window.browser import PHONE, page_ids, settle
from viewer.funnel import preview_html
from viewer.page import key_of, window_html
from viewer.tokenizer.samples import KINDS, LANGUAGES
from viewer.window.tokens import comparison, vocabulary
from viewer.window.training import CurveLog

__all__ = ["found", "rung", "study"]


@pytest.fixture
def opened(open_page, tmp_path: Path):
    """`opened(html)` opens the page of a file on a phone; it must be a single page, without serious accessibility
    faults."""

    def opened(html: str, hash: str = "", **options):
        (tmp_path / "page.html").write_text(html)
        page = open_page((tmp_path / "page.html").as_uri() + hash, **options)
        assert len(page_ids(page)) == 1 and not page.locator(".problem:visible").count()
        assert not grave_faults(page)
        return page

    return opened


@pytest.mark.slow
def test_two_tokenizers_are_compared(opened):
    texts = [*LANGUAGES.values(), *KINDS.values()]
    named = {
        name: train_bpe(texts, TokenizerConfig(size, "gpt2", 10**6)) for name, size in (("one", 700), (HOSTILE, 400))
    }
    answers = {key_of("model", {}): {"name": "one", "prompt": HOSTILE}, key_of("comparison", {}): comparison(named)}
    for of, name in (({}, "one"), ({"tokenizer": HOSTILE}, HOSTILE)):
        answers[key_of("vocabulary", of)] = vocabulary(name, named[name]) | {"others": [HOSTILE]}
    page = opened(window_html(answers, ("tokens",)), f"#tokens?beside={quote(HOSTILE, safe='')}")
    (german,) = page.locator(".tokens-rates tr", has_text="German").all_inner_texts()
    for view, tokenizer in zip(page.locator(".tokens-view").all(), named.values(), strict=True):
        assert view.locator(".token").count() == len(tokenizer.encode(HOSTILE))
        assert str(len(tokenizer.encode(LANGUAGES["German"]))) in german
    assert page.input_value("#tokens-text") == HOSTILE and "Merge" in page.inner_text(".tokens-told")


@pytest.mark.parametrize("width", [pytest.param(1200, marks=pytest.mark.slow), PHONE])
def test_a_preview_of_the_funnel_links_to_its_rules_and_documents(opened, tmp_path, width):
    write_funnel_of(tmp_path, KEPT, DROPPED, CONFIG)
    html = preview_html(tmp_path / "funnel.json", tmp_path / "texts", CONFIG, HOSTILE, [f"now 20 {HOSTILE}"])
    page = opened(html, width=width)
    assert f"now 20 {HOSTILE}" in page.inner_text(".panel") and "length < 50: dropped" in page.inner_text(
        ".data-funnel"
    )
    page.click("text=Rules")
    settle(page)
    rule = page.locator(".data-rule", has_text="length < 50")
    assert "4 documents dropped" in rule.inner_text() and rule.locator(".chart-limit").all_text_contents()[0] == "← 50"
    assert not grave_faults(page)
    rule.get_by_text("4 documents dropped").click()
    settle(page)
    assert page.locator("[aria-label=Documents] .data-list li").count() == 4
    assert page.locator("[aria-label=Kept] .data-list li").count() == 10
    assert "Too short." in page.inner_text("[aria-label=Documents]")
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_curves_of_a_reinforced_run_include_its_rewards(opened, tmp_path):
    rows = [{"step": 1, "reward": 0.25}, {"step": 2, "reward": 0.75}]
    rows += [{"step": step, "validation_pass_at_1": step / 4} for step in (0, 2)]
    (tmp_path / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    state = {"state": "done", "at": 2, "steps": 2, "checkpoints": [2], "samples": [], "damaged": []}
    model = {"name": "run", "step": 2, "steps": [2], "parameters": 9, "vocab_size": 300}
    answers = {
        "model": model,
        "runs": {"runs": [{"name": "run"}]},
        "curves": CurveLog(tmp_path / "metrics.jsonl").read() | state,
    }
    page = opened(window_html({key_of(name, {}): answer for name, answer in answers.items()}, ("training",)))
    assert "oss" not in page.inner_text("main")
    for title, last in (("Reward", "0.75"), ("Solved", "0.5")):
        chart = page.locator(".training-small .chart", has_text=title)
        chart.locator(".chart-plot").press("End")
        assert last in chart.locator("output").inner_text()


@pytest.mark.slow
def test_a_ladder_shows_every_run_and_its_scaling_law(opened, found):
    page = opened(
        window_html({key_of("model", {}): {"name": "tales"}, key_of("scaling", {}): found.as_json()}, ("scaling",))
    )
    assert page.locator("table tbody tr").count() == 17 + 1 + 5
    text = page.inner_text("main")
    assert "launch.train ended with code 1 <b>" in text and f"{found.held_out[0].loss:.4f}" in text
    best = found.fit.law.loss(*found.fit.law.optimum(found.budget))
    chart = page.locator(".chart").nth(1)
    chart.locator(".chart-plot").press("End")
    chart.locator("summary").click()
    assert page.locator(".chart circle").count() > 2 * 17 and best == pytest.approx(found.loss.value, rel=0.01)
