"""Run the rows of fault injection, print their figures as JSON lines, and count passes."""

import json
import random
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from tests.corpus import tiny_experiment, write_tokens

Figures = dict[str, Any]
"""Figures of a row, including `passed`."""


@dataclass(frozen=True)
class Trial:
    """Inputs of a row."""

    folder: Path
    """Empty folder, deleted afterwards."""
    count: int
    """Number of kills, flips or files."""
    seed: int
    random: random.Random

    def tokens(self) -> Path:
        """Return a new run folder with tokenizer and tokens of the tiny experiment."""
        folder = self.folder / "tokens"
        write_tokens(folder, tiny_experiment())
        return folder


@dataclass(frozen=True)
class Row:
    """One line of the table in tests/chaos/__main__.py."""

    check: Callable[[Trial], Figures | Iterator[Figures]]
    """Returns figures, or yields several with a "row" each."""
    count: int
    started: str
    fault: str
    holds: str


def run_rows(table: Mapping[str, Row]) -> None:
    """Run the rows named on the command line, or all. Exits with code 1 if one failed."""

    def chaos(names: tyro.conf.Positional[tuple[str, ...]] = (), seed: int = 0, scale: float = 1.0) -> None:
        """Kill processes, cut connections and damage files; check that nothing is lost and no byte differs.

        Args:
            names: Rows to run: a name, or its part before the colon.
            seed: Chooses moments, places and values.
            scale: Multiplies the number of kills, flips and files.
        """
        known = {*table, *(name.partition(":")[0] for name in table)}
        if unknown := {*names} - known:
            raise SystemExit(f"no row {', '.join(sorted(unknown))}. Choose some of: {', '.join(sorted(known))}.")
        passed = failed = 0
        for name, row in table.items():
            if names and not {name, name.partition(":")[0]} & {*names}:
                continue
            begun = time.monotonic()
            with tempfile.TemporaryDirectory() as folder:
                trial = Trial(Path(folder), max(1, round(scale * row.count)), seed, random.Random(seed))
                found = row.check(trial)
                for figures in found if isinstance(found, Iterator) else [found]:
                    ok = bool(figures["passed"])
                    passed, failed = passed + ok, failed + (not ok)
                    seconds = round(time.monotonic() - begun, 1)
                    print(json.dumps({"chaos": name, "passed": ok} | figures | {"seconds": seconds}), flush=True)
        print(f"{passed} passed, {failed} failed")
        raise SystemExit(1 if failed else 0)

    tyro.cli(chaos, prog="python -m tests.chaos")


def until_killed(start: Callable[[], subprocess.Popen], kills: int, delay: Callable[[], float]) -> int:
    """Repeatedly start a process and kill it after `delay()` seconds, until it finishes before the kill.

    Returns the number of kills, at most `kills`.
    """
    for hits in range(kills):
        process = start()
        try:
            process.communicate(timeout=delay())
            return hits
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
    return kills
