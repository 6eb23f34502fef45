"""Three ranks of an array job over moto's S3 server, in working folders and caches of their own; ranks are killed at
random moments, and some started again: the bytes must be those of one process on a disk.

    python -m tests.chaos.array [--runs 5] [--kills 2] [--seed 0]

Prints one JSON line a run, and `N passed, N failed` last; exits with code 1 when a run failed.
"""

import argparse
import json
import random
import signal
import tempfile
import time
from pathlib import Path

from lm.storage import Url
from tests.launch.test_array import digests, start, write_warcs
from tests.object_store import QUICK, serving, variables
from tests.run_files import HANG_SECONDS

RANKS = 3
MADE = ("texts", "documents", "dropped", "tokenizer", "tokens", "funnel.json")
FILES, PAGES = 30, 40


def killed_run(root: Path, run: Url, warcs: Path, kills: int, draw: random.Random) -> list[int]:
    """Runs the job, with so many kills on the way; every second killed rank is started again. Exit codes of those that
    were not killed."""
    begin = lambda rank: start(
        rank, root / f"{run.name}-{rank}-{time.monotonic_ns()}", run, warcs, "--engine.world", str(RANKS)
    )
    ranks = [begin(rank) for rank in range(RANKS)]
    try:
        for number in range(kills):
            time.sleep(draw.uniform(2, 12))
            rank = draw.randrange(1, RANKS)  # one at least lives on
            if ranks[rank].poll() is None:
                ranks[rank].send_signal(signal.SIGKILL)
                ranks[rank].communicate()
                if number % 2 == 0:
                    ranks[rank] = begin(rank)
        for process in ranks:
            process.communicate(timeout=HANG_SECONDS)
        return [process.returncode for process in ranks if process.returncode != -signal.SIGKILL]
    finally:
        for process in ranks:
            process.kill()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--kills", type=int, default=2, help="in each run (default: 2)")
    parser.add_argument("--seed", type=int, default=0, help="chooses the moments (default: 0)")
    arguments = parser.parse_args()
    draw, passed = random.Random(arguments.seed), 0
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_warcs(root / "warc", FILES, PAGES)
        alone = start(0, root / "alone", root / "run", root / "warc", "--engine.world", "1")
        alone.communicate(timeout=HANG_SECONDS)
        expected = digests(root / "run", *MADE)
        with serving() as store, variables(store.environment() | QUICK):
            store.bucket("bucket")
            for number in range(arguments.runs):
                run = Url(f"s3://bucket/run-{number}")
                codes = killed_run(root, run, root / "warc", arguments.kills, draw)
                same = digests(run, *MADE) == expected
                ok = same and not any(codes)
                passed += ok
                row = {"row": "array job over a bucket", "run": number, "ranks": RANKS, "kills": arguments.kills}
                print(json.dumps(row | {"exit_codes": codes, "same_bytes": same}), flush=True)
    print(f"{passed} passed, {arguments.runs - passed} failed")
    raise SystemExit(passed < arguments.runs)


if __name__ == "__main__":
    main()
