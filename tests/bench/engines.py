"""Pages a second of the stage texts by two worker processes: on a disk, and with inputs and outputs in a bucket.

    python -m tests.bench.engines [PAGES.warc.gz] [--copies 24]

Prints one JSON line. The store is moto's S3 server on this machine, whose work is done by the same cores. The rate
counts the seconds of the units alone, as their markers tell them, and not the start of the command.
"""

import argparse
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from data_prep.engine.attempts import read_manifest
from lm.storage import Place, Url
from tests.object_store import QUICK, serving, variables

REPOSITORY = Path(__file__).parents[2]
SAMPLE = REPOSITORY / "../shared/data/extraction/aeb.warc.gz"


def measured(run: Place, warcs: str, home: Path) -> dict[str, float]:
    """Seconds of the whole command, and pages a second that each of its two workers did."""
    home.mkdir()
    begin = time.perf_counter()
    options = ["--workdir", str(run), "--pages.warc", warcs, "--until", "texts", "--engine.workers", "2"]
    command = [sys.executable, "-m", "launch.pretrain", str(REPOSITORY / "configs/demo.py"), *options]
    environment = os.environ | {name: str(home) for name in ("XDG_CACHE_HOME", "TMPDIR", "HOME")}
    environment |= {"PYTHONPATH": str(REPOSITORY)}
    subprocess.run(command, cwd=home, env=environment, check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - begin
    made = read_manifest("texts", run).values()
    rate = sum(marker.counts["rows"] for marker in made) / sum(marker.seconds for marker in made)
    return {"seconds": round(seconds, 1), "rate": rate}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("warc", type=Path, nargs="?", default=SAMPLE)
    parser.add_argument("--copies", type=int, default=24)
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
            disk = measured(root / "run", str(root / "warc"), root / "disk")
            bucket = measured(Url("s3://bucket/run"), "s3://bucket/warc", root / "bucket")
    result = {"benchmark": "engines", "files": arguments.copies}
    result |= {f"{name}_disk": round(value, 1) for name, value in disk.items()}
    result |= {f"{name}_bucket": round(value, 1) for name, value in bucket.items()}
    print(json.dumps(result | {"bucket_of_disk": round(bucket["rate"] / disk["rate"], 3)}))


if __name__ == "__main__":
    main()
