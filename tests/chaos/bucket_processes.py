"""Processes that train together and share only a bucket: killed at random requests, and bit flips in objects.

Every twentieth request fails. For each mesh, an undisturbed run of four processes; then one process, process 0 or all
are killed between the first step and the last checkpoint, and the run resumes on one, two and four processes.
"""

import os
import random
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_prep.warc import write_pages
from lm.checkpoints.manifest import MANIFEST, DamageError, folders_of, steps_in, verify
from lm.checkpoints.reading import whole_parameters
from lm.errors import InputError, PeerError
from lm.resilience.goodput import read_heartbeat
from lm.run_paths import UNFINISHED, RunPaths
from lm.storage import Url, write_atomically
from tests.bucket_processes import HANGS, TWO_HEADS, difference, flip, now_and_then, on_disk, outputs, start_on_machines
from tests.chaos.runner import Figures, Trial
from tests.corpus import web_pages
from tests.object_store import Request, Store, serving, variables
from tests.run_files import finish, start
from tests.train_process import child_of
from tests.train_runs import told

STEPS, EVERY = 24, 4
OPTIONS = (
    *TWO_HEADS, "--train.steps", str(STEPS), "--train.checkpoint_every", str(EVERY), "--train.log_every", "1",
    "--train.checkpoints_kept", "9", "--train.optimizer.learning_rate", "1e-3",
    "--train.optimizer.final_learning_rate", "1e-4",
)  # fmt: skip
MESHES = {"fsdp 2 x tensor 2": {"fsdp": 2, "tensor": 2}, "data 2 x fsdp 2": {"fsdp": 2}}
"""Meshes of four devices; the batch is sharded over the remaining axis."""
VICTIMS = ("one", "process 0", "all")
BUCKET = Url("s3://corpus")


@dataclass
class Setup:
    """Shared state of all trials."""

    server: Store
    root: Path
    warc: Path
    expected: list[dict]
    """Metrics of one process with a local disk."""
    generator: random.Random
    requests: dict[str, int] = field(default_factory=dict)
    """{mesh: requests from the first step to the last checkpoint}."""

    def start(self, run: Url, machines: str, count: int, mesh: dict[str, int]) -> list[subprocess.Popen]:
        return start_on_machines(run, self.warc, self.root / machines, count, mesh, *OPTIONS)

    def copy(self, source: Url, name: str) -> Url:
        """Copy a run to another address, including the lease of a killed process."""
        for one in source.files():
            write_atomically(BUCKET / name / one, (source / one).read_bytes())
        return BUCKET / name

    def check(self, run: Url) -> tuple[list[str], float]:
        """Return (errors of a finished run, largest relative difference of its losses)."""
        files, steps = run.files(), steps_in(run / "checkpoints")
        worst = difference(rows := told(on_disk(run, self.root / "copies" / run.name)), self.expected)
        wrong = damaged(run) + [f"{name} is left" for name in files if name.endswith((UNFINISHED, ".begun", "/nonce"))]
        wrong += [] if "stages/train.json" in files else ["stages/train.json is missing"]
        wrong += [] if steps == [*range(EVERY, STEPS + 1, EVERY)] else [f"checkpoints of steps {steps}"]
        wrong += [] if worst <= 1e-5 else [f"losses differ by {worst}: {rows}"]
        return wrong, worst


def damaged(run: Url) -> list[str]:
    """Return errors in the checkpoints."""
    found = []
    for step in steps_in(run / "checkpoints"):
        try:
            verify(run / f"checkpoints/{step}")
        except DamageError as damage:
            found.append(str(damage))
    return found


def has_stepped(machines: Path) -> bool:
    """Whether process 0 has completed a step."""
    hearts = [read_heartbeat(path) for path in machines.glob("machine-0/cache/runs/*/heartbeat.json")]
    return any(heart is not None and heart["step"] >= 1 for heart in hearts)


def undisturbed(setup: Setup, mesh: str, base: Url) -> Figures:
    """Run without kills, and count the requests."""
    name, first, last = f"{mesh}-undisturbed".replace(" ", "-"), [], []
    run = setup.copy(base, name)

    def fault(request: Request) -> str | None:
        if not first and has_stepped(setup.root / name):
            first.append(request.number)
        if re.search(rf"PUT .*checkpoints/{STEPS}/{MANIFEST}", f"{request.method} {request.path}"):
            last.append(request.number)
        return now_and_then(request)

    setup.server.fail(fault)
    found = ended(setup, setup.start(run, name, 4, MESHES[mesh]), run)
    setup.requests[mesh] = last[0] - first[0]
    return {"row": f"{mesh}: not killed", "passed": not found["wrong"], "requests": setup.requests[mesh], **found}


def ended(setup: Setup, processes: list[subprocess.Popen], run: Url, newest: int = 0) -> dict[str, Any]:
    """Figures of a run that should train to the end, resumed from step `newest`."""
    said, codes = outputs(processes), [process.returncode for process in processes]
    if any(codes) or "Traceback" in "".join(said):
        return {"wrong": [f"exit codes {codes}", *said]}
    wrong, worst = setup.check(run)
    resumed = re.findall(r"resuming from the checkpoint at step (\d+)", said[0])
    wrong += [] if resumed == [str(newest)] * bool(newest) else [f"step {newest} was whole: {said[0]}"]
    return {"wrong": wrong, "largest_relative_difference_of_losses": worst}


