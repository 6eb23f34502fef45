"""The exported page has the same answers as the served one, and shows them in the same way."""

import json
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest

from tests.window.browser import settle
from tests.window.test_inside import OVER_THE_TEXT

pytestmark = pytest.mark.slow
OF_THE_MOMENT = {"seconds", "seconds_since"}
"""Fields of answers with times and durations."""
ASK = """([name, fields]) => fetch("/v1/inspect/" + name, {
  method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(fields),
}).then((answer) => answer.json())"""
SHOWN = """(all) => all.map((one) => [
  one.textContent, one.getAttribute("aria-label"), one.dataset.bits, one.getAttribute("d"),
])"""
TEXT_AT_STEP = "text={prompt}&step={step}"
VIEWS = {
    "predict?text={prompt}": (".predict-bar", ".predict-summary", ".strip .token", ".predict-chart output"),
    f"predict?{TEXT_AT_STEP}": (".predict-bar", ".predict-summary", ".strip .token", ".predict-chart output"),
    "inside?text={prompt}": (
        OVER_THE_TEXT, ".inside-guess", ".inside-stream td",
        ".inside-answer .token-bars li", ".inside-about dd", ".inside-flow .inside-name",
    ),
    f"training?{TEXT_AT_STEP}": (
        ".training-watch .training-sums", ".training-strip .token", ".training-watch .token-bars li",
        ".training-watch .training-writes", ".training-compare .training-sums", ".training-curves .chart path",
        ".training-state",
    ),
    "data": (".data-stage",),
    "data?view=documents&reason={reason}": ("[aria-label=Documents] .data-list li", "[aria-label=Kept] li"),
    "data?view=batch&batch=1": (".data-sequences li", ".data-members .data-meta", ".data-reading .token"),
    "trace?search={prompt}": tuple(f"[aria-labelledby=trace-search] {one}" for one in ("q", "strong", "li")),
}  # fmt: skip
"""{URL: parts that are compared}. The exported page may only have the beginning of a list."""


def alike(one: Any, other: Any, where: str) -> None:
    """Raise AssertionError, with the place, unless both are equal up to rounding errors."""
    if isinstance(one, dict) and isinstance(other, dict):
        assert one.keys() == other.keys(), where
        for key in one.keys() - OF_THE_MOMENT:
            alike(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, list) and isinstance(other, list):
        assert len(one) == len(other), where
        for number, pair in enumerate(zip(one, other, strict=True)):
            alike(*pair, f"{where}[{number}]")
    elif isinstance(one, float) and isinstance(other, float):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6, err_msg=where)
    else:
        assert one == other, where


def questions(page: Any) -> dict[str, Any]:
    """{request: answer} of an exported page."""
    return json.loads(page.evaluate("() => document.querySelector('#recorded').textContent"))


@pytest.mark.parametrize("run", ("hostile", "stories", "demo"))
def test_the_server_gives_the_recorded_answers(looked_at, open_page, run):
    recorded = questions(open_page(looked_at(run).exported))
    assert len(recorded) > 10
    live, folder = open_page(looked_at(run).window), looked_at(run).folder
    # The path of the run is not exported.
    here, name_of_run = (json.dumps(one)[1:-1] for one in (str(folder), folder.name))
    for key, answer in recorded.items():
        name, _, fields = key.partition("{")
        found = json.dumps(live.evaluate(ASK, [name, json.loads("{" + fields)]))
        alike(answer, json.loads(found.replace(here, name_of_run)), key)


@pytest.mark.parametrize("run", ("hostile", "demo"))
def test_both_pages_show_the_same_numbers(looked_at, open_page, run):
    recorded = questions(open_page(looked_at(run).exported))
    prompt, steps = recorded["model{}"]["prompt"], recorded["model{}"]["steps"]
    reason = next(one["name"] for stage in recorded["funnel{}"]["stages"] for one in stage["reasons"])
    words = {"prompt": quote(prompt), "step": steps[0], "reason": quote(reason)}
    for address, selectors in VIEWS.items():
        texts = []
        for form in ("exported", "window"):
            page = open_page(f"{getattr(looked_at(run), form)}#{address.format(**words)}")
            settle(page)  # requests after the first answers
            texts.append({one: page.locator(f"main {one}").evaluate_all(SHOWN) for one in selectors})
            page.close()
        for selector in selectors:
            held, live = (one[selector] for one in texts)
            assert held and held == live[: len(held)], (address, selector)


def test_the_report_has_no_hole_and_clips_no_sample(looked_at, open_page):
    page = open_page(f"{looked_at('demo').exported}#report")
    gap = page.evaluate(
        """() => document.querySelector(".page-report .predict-chart").getBoundingClientRect().top
           - document.querySelector(".page-report .predict-details .note").getBoundingClientRect().bottom"""
    )
    assert 0 <= gap < 40
    samples = page.locator(".report-samples .report-text")
    assert samples.count() and samples.evaluate_all("(all) => all.every((one) => one.scrollHeight <= one.clientHeight)")
