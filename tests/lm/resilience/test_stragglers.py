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
SECONDS = 100.0
CODE = f"""
import time, types
from lm.metrics.meter import Meter
from lm.resilience import goodput
from lm.training.hooks import Heartbeat
from lm.training.skipped_steps import SkippedSteps
from tests import train_process

goodput.time = clock = types.SimpleNamespace(**vars(time), now=time.time())
clock.time = lambda: clock.now
real = KIND.METHOD

def slow(*given):
    clock.now += {SECONDS}
    return real(*given)

KIND.METHOD = slow
train_process.main()
"""
"""Training whose time passes only in a method that is called once a step."""
WAITS, READS, BETWEEN_STEPS = "SkippedSteps.record", "Meter.next", "Heartbeat.run"


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
    ("methods", "slow"),
    [((WAITS, READS), 1), ((BETWEEN_STEPS, WAITS), 0)],
    ids=["data of process 1", "hooks of process 0"],
)
def test_the_slow_process_of_two_is_named(tokens, tmp_path, methods, slow):
    """Step times are equal, because each process waits for the other; host times are not."""
    run, port = copy(tokens, tmp_path / "run"), train_process.free_port()
    pair = [
        train_process.start(
            run, FIELDS, code=CODE.replace("KIND.METHOD", method),
            environment=train_process.told_by("hand", index, 2, port),
        )
        for index, method in enumerate(methods)
    ]  # fmt: skip
    outputs = [process.communicate(timeout=HANG_SECONDS)[0] for process in pair]
    assert [process.returncode for process in pair] == [0, 0], outputs
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    logged = [row for row in rows if "loss" in row]
    assert [row["step"] for row in logged] == [4, 8, 12]
    for row in logged[1:]:  # loaders start before the first
        assert row["host_seconds"] == [SECONDS * (index == slow) for index in range(2)]
        assert (row["slowest_process"], row["slowest_host_seconds"]) == (slow, SECONDS)
    (warning,) = re.findall(r"warning: process (\d) .* slows down the others: .* ([\d.]+) s for data", outputs[0])
    assert (int(warning[0]), float(warning[1])) == (slow, SECONDS * (methods[slow] == READS))
    assert "slows down" not in outputs[1]
