"""Ends small training runs at random moments, and asks that the very same model comes out.

    python -m tests.chaos.training_kills [--kills 100] [--terms 50] [--saves 200] [--supervised-minutes 10] [--seed 0]

Rows: SIGKILL, SIGTERM, SIGKILL within saves, a supervisor that is given a kill every 3 minutes, two processes of which
one is killed. Each prints a JSON line, `N passed, N failed` last.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from launch.stages.supervision import Supervisor
from lm.checkpoints.manifest import DamageError, verify
from lm.resilience.goodput import read_attempts, read_heartbeat, totals
from tests import train_process
from tests.chaos_rows import Clock, Rows
from tests.corpus import tiny_experiment, write_tokens
from tests.train_process import finished
from tests.train_runs import bits, copy, steps_there, told

FIELDS = {
    "steps": 300, "checkpoint_every": 4, "validate_every": 50, "sample_every": 150, "log_every": 10,
    "checkpoints_kept": 3, "model": {"layers": 1},
}  # fmt: skip


def kills(rows: Rows, root: Path, tokens: Path, count: int, generator: random.Random) -> None:
    """SIGKILL at any moment, over as many runs as it takes."""
    undisturbed, clock = copy(tokens, root / "undisturbed"), Clock()
    finished(undisturbed, FIELDS)
    whole, expected = clock(), (bits(undisturbed), told(undisturbed))
    hits, same, runs, clock = 0, 0, 0, Clock()
    while hits < count:
        run, here = copy(tokens, root / "killed"), 0
        while hits + here < count:
            process = train_process.start(run, FIELDS)
            try:
                process.communicate(timeout=generator.uniform(0.2, 0.9 * whole))
                break
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
                here += 1
        finished(run, FIELDS)
        runs, hits = runs + 1, hits + here
        same += here if (bits(run), told(run)) == expected else 0
    rows.add("SIGKILL at random moments", same == hits == count, kills=hits, identical=same, runs=runs, seconds=clock())


def terms(rows: Rows, root: Path, tokens: Path, count: int, generator: random.Random) -> None:
    """SIGTERM at random steps."""
    expected = bits(root / "undisturbed"), told(root / "undisturbed")
    good, seconds, lost, runs, sent, clock = 0, [], [], 0, 0, Clock()
    identical = True
    while sent < count:
        run = copy(tokens, root / "asked")
        runs += 1
        while sent < count:
            process = train_process.start(run, FIELDS)
            target = generator.randrange(0, 120) + max(steps_there(run), default=0)
            heart = None
            while process.poll() is None:
                heart = read_heartbeat(run / "heartbeat.json")
                if heart and heart["process"] == process.pid and heart["step"] >= target:
                    break
                time.sleep(0.002)
            if process.poll() is not None:
                break
            assert heart is not None
            process.send_signal(signal.SIGTERM)
            asked = Clock()
            output, _ = process.communicate(timeout=60)
            took, last = asked(), read_heartbeat(run / "heartbeat.json")
            assert last is not None
            if process.returncode in (0, -signal.SIGTERM) and last["state"] == "done":
                break  # it was at its end
            sent += 1
            seconds.append(took)
            lost.append(last["step"] - max(steps_there(run)))
            well = process.returncode == 0 and took < 10 and 0 <= lost[-1] <= 1 and "saved at step" in output
            good += well
            if not well:
                print(f"exit code {process.returncode} behind {last}\n{output[-1500:]}", flush=True)
        finished(run, FIELDS)
        identical = identical and (bits(run), told(run)) == expected
    rows.add(
        "SIGTERM at random steps", good == sent == count and identical, signals=sent, good=good, identical=identical,
        seconds_to_exit_max=max(seconds), steps_lost_max=max(lost), runs=runs, seconds=clock(),
    )  # fmt: skip


SAVER = """
import sys, jax, jax.numpy as jnp
from pathlib import Path
from lm.checkpoints.manager import Checkpoints
from lm.checkpoints.manifest import RetentionPolicy
from lm.config import SpikeConfig
from lm.training.anomaly_guard import make_guard
from lm.training.state import TrainState
checkpoints = Checkpoints(Path(sys.argv[1]), RetentionPolicy(newest=2))
step = max(checkpoints.steps(), default=0)
while True:
    step += 1
    model = {f"w{i}": jnp.full((256, 1024), step * 100 + i, jnp.float32) for i in range(8)}
    state = TrainState(jnp.array(step), model, {"mu": model["w0"] / 3}, make_guard(SpikeConfig()))
    checkpoints.save(step, state, {})
    checkpoints.settled()
    print(step, flush=True)
