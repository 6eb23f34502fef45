import logging
import os
import signal

import pytest

from data_prep.beam_runner import counters, run_pipeline
from lm.errors import InputError, UsageError

MESSAGE = "The file is bad.\nRemedy: mend [it], lm.errors.InputError: no, this is no other error"


def work(number: int, fault: str) -> None:
    from apache_beam.metrics import Metrics

    Metrics.counter("test", f"odd/{number % 2}").inc(number)
    if number == 3:
        if fault == "input":
            raise InputError(MESSAGE)
        if fault == "usage":
            raise UsageError(MESSAGE)
        if fault == "bug":
            raise KeyError("a bug of ours")
        if fault == "killed":
            os.kill(os.getpid(), signal.SIGKILL)


def run(fault: str, workers: int):
    import apache_beam as beam

    def build(pipeline) -> None:
        pipeline | beam.Create(range(6), reshuffle=workers > 1) | beam.Map(work, fault=fault)

    return run_pipeline(build, workers)


@pytest.mark.parametrize("workers", [1, 2])
def test_counters_add_up_over_workers(workers):
    assert counters(run("none", workers), "test") == {"odd/0": 6, "odd/1": 9}
    assert counters(run("none", 1), "other") == {}


@pytest.mark.parametrize(("fault", "kind", "workers"), [("input", InputError, 1), ("usage", UsageError, 2)])
def test_errors_for_the_user_arrive_as_they_were(fault, kind, workers):
    with pytest.raises(InputError) as caught:
        run(fault, workers)
    assert type(caught.value) is kind
    assert str(caught.value) == MESSAGE


def test_a_bug_is_not_hidden():
    with pytest.raises(KeyError, match="a bug of ours"):
        run("bug", 1)


def test_a_killed_worker_is_told():
    with pytest.raises(InputError, match="One of 2 worker processes was killed"):
        run("killed", 2)


def test_logging_and_environment_are_put_back():
    before = logging.root.manager.disable, os.environ.get("PYTHONPATH")
    run("none", 1)
    assert (logging.root.manager.disable, os.environ.get("PYTHONPATH")) == before
