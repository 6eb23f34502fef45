"""Downloads over a network that fails at random, by a process that is killed at random: the bytes are right in the end.

    python -m tests.chaos.sources [--seed N] [--trials N] [--kills N]

Files are streamed, too: whatever answers come, a stream gives one version of the file to the byte, or StorageError.

One JSON line a row; exit code 1 when a file was wrong, half there, or fetched again although it was whole.
"""

import argparse
import gzip
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from data_prep.common_crawl.files import crawl_files
from data_prep.config.pages import CommonCrawlPages
from lm.errors import InputError
from lm.storage import StorageError, Url, http
from lm.storage.ranges import Stream
from tests.data_prep.loopback_crawl import CRAWL, Fault, LoopbackCrawl, serving
from tests.run_files import REPOSITORY

FILES = 4


def random_fault(rng: random.Random, size: int) -> Fault:
    """One of those that a server of good will may show: whoever goes on gets the right bytes."""
    cut = rng.choice([None, 0, 1, rng.randrange(size), size - 1])
    return rng.choice(
        [
            Fault(cut=rng.randrange(size)),
            Fault(status=rng.choice([403, 408, 429, 500, 502, 503, 504])),
            Fault(status=503, headers={"Retry-After": rng.choice(["0", "Thu, 22 Feb 2024 10:00:00 GMT", "soon"])}),
            Fault(ignore_range=True, cut=cut),
            Fault(chunked=True, cut=cut),
            Fault(shift=rng.choice([-50, 1, 50]), cut=cut),
            Fault(told_length=size + rng.randrange(1, 99)),
            Fault(told_length=rng.randrange(size)),
            Fault(headers={"Content-Range": rng.choice(["bytes 0-1/2", "bytes */*", "", "bytes 5-9/x"])}, cut=cut),
            Fault(headers={"Content-Length": ""}, cut=cut),
            Fault(body=rng.choice([b"", b"<html>log in</html>", b"\x1f"])),
            Fault(headers={"Content-Encoding": "gzip"}, cut=cut),
            Fault(headers={"ETag": rng.choice(["", 'W/"weak"', '"other"'])}, cut=cut),
            Fault(replace=new_file(rng), ignore_condition=rng.random() < 0.5, cut=cut),
        ]
    )


def new_file(rng: random.Random) -> bytes:
    return gzip.compress(rng.randbytes(rng.randrange(100, 60_000)), 1, mtime=0)


def config(crawl: LoopbackCrawl) -> CommonCrawlPages:
    return CommonCrawlPages(
        crawl=CRAWL, kind="warc", files=FILES, choice="first", first_file=0, seed=0, address=crawl.url, downloads=3,
    )  # fmt: skip


def random_network(seed: int) -> dict:
    """Fetches with too few tries again and again, until all is there."""
    rng = random.Random(seed)
    crawl = LoopbackCrawl.of([new_file(rng) for _ in range(FILES)])
    asked = 0
    with serving(crawl), tempfile.TemporaryDirectory() as folder:
        for path in crawl.paths:
            size = len(crawl.files[path])
            crawl.faults[path] = [random_fault(rng, size) for _ in range(rng.randrange(12))]
            asked += len(crawl.faults[path])
        attempts = 0
        while attempts < 100:
            attempts += 1
            try:
                os.environ["GRISTMILL_STORAGE_RETRIES"] = str(rng.randrange(4))
                files = crawl_files(config(crawl), Path(folder), lambda line: None)
                break
            except InputError:
                continue
        else:
            return {"seed": seed, "ok": False, "reason": "not done after 100 attempts"}
        wrong = [f.name for f in files if f.path.read_bytes() != crawl.files[f.name]]
        left = sorted(p.name for p in (Path(folder) / "pages").iterdir())
        ok = not wrong and left == sorted(f.path.name for f in files)
        return {"seed": seed, "ok": ok, "faults": asked, "attempts": attempts, "wrong": wrong, "left": len(left)}


