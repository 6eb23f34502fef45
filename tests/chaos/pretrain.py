"""Pulls the plug on the main job at random moments, and asks that the very same documents, shards and parameters come
out.

    python -m tests.chaos.pretrain [--kills 20] [--seed 0]

Prints one JSON line a row, and `N passed, N failed` last; exits with code 1 when a row failed.
"""

import argparse
import dataclasses
import json
import random
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from data_prep.warc import write_pages
from tests.corpus import web_pages
from tests.run_files import digests, finish, parameters, start

KILLS_PER_RUN = 4


def write_corpus(folder: Path) -> None:
    folder.mkdir()
    pages = web_pages(40)
    copy = dataclasses.replace(pages[3], url="https://copy.example/", id="<urn:copy>")
    for i, part in enumerate((pages[:20], [*pages[20:], copy])):
        write_pages(folder / f"{i}.warc.gz", part)


def killed_run(workdir: Path, warc: Path, kills: int, generator: random.Random, whole: float, workers: int) -> int:
    """Kills and restarts until `kills` have hit or the job is done, then lets it finish. Returns the kills that hit."""
    hits = 0
    for _ in range(10 * kills):
        process = start(workdir, warc, "--engine.workers", str(workers))
        try:
            process.communicate(timeout=generator.uniform(0.5, 0.6 * whole))
            break  # it ended before the kill
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            hits += 1
        if hits == kills:
            break
    finish(start(workdir, warc))
    return hits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="kills in all (default: 20)")
    parser.add_argument("--seed", type=int, default=0, help="chooses the moments (default: 0)")
    arguments = parser.parse_args()
    generator, passed, failed, hits, run = random.Random(arguments.seed), 0, 0, 0, 0
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_corpus(root / "warc")
        begun = time.monotonic()
        finish(start(root / "undisturbed", root / "warc"))
        whole = time.monotonic() - begun
        expected = digests(root / "undisturbed"), parameters(root / "undisturbed")
        while hits < arguments.kills and run < 4 * arguments.kills:  # a machine may be too fast to be hit
            workdir, workers, run = root / f"killed-{run}", 1 + run % 2, run + 1
            here = killed_run(
                workdir, root / "warc", min(KILLS_PER_RUN, arguments.kills - hits), generator, whole, workers
            )
            same_data, same_bits = digests(workdir) == expected[0], parameters(workdir) == expected[1]
            passed, failed = passed + (same_data and same_bits), failed + (not (same_data and same_bits))
            row = {"row": "kill -9 of the main job", "run": run, "kills": here, "workers": workers}
            print(json.dumps(row | {"same_data": same_data, "same_parameters": same_bits}), flush=True)
            hits += here
    print(json.dumps({"row": "kills in all", "kills": hits, "asked": arguments.kills}))
    print(f"{passed} passed, {failed} failed")
    raise SystemExit(1 if failed or hits < arguments.kills else 0)


if __name__ == "__main__":
    main()
