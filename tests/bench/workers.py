"""Speedup by a second worker, and memory of a worker on a large WARC file, with the whole recipe.

    python -m tests.bench.workers [PAGES.warc.gz] [--copies 72] [--gigabytes 1]

Copies the sample into several WARC files, which one worker and then two turn into documents (wall time with start-up);
then a separate process processes one WARC of --gigabytes uncompressed size (0: skip) and reports its peak memory.
"""

import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import tyro

from tests.bench.runner import ARTICLES, ask_peer, require_file, run_benchmark

LARGE_FILE = """
import json, resource, sys
from pathlib import Path
from tests.bench.workers import seconds
taken = seconds([Path(sys.argv[1])], Path(sys.argv[2]), 1)
print(json.dumps([taken, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]))
"""


def seconds(warcs: list[Path], out: Path, workers: int) -> float:
    from configs.fineweb import get_config
    from data_prep.config import EngineConfig
    from data_prep.measure.run import extract_texts
    from data_prep.select.run import prepare_documents
    from data_prep.sources import InputFile
    from data_prep.url_filter.filter import prepare_lists

    start = time.perf_counter()
    config, engine = get_config().documents, EngineConfig(workers=workers)
    prepare_lists(config.url_filter)
    inputs = [InputFile(path, path.name, "warc", path.stat().st_size) for path in warcs]
    extract_texts(inputs, config, out, engine=engine)
    prepare_documents(out / "texts", config, out, engine=engine)
    return time.perf_counter() - start


def uncompressed(path: Path) -> int:
    import isal.igzip

    with isal.igzip.open(path) as file:
        return sum(len(block) for block in iter(lambda: file.read(1 << 20), b""))


def main(
    warc: tyro.conf.Positional[Path] = ARTICLES, copies: int = 72, gigabytes: float = 1
) -> Iterator[dict[str, object]]:
    data = require_file(warc).read_bytes()
    result: dict[str, object] = {"files": copies}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        warcs = [folder / f"{number:05d}.warc.gz" for number in range(copies)]
        for path in warcs:
            path.write_bytes(data)
        taken = {workers: seconds(warcs, folder / f"out-{workers}", workers) for workers in (1, 2)}
        result |= {f"seconds_{workers}_workers": round(value, 1) for workers, value in taken.items()}
        result["times_one"] = round(taken[1] / taken[2], 2)
        if gigabytes:
            size = uncompressed(warc)
            repeats = round(gigabytes * 1e9 / size)
            large = folder / "large.warc.gz"
            with large.open("wb") as file:
                for _ in range(repeats):
                    file.write(data)
            wall, peak = ask_peer(sys.executable, LARGE_FILE, large, folder / "large")
            result |= {"gigabytes": round(repeats * size / 1e9, 2), "peak_mb": round(peak)}
            result["large_seconds"] = round(wall, 1)
    yield result


if __name__ == "__main__":
    run_benchmark(main)
