"""Drive a browser and check for errors. `make browser` installs Playwright and axe-core; the browser is Debian's
package chromium, or GRISTMILL_CHROMIUM."""

import contextlib
import importlib
import os
import re
import shutil
import sys
from collections.abc import Generator
from typing import Any

from tests.run_files import REPOSITORY

TOOLS = REPOSITORY / ".tools/browser"
"""The folder into which `make browser` installs its packages."""
CHROMIUM = os.environ.get("GRISTMILL_CHROMIUM") or shutil.which("chromium") or ""
INSIDE = re.compile(r"(?:https?://127\.0\.0\.1[:/]|file:|data:|blob:|about:)")
"""URLs that stay on this machine."""
CANCELLED = "net::ERR_ABORTED"
"""A request that the page cancelled itself, for example because the text was edited meanwhile."""
WIDE, PHONE = 1200, 360
"""CSS pixels."""
WATCH_TIMERS = """(() => {
  const { setTimeout: begin, clearTimeout: end } = window, running = new Set();
  window.setTimeout = (act, wait, ...rest) => {
    const id = begin(() => { running.delete(id); act(...rest); }, wait);
    if (!(wait > 500)) running.add(id);
    return id;
  };
  window.clearTimeout = (id) => { running.delete(id); end(id); };
  window.idle = async () => {
    for (const until = Date.now() + 120_000; Date.now() < until;) {
      await new Promise((done) => requestAnimationFrame(() => begin(done)));
      if (!running.size && !document.querySelector("[aria-busy=true]")) return;
    }
    throw Error("the page is still busy");
  };
})()"""
"""Script of every page: `idle()` waits until all events are handled, and no short timer or request is pending."""


def missing() -> str:
    """Missing software for the browser; "" if all is installed."""
    if not (TOOLS / "playwright").is_dir():
        return "needs Playwright: make browser"
    return "" if CHROMIUM else "needs chromium: apt-get install chromium, or its path in GRISTMILL_CHROMIUM"


@contextlib.contextmanager
def chromium() -> Generator[Any]:
    """A headless browser in which only this machine has an address."""
    if str(TOOLS) not in sys.path:
        sys.path.append(str(TOOLS))  # at the end: .venv keeps precedence
    with importlib.import_module("playwright.sync_api").sync_playwright() as playwright:
        alone = ["--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1"]
        root = ["--no-sandbox"] if os.geteuid() == 0 else []  # its sandbox rejects root
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*alone, *root])
        try:
            yield browser
        finally:
            browser.close()


class Watched:
    """A page in its own profile, and all its errors."""

    def __init__(
        self,
        browser: Any,
        width: int = WIDE,
        height: int = 900,
        dark: bool = False,
        expected: str | tuple[str, ...] = (),
    ):
        """Errors that contain `expected` must occur, and are not reported."""
        self.expected = (expected,) if isinstance(expected, str) else expected
        self.context = browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme="dark" if dark else "light",
            reduced_motion="reduce",
        )
        self.context.set_default_timeout(120_000)  # however busy the machine
        self.context.add_init_script(WATCH_TIMERS)
        self.page = self.context.new_page()
        self.faults: list[str] = []
        self.asked: list[str] = []
        """Requested URLs, in order."""
        note = self.faults.append
        self.page.on("console", lambda said: said.type in ("error", "warning") and note(f"console: {said.text}"))
        self.page.on("pageerror", lambda error: note(f"error: {error.stack[:500]}"))
        self.page.on("dialog", lambda dialog: (note(f"dialog: {dialog.message}"), dialog.dismiss()))
        self.page.on("popup", lambda other: note(f"popup: {other.url}"))
        self.page.on("request", self.requested)
        self.page.on("requestfailed", self.failed)

    def requested(self, request: Any) -> None:
        self.asked.append(request.url)
        if not INSIDE.match(request.url):
            self.faults.append(f"a request leaves the machine: {request.url[:200]}")

    def failed(self, request: Any) -> None:
        if request.failure != CANCELLED:
            self.faults.append(f"a request failed: {request.url[:200]}: {request.failure}")

    def close(self) -> None:
        """Raise AssertionError if there were errors, or if a text was run as a script: scripts planted by tests set
        `hacked`."""
        try:
            if not self.page.is_closed() and self.page.evaluate("typeof window.hacked !== 'undefined'"):
                self.faults.append("a text was run as a script")
        finally:
            self.context.close()
        others = [fault for fault in self.faults if not any(one in fault for one in self.expected)]
        assert not others, "\n".join(others)
        assert self.faults or not self.expected, f"nothing said {self.expected!r}"


def settle(page: Any) -> None:
    """Wait until the page has a heading and is idle."""
    page.wait_for_selector("main h1")
    page.evaluate("idle()")


def page_ids(page: Any) -> list[str]:
    """The window's pages, as listed in its navigation."""
    return page.eval_on_selector_all("nav a[data-page]", "links => links.map((link) => link.dataset.page)")


def show(page: Any, id: str) -> None:
    """Open another page of the window with its navigation."""
    page.click(f'nav a[data-page="{id}"]')
    page.wait_for_selector(f".page-{id}")
    settle(page)
