"""One server for the tests of a module, and an empty bucket for each test."""

import itertools
from collections.abc import Generator

import pytest

from lm.storage import Url
from tests.object_store import QUICK, Store, serving, variables

NUMBERS = itertools.count()


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


@pytest.fixture(params=["s3", "gs"])
def bucket(request: pytest.FixtureRequest, store: Store) -> Url:
    """An empty bucket."""
    name = f"bucket-{next(NUMBERS)}"
    store.bucket(name)
    return Url(f"{request.param}://{name}")
