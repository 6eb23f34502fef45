"""Small training runs that are killed or moved, or whose disk fails."""

import contextlib
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from pathlib import Path

from launch.supervise import Supervisor
from lm.checkpoints.manifest import DamageError, steps_in, verify
from lm.resilience.goodput import read_attempts, read_heartbeat, totals
from tests import train_process
from tests.chaos.runner import Figures, Trial, until_killed
from tests.train_process import finished, wait_for_step
from tests.train_runs import bits, copy, steps_there, told

KILLED = {
    "steps": 300, "checkpoint_every": 4, "validate_every": 50, "sample_every": 150, "log_every": 10,
    "checkpoints_kept": 3, "model": {"layers": 1},
}  # fmt: skip
SHORT_OF_DISK = {"validate_every": 40, "log_every": 1, "checkpoints_kept": 99}


KILL_MINUTES, SUPERVISED_MINUTES = 3.0, 10.0


def kills(trial: Trial) -> Figures:
    """SIGKILL at random moments, in as many runs as needed."""
    tokens = trial.tokens()
    undisturbed, begun = copy(tokens, trial.folder / "undisturbed"), time.monotonic()
    finished(undisturbed, KILLED)
    whole, expected = time.monotonic() - begun, (bits(undisturbed), told(undisturbed))
    hits, same, runs = 0, 0, 0
    while hits < trial.count:
        run = copy(tokens, trial.folder / "killed")
        start = lambda run=run: train_process.start(run, KILLED)
        here = until_killed(start, trial.count - hits, lambda: trial.random.uniform(0.2, 0.9 * whole))
        finished(run, KILLED)
        runs, hits = runs + 1, hits + here
        same += here if (bits(run), told(run)) == expected else 0
    return {"passed": same == hits == trial.count, "kills": hits, "identical": same, "runs": runs}


def terms(trial: Trial) -> Figures:
    """SIGTERM at random steps: exit code 0 within 10 s, at most one step lost, and an identical resumed run."""
    tokens = trial.tokens()
    undisturbed = copy(tokens, trial.folder / "undisturbed")
    finished(undisturbed, KILLED)
    expected = bits(undisturbed), told(undisturbed)
    good, seconds, lost, runs, identical = 0, [], [], 0, True
    while len(lost) < trial.count:
        run, runs = copy(tokens, trial.folder / "asked"), runs + 1
        while len(lost) < trial.count:
            process = train_process.start(run, KILLED)
            target = trial.random.randrange(0, 120) + max(steps_there(run), default=0)
            if not wait_for_step(run, process, target):
                break
            process.send_signal(signal.SIGTERM)
            asked = time.monotonic()
            output, _ = process.communicate(timeout=60)
            took, last = time.monotonic() - asked, read_heartbeat(run / "heartbeat.json")
            assert last is not None
            if process.returncode in (0, -signal.SIGTERM) and last["state"] == "done":
                break  # it had finished
            seconds.append(took)
            lost.append(last["step"] - max(steps_there(run)))
            well = process.returncode == 0 and took < 10 and 0 <= lost[-1] <= 1 and "saved at step" in output
            good += well
            if not well:
                print(f"exit code {process.returncode} after {last}\n{output[-1500:]}", flush=True)
        finished(run, KILLED)
        identical = identical and (bits(run), told(run)) == expected
    return {
        "passed": good == trial.count and identical, "signals": len(lost), "good": good, "identical": identical,
        "seconds_to_exit_max": round(max(seconds), 3), "steps_lost_max": max(lost), "runs": runs,
    }  # fmt: skip


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


def saves(trial: Trial) -> Figures:
    """SIGKILL during continuous saves of checkpoints of 9 MB: none is damaged or lost."""
    folder, torn, lost = trial.folder / "saves", 0, 0
    for _ in range(trial.count):
        command = [sys.executable, "-c", SAVER, str(folder)]
        process = subprocess.Popen(command, cwd=train_process.REPOSITORY, text=True, stdout=subprocess.PIPE)
        assert process.stdout is not None
        first = process.stdout.readline()  # from now on it saves continuously
        time.sleep(trial.random.uniform(0, 0.25))
        process.kill()
        done = [int(line) for line in (first + process.stdout.read()).splitlines() if line.strip().isdecimal()]
        process.wait()
        steps = steps_in(folder)
        for step in steps:
            try:
                verify(folder / str(step))
            except DamageError as damage:
                torn += 1
                print(damage, flush=True)
        lost += max(steps, default=0) < max(done, default=0)
    return {"passed": torn == lost == 0, "kills": trial.count, "torn": torn, "lost": lost}


