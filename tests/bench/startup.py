"""Time from process start to the end of the first training step of the demo's model.

    python -m tests.bench.startup [--runs 3] [--keep FOLDER]

Makes shards of this repository's texts, then starts `launch.train` with an empty compilation cache (cold), with a full
one (warm), and from a checkpoint (resumed). Prints a JSON line: wall seconds (median) and CPU seconds, and the phases
in goodput.json; `starting` is interpreter, imports, config, checks of the run folder, and opening the shards.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.bench.runner import REPOSITORY, run_benchmark

CONFIG = '''
"""The demo on other texts, without filters and evaluation."""

import dataclasses

from configs import demo
from data_prep.config import PagesConfig


def get_config():
    base = demo.get_config()
    language = dataclasses.replace(base.documents.language, min_score=0.0, letters_only=True)
    pages = PagesConfig(
        tables=({table!r},)
    )
    return dataclasses.replace(
        base,
        pages=pages,
        documents=dataclasses.replace(base.documents, steps=(), language=language),
        train=dataclasses.replace(base.train, validation_batches=2, checkpoint_every=22),
    )
'''
FIRST_STEP = """
import json, os, resource, runpy, sys
from lm.resilience import goodput
real = goodput.Goodput.beat

def beat(self, step, state="training"):
    real(self, step, state)
    if self.now.first_step is not None and step == self.now.first_step + 1:
        self.switch(self.current)
        used = resource.getrusage(resource.RUSAGE_SELF)
        print("FIRST STEP", json.dumps({
            "cpu_seconds": used.ru_utime + used.ru_stime, "resumed_at": self.now.first_step,
            "phases": {name: round(seconds, 2) for name, seconds in self.now.seconds.items() if seconds >= 0.01},
        }), flush=True)
        os._exit(0)

goodput.Goodput.beat = beat
sys.argv = ["launch.train", *sys.argv[1:]]
runpy.run_module("launch.train", run_name="__main__", alter_sys=True)
"""
"""launch.train until the end of its first step."""
STAGES = ("fetch_pages", "extract_texts", "prepare_documents", "train_tokenizer", "write_shards")


def make_run(folder: Path) -> Path:
    """Create a run folder with shards and a config."""
    files = sorted(
        [
            *REPOSITORY.glob("docs/*.md"),
            *(p for room in ("lm", "data_prep", "tests") for p in (REPOSITORY / room).rglob("*.py")),
        ]
    )
    table, config, run = folder / "texts.parquet", folder / "config.py", folder / "run"
    pq.write_table(pa.table({"text": [path.read_text(encoding="utf-8") for path in files]}), table)
    config.write_text(CONFIG.format(table=str(table)), encoding="utf-8")
    for stage in STAGES:
        command = [sys.executable, "-m", f"launch.{stage}", str(config), "--workdir", str(run)]
        subprocess.run(command, cwd=REPOSITORY, check=True, stdout=sys.stderr)
    return run


def environment(cache: Path) -> dict[str, str]:
    return os.environ | {"JAX_PLATFORMS": "cpu", "JAX_COMPILATION_CACHE_DIR": str(cache)}


def first_step(run: Path, cache: Path) -> dict[str, Any]:
    """Return the figures that a process prints after its first step, and the wall seconds until then."""
    command = [sys.executable, "-c", FIRST_STEP, str(run.parent / "config.py"), "--workdir", str(run)]
    began = time.perf_counter()
    done = subprocess.run(command, cwd=REPOSITORY, env=environment(cache), capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - began
    said = [line for line in done.stdout.splitlines() if line.startswith("FIRST STEP")]
    if not said:
        raise SystemExit(done.stdout + done.stderr)
    return {"seconds": seconds} | json.loads(said[0].removeprefix("FIRST STEP"))


def measure(folder: Path, runs: int) -> dict[str, Any]:
    made, cache = make_run(folder), folder / "compiled"

    def fresh() -> Path:
        shutil.rmtree(folder / "at" / "run", ignore_errors=True)
        return Path(shutil.copytree(made, folder / "at" / "run"))

    (folder / "at").mkdir()
    shutil.copy(folder / "config.py", folder / "at/config.py")
    rows: dict[str, list[dict[str, Any]]] = {"cold": [first_step(fresh(), cache)]}
    rows["warm"] = [first_step(fresh(), cache) for _ in range(runs)]
    train = [sys.executable, "-m", "launch.train", str(folder / "at/config.py"), "--workdir", str(fresh())]
    options = ["--train.steps", "22", "--train.validate-every", "0", "--train.sample-every", "0"]
    subprocess.run([*train, *options], cwd=REPOSITORY, env=environment(cache), check=True, stdout=sys.stderr)
    rows["resumed"] = [first_step(folder / "at/run", cache) for _ in range(runs)]
    middle = lambda kind, name: round(statistics.median(row[name] for row in rows[kind]), 1)
    return {
        kind: {
            "seconds": middle(kind, "seconds"),
            "cpu_seconds": middle(kind, "cpu_seconds"),
            "phases": rows[kind][-1]["phases"],
        }
        for kind in rows
    }


def main(runs: int = 3, keep: Path | None = None) -> Iterator[dict[str, Any]]:
    """Args:
    runs: Warm starts.
    keep: Folder for the outputs; by default a temporary one.
    """
    with tempfile.TemporaryDirectory() as scratch:
        yield measure(keep or Path(scratch), runs)


if __name__ == "__main__":
    run_benchmark(main)
