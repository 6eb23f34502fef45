"""Local processes that train together and share only a bucket."""

import math
import os
import subprocess
import sys
from pathlib import Path

from lm.storage import Url, write_atomically
from tests.object_store import Request
from tests.run_files import HANG_SECONDS, QUICK, REPOSITORY
from tests.train_process import free_port

TWO_HEADS = ("--model.kv_heads", "2")
"""Divisible by tensor parallelism of 2."""
FAULTS = ("500", "503", "cut", "cut reply", "lost reply")
"""Every way in which a request fails that does not cost minutes."""
HANGS = "hangs for"


def now_and_then(request: Request, every: int = 20) -> str | None:
    """One request in `every` fails, cycling through the faults."""
    return FAULTS[request.number // every % len(FAULTS)] if request.number % every == 0 else None


def start_on_machines(
    run: Url, warc: Path, folder: Path, count: int, mesh: dict[str, int], *options: str, script: str = "launch.train"
) -> list[subprocess.Popen]:
    """Start the script, or `launch.supervise` with it, in `count` processes of one device, each with its own home,
    temporary and working folder in `folder`."""
    command = [sys.executable, "-m", *script.split(), str(REPOSITORY / "tests/configs.py"), "--workdir", str(run)]
    command += ["--pages.warc", f"{warc}/*.warc.gz", *options]
    command += [f"--train.mesh.{axis}={size}" for axis, size in mesh.items()]
    processes, port = [], free_port()
    for index in range(count):
        own = folder / f"machine-{index}"
        (own / "tmp").mkdir(parents=True, exist_ok=True)
        found = {
            "HOME": str(own), "TMPDIR": str(own / "tmp"), "GRISTMILL_CACHE": str(own / "cache"),
            "PYTHONPATH": str(REPOSITORY), "NUM_PROCESSES": str(count), "PROCESS_ID": str(index),
            "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
        }  # fmt: skip
        processes.append(subprocess.Popen(
            command, cwd=own, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env=os.environ | QUICK | found,
        ))  # fmt: skip
    return processes


def outputs(processes: list[subprocess.Popen]) -> list[str]:
    """The output of each process after all have ended; a process that hangs is killed, and its output says so."""
    texts = []
    for process in processes:
        try:
            texts.append(process.communicate(timeout=HANG_SECONDS)[0])
        except subprocess.TimeoutExpired:
            process.kill()
            texts.append(f"{process.communicate()[0]}\n{HANGS} {HANG_SECONDS} s: killed")
    return texts


def on_disk(run: Url, folder: Path) -> Path:
    for name in run.files():
        write_atomically(folder / name, (run / name).read_bytes())
    return folder


def flip(place: Url, at: int, bit: int) -> bytes:
    """Flip one bit of an object; return the old bytes."""
    before = place.read_bytes()
    write_atomically(place, before[:at] + bytes([before[at] ^ (1 << bit)]) + before[at + 1 :])
    return before


def difference(rows: list[dict], expected: list[dict]) -> float:
    """The largest relative difference of a loss; infinite unless every row is there once, with the same step and
    losses."""
    losses = lambda row: {name: value for name, value in row.items() if "loss" in name or "bits" in name}
    if [(row["step"], *losses(row)) for row in rows] != [(row["step"], *losses(row)) for row in expected]:
        return math.inf
    pairs = [(value, row[name]) for one, row in zip(rows, expected, strict=True) for name, value in losses(one).items()]
    return max(abs(ours - theirs) / abs(theirs) for ours, theirs in pairs)