def supervised(trial: Trial) -> Figures:
    """SIGKILL every 3 minutes under the supervisor: 95 % of the time is spent on effective steps."""
    rare = {"checkpoint_every": 50, "validate_every": 10**6, "sample_every": 10**6, "log_every": 50}
    # Steps of about 20 ms: with the 2 ms of KILLED, 5 % of the time would be overhead of the loop.
    fields, tokens = KILLED | rare | {"batch_size": 128, "validation_batches": 1}, trial.tokens()
    probe = copy(tokens, trial.folder / "probe")
    finished(probe, fields | {"steps": 400})
    (attempt,) = read_attempts(probe)
    rate = 400 / (attempt.seconds["steps"] + attempt.seconds["data"] + attempt.seconds["saving"])
    fields |= {"steps": int(rate * 60 * SUPERVISED_MINUTES)}
    run, ended, hits = copy(tokens, trial.folder / "supervised"), threading.Event(), 0
    supervisor = Supervisor(
        [sys.executable, "-m", "tests.train_process", str(run), json.dumps(fields)], run / "heartbeat.json",
        run / "supervisor.jsonl",
    )  # fmt: skip

    def kill() -> None:
        nonlocal hits
        while not ended.wait(60 * KILL_MINUTES):
            process = supervisor.process
            if process is not None and process.poll() is None:
                process.kill()
                hits += 1

    killer = threading.Thread(target=kill)
    killer.start()
    os.environ.update(train_process.QUICK)
    code = supervisor.run()
    ended.set()
    killer.join()
    sums = totals(read_attempts(run))
    share = sums["steps"] / sum(sums.values())
    lost = {name: round(sums[name], 1) for name in ("repeated", "down", "starting", "compiling", "restoring", "saving")}
    passed = code == 0 and hits >= SUPERVISED_MINUTES // KILL_MINUTES - 1 and share >= 0.95
    return {"passed": passed, "kills": hits, "effective_share": round(share, 4), "exit_code": code, "lost": lost}


def pair(trial: Trial) -> Figures:
    """Two processes of four devices each over loopback; one is killed, and both restart."""
    fields = KILLED | {"steps": 300, "checkpoint_every": 20, "validate_every": 300, "sample_every": 300}
    ends, restarts, tokens = {}, [], trial.tokens()
    for name in ("pair", "pair killed"):
        run, words = copy(tokens, trial.folder / name), ["tests.supervised_process", str(trial.folder / name)]
        devices = "--xla_force_host_platform_device_count=4"
        processes = train_process.modules_together([*words, json.dumps(fields)], 2, XLA_FLAGS=devices)
        if name == "pair killed":
            while (heart := read_heartbeat(run / "heartbeat-1.json")) is None or heart["step"] < 130:
                time.sleep(0.05)
            os.kill(heart["process"], signal.SIGKILL)
        outputs = [process.communicate(timeout=600)[0] for process in processes]
        ends[name] = bits(run), told(run), [process.returncode for process in processes]
        restarts = [output.count("restarting") for output in outputs]
    passed = ends["pair"] == ends["pair killed"] and ends["pair"][2] == [0, 0]
    return {"passed": passed, "restarts": restarts, "exit_codes": ends["pair killed"][2]}


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Generator[None]:
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def full_disk(trial: Trial) -> Figures:
    """Checkpoints fill the disk: training continues to its end and fails with the reason; with free space it
    resumes."""
    if os.geteuid():
        return {"passed": False, "reason": "only root can mount a tmpfs"}
    fields, tokens = SHORT_OF_DISK | {"steps": 120, "checkpoint_every": 5, "sample_every": 30}, trial.tokens()
    undisturbed = copy(tokens, trial.folder / "space")
    finished(undisturbed, fields)
    with small_disk(trial.folder / "full", "4m"):
        run = copy(tokens, trial.folder / "full/run")
        output, _ = (process := train_process.start(run, fields)).communicate(timeout=120)
        found = unsaved(run, process, output, "is not saved; training continues" in output, 120)
        there = steps_there(run)
        for step in there[:-1]:
            shutil.rmtree(run / f"checkpoints/{step}")
        return resumed(run, undisturbed, fields | {"checkpoints_kept": 2}, there, found, 1 < len(there) < 24)


def read_only_disk(trial: Trial) -> Figures:
    """The disk becomes read-only, as after a disk failure: the same, and training resumes when it is writable again."""
    if os.geteuid():
        return {"passed": False, "reason": "only root can mount a tmpfs"}
    fields, tokens = SHORT_OF_DISK | {"steps": 1200, "checkpoint_every": 50, "sample_every": 300}, trial.tokens()
    undisturbed = copy(tokens, trial.folder / "writable")
    finished(undisturbed, fields)
    run = copy(tokens, trial.folder / "failing")
    with small_disk(run / "checkpoints", "64m"):
        remount = lambda how: subprocess.run(["mount", "-o", f"remount,{how}", str(run / "checkpoints")]).returncode
        process = train_process.start(run, fields)
        while len(steps_there(run)) < 2 or remount("ro"):  # busy with a save
            time.sleep(0.01)
        output, _ = process.communicate(timeout=120)
        found = unsaved(run, process, output, output.count(os.strerror(errno.EROFS)) > 1, 1200)
        remount("rw")
        there = steps_there(run)
        return resumed(run, undisturbed, fields, there, found, there[-1] < 1200)


def unsaved(run: Path, process: subprocess.Popen, output: str, reason: bool, steps: int) -> dict[str, bool]:
    """Whether a run that could not save ended with the reason, and left complete checkpoints."""
    clear = process.returncode == 1 and reason and f"step {steps:,}  validation loss" in output
    clear = clear and "Traceback" not in output
    if not clear:
        print(output[-3000:])
    whole = all(verify(run / f"checkpoints/{step}")["step"] == step for step in steps_there(run))
    return {"clear_message": clear, "checkpoints_whole": whole}


def resumed(
    run: Path, undisturbed: Path, fields: dict, there: list[int], found: dict[str, bool], enough: bool
) -> Figures:
    """Run the same command again: it resumes from the newest checkpoint and ends bit for bit equal."""
    again = finished(run, fields)
    found |= {"resumed": f"resuming from the checkpoint at step {there[-1]}" in again}
    found |= {"identical": bits(run) == bits(undisturbed)}
    return {"passed": all(found.values()) and enough, "checkpoints": len(there), **found}
