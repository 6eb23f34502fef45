"""Response times of the window in Chromium.

    python -m tests.bench.window [--run runs/demo] [--times 5] [--most-paint 1000] [--most-answer 150]

Serves the run and opens its window (`make browser`), each time in a new profile. Prints a JSON line: milliseconds to
the first paint and to the whole first page, and for each action (a typed letter, a slider step, a token selected by
arrow key, a link or button activated by Enter) from the event to the last change in the page: [median, worst]. The
debounce of a page (150 ms after a letter, 60 after a batch slider step) is subtracted. Later changes (LATER) have
separate names and no limit. Exits with 1 if another median is above its limit. Browser and server share the machine.
"""

import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from data_prep.parquet import parquet_files, read_batches
from tests.bench.runner import SkippedError, require_model, run_benchmark
from tests.server_process import serving
from tests.window.browser import Watched, chromium, missing, page_ids, settle

PAUSE, BATCH_PAUSE = 150, 60
"""Milliseconds of debounce after typing (frame.js), and after a step of the batch slider (data_batches.js)."""
WATCH = """(later) => {
  window.timed = new Promise((resolve) => {
    let begun = 0;
    const last = { "": 0 };
    for (const name of Object.keys(later)) last[name] = 0;
    const begin = () => { begun = begun || performance.now(); };
    const place = (node) => (node.nodeType === 1 ? node : node.parentElement);
    const where = (node) => Object.keys(later).find((name) => place(node)?.closest(later[name])) || "";
    for (const kind of ["keydown", "input"]) addEventListener(kind, begin, { capture: true, once: true });
    const observer = new MutationObserver((seen) => {
      if (begun) for (const one of seen) last[where(one.target)] = performance.now();
    });
    observer.observe(document.body, { subtree: true, childList: true, attributes: true, characterData: true });
    setTimeout(() => {
      observer.disconnect();
      resolve(Object.fromEntries(Object.entries(last).map(([name, at]) => [name, begun && at ? at - begun : 0])));
    }, 1500);
  });
}"""
"""JavaScript that records the time of the last change, separately for each place of `later` ({name: selector})."""
PAINT = "() => performance.getEntriesByName('first-contentful-paint')[0].startTime"


class Act(NamedTuple):
    """A user action."""

    name: str
    selector: str
    """Selector of the focused element: the first visible one."""
    key: str
    pause: int = 0
    """Debounce of the page in milliseconds."""
    field: str = ""
    """Selector of the field to fill before."""
    text: str = ""
    """Text for the field; "" is a passage of the run's first document."""


TOKEN = Act("token", "main .strip", "ArrowRight")
SLIDER = Act("slider", "main input[type=range]", "ArrowRight")
TYPED = Act("typed", "main textarea", "a", PAUSE)
ACTS: Mapping[str, Sequence[Act]] = {
    "data": (
        Act("reason", "main .data-stage a[href*=reason]", "Enter"), Act("other_reason", "#data-reason", "ArrowDown"),
        Act("kept", "#data-reason", "Home"), Act("next_page", ".data-pager button", "Enter"),
        Act("search", "#data-query", "Enter", field="#data-query", text="people"),
        Act("document", ".data-list a", "Enter"),
        Act("batches", "[data-view=batch]", "Enter"), SLIDER._replace(name="step", pause=BATCH_PAUSE),
        Act("sequence", ".data-sequences li:nth-child(2) button", "Enter"), TOKEN,
    ),
    "trace": (
        Act("search", "#trace-query", "Enter", field="#trace-query", text="the people of"),
        Act("trace", "main .trace-form button >> text=Trace the prompt", "Enter", field="main textarea"),
        Act("passage", ".trace-spans li:last-child button", "Enter"),
    ),
}  # fmt: skip
"""Actions, in this order; on pages with several views."""
LATER = {
    "raw": "[role=group][aria-label=Page]",
    "seen": ".data-pair ~ div",
    "writes": ".training-writes, .training-compare .split",
    "comparison": ".tokens-comparison",
    "followed": "#report-document",
}
"""{name: selector} of later changes, which have no limit."""


def passage_of(run: Path) -> str:
    """A passage of the run's first document; "" if it has none."""
    for file in parquet_files(run / "documents"):
        for batch in read_batches(file, ["text"]):
            return " ".join(batch["text"][0].as_py()[:1000].split(" ")[10:50])
    return ""


def answer(page: Any, act: Act, passage: str) -> dict[str, float]:
    """{"" or a name of LATER: milliseconds from the key to the last change that follows it within 1.5 s}."""
    one = page.locator(act.selector).locator("visible=true").first
    if act.field:
        page.fill(act.field, act.text or passage)
        settle(page)
    one.focus()
    page.evaluate(WATCH, LATER)
    page.keyboard.press(act.key)
    found = page.evaluate("() => window.timed")
    return {name: max(0.0, value - act.pause) for name, value in found.items() if value}


def measure(window: str, times: int, passage: str) -> dict[str, Any]:
    paints: list[float] = []
    wholes: list[float] = []
    answers: dict[str, list[float]] = {}
    with chromium() as browser:
        for _ in range(times):
            watched = Watched(browser)
            page = watched.page
            page.goto(window)
            page.wait_for_selector("main h1")
            page.wait_for_function("() => !document.querySelector('[aria-busy=true]')")
            wholes.append(page.evaluate("() => performance.now()"))
            paints.append(page.evaluate(PAINT))
            for id in page_ids(page):
                opened = Act("opened", f'nav a[data-page="{id}"]', "Enter")
                for act in (opened, *ACTS.get(id, (TYPED, SLIDER, TOKEN))):
                    if page.locator(act.selector).locator("visible=true").count():
                        for later, taken in answer(page, act, passage).items():
                            name = ".".join(filter(None, (id, act.name, later)))
                            answers.setdefault(name, []).append(taken)
                        settle(page)
            watched.close()
    shown = {name: [round(statistics.median(found)), round(max(found))] for name, found in answers.items()}
    first = {"first_paint_ms": paints, "whole_page_ms": wholes}
    return {name: [round(statistics.median(found)), round(max(found))] for name, found in first.items()} | {
        "answers_ms": shown
    }


def main(
    run: Path = Path("runs/demo"), times: int = 5, most_paint: float = 1000, most_answer: float = 150
) -> Iterator[dict[str, Any]]:
    if reason := missing():
        raise SkippedError(reason)
    with serving(require_model(run)) as server:
        found = measure(f"{server.url}/window", times, passage_of(run))
    yield {"run": str(run), "times": times, **found}
    slow = [
        name
        for name, (median, _) in found["answers_ms"].items()
        if median > most_answer and name.rpartition(".")[2] not in LATER
    ]
    slow += ["first_paint_ms"] if found["first_paint_ms"][0] > most_paint else []
    if slow:
        sys.exit(f"window: slower than allowed: {', '.join(slow)}")


if __name__ == "__main__":
    run_benchmark(main)
