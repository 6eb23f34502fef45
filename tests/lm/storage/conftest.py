"""One server for the tests of a module, and an empty bucket for each test."""

import itertools
from collections.abc import Generator

import pytest

from lm.storage import Url, objects
from tests.object_store import QUICK, Store, serving, variables

NUMBERS = itertools.count()


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch) -> None:
    monkeypatch.setattr(objects, "ROUND_SECONDS", 0.01)


@pytest.fixture(scope="package")
def server() -> Generator[Store]:
    with serving() as store, variables(store.environment() | QUICK):
        yield store


@pytest.fixture
def store(server: Store) -> Generator[Store]:
    """Without faults at first, and at the end."""
    server.fail(lambda request: None)
    yield server
    server.fail(lambda request: None)


@pytest.fixture(params=["s3", pytest.param("gs", marks=pytest.mark.slow)])
def bucket(request: pytest.FixtureRequest, store: Store) -> Url:
    """An empty bucket. The stores differ in signatures, paths and conditions, not in the code of most tests."""
    name = f"bucket-{next(NUMBERS)}"
    store.bucket(name)
    return Url(f"{request.param}://{name}")
