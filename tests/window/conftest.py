"""A browser, and runs that are served to it or were exported for it. Each page that a test opens says at its end what
went wrong in it: errors, warnings, failed requests, and requests that would leave the machine."""

from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest

from tests.server_process import quick_environment, serving
from tests.window import runs
from tests.window.browser import Watched, chromium, missing

WRITE = {"hostile": runs.write_hostile_run, "stories": runs.write_stories_run}


class LookedAt:
    """A run of tests, its server and its exported page, each made when it is first asked for."""

    def __init__(self, folder: Path, server: Callable[[Path], str]):
        self.folder, self.server = folder, server
        self._url = ""
        self._exported: Path | None = None

    @property
    def url(self) -> str:
        """http://127.0.0.1:PORT"""
        self._url = self._url or self.server(self.folder)
        return self._url

    @property
    def window(self) -> str:
        """Address of the served page."""
        return f"{self.url}/window"

    @property
    def exported(self) -> str:
        """Address of the exported page."""
        self._exported = self._exported or runs.write_exported(self.folder)
        return self._exported.as_uri()


@pytest.fixture(scope="package")
def looked_at(tmp_path_factory) -> Generator[Callable[[str], LookedAt]]:
    """A run by its name: "hostile", or "stories", whose tests are skipped where its files are not there."""
    made: dict[str, LookedAt] = {}
    open_servers = []

    def server(folder: Path) -> str:
        one = serving(folder, environment=quick_environment())
        open_servers.append(one)
        return one.__enter__().url

    def of(name: str) -> LookedAt:
        if name == "stories" and not runs.STORIES.is_dir():
            pytest.skip("needs ../shared/data/models/stories260K")
        if name not in made:
            made[name] = LookedAt(WRITE[name](tmp_path_factory.mktemp(name)), server)
        return made[name]

    yield of
    for one in open_servers:
        one.__exit__(None, None, None)


@pytest.fixture(scope="package")
def hostile(looked_at) -> LookedAt:
    """A run whose documents, addresses, samples and names hold scripts, handlers, bidi controls and a 1 MB line."""
    return looked_at("hostile")


@pytest.fixture(scope="package")
def stories(looked_at) -> LookedAt:
    """An imported Llama: no data, no texts, no curves."""
    return looked_at("stories")


@pytest.fixture(scope="package")
def browser() -> Generator[Any]:
    """Chromium, for the tests of this folder alone: while Playwright runs, no other can start an event loop."""
    if reason := missing():
        pytest.skip(reason)
    with chromium() as one:
        yield one


@pytest.fixture
def open_page(browser) -> Generator[Callable[..., Any]]:
    """`open_page(address, width=..., dark=...)` is a page of Playwright; at the end, nothing went wrong in any."""
    opened: list[Watched] = []

    def open_page(address: str, **options: Any) -> Any:
        opened.append(Watched(browser, **options))
        opened[-1].page.goto(address)
        opened[-1].page.wait_for_selector("nav a[data-page]", state="attached")
        return opened[-1].page

    yield open_page
    for one in opened:
        one.close()
