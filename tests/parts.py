"""Which slow tests run: one part of N, and those of test files that changed lately (docs/tests.md)."""

import json
import statistics
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path

from tests.run_files import REPOSITORY

DURATIONS = REPOSITORY / "tests/durations.json"
"""{"fast" or "slow": {test file: seconds}}, written by the option --store-durations."""
CHANGED_SECONDS = 600
"""Limit for the slow tests of changed files, added up over all processes."""


def stored_seconds(kind: str) -> Callable[[str], float]:
    """Return a function from the test file to the stored seconds of its fast or slow tests. A file without stored
    seconds counts as the median."""
    stored = json.loads(DURATIONS.read_text(encoding="utf-8"))[kind]
    median = statistics.median(stored.values())
    return lambda file: stored.get(file, median)


def parse_part(text: str) -> tuple[int, int]:
    """Parse "K/N", part K of N."""
    number, slash, count = text.partition("/")
    if slash and number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count):
        return int(number), int(count)
    raise ValueError(f"PART is {text!r}. Give K/N with K from 1 to N: make slow PART=1/8")


def split_files(files: Iterable[str], count: int, seconds: Callable[[str], float]) -> list[list[str]]:
    """Share out files over `count` parts of about equal duration: the longest file first, each to the shortest part."""
    parts: list[list[str]] = [[] for _ in range(count)]
    totals = [0.0] * count
    for file in sorted({*files}, key=lambda file: (-seconds(file), file)):
        shortest = totals.index(min(totals))
        parts[shortest].append(file)
        totals[shortest] += seconds(file)
    return parts


def changed_files(commits: int, root: Path = REPOSITORY) -> list[str]:
    """List the files that the last `commits` commits changed, the latest first; none outside of a repository."""
    command = ["git", "-C", str(root), "log", f"-{commits}", "--format=", "--name-only"]
    return [*dict.fromkeys(subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines())]


def chosen_files(files: Iterable[str], part: str, commits: int) -> list[str]:
    """List the files of part "K/N", then files that the last `commits` commits changed: latest first, in all at most
    CHANGED_SECONDS."""
    number, count = parse_part(part)
    every, seconds, left = {*files}, stored_seconds("slow"), CHANGED_SECONDS
    chosen = split_files(every, count, seconds)[number - 1]
    for file in changed_files(commits) if commits else []:
        if file in every - {*chosen} and seconds(file) <= left:
            chosen.append(file)
            left -= seconds(file)
    return chosen


def store_seconds(measured: dict[str, dict[str, float]]) -> None:
    """Update the stored seconds with the files of this run, and drop files that no longer exist."""
    stored = json.loads(DURATIONS.read_text(encoding="utf-8"))
    for kind, seconds in stored.items():
        seconds |= {file: round(value, 1) for file, value in measured[kind].items()}
        stored[kind] = {file: value for file, value in sorted(seconds.items()) if (REPOSITORY / file).exists()}
    DURATIONS.write_text(json.dumps(stored, indent=0) + "\n", encoding="utf-8")
