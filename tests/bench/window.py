"""How long the window takes until it is seen, and until it has answered a hand.

    python -m tests.bench.window [--run runs/demo] [--times 5] [--most-paint 1000] [--most-answer 150]

Serves the run and opens its window in Chromium (`make browser`), each time in a profile of its own. Prints one JSON
line: milliseconds to the first paint and to the whole first page, and for each page those from an event (a letter
typed, a step of a slider, a token chosen by an arrow key) to the last change that it made in the page, a request's
answer included: [median, worst]. A letter waits 150 ms for another one before it is acted on; `typed` is without that
pause. Ends with 1 where a median is above what is allowed, in milliseconds. Browser and server share the machine.
"""

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

from tests.run_files import has_model
from tests.server_process import serving
from tests.window.browser import Watched, chromium, missing, page_ids, settle, show

PAUSE = 150
"""Milliseconds after the last key until a text is acted on (frame.js)."""
WATCH = """() => {
  window.timed = new Promise((resolve) => {
    let begun = 0, last = 0;
    const begin = () => { begun = begun || performance.now(); };
    for (const kind of ["keydown", "input"]) addEventListener(kind, begin, { capture: true, once: true });
    const observer = new MutationObserver(() => { if (begun) last = performance.now(); });
    observer.observe(document.body, { subtree: true, childList: true, attributes: true, characterData: true });
    setTimeout(() => { observer.disconnect(); resolve(begun && last ? last - begun : 0); }, 1500);
  });
}"""
PAINT = "() => performance.getEntriesByName('first-contentful-paint')[0].startTime"
KINDS = {
    "typed": ("main textarea", "a", PAUSE),
    "slider": ("main input[type=range]", "ArrowRight", 0),
    "token": ("main .strip", "ArrowRight", 0),
}
"""{what is done: (to which element, the key, milliseconds that are a pause)}."""


def answer(page: Any, selector: str, key: str, pause: int) -> float:
    """Milliseconds from the key to the last change that follows it within 1.5 s."""
    one = page.locator(selector).locator("visible=true").first
    one.focus()
    page.evaluate(WATCH)
    page.keyboard.press(key)
    return max(0.0, page.evaluate("() => window.timed") - pause)


def measure(window: str, times: int) -> dict[str, Any]:
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
                show(page, id)
                for kind, (selector, key, pause) in KINDS.items():
                    if page.locator(selector).locator("visible=true").count():
                        answers.setdefault(f"{id}.{kind}", []).append(answer(page, selector, key, pause))
                        settle(page)
            watched.close()
    shown = {name: [round(statistics.median(found)), round(max(found))] for name, found in answers.items()}
    first = {"first_paint_ms": paints, "whole_page_ms": wholes}
    return {name: [round(statistics.median(found)), round(max(found))] for name, found in first.items()} | {
        "answers_ms": shown
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=Path("runs/demo"))
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--most-paint", type=float, default=1000)
    parser.add_argument("--most-answer", type=float, default=150)
    given = parser.parse_args()
    if reason := missing():
        print(f"window: {reason}")
    elif has_model(given.run, "window"):
        with serving(given.run) as server:
            found = measure(f"{server.url}/window", given.times)
        print(json.dumps({"bench": "window", "run": str(given.run), "times": given.times, **found}))
        slow = [name for name, (median, _) in found["answers_ms"].items() if median > given.most_answer]
        slow += ["first_paint_ms"] if found["first_paint_ms"][0] > given.most_paint else []
        if slow:
            sys.exit(f"window: slower than allowed: {', '.join(slow)}")


if __name__ == "__main__":
    main()
