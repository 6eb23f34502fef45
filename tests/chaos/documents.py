"""Pulls the plug on the way from pages to documents, again and again: the same bytes must come out, and a file that was
done must not be done again.

    python -m tests.chaos.documents [--kills 50] [--seed 0]

Prints one JSON line a row, and `N passed, N failed` last; exits with code 1 when a row failed.
"""

import argparse
import dataclasses
import json
import random
import signal
import subprocess
import tempfile
from pathlib import Path

from data_prep.warc import write_pages
from tests.corpus import web_pages
from tests.run_files import digests, finish, start

FILES = 12
PAGES = 60
KILLS_PER_RUN = 10
SCRIPTS = ("launch.fetch_pages", "launch.extract_texts", "launch.prepare_documents")
DEDUPLICATE = ("--documents.steps", "gopher_quality", "exact_dedup", "minhash_dedup")


def write_corpus(folder: Path) -> None:
    """Pages in files of unlike size, with copies and near-copies across them."""
    folder.mkdir()
    pages = web_pages(FILES * PAGES)
    for number in range(FILES):
        part = pages[number * PAGES : (number + 1) * PAGES - 4 * number]
        copied = [
            dataclasses.replace(page, url=f"https://copy.example/{number}/{i}", id=f"<urn:copy:{number}:{i}>",
                                body=page.body.replace(b"</h1>", b" again</h1>") if i % 2 else page.body)
            for i, page in enumerate(pages[:8])
        ]  # fmt: skip
        write_pages(folder / f"{number:02d}.warc.gz", [*part, *copied])


def done_files(workdir: Path) -> dict[Path, int]:
    """{name of a file of texts that is whole: its inode}"""
    return {Path(path.name): path.stat().st_ino for path in workdir.glob("texts/*.parquet")}


def killed_run(workdir: Path, warc: Path, kills: int, generator: random.Random) -> tuple[int, int]:
    """Kills and restarts each stage; (kills that hit, files of texts that were made again though they were whole)."""
    hits = again = 0
    done: dict[Path, int] = {}
    for script in SCRIPTS:
        while True:
            workers = generator.choice((1, 2))
            process = start(workdir, warc, "--engine.workers", str(workers), *DEDUPLICATE, script=script)
            try:
                if hits >= kills or script == "launch.fetch_pages":
                    finish(process)
                    break
                process.communicate(timeout=generator.uniform(0.5, 5.0))
                break
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.communicate()
                hits += 1
            now = done_files(workdir)
            again += sum(now.get(path) != inode for path, inode in done.items())
            done = now
    return hits, again


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50, help="kills in all (default: 50)")
    parser.add_argument("--seed", type=int, default=0, help="chooses the moments (default: 0)")
    arguments = parser.parse_args()
    generator, passed, failed, hits, run = random.Random(arguments.seed), 0, 0, 0, 0
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_corpus(root / "warc")
        for script in SCRIPTS:
            finish(start(root / "undisturbed", root / "warc", *DEDUPLICATE, script=script))
        expected = digests(root / "undisturbed")
        while hits < arguments.kills and run < 4 * arguments.kills:  # a machine may be too fast to be hit
            workdir, run = root / f"killed-{run}", run + 1
            here, again = killed_run(workdir, root / "warc", min(KILLS_PER_RUN, arguments.kills - hits), generator)
            same = digests(workdir) == expected
            ok = same and again == 0
            passed, failed = passed + ok, failed + (not ok)
            row = {"row": "kill -9 of pages to documents", "run": run, "kills": here, "files": FILES}
            print(json.dumps(row | {"same_bytes": same, "whole_files_made_again": again}), flush=True)
            hits += here
    print(json.dumps({"row": "kills in all", "kills": hits, "asked": arguments.kills}))
    print(f"{passed} passed, {failed} failed")
    raise SystemExit(1 if failed or hits < arguments.kills else 0)


if __name__ == "__main__":
    main()
