"""Moves small training runs between one, two and four processes, kills some of them, and takes the disk from one.

    python -m tests.chaos.training_processes [--moves 12] [--failures 3] [--seed 0]

Rows: a run that is killed or asked to end at random moments and goes on, each time, on another number of processes and
another mesh: its losses are those of one process; saves that fail in one of two processes, by a limit on the size of
its files, while both train: how long until both say so. Prints a JSON line a row, `N passed, N failed` last.
"""

import argparse
import random
import resource
import signal
import subprocess
import tempfile
import threading
import time
from pathlib import Path

from lm.checkpoints.manifest import verify
from lm.resilience.goodput import read_heartbeat
from tests import train_process
from tests.chaos_rows import Clock, Rows
from tests.corpus import tiny_experiment, write_tokens
from tests.train_runs import bits, copy, steps_there, told

STEPS = 300
FIELDS = {
    "steps": STEPS, "checkpoint_every": 15, "validate_every": 100, "sample_every": 150, "log_every": 1,
    "checkpoints_kept": 99, "model": {"layers": 1, "kv_heads": 2},
    # At 1e-2 the rounding of two devices alone, in one process, grows to 5e-4 of the loss within 600 steps.
    "optimizer": {"learning_rate": 1e-3, "final_learning_rate": 1e-4},
}  # fmt: skip
PLACES: list[tuple[int, dict[str, int]]] = [
    (1, {}), (2, {"fsdp": 2}), (2, {"tensor": 2}), (2, {"context": 2}), (2, {}), (4, {"fsdp": 2, "tensor": 2}),
    (4, {"fsdp": 2, "context": 2}), (4, {"tensor": 2, "context": 2}), (4, {"fsdp": 4}),
]  # fmt: skip
"""(processes of one device each, mesh)."""


def moves(rows: Rows, root: Path, tokens: Path, count: int, generator: random.Random) -> None:
    undisturbed, run, clock = copy(tokens, root / "alone"), copy(tokens, root / "moved"), Clock()
    train_process.finished(undisturbed, FIELDS)
    killed, asked, before = 0, 0, (0, {})
    for move in range(count):
        before = generator.choice([place for place in PLACES if place[0] != before[0]])
        processes = train_process.start_together(run, FIELDS | {"mesh": before[1]}, before[0])
        behind = max(steps_there(run), default=0)
        until = behind + generator.randrange(1, max(2, 2 * (STEPS - behind) // (count - move)))
        victim, number = generator.choice(processes), generator.choice((signal.SIGKILL, signal.SIGTERM))
        while all(process.poll() is None for process in processes):
            heart = read_heartbeat(run / "heartbeat.json")
            if heart and heart["process"] == processes[0].pid and heart["step"] >= until:
                victim.send_signal(number)
                killed, asked = killed + (number == signal.SIGKILL), asked + (number == signal.SIGTERM)
                break
            time.sleep(0.01)
        outputs = [process.communicate(timeout=600)[0] for process in processes]
        if number == signal.SIGTERM and any(process.returncode for process in processes):
            print("\n".join(outputs)[-5000:], flush=True)
            rows.add("asked to end", False, place=before, codes=[process.returncode for process in processes])
    for process in (last := train_process.start_together(run, FIELDS | {"mesh": {"fsdp": 2}}, 2)):
        process.communicate(timeout=600)
    pairs = list(zip(told(run), told(undisturbed), strict=True))
    worst = max(abs(a[key] - b[key]) / abs(b[key]) for a, b in pairs for key in a.keys() & b.keys() if "loss" in key)
    same_order = all(a["step"] == b["step"] and a.get("tokens") == b.get("tokens") for a, b in pairs)
    ended = not any(process.returncode for process in last)
    rows.add(
        "moved between 1, 2 and 4 processes", ended and same_order and worst <= 1e-5, killed=killed, asked_to_end=asked,
        largest_relative_difference_of_losses=worst, seconds=clock(),
    )  # fmt: skip


class Lines:
    """What a process prints, with the time of each line."""

    def __init__(self, process: subprocess.Popen):
        self.lines: list[tuple[float, str]] = []
        self.thread = threading.Thread(target=self.read, args=(process,))
        self.thread.start()

    def read(self, process: subprocess.Popen) -> None:
        assert process.stdout is not None
        self.lines.extend((time.monotonic(), line) for line in process.stdout)

    def first(self, text: str, after: float) -> float | None:
        """When the first line with `text` was printed since."""
        return next((at for at, line in list(self.lines) if text in line and at > after), None)


def failures(rows: Rows, root: Path, tokens: Path, count: int) -> None:
    """A limit on the size of its files (RLIMIT_FSIZE) hits the saves of process 1 alone; then it is lifted."""
    fields, clock = FIELDS | {"mesh": {"fsdp": 2}}, Clock()
    undisturbed, run = copy(tokens, root / "both"), copy(tokens, root / "failing")
    for process in train_process.start_together(undisturbed, fields, 2):
        process.communicate(timeout=600)
    pair = train_process.start_together(run, fields, 2)
    prints = [Lines(process) for process in pair]
    waits, limited = [], train_process.child_of(pair[1])
    for _ in range(count):
        there = len(steps_there(run))
        while len(steps_there(run)) < there + 2 and pair[1].poll() is None:
            time.sleep(0.01)
        began = time.monotonic()
        resource.prlimit(limited, resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
        while not [*(run / "checkpoints").glob("*.unfinished")] and pair[1].poll() is None:
            time.sleep(0.001)
        save, said = time.monotonic(), []
        while len(said) < 2 and pair[1].poll() is None:
            time.sleep(0.01)
            said = [at for one in prints if (at := one.first("is not saved, and training goes on", began))]
        resource.prlimit(limited, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        if len(said) == 2:
            waits.append(round(max(said) - save, 3))
    for process, one in zip(pair, prints, strict=True):
        process.wait(timeout=600)
        one.thread.join()
    codes = [process.returncode for process in pair]
    whole = all(verify(run / f"checkpoints/{step}")["step"] == step for step in steps_there(run))
    same = codes == [0, 0] and bits(run) == bits(undisturbed)
    missing = len(steps_there(undisturbed)) - len(steps_there(run))
    rows.add(
        "saves that fail in one of two processes", same and whole and missing >= count == len(waits),
        failures=count, exit_codes=codes, identical=same, saves_lost=missing, torn=int(not whole),
        seconds_until_both_say_so=waits, seconds=clock(),
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--moves", type=int, default=12)
    parser.add_argument("--failures", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0, help="chooses places and moments (default: 0)")
    arguments = parser.parse_args()
    rows = Rows()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        tokens = root / "tokens"
        write_tokens(tokens, tiny_experiment())
        if arguments.failures:
            failures(rows, root, tokens, arguments.failures)
        if arguments.moves:
            moves(rows, root, tokens, arguments.moves, random.Random(arguments.seed))
    rows.end()


if __name__ == "__main__":
    main()
