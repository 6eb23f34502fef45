"""Two processes over loopback train as one does, and end together."""

import signal
import socket

import pytest

from launch.stages.stage import by_products_in
from launch.train import STAGE
from lm.checkpoints.manifest import verify
from tests import train_process
from tests.corpus import tiny_experiment, write_tokens
from tests.lm.resilience.test_preemption import wait_for_step
from tests.train_runs import steps_there, told

FIELDS = {
    "steps": 60, "checkpoint_every": 100, "validate_every": 60, "sample_every": 60, "log_every": 1,
    "model": {"layers": 1},
}  # fmt: skip


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


@pytest.mark.slow
def test_a_signal_to_one_of_two_saves_one_step_in_both_and_one_process_goes_on(tmp_path):
    """2 processes of 4 devices, then 1 of 1. Ctrl-C goes the way of SIGTERM here. (tests.chaos.training_damage has the
    losses on ever other meshes.)"""
    run = tmp_path / "run"
    write_tokens(run, tiny_experiment())
    common = {"JAX_COORDINATOR_ADDRESS": f"localhost:{free_port()}", "NUM_PROCESSES": "2"}
    pair = [
        train_process.start(run, FIELDS, devices=4, environment=common | {"PROCESS_ID": str(index)})
        for index in range(2)
    ]
    wait_for_step(run, pair[0], 5)
    pair[1].send_signal(signal.SIGINT)
    outputs = [process.communicate(timeout=600)[0] for process in pair]
    (saved,) = steps_there(run)
    assert 5 <= saved < 60
    assert [process.returncode for process in pair] == [0, 130], outputs
    for output in outputs:
        assert f"saved at step {saved}," in output
        assert "Traceback" not in output
    assert verify(run / f"checkpoints/{saved}")["processes"] == 2
    process = train_process.start(run, FIELDS)
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    assert f"going on from the checkpoint at step {saved}\n" in output
    assert [row["step"] for row in told(run) if "loss" in row] == list(range(1, 61))

    logs = {path.name for path in run.iterdir()} - {"documents", "tokenizer", "tokens", "checkpoints"}
    assert logs >= {"metrics.jsonl", "tensorboard", "samples", "goodput.json", "heartbeat.json", "heartbeat-1.json"}
    assert logs == set(by_products_in(STAGE, run))


def test_damage_that_one_of_two_finds_ends_both_with_a_message(tmp_path):
    run = tmp_path / "run"
    write_tokens(run, tiny_experiment())
    (first, *_) = sorted((run / "tokens").glob("train-*"))  # the share of process 0
    data = bytearray(first.read_bytes())
    data[-1] ^= 1
    first.write_bytes(data)
    common = {"JAX_COORDINATOR_ADDRESS": f"localhost:{free_port()}", "NUM_PROCESSES": "2"}
    pair = [train_process.start(run, FIELDS, environment=common | {"PROCESS_ID": str(index)}) for index in range(2)]
    mine, other = (process.communicate(timeout=600)[0] for process in pair)
    assert [process.returncode for process in pair] == [1, 1], mine + other
    assert f"{first} has a SHA-256 of" in mine
    assert "process 0: 1 of 1 shards are not what" in other
    assert "Traceback" not in mine + other
