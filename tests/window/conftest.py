"""A browser, and runs that are served to it or exported for it.

Each page that a test opens is checked at the end: errors, warnings, failed requests, and requests to other machines.
"""

import contextlib
import functools
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest

from configs.experiment.run_folder import RunFolder
from lm.inspect.inspector import Inspector
from tests.assistant_run import finetune
from tests.made_once import made_once
from tests.server_process import ServerProcess, quick_environment, serving
from tests.window import runs
from tests.window.browser import Watched, chromium, missing, settle

WRITE = {"hostile": runs.write_hostile_run, "stories": runs.write_stories_run, "demo": runs.copy_demo}
NEEDS = {
    "stories": (runs.STORIES, "../shared/data/models/stories260K"), "demo": (runs.DEMO, "the demo's run: make demo"),
}  # fmt: skip


class LookedAt:
    """A run of tests, its server and its exported page, each built on first use."""

    def __init__(self, name: str, servers: contextlib.ExitStack, factory: pytest.TempPathFactory):
        self.name, self.servers, self.factory = name, servers, factory

    @functools.cached_property
    def folder(self) -> Path:
        """The run folder."""
        return made_once(self.factory, f"window-{self.name}", WRITE.get(self.name, self.write_assistant))

    def write_assistant(self, folder: Path) -> Path:
        return runs.write_assistant_run(folder, made_once(self.factory, "shared-assistant", finetune))

    @functools.cached_property
    def server(self) -> ServerProcess:
        """launch.serve on the run."""
        return self.servers.enter_context(serving(self.folder, environment=quick_environment()))

    @property
    def url(self) -> str:
        """http://127.0.0.1:PORT"""
        return self.server.url

    @property
    def window(self) -> str:
        """URL of the served page."""
        return f"{self.url}/window"

    @functools.cached_property
    def inspector(self) -> Inspector:
        """The Python API of the run's model."""
        loaded = RunFolder(self.folder).load()
        return Inspector(loaded.model, loaded.experiment.model, loaded.tokenizer, loaded.mesh)

    @functools.cached_property
    def exported(self) -> str:
        """URL of the exported page."""
        write = lambda folder: runs.write_exported(self.folder, folder)
        return made_once(self.factory, f"exported-{self.name}", write).as_uri()


@pytest.fixture(scope="package")
def looked_at(tmp_path_factory) -> Generator[Callable[[str], LookedAt]]:
    """A run by name: "hostile", or "stories" or "demo", whose tests are skipped if its files are missing."""
    with contextlib.ExitStack() as servers:

        @functools.cache
        def of(name: str) -> LookedAt:
            if name in NEEDS and not NEEDS[name][0].is_dir():
                pytest.skip(f"needs {NEEDS[name][1]}")
            return LookedAt(name, servers, tmp_path_factory)

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
    """`open_page(address, width=..., dark=...)` opens a Playwright page and waits until it is rendered.

    Errors in any page fail the test at the end; `expected=TEXT` is part of the expected errors.
    """
    opened: list[Watched] = []

    def open_page(address: str, **options: Any) -> Any:
        opened.append(Watched(browser, **options))
        opened[-1].page.goto(address)
        opened[-1].page.wait_for_selector("nav a[data-page]", state="attached")
        settle(opened[-1].page)
        return opened[-1].page

    yield open_page
    for one in opened:
        one.close()
