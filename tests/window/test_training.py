"""The page Training equals the Python API at every step, and shows text as text."""

import json

import pytest

from configs.experiment.run_folder import RunFolder
from lm.inspect.inspector import Inspector
from tests.window.browser import PHONE, settle

TEXT = "The miller carried a sack of grain by the river"
SUMS, STEP = ".training-watch .training-sums", ".training-player output"


def bits_of(folder, step: int) -> str:
    loaded = RunFolder(folder).load(step=step)
    found = Inspector(loaded.model, loaded.experiment.model, loaded.tokenizer, loaded.mesh).score(TEXT)
    return f"{float(found.bits_N.sum()):.1f}"


def written(page) -> None:
    """Wait until the page shows the model's continuation; the first time, programs are compiled for it."""
    page.locator(".training-writes .training-prompt").first.wait_for(timeout=180_000)
    settle(page)


def at_step(page, step: str) -> None:
    page.locator(STEP, has_text=step).wait_for()
    page.locator(SUMS, has_text=f"At step {step}:").wait_for()


@pytest.mark.slow
def test_a_slider_moves_through_the_steps_and_shows_the_loss_of_each(hostile, open_page):
    page = open_page(f"{hostile.window}#training?text={TEXT.replace(' ', '+')}")
    page.wait_for_selector(".training-watch .token")
    slider = page.locator(".training-player input")
    for key, step in (("End", 12), ("Home", 4), ("ArrowRight", 8)):
        slider.press(key)
        at_step(page, str(step))
        assert bits_of(hostile.folder, step) in page.locator(SUMS).inner_text()
    assert page.evaluate("location.hash").endswith("step=8")
    page.locator(".training-compare .training-sums", has_text="Step 8: ").wait_for()
    for chart in (".training-curves .chart-large", ".training-watch .chart"):  # the curves mark the selected step
        assert page.locator(f"{chart} output").inner_text().startswith("step 8 · ")
    page.get_by_role("button", name="Next").click()
    at_step(page, "12")
    page.locator(".training-watch .strip").press("ArrowRight")
    assert " bits, rank " in page.locator(".training-watch .training-token").inner_text()
    written(page)


@pytest.mark.slow
@pytest.mark.parametrize("where", ["served", "exported"])
def test_curves_are_read_by_keys_and_as_a_table_and_hostile_samples_stay_text(hostile, open_page, where):
    page = open_page(f"{hostile.window if where == 'served' else hostile.exported}#training", width=PHONE)
    page.wait_for_selector(".training-watch .token")
    rows = [json.loads(line) for line in (hostile.folder / "metrics.jsonl").read_text().splitlines()]
    logged = [row for row in rows if "loss" in row]
    assert page.locator(".training-state").inner_text() == "Finished: 12 steps."
    chart = page.locator(".training-curves .chart-large")
    chart.locator(".chart-plot").press("End")
    said = chart.locator("output").inner_text()
    assert f"step {logged[-1]['step']}" in said and f"as logged {logged[-1]['loss']:.4g}" in said
    chart.locator("summary").click()
    chart.locator("tbody tr").first.wait_for()
    assert chart.locator("tbody tr").count() == len(logged)
    assert "<script>window.hacked = 1</script>" in page.locator(".training-sample").inner_text()
    written(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE


@pytest.mark.slow
def test_a_run_without_a_log_says_so_and_still_answers(stories, open_page):
    page = open_page(f"{stories.window}#training?text=Once+upon+a+time")
    page.wait_for_selector(".training-watch .token")
    assert "There is no training log" in page.locator(".training-state").inner_text()
    assert page.locator(".training-curves .chart:visible").count() == 0
    assert not page.locator(".training-curves").is_visible()
    assert page.get_by_role("button", name="Next").is_disabled()
    assert "There is only one step" in page.locator(".training-compare").inner_text()
    written(page)


@pytest.mark.slow
def test_asking_every_step_shows_each_answer_and_can_be_stopped(hostile, open_page):
    page = open_page(f"{hostile.window}#training?text=The+old+mill")
    page.wait_for_selector(".training-watch .token")
    written(page)
    page.route("**/v1/inspect/score", lambda route: None)  # never answered
    page.get_by_label("Text", exact=True).fill("The new mill")
    page.wait_for_function("() => location.hash.includes('new')")  # editing the text cancels requests for the old one
    page.get_by_role("button", name="Compute every step").click()
    page.get_by_role("button", name="Stop").click()
    page.get_by_role("button", name="Compute every step").wait_for()
    page.unroute_all()
    page.locator(".training-player input").press("Home")
    at_step(page, "4")
    page.get_by_role("button", name="Compute every step").click()
    chart = page.locator(".training-watch .chart")
    chart.locator("summary").click()
    page.wait_for_function("() => document.querySelectorAll('.training-watch .chart tbody tr').length === 3")
    assert not page.locator(".problem:visible").count()
