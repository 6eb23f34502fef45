"""Two and four processes over loopback train like one, stop together, and resume with any number of processes."""

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from launch.stages.stage import by_products_in
from launch.supervise import Supervisor
from launch.train import STAGE
from lm.checkpoints.manifest import read_manifest, verify
from lm.errors import PeerError, UsageError
from tests import train_process
from tests.corpus import tiny_experiment, write_tokens
from tests.lm.resilience.test_preemption import SIGNALLED
from tests.run_files import HANG_SECONDS, QUICK
from tests.train_runs import copy, steps_there, told

FIELDS = {
    "steps": 60, "checkpoint_every": 100, "validate_every": 60, "sample_every": 60, "log_every": 1,
    "model": {"layers": 1},
}  # fmt: skip
MOVED = {
    "steps": 200, "checkpoint_every": 6, "validate_every": 100, "sample_every": 200, "log_every": 1,
    "checkpoints_kept": 99, "model": {"layers": 1, "kv_heads": 2},
}  # fmt: skip


def outputs_of(processes: list[subprocess.Popen]) -> list[str]:
    return [process.communicate(timeout=HANG_SECONDS)[0] for process in processes]


@pytest.mark.slow
def test_two_processes_save_and_restore_their_parts_and_both_report_a_write_error(tmp_path):
    """Writes of process 1 fail at step 3, those of process 0 at step 4 (RLIMIT_FSIZE); a bit that process 1 wrote at
    step 5 is flipped. Each process reads about half of the checkpoint, and no process waits forever."""
    pair = train_process.modules_together(["tests.checkpoint_process", str(tmp_path / "checkpoints")], 2)
    outputs = outputs_of(pair)
    assert [process.returncode for process in pair] == [0, 0], outputs
    found = [json.loads(output.splitlines()[-1]) for output in outputs]
    stored = sum(one["bytes"] for one in read_manifest(tmp_path / "checkpoints/2")["files"].values())
    for one in found:
        saves = [one[f"save {step}"] for step in (1, 2, 3, 4, 5)]
        assert [save["there"] for save in saves] == [[1], [1, 2], [1, 2], [1, 2], [1, 2, 5]]
        assert [bool(save["failure"]) for save in saves] == [False, False, True, True, False]
        assert one["save 2"]["read"] <= 0.6 * stored and one["read to verify"] <= 0.6 * stored
        assert one["about"] == {"step": 2, "told": 2} and one["same"]
    failed = f"{tmp_path / 'checkpoints'} cannot be written: File too large."
    for step, process in ((3, 1), (4, 0)):
        mine, other = found[process][f"save {step}"]["failure"], found[1 - process][f"save {step}"]["failure"]
        assert mine.startswith(failed) and other.startswith(f"process {process}: {failed}")
        assert f"step {step} is not saved; training continues. " in outputs[0]
    assert "/ocdbt.process_1/" in outputs[0]
    assert f"moved to {tmp_path}/checkpoints.damaged/5; resuming from step 2" in outputs[0]
    assert "set aside" not in outputs[1]


@pytest.mark.slow
def test_a_signal_to_one_of_two_saves_one_step_in_both_and_one_process_resumes(tokens, tmp_path):
    """Two processes with 4 devices each, then one with 1. Ctrl-C is handled like SIGTERM here."""
    run = copy(tokens, tmp_path / "run")
    port, to_parent = train_process.free_port(), SIGNALLED.replace("os.getpid()", "int(os.environ['GRISTMILL_PARENT'])")
    pair = [
        train_process.start(
            run, FIELDS, devices=4, environment=train_process.told_by("hand", index, 2, port), code=code,
            arguments=(str(int(signal.SIGINT)), "5", "0"),
        )
        for index, code in enumerate(["", to_parent])
    ]  # fmt: skip
    outputs = outputs_of(pair)
    (saved,) = steps_there(run)
    assert 5 <= saved < 60
    assert [process.returncode for process in pair] == [0, 130], outputs
    for output in outputs:
        assert f"saved at step {saved}; run the same command" in output
        assert "Traceback" not in output
    assert verify(run / f"checkpoints/{saved}")["processes"] == 2
    output = train_process.finished(run, FIELDS)
    assert f"resuming from the checkpoint at step {saved}\n" in output
    assert [row["step"] for row in told(run) if "loss" in row] == list(range(1, 61))

    logs = {path.name for path in run.iterdir()} - {"documents", "tokenizer", "tokens", "checkpoints", "stages"}
    assert logs >= {"metrics.jsonl", "tensorboard", "samples", "goodput.json", "heartbeat.json", "heartbeat-1.json"}
    assert logs == set(by_products_in(STAGE, run))


