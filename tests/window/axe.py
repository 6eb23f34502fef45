"""axe-core (Deque Systems, MPL-2.0), which finds accessibility faults of a page."""

import functools
from typing import Any

from tests.window.browser import TOOLS

GRAVE = ("serious", "critical")


@functools.cache
def script() -> str:
    return (TOOLS / "axe_playwright_python/axe.min.js").read_text()


def grave_faults(page: Any) -> list[str]:
    """Serious and critical violations that axe-core finds in the page: rule, explanation, and element."""
    page.evaluate(f"() => {{ {script()} }}")  # not as an element: the page's policy forbids it
    found = page.evaluate("() => axe.run(document, { resultTypes: ['violations'] })")
    return [
        f"{rule['id']} ({rule['impact']}): {node['html'][:160]}: {' '.join(node['failureSummary'].split())[:300]}"
        for rule in found["violations"] if rule["impact"] in GRAVE
        for node in rule["nodes"][:3]
    ]  # fmt: skip
