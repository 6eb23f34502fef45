"""A browser, and runs that are served to it or exported for it.

Each page that a test opens is checked at the end: errors, warnings, failed requests, and requests to other machines.
"""

import contextlib
import fcntl
import functools
import os
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest

from tests.server_process import quick_environment, serving
from tests.window import runs
from tests.window.browser import Watched, chromium, missing

WRITE = {
    "hostile": runs.write_hostile_run, "stories": runs.write_stories_run, "demo": runs.copy_demo,
    "assistant": runs.write_assistant_run,
}  # fmt: skip
NEEDS = {
    "stories": (runs.STORIES, "../shared/data/models/stories260K"), "demo": (runs.DEMO, "the demo's run: make demo"),
}  # fmt: skip


class LookedAt:
    """A run of tests, its server and its exported page, each built on first use."""

    def __init__(self, folder: Path, server: Callable[[Path], str], shared: Path):
        self.folder, self.server, self.shared = folder, server, shared

    @functools.cached_property
    def url(self) -> str:
        """http://127.0.0.1:PORT"""
        return self.server(self.folder)

    @property
    def window(self) -> str:
        """URL of the served page."""
        return f"{self.url}/window"

    @functools.cached_property
    def exported(self) -> str:
        """URL of the exported page."""
        return made_once(self.shared / "exported", lambda folder: runs.write_exported(self.folder, folder)).as_uri()


def made_once(folder: Path, make: Callable[[Path], Path]) -> Path:
    """The result of `make(folder)`, built by the first test process that needs it."""
    folder.mkdir(exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / ".made").exists():
            (folder / ".made").write_text(str(make(folder)), encoding="utf-8")
    return Path((folder / ".made").read_text(encoding="utf-8"))


@pytest.fixture(scope="package")
def looked_at(tmp_path_factory) -> Generator[Callable[[str], LookedAt]]:
    """A run by name: "hostile", or "stories" or "demo", whose tests are skipped if its files are missing."""
    made: dict[str, LookedAt] = {}
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base  # which all test processes share
    with contextlib.ExitStack() as servers:

        def server(folder: Path) -> str:
            return servers.enter_context(serving(folder, environment=quick_environment())).url

        def of(name: str) -> LookedAt:
            if name in NEEDS and not NEEDS[name][0].is_dir():
                pytest.skip(f"needs {NEEDS[name][1]}")
            if name not in made:
                shared = base / f"window-{name}"
                made[name] = LookedAt(made_once(shared, WRITE[name]), server, shared)
            return made[name]

        yield of


@pytest.fixture(scope="package")
def hostile(looked_at) -> LookedAt:
    """A run whose documents, URLs, samples and names contain scripts, handlers, bidi controls and a 1 MB line."""
    return looked_at("hostile")


@pytest.fixture(scope="package")
def stories(looked_at) -> LookedAt:
    """An imported Llama: no data, no texts, no curves."""
    return looked_at("stories")


@pytest.fixture(scope="package")
def assistant(looked_at) -> LookedAt:
    """A run that was finetuned on conversations."""
    return looked_at("assistant")


@pytest.fixture(scope="package")
def browser() -> Generator[Any]:
    """Chromium, for the tests of this folder only: while Playwright runs, no other event loop can start."""
    if reason := missing():
        pytest.skip(reason)
    with chromium() as one:
        yield one


@pytest.fixture
def open_page(browser) -> Generator[Callable[..., Any]]:
    """`open_page(address, width=..., dark=...)` opens a Playwright page; errors in any page fail the test at the end.

    `expected=TEXT` is part of the expected errors.
    """
    opened: list[Watched] = []

    def open_page(address: str, **options: Any) -> Any:
        opened.append(Watched(browser, **options))
        opened[-1].page.goto(address)
        opened[-1].page.wait_for_selector("nav a[data-page]", state="attached")
        return opened[-1].page

    yield open_page
    for one in opened:
        one.close()
