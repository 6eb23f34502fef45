"""Units in a bucket: the same bytes as on disk, attempts recorded before they start, and few requests."""

import dataclasses
import json

import pytest

from data_prep.config import ONE_PROCESS
from data_prep.engine import run_step
from lm.errors import InputError
from lm.storage import Url
from tests.data_prep.engine.test_units import BAD, ENGINES, TWO, check_failures, contents, step_of, texts
from tests.object_store import HOPELESS, QUICK, serving, variables

RUN = Url("s3://bucket/run")


@pytest.fixture
def store():
    with serving() as store, variables(store.environment() | QUICK):
        store.bucket("bucket")
        yield store


def files(ending: str = "") -> dict[str, bytes]:
    return {name: (RUN / name).read_bytes() for name in RUN.files() if name.endswith(ending)}


def outputs() -> dict[str, bytes]:
    return {name.removeprefix("out/"): data for name, data in files(".txt").items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", ENGINES)
def test_outputs_equal_those_on_disk_and_each_unit_runs_once(name, store, tmp_path):
    run_step(step_of(texts(30)), ONE_PROCESS, tmp_path)
    assert list(run_step(step_of(texts(30)), ENGINES[name], RUN)) == list(texts(30))
    reads = sum(one.method in ("GET", "HEAD") for one in store.requests)
    assert reads <= 4 * 30 + 20 and len(store.requests) - reads <= 3 * 30 + 5
    assert outputs() == contents(tmp_path) and files(".running") == {}
    written = [one.path for one in store.requests if one.method == "PUT" and "/run/out/" in one.path]
    assert len(written) == len(set(written)) == 30


@pytest.mark.slow
def test_failed_units_are_quarantined(store, tmp_path):
    run_step(step_of(texts(20)), ONE_PROCESS, tmp_path)
    engine = dataclasses.replace(TWO, attempts=2, unit_hours=15 / 3600)
    run_step(step_of(texts(20) | BAD), engine, RUN)
    assert outputs() == contents(tmp_path) and files(".running") == {}
    found = files(".json")
    check_failures({name: json.loads(found[f"quarantine/step/{name}.json"]) for name in BAD})


@pytest.mark.parametrize(
    "what", [pytest.param("running", marks=pytest.mark.slow), "txt", pytest.param("json", marks=pytest.mark.slow)]
)
def test_a_full_store_is_not_the_fault_of_a_unit_and_stops_the_step(what, store):
    run_step(step_of(texts(4)), ONE_PROCESS, RUN)
    store.fail(lambda request: "500" if request.method == "PUT" and request.path.endswith(f".{what}") else None)
    with variables(HOPELESS), pytest.raises(InputError, match="cannot be written"):
        run_step(step_of(texts(10)), TWO, RUN)
    assert not [name for name in RUN.files() if "quarantine" in name]
    store.fail(lambda request: None)
    assert len(run_step(step_of(texts(10)), ONE_PROCESS, RUN)) == 10
