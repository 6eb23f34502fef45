"""What a second worker brings, and what memory a worker takes on a large WARC: texts and documents, whole recipe.

    python -m tests.bench.workers [PAGES.warc.gz] [--copies 72] [--gigabytes 1]

Prints one JSON line. The sample is copied into several WARC files, which one worker and then two turn into documents,
by the clock, start-up counted. Then copies are joined to one WARC of that many gigabytes, uncompressed size, which a
process of its own turns into documents; its peak of memory is that of the system's own accounts. --gigabytes 0 leaves
that out.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SAMPLE = Path(__file__).parents[2] / "../shared/data/extraction/aeb.warc.gz"
ALONE = """
import resource, sys
from pathlib import Path
from tests.bench.workers import seconds
print(seconds([Path(sys.argv[1])], Path(sys.argv[2]), 1), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("warc", type=Path, nargs="?", default=SAMPLE)
    parser.add_argument("--copies", type=int, default=72)
    parser.add_argument("--gigabytes", type=float, default=1)
    arguments = parser.parse_args()
    if not arguments.warc.is_file():
        print(json.dumps({"benchmark": "workers", "skipped": f"there is no {arguments.warc}"}))
        return
    data = arguments.warc.read_bytes()
    result: dict[str, object] = {"benchmark": "workers", "files": arguments.copies}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        warcs = [folder / f"{number:05d}.warc.gz" for number in range(arguments.copies)]
        for path in warcs:
            path.write_bytes(data)
        taken = {workers: seconds(warcs, folder / f"out-{workers}", workers) for workers in (1, 2)}
        result |= {f"seconds_{workers}_workers": round(value, 1) for workers, value in taken.items()}
        result["times_one"] = round(taken[1] / taken[2], 2)
        if arguments.gigabytes:
            copies = round(arguments.gigabytes * 1e9 / uncompressed(arguments.warc))
            large = folder / "large.warc.gz"
            with large.open("wb") as file:
                for _ in range(copies):
                    file.write(data)
            command = [sys.executable, "-c", ALONE, str(large), str(folder / "large")]
            wall, peak = map(float, subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())
            result |= {"gigabytes": round(copies * uncompressed(arguments.warc) / 1e9, 2), "peak_mb": round(peak)}
            result["large_seconds"] = round(wall, 1)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
