"""Train the tiny experiment in a separate process, for tests that stop it in the middle.

    python -m tests.train_process RUN '{"steps": 40, "checkpoint_every": 1}'

RUN has tokenizer/ and tokens/, as tests.corpus.write_tokens writes them; the JSON has fields of the TrainConfig, those
of the model under "model", and under "leave_at" a step after which the process stops itself.
"""

import contextlib
import dataclasses
import json
import os
import random
import socket
import subprocess
import sys
import time
from pathlib import Path

from tests.run_files import HANG_SECONDS, QUICK, REPOSITORY


def start(
    run: Path,
    fields: dict,
    devices: int = 1,
    code: str = "",
    environment: dict[str, str] | None = None,
    arguments: tuple[str, ...] = (),
) -> subprocess.Popen:
    """The process, with `devices` CPU devices; it prints all output of training on one pipe. `code` is run instead of
    this module and may patch something; `arguments` are for it."""
    program = ["-c", code] if code else ["-m", "tests.train_process"]
    flags = f"{QUICK['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}"
    variables = os.environ | QUICK | {"XLA_FLAGS": flags} | (environment or {})
    return subprocess.Popen(
        [sys.executable, *program, str(run), json.dumps(fields), *arguments], cwd=REPOSITORY, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=variables,
    )  # fmt: skip


RESERVED: list[socket.socket] = []
"""Sockets of UDP that keep the ports of this process from the `free_port` of others."""


def free_port() -> int:
    """Reserve a TCP port below the ephemeral range, which the system uses for connections and port 0."""
    for port in random.SystemRandom().sample(range(10_000, 32_000), 1000):
        with contextlib.suppress(OSError), socket.socket() as probe:
            RESERVED.append(socket.socket(type=socket.SOCK_DGRAM))
            for one in (RESERVED[-1], probe):
                one.bind(("", port))
            return port
    raise AssertionError("no port is free")


def told_by(who: str, index: int, count: int, port: int) -> dict[str, str]:
    """Environment of one of `count` processes on this machine, set by hand or by a scheduler."""
    mine, all_of_them = str(index), str(count)
    if who == "hand":
        return {"JAX_COORDINATOR_ADDRESS": f"localhost:{port}", "NUM_PROCESSES": all_of_them, "PROCESS_ID": mine}
    if who == "Slurm":
        names = {"PROCID": mine, "LOCALID": mine, "NTASKS": all_of_them, "STEP_NUM_TASKS": all_of_them}
        names |= {"JOB_ID": "77", "STEP_NODELIST": "localhost", "STEP_TASKS_PER_NODE": all_of_them}
        return {f"SLURM_{name}": value for name, value in names.items()} | {"JAX_COORDINATOR_PORT": str(port)}
    assert who == "Open MPI"
    names = {"RANK": mine, "LOCAL_RANK": mine, "SIZE": all_of_them, "LOCAL_SIZE": all_of_them}
    uri = {"OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://127.0.0.1:34911", "JAX_COORDINATOR_PORT": str(port)}
    return {f"OMPI_COMM_WORLD_{name}": value for name, value in names.items()} | uri


def start_together(
    run: Path, fields: dict, count: int, who: str = "hand", devices: int = 1, **settings
) -> list[subprocess.Popen]:
    """`count` processes that train together, each with `devices` CPU devices."""
    port, environment = free_port(), settings.pop("environment", {})
    return [
        start(run, fields, devices, environment=environment | told_by(who, index, count, port), **settings)
        for index in range(count)
    ]


def wait_for_step(run: Path, process: subprocess.Popen, step: int) -> bool:
    """Wait until the heartbeat of the process is at `step` or later; return False if it ends before, or hangs."""
    from lm.resilience.goodput import read_heartbeat

    deadline = time.monotonic() + HANG_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        heart = read_heartbeat(run / "heartbeat.json")
        if heart and heart["process"] == process.pid and heart["step"] >= step:
            return True
        time.sleep(0.002)
    return False


def modules_together(words: list[str], count: int, **variables: str) -> list[subprocess.Popen]:
    """`python -m WORDS` in `count` processes of one job, all output of each on one pipe."""
    port = free_port()
    return [
        subprocess.Popen(
            [sys.executable, "-m", *words], cwd=REPOSITORY, text=True, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, env=os.environ | QUICK | variables | told_by("hand", index, count, port),
        )
        for index in range(count)
    ]  # fmt: skip


def finished(run: Path, fields: dict, **settings) -> str:
    """The output of a process that trained to the end, or an AssertionError with it."""
    process = start(run, fields, **settings)
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    return output


def end_behind(behind: int) -> None:
    """Save and stop after that step, as if asked to at that moment."""
    from lm.resilience.preemption import PreemptionHandler

    PreemptionHandler.requested = lambda self, step: step >= behind


def main() -> None:
    """Start and stop like launch.train, without the markers of earlier stages in a run folder."""
    began = time.time()
    from launch.stages.command import handle_cli_errors
    from launch.stages.parent import run_in_child
    from launch.stages.processes import ending_together

    with ending_together(), handle_cli_errors("train_process"):
        run_in_child("train_process")
        train(began)


def train(began: float) -> None:
    from launch.stages.agreement import agree_on
    from launch.stages.processes import load_training
    from tests.corpus import tiny_experiment

    run, fields = Path(sys.argv[1]), json.loads(sys.argv[2])
    experiment = tiny_experiment()
    leave_at = fields.pop("leave_at", 0)
    model = dataclasses.replace(experiment.model, **fields.pop("model", {}))
    nested = {
        name: dataclasses.replace(getattr(experiment.train, name), **fields.pop(name))
        for name in ("mesh", "optimizer", "spikes", "start")
        if name in fields
    }
    schedules = {"batch_schedule", "context_schedule"} & {*fields}
    nested |= {name: tuple(tuple(pair) for pair in fields.pop(name)) for name in schedules}
    if leave_at:
        end_behind(leave_at)
    config = dataclasses.replace(experiment.train, **fields, **nested)
    experiment = dataclasses.replace(experiment, model=model, train=config)
    make = load_training(run, began, config.join_timeout, config.start_seconds)
    agree_on(experiment, run)
    make(model, config, run)


if __name__ == "__main__":
    main()