def stopped(run: Path, mesh: dict, count: int, who: str, number: int, step: int, checkpoint: int = 0) -> list[str]:
    """Return the output of each of `count` processes; the last one gets the signal after the step."""
    port, fields = train_process.free_port(), MOVED | {"mesh": mesh}
    processes = [
        train_process.start(
            run, fields, environment=train_process.told_by(who, index, count, port),
            code=SIGNALLED if index == count - 1 else "",
            arguments=(str(int(number)), str(step), str(checkpoint)),
        )
        for index in range(count)
    ]  # fmt: skip
    outputs = outputs_of(processes)
    codes = [process.returncode for process in processes]
    if number == signal.SIGKILL:
        assert codes == [PeerError.exit_code] * (count - 1) + [128 + number], outputs
        for output in outputs[:-1]:
            assert output.splitlines()[-1].startswith("train_process: process ")
            assert f" ends, because process {count - 1} ended, hangs or cannot be reached." in output.splitlines()[-1]
            assert "Check failure stack trace" not in output and "Traceback" not in output
    else:
        assert codes == [0] * count, outputs
    return outputs


@pytest.mark.slow
def test_growing_batches_are_the_same_on_two_processes_and_on_one(tokens, tmp_path):
    """Each process reads its rows of every stage. The run stops within a stage and between two, and resumes."""
    fields = MOVED | {
        "steps": 14, "batch_schedule": [[4, 12], [10, 8]], "context_schedule": [[0, 8], [6, 32]], "micro_batches": 3,
        "batch_size": 4,
    }  # fmt: skip
    alone, moved = copy(tokens, tmp_path / "alone"), copy(tokens, tmp_path / "moved")
    train_process.finished(alone, fields)
    pair = train_process.start_together(moved, fields | {"leave_at": 5}, 2)
    outputs = outputs_of(pair)
    assert [process.returncode for process in pair] == [0, 0], outputs
    assert "from step 4 on: batches of 48 sequences of 8 tokens (384 tokens), micro-batches 3" in outputs[0]
    pair = train_process.start_together(moved, fields | {"leave_at": 10}, 2)
    outputs = outputs_of(pair)
    assert [process.returncode for process in pair] == [0, 0], outputs
    assert "resuming from the checkpoint at step 5" in outputs[0]
    assert "resuming from the checkpoint at step 10" in train_process.finished(moved, fields)
    losses = lambda run: [row["loss"] for row in told(run) if "loss" in row]
    assert losses(moved) == pytest.approx(losses(alone), rel=1e-4)
    assert [row["tokens"] for row in told(moved) if "loss" in row] == [
        32 * (4 * min(step, 4) + 12 * min(max(step - 4, 0), 6) + 8 * max(step - 10, 0)) for step in range(1, 15)
    ]


@pytest.mark.slow
def test_a_run_is_the_same_on_one_two_and_four_processes_with_sharded_parameters(tokens, tmp_path):
    """Killed and stopped on the way; processes configured manually, by Slurm and by Open MPI. Every process has one
    device, so parameters are sharded over processes, and one process reads those of two replicas. Only process 0
    logs."""
    alone, run = copy(tokens, tmp_path / "alone"), copy(tokens, tmp_path / "run")
    train_process.finished(alone, MOVED)

    stopped(run, {"fsdp": 2}, 2, "Slurm", signal.SIGKILL, 8, checkpoint=6)
    assert steps_there(run) == [6]
    owners = {name.split("/")[1] for name in read_manifest(run / "checkpoints/6")["files"] if name.count("/") > 1}
    assert owners >= {"ocdbt.process_0", "ocdbt.process_1"}
    places = [
        ({"fsdp": 2, "tensor": 2}, 4, "hand"), ({"context": 2}, 2, "Open MPI"), ({}, 1, "hand"),
        ({"fsdp": 2, "zero1": True}, 4, "hand"),
    ]  # fmt: skip
    before = 6
    for mesh, count, who in places:
        step = before + 4
        outputs = stopped(run, mesh, count, who, signal.SIGTERM, step)
        assert f"resuming from the checkpoint at step {before}\n" in outputs[0]
        before = max(steps_there(run))
        # The processes agree on a future step: how much later depends on the machine.
        assert step <= before < 200 and f"saved at step {before}" in outputs[0]
        assert not any("train: mesh" in output or "loss" in output for output in outputs[1:])
        assert count == 1 or f"processes: {count} have met, by " in outputs[0]
    fields = MOVED | {"mesh": {"fsdp": 2, "context": 2}, "checkpoint_every_seconds": 2.0}  # all save the same steps
    last = train_process.start_together(run, fields, 4)
    assert "Traceback" not in "".join(outputs_of(last)) and not any(process.returncode for process in last)

    ours, expected = told(run), told(alone)
    assert [row["step"] for row in ours] == [row["step"] for row in expected]
    assert sum("validation_loss" in row for row in ours) == 2
    for row, other in zip(ours, expected, strict=True):
        losses = {name: value for name, value in other.items() if "loss" in name or "bits" in name}
        assert {name: row[name] for name in losses} == pytest.approx(losses, rel=1e-5)
    samples = [sorted((folder / "samples").iterdir()) for folder in (run, alone)]
    assert [path.read_bytes() for path in samples[0]] == [path.read_bytes() for path in samples[1]]


