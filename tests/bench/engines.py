"""Pages a second of the stage texts by three ranks of an array job: on a disk, and with inputs and outputs in a bucket.

    python -m tests.bench.engines [PAGES.warc.gz] [--copies 24] [--ranks 3]

Prints one JSON line. The store is moto's S3 server on this machine, whose work is done by the same cores. A rank's time
is from the first to the last of its units (their markers tell the seconds), so that starts do not count; they stand
beside it.
"""

import argparse
import json
import logging
import tempfile
import time
from pathlib import Path

from data_prep.engine.units import Marker
from lm.storage import Place, Url
from tests.launch.test_array import start
from tests.object_store import QUICK, serving, variables
from tests.run_files import HANG_SECONDS

SAMPLE = Path(__file__).parents[2] / "../shared/data/extraction/aeb.warc.gz"


def measured(run: Place, warcs: str, home: Path, ranks: int) -> dict[str, float]:
    """Of a job of so many ranks: seconds in all, and pages a second that its workers did."""
    begin = time.perf_counter()
    options = ("--engine.world", str(ranks), "--until", "texts")
    processes = [start(rank, home / str(rank), run, warcs, *options, lease="90") for rank in range(ranks)]
    said = [process.communicate(timeout=HANG_SECONDS)[0] for process in processes]
    assert not any(process.returncode for process in processes), said
    seconds = time.perf_counter() - begin
    names = run.files() if isinstance(run, Url) else [str(path.relative_to(run)) for path in run.rglob("*.json")]
    markers = [Marker.of((run / name).read_bytes()) for name in names if name.startswith("units/texts/")]
    rows = sum(marker.counts["rows"] for marker in markers if marker)
    return {"seconds": round(seconds, 1), "rate": rows / sum(marker.seconds for marker in markers if marker)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("warc", type=Path, nargs="?", default=SAMPLE)
    parser.add_argument("--copies", type=int, default=24)
    parser.add_argument("--ranks", type=int, default=3)
    arguments = parser.parse_args()
    if not arguments.warc.is_file():
        print(json.dumps({"benchmark": "engines", "skipped": f"there is no {arguments.warc}"}))
        return
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    data = arguments.warc.read_bytes()
    with tempfile.TemporaryDirectory() as folder, serving() as store:
        root = Path(folder)
        (root / "warc").mkdir()
        with variables(store.environment() | QUICK):
            store.bucket("bucket")
            from lm.storage import write_atomically

            for number in range(arguments.copies):
                (root / f"warc/{number:05d}.warc.gz").write_bytes(data)
                write_atomically(Url(f"s3://bucket/warc/{number:05d}.warc.gz"), data)
            disk = measured(root / "run", str(root / "warc"), root / "disk", arguments.ranks)
            bucket = measured(Url("s3://bucket/run"), "s3://bucket/warc", root / "bucket", arguments.ranks)
    result = {"benchmark": "engines", "ranks": arguments.ranks, "files": arguments.copies}
    result |= {f"{name}_disk": round(value, 1) for name, value in disk.items()}
    result |= {f"{name}_bucket": round(value, 1) for name, value in bucket.items()}
    print(json.dumps(result | {"bucket_of_disk": round(bucket["rate"] / disk["rate"], 3)}))


if __name__ == "__main__":
    main()