def killed(setup: Setup, mesh: str, victim: str, base: Url) -> Iterator[Figures]:
    """Kill processes, then resume copies of the bucket on one and two fresh machines, and the run itself on four."""
    name, generator = f"{mesh}-{victim}".replace(" ", "-"), setup.generator
    run = setup.copy(base, name)
    after = generator.randrange(setup.requests[mesh] * 4 // 5)  # logs are uploaded by time, so counts vary
    indices = {"one": [generator.randrange(1, 4)], "process 0": [0], "all": [0, 1, 2, 3]}[victim]
    child = generator.random() < 0.5  # the child that trains (launch/stages/parent.py), as the OOM killer would
    first, hit = [], []
    setup.server.fail(now_and_then)
    processes = setup.start(run, name, 4, MESHES[mesh])
    # Wait for the child to start; imports take seconds.
    numbers = [child_of(processes[index]) if child else processes[index].pid for index in indices]

    def fault(request: Request) -> str | None:
        if not first and has_stepped(setup.root / name):
            first.append(request.number)
        if first and not hit and request.number >= first[0] + after:
            hit.append(time.monotonic())
            for number in numbers:
                os.kill(number, signal.SIGKILL)
        return now_and_then(request)

    setup.server.fail(fault)
    said, codes = outputs(processes), [process.returncode for process in processes]
    seconds = round(time.monotonic() - hit[0], 1) if hit else None
    wrong = damaged(run) + ([] if hit else [f"not killed: exit codes {codes}"])
    messages = []
    for index, text in enumerate(said):
        victims = "" if index in indices else f"process {indices[0]} ended, hangs or cannot be reached"
        code = PeerError.exit_code if victims else 128 + signal.SIGKILL if child else -signal.SIGKILL
        messages += text.splitlines()[-1:] if victims else []
        if codes[index] != code or victims not in text or "Traceback" in text or HANGS in text:
            wrong.append(f"process {index} ends with {codes[index]}, not {code}: {text}")
    newest = max(steps_in(run / "checkpoints"), default=0)
    yield {
        "row": f"{mesh}: SIGKILL of {victim}", "passed": not wrong, "after_requests": after, "processes": indices,
        "child": child, "newest": newest, "seconds_until_all_ended": seconds, "messages": messages, "wrong": wrong,
    }  # fmt: skip
    copies = {count: setup.copy(run, f"{name}-{count}") for count in (1, 2)}
    for count, again in ((1, {}), (2, {"fsdp": 2}), (4, MESHES[mesh])):
        place = copies.get(count, run)
        found = ended(setup, setup.start(place, place.name, count, again), place, newest)
        yield {"row": f"{mesh}: SIGKILL of {victim}, resumed on {count}", "passed": not found["wrong"], **found}


def flips(setup: Setup, count: int) -> Figures:
    """Find checkpoints with the function used by launch.evaluate and all other readers."""
    setup.server.fail(lambda request: None)
    found, missed, generator = 0, [], setup.generator
    runs = [name for name in BUCKET.children() if name != "base"]
    for _ in range(count):
        run = BUCKET / generator.choice(runs)
        folders = folders_of(RunPaths(run))  # ty: ignore[invalid-argument-type]
        step = generator.choice(steps_in(folders[0]))
        checkpoint = whole_parameters(folders, step)
        sizes = {name: one.size for name, one in (run / f"checkpoints/{step}").files().items() if one.size}
        name, bit = generator.choice(sorted(sizes)), generator.randrange(8)
        before = flip(flipped := run / f"checkpoints/{step}/{name}", generator.randrange(sizes[name]), bit)
        try:
            missed.append(f"{flipped}: {whole_parameters(folders, step)}")
        except InputError as error:
            named = str(error).startswith(f"{checkpoint} is damaged: ") and str(flipped) in str(error)
            found, missed = found + named, missed if named else [*missed, f"{flipped}: {error}"]
        write_atomically(flipped, before)
    return {"row": "bit flips", "passed": found == count, "flips": count, "by_name": found, "missed": missed}


def trials(trial: Trial) -> Iterator[Figures]:
    """Run all meshes and victims, then `trial.count` bit flips."""
    with serving() as server:
        root = trial.folder
        cache = {"GRISTMILL_CACHE": str(root / "cache"), "XDG_STATE_HOME": str(root / "state")}
        with variables(server.environment() | {"GRISTMILL_LEASE_SECONDS": "3"} | cache):
            server.bucket("corpus")
            pages, base = web_pages(40), BUCKET / "base"
            for part in (0, 1):
                write_pages(root / f"warc/{part}.warc.gz", pages[part::2])
            finish(start(root / "disk", root / "warc", "--until", "train", *OPTIONS))
            finish(start(base, root / "warc", "--until", "shards", *OPTIONS))  # ty: ignore[invalid-argument-type]
            setup = Setup(server, root, root / "warc", told(root / "disk"), trial.random)
            for mesh in MESHES:
                yield undisturbed(setup, mesh, base)
                for victim in VICTIMS:
                    yield from killed(setup, mesh, victim, base)
            yield flips(setup, trial.count)