@pytest.mark.slow
def test_damage_found_by_one_of_two_stops_both_with_a_message(tmp_path):
    run = tmp_path / "run"
    write_tokens(run, tiny_experiment())
    (first, *_) = sorted((run / "tokens").glob("train-*"))  # verified by process 0
    data = bytearray(first.read_bytes())
    data[-1] ^= 1
    first.write_bytes(data)
    pair = train_process.start_together(run, FIELDS, 2)
    mine, other = outputs_of(pair)
    assert [process.returncode for process in pair] == [1, 1], mine + other
    assert f"{first} has the SHA-256 " in mine
    assert "process 0: 1 of 1 shards differ from" in other
    assert "Traceback" not in mine + other


PATCHES = {
    "training step": "make = setup.make_optimizer\nsetup.make_optimizer = "
    "lambda config, steps: make(dataclasses.replace(config, weight_decay=0.5), steps)",
    "initializer": "make = setup.initializer\nsetup.initializer = "
    "lambda model, optimizer, seed, *rest: make(model, optimizer, seed + 1, *rest)",
}


@pytest.mark.slow
@pytest.mark.parametrize("program", PATCHES)
def test_processes_with_different_programs_stop_before_the_first_step(tokens, tmp_path, program):
    """For example, with different libraries or a patch that no other check detects."""
    port, run = train_process.free_port(), copy(tokens, tmp_path / "run")
    other = f"""
import dataclasses
from lm.training import setup
from tests import train_process

{PATCHES[program]}
train_process.main()
"""
    pair = [
        train_process.start(run, FIELDS, code=code, environment=train_process.told_by("hand", index, 2, port))
        for index, code in enumerate(["", other])
    ]
    for process, output in zip(pair, outputs_of(pair), strict=True):
        assert process.returncode == UsageError.exit_code, output
        assert re.search(f"train_process: process 1 on .*: SHA-256 of the lowered {program} is '", output)
    assert not (run / "checkpoints").exists()


HANGS = """
import sys, time
from pathlib import Path
from lm.training import setup
from tests import train_process

marker = Path(sys.argv[1]) / "hung"

def first_hangs(*given, **options):
    marker.touch()
    time.sleep(3600)

if not marker.exists():
    setup.restore_or_init = first_hangs
train_process.main()
"""


@pytest.mark.slow
def test_training_that_hangs_in_restore_is_restarted_and_prints_its_stacks(tokens, tmp_path, monkeypatch, capfd):
    run = copy(tokens, tmp_path / "run")
    for name, value in QUICK.items():
        monkeypatch.setenv(name, value)
    fields = json.dumps(FIELDS | {"steps": 20, "join_timeout": 1.0, "start_seconds": 5.0, "validate_every": 0})
    command = [sys.executable, "-c", HANGS, str(run), fields]
    watched = Supervisor(command, run / "heartbeat.json", run / "supervisor.jsonl", start_seconds=30.0)
    assert watched.run() == 0
    error = capfd.readouterr().err
    assert "in first_hangs" in error.split("killed after")[0] and "outside of training; restarting" in error
    assert watched.starts == 2 and "in first_hangs" not in error.split("killed after")[1]