def random_stream(seed: int) -> dict:
    """Streams a file over such a network, by small ranges, with steps back."""
    rng = random.Random(seed)
    crawl = LoopbackCrawl.of([new_file(rng)])
    (path,) = crawl.paths
    before, told = crawl.files[path], ""
    with serving(crawl):
        crawl.faults[path] = [random_fault(rng, len(before)) for _ in range(rng.randrange(12))]
        asked = len(crawl.faults[path])
        url = Url(f"{crawl.url}{path}")
        came = bytearray()
        try:
            with Stream(url.address, url.surely(), block=rng.choice([500, 5_000, 50_000])) as stream:
                while len(came) < len(before):
                    stream.seek(len(came))
                    came += stream.read(rng.randrange(1, 9_000))
                    if came and rng.random() < 0.1:
                        del came[rng.randrange(len(came)) :]
        except StorageError as error:
            told = str(error)
    ok = before.startswith(came) and (bool(told) or came == before)
    return {"seed": seed, "ok": ok, "faults": asked, "bytes": len(came), "of": len(before), "told": told[-120:]}


def killed_process(seed: int) -> dict:
    """Kills the launch script at random moments of slow downloads, until a run is left to end."""
    rng = random.Random(seed)
    crawl = LoopbackCrawl.of([gzip.compress(rng.randbytes(3_000_000), 1, mtime=0) for _ in range(FILES)])
    folder = Path(tempfile.mkdtemp())
    command = [
        *(sys.executable, "-m", "launch.fetch_pages", "configs/demo.py", "--workdir", str(folder / "run")),
        *("--pages.common-crawl.crawl", CRAWL, "--pages.common-crawl.files", str(FILES), "--documents.dump", CRAWL),
        *("--pages.common-crawl.download", "True"),
        *("--pages.common-crawl.address", crawl.url),
    ]
    with serving(crawl):
        command[command.index("--pages.common-crawl.address") + 1] = crawl.url
        environment = {**os.environ, "NO_PROXY": "127.0.0.1"}
        kills, whole_before, again = 0, set(), []
        for _ in range(3):
            for path in crawl.paths:
                crawl.faults[path] = [Fault(cut=rng.randrange(1_000_000)) for _ in range(3)] + [Fault(stall=True)]
            begin = len(crawl.requests)
            process = subprocess.Popen(command, cwd=REPOSITORY, env=environment, stdout=subprocess.DEVNULL)
            while len(crawl.requests) < begin + 1 and process.poll() is None:
                time.sleep(0.01)
            time.sleep(rng.random())
            kills += process.poll() is None  # else all was there already
            process.kill()
            process.wait()
            again += [path for path, _ in crawl.requests[begin:] if path in whole_before]
            pages = folder / "run/pages"
            whole_before = {path for path in crawl.paths if (pages / path.rpartition("/")[2]).exists()}
        crawl.faults.clear()
        begin = len(crawl.requests)
        done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True)
        again += [path for path, _ in crawl.requests[begin:] if path in whole_before]
    wrong = [
        path
        for path in crawl.paths
        if not (place := folder / "run/pages" / path.rpartition("/")[2]).is_file()
        or place.read_bytes() != crawl.files[path]
    ]
    shutil.rmtree(folder)
    ok = not wrong and not again and kills > 0 and done.returncode == 0
    return {
        "seed": seed,
        "ok": ok,
        "kills": kills,
        "wrong": wrong,
        "fetched_again": again,
        "stderr": done.stderr[-300:],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--kills", type=int, default=3)
    arguments = parser.parse_args()
    os.environ |= {"NO_PROXY": "127.0.0.1", "GRISTMILL_STORAGE_TIMEOUT": "2", "GRISTMILL_STORAGE_RETRIES": "4"}
    http.FIRST_PAUSE = 0.0
    failed = 0
    trials = ((random_network, arguments.trials), (random_stream, arguments.trials), (killed_process, arguments.kills))
    for trial, number in trials:
        for seed in range(arguments.seed, arguments.seed + number):
            row = {"trial": trial.__name__, **trial(seed)}
            failed += not row["ok"]
            print(json.dumps(row), flush=True)
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main()
