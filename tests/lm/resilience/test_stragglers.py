"""Host times of several processes: each is reported, and stragglers are named."""

import json
import re

import pytest

from lm.resilience.stragglers import stragglers
from tests import train_process
from tests.run_files import HANG_SECONDS
from tests.train_runs import copy

FIELDS = {
    "steps": 12, "checkpoint_every": 0, "validate_every": 0, "sample_every": 0, "log_every": 4,
    "model": {"layers": 1},
}  # fmt: skip
SLOW_DATA = """
import time
from lm.data.batches import BatchSource
from tests import train_process

iterate = BatchSource.iterate

def slow(self, *given):
    for batch in iterate(self, *given):
        time.sleep(0.5)
        yield batch

BatchSource.iterate = slow
train_process.main()
"""
SLOW_BETWEEN_STEPS = """
import time
from lm.training.hooks import Heartbeat
from tests import train_process

run = Heartbeat.run
Heartbeat.run = lambda self, state, step: (time.sleep(0.5), run(self, state, step))[1]
train_process.main()
"""


@pytest.mark.parametrize(
    ("seconds", "step", "slow"),
    [
        ([0.01, 0.9], 1.0, [1]),
        ([0.9, 0.01], 1.0, [0]),
        ([0.01, 0.02], 1.0, []),  # hidden by the work of the devices
        ([0.9, 0.8], 1.0, []),  # all are equally slow, as data_wait_share shows
        ([0.1, 0.1, 0.9, 0.1, 1.0, 0.1], 1.0, [4, 2]),
        ([0.0, 0.0], 0.01, []),
    ],
)
def test_a_straggler_takes_a_large_part_of_a_step_and_far_more_than_the_median_of_the_others(seconds, step, slow):
    assert stragglers(seconds, step) == slow


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "slow"),
    [(SLOW_DATA, 1), pytest.param(SLOW_BETWEEN_STEPS, 0, marks=pytest.mark.slow)],
    ids=["data of process 1", "hooks of process 0"],
)
def test_the_slow_process_of_two_is_named(tokens, tmp_path, code, slow):
    """Step times are equal, because each process waits for the other; host times are not."""
    run, port = copy(tokens, tmp_path / "run"), train_process.free_port()
    pair = [
        train_process.start(
            run, FIELDS, code=code if index == slow else "", environment=train_process.told_by("hand", index, 2, port)
        )
        for index in range(2)
    ]
    outputs = [process.communicate(timeout=HANG_SECONDS)[0] for process in pair]
    assert [process.returncode for process in pair] == [0, 0], outputs
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    logged = [row for row in rows if "loss" in row]
    assert [row["step"] for row in logged] == [4, 8, 12]
    for row in logged[1:]:  # loaders start before the first
        assert len(row["host_seconds"]) == 2 and row["slowest_process"] == slow
        assert row["slowest_host_seconds"] == max(row["host_seconds"]) > 2 * min(row["host_seconds"])
    (warning,) = re.findall(r"warning: process (\d) .* slows down the others: .* ([\d.]+) s for data", outputs[0])
    assert int(warning[0]) == slow and (code != SLOW_DATA or float(warning[1]) >= 0.5)
    assert "slows down" not in outputs[1]
