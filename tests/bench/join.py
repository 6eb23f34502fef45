"""Rows of deduplication keys that one core joins per second.

    python -m tests.bench.join [--documents 300000] [--files 100]

Documents have 15 random keys each; a third are copies of others. Prints a JSON line: rows per CPU-second through the
merges and all steps, number of rounds, and peak memory.
"""

import resource
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from data_prep.config import ONE_PROCESS
from data_prep.dedup.clusters import find_duplicates, writing_pairs
from data_prep.engine.tasks import TaskRunner
from tests.bench.runner import run_benchmark

KEYS = 15


def write_files(folder: Path, documents: int, files: int) -> list[Path]:
    """Write files of keys; every third document has one key in common with an earlier one."""
    paths = []
    for file in range(files):
        paths.append(folder / f"{file:05d}.pairs")
        draw = np.random.default_rng(file)
        with writing_pairs(paths[-1]) as add:
            for row in range(documents // files):
                data = draw.bytes(16 * KEYS)
                keys = [data[start : start + 16] for start in range(0, len(data), 16)]
                if row % 3 == 0:
                    keys[0] = np.random.default_rng(int(draw.integers(documents // 6))).bytes(16)
                add(keys, (file, file << 32 | row))
    return paths


def main(documents: int = 300_000, files: int = 100) -> Iterator[dict[str, object]]:
    with TemporaryDirectory() as name:
        folder = Path(name)
        paths = write_files(folder, documents, files)
        begun = time.process_time()
        run = TaskRunner(folder, ONE_PROCESS, lambda progress: None, "join")
        find_duplicates(paths, folder / "steps", run)
        seconds = time.process_time() - begun
        rounds = len(list((folder / "steps").glob("*-small-star")))
    rows = documents // files * files * KEYS
    yield {
        "rows": rows,
        "rows_per_cpu_second": round(rows / seconds),
        "rounds": rounds,
        "largest_resident_megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


if __name__ == "__main__":
    run_benchmark(main)
