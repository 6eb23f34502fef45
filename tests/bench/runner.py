"""Shared code of the benchmarks: options from a function's signature, rows as JSON lines, sample data and peers."""

import datetime
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import tyro

from tests.run_files import REPOSITORY

SHARED = REPOSITORY / "../shared/data"
ARTICLES = SHARED / "extraction/aeb.warc.gz"
"""The 181 pages of Zyte's article-extraction benchmark."""
PEERS = Path(os.environ.get("PEERS_DIR", "~/.cache/gristmill-peers")).expanduser()
PACKAGES = ("jax", "flax", "optax", "numpy", "pyarrow", "array-record", "tiktoken")


class SkippedError(Exception):
    """Sample data, a peer or a trained model is missing."""


def run_benchmark(program: Callable[..., Iterable[dict[str, Any]]]) -> None:
    """Call `program` with the options of its signature; print the machine, then each row, as JSON lines.

    The help text is the docstring of the program's module. A program that raises SkippedError ends with exit code 0.
    """
    name = Path(sys.argv[0]).stem
    description = sys.modules["__main__"].__doc__
    marks = (tyro.conf.FlagCreatePairsOff,)
    rows = tyro.cli(program, prog=f"python -m tests.bench.{name}", description=description, config=marks)
    try:
        for number, row in enumerate(rows):
            if number == 0:
                print(json.dumps({"bench": name, "machine": machine()}))
            print(json.dumps({"bench": name} | row, ensure_ascii=False), flush=True)
    except SkippedError as reason:
        print(json.dumps({"bench": name, "skipped": str(reason)}))


def machine() -> dict[str, Any]:
    """CPU, cores, date and versions of the packages that figures depend on."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    models = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return {
        "cpu": models[0] if models else platform.machine(), "cores": os.cpu_count(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(), "python": platform.python_version(),
        "versions": {package: importlib.metadata.version(package) for package in PACKAGES},
    }  # fmt: skip


def require_file(path: Path) -> Path:
    """Return `path`. Raises SkippedError if it is missing."""
    if not path.is_file():
        raise SkippedError(f"{path} is missing")
    return path


def require_model(run: Path) -> Path:
    """Return the run folder `run`. Raises SkippedError if it has no trained model."""
    if not (run / "checkpoints").is_dir():
        raise SkippedError(f"{run} has no trained model. Name the folder of a run, or make one: make demo.")
    return run


def choose[Value](table: Mapping[str, Value], name: str) -> Value:
    """Return the value of `name`. Raises SystemExit with all names if it is unknown."""
    if name not in table:
        raise SystemExit(f"{name!r} is unknown. Choose one of: {', '.join(table)}.")
    return table[name]


def ask_peer(python: str | Path, code: str, *arguments: object, **options: Any) -> Any:
    """Run `code` in another Python and return the JSON value of the last line that it prints."""
    command = [str(python), "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, **options)
    if done.returncode:
        raise SystemExit(f"{python} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])