"""


def saves(rows: Rows, root: Path, count: int, generator: random.Random) -> None:
    """SIGKILL while one 9 MB checkpoint after the other is saved."""
    folder, torn, lost, done, clock = root / "saves", 0, 0, 0, Clock()
    for _ in range(count):
        process = subprocess.Popen(
            [sys.executable, "-c", SAVER, str(folder)], cwd=train_process.REPOSITORY, text=True, stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        first = process.stdout.readline()  # from now on it saves without end
        time.sleep(generator.uniform(0, 0.25))
        process.kill()
        told_done = [int(line) for line in (first + process.stdout.read()).splitlines() if line.strip().isdecimal()]
        process.wait()
        steps = sorted(int(path.name) for path in folder.iterdir() if path.name.isdecimal())
        for step in steps:
            try:
                verify(folder / str(step))
            except DamageError as damage:
                torn += 1
                print(damage, flush=True)
        lost += max(steps, default=0) < max(told_done, default=0)
        done += 1
    rows.add(
        "SIGKILL within saves", torn == lost == 0 and done == count, kills=done, torn=torn, lost=lost, seconds=clock()
    )


def supervised(rows: Rows, root: Path, tokens: Path, minutes: float, every: float) -> None:
    """One kill every `every` minutes, under the supervisor, which needs no hand."""
    rare = {"checkpoint_every": 50, "validate_every": 10**6, "sample_every": 10**6, "log_every": 50}
    # Steps of some 20 ms: between steps of 2 ms, as FIELDS has them, a twentieth of the time goes into the loop itself.
    fields = FIELDS | rare | {"batch_size": 128, "validation_batches": 1}
    probe = copy(tokens, root / "probe")
    finished(probe, fields | {"steps": 400})
    (attempt,) = read_attempts(probe)
    rate = 400 / (attempt.seconds["steps"] + attempt.seconds["data"] + attempt.seconds["saving"])
    fields |= {"steps": int(rate * 60 * minutes)}
    run, ended, hits = copy(tokens, root / "supervised"), threading.Event(), 0
    supervisor = Supervisor(
        [sys.executable, "-m", "tests.train_process", str(run), json.dumps(fields)], run / "heartbeat.json",
        run / "supervisor.jsonl",
    )  # fmt: skip

    def kill() -> None:
        nonlocal hits
        while not ended.wait(60 * every):
            process = supervisor.process
            if process is not None and process.poll() is None:
                process.kill()
                hits += 1

    clock = Clock()
    killer = threading.Thread(target=kill)
    killer.start()
    os.environ.update(train_process.QUICK)
    code = supervisor.run()
    ended.set()
    killer.join()
    sums = totals(read_attempts(run))
    share = sums["steps"] / sum(sums.values())
    lost = {name: round(sums[name], 1) for name in ("repeated", "down", "starting", "compiling", "restoring", "saving")}
    rows.add(
        "a kill every 3 minutes under the supervisor", code == 0 and hits >= minutes // every - 1 and share >= 0.95,
        kills=hits, effective_share=round(share, 4), minutes=round(clock() / 60, 2), exit_code=code, lost=lost,
    )  # fmt: skip


def pair(rows: Rows, root: Path, tokens: Path) -> None:
    """Two processes of four devices each, over loopback; one is killed, and both start again."""
    fields = FIELDS | {"steps": 300, "checkpoint_every": 20, "validate_every": 300, "sample_every": 300}
    ends = {}
    clock = Clock()
    for name in ("pair", "pair killed"):
        run, port = copy(tokens, root / name), train_process.free_port()
        common = os.environ | train_process.QUICK | {
            "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
        }  # fmt: skip
        processes = [
            subprocess.Popen(
                [sys.executable, "-m", "tests.supervised_process", str(run), json.dumps(fields)],
                cwd=train_process.REPOSITORY, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                env=common | train_process.told_by("hand", index, 2, port),
            )
            for index in range(2)
        ]  # fmt: skip
        if name == "pair killed":
            while (heart := read_heartbeat(run / "heartbeat-1.json")) is None or heart["step"] < 130:
                time.sleep(0.05)
            os.kill(heart["process"], signal.SIGKILL)
        outputs = [process.communicate(timeout=600)[0] for process in processes]
        ends[name] = bits(run), told(run), [process.returncode for process in processes]
        if name == "pair killed":
            restarts = [output.count("starting again") for output in outputs]
    rows.add(
        "two processes, one killed", ends["pair"] == ends["pair killed"] and ends["pair"][2] == [0, 0],
        restarts=restarts, exit_codes=ends["pair killed"][2], seconds=clock(),
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--terms", type=int, default=50)
    parser.add_argument("--saves", type=int, default=200)
    parser.add_argument("--supervised-minutes", type=float, default=10)
    parser.add_argument("--kill-every-minutes", type=float, default=3)
    parser.add_argument("--pairs", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0, help="chooses the moments (default: 0)")
    arguments = parser.parse_args()
    rows, generator = Rows(), random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        tokens = root / "tokens"
        write_tokens(tokens, tiny_experiment())
        if arguments.kills or arguments.terms:
            kills(rows, root, tokens, arguments.kills, generator)
        if arguments.terms:
            terms(rows, root, tokens, arguments.terms, generator)
        if arguments.saves:
            saves(rows, root, arguments.saves, generator)
        for _ in range(arguments.pairs):
            pair(rows, root, tokens)
        if arguments.supervised_minutes:
            supervised(rows, root, tokens, arguments.supervised_minutes, arguments.kill_every_minutes)
    rows.end()


if __name__ == "__main__":
    main()
