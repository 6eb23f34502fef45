"""No page makes extraction slow or large: every hostile page, by every engine, at 1 MB and at 2 MB.

    python -m tests.chaos.extraction [--engine gristmill] [--megabytes 1.0]

Each runs in a process of its own. Prints one JSON line for each engine and page: CPU seconds and megabytes beyond the
start, for the size and for twice the size. Exits with 1 if 1 MB took more than 2 s or 512 MB, or twice the input more
than 2.2 times the time (and more than a second, below which a machine's noise is larger).
"""

import argparse
import json
import resource
import subprocess
import sys
import time

from data_prep.config.extract import ENGINES
from data_prep.documents import WebPage
from data_prep.extract import extract_text
from tests.bench.extraction import config_for
from tests.hostile_pages import HOSTILE, SENTENCE

MAX_SECONDS, MAX_MEGABYTES, MAX_GROWTH, NOISE_SECONDS = 2.0, 512, 2.2, 1.0
HANG_SECONDS = 120


def peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def page_of(body: str) -> WebPage:
    return WebPage(
        "http://a.example/", "<urn:x>", "2026-01-01T00:00:00Z", "text/html; charset=utf-8", body.encode(), "x"
    )


def measure(engine: str, name: str, size: int) -> None:
    """Prints [seconds, megabytes, reason] of one page; what the process had before does not count."""
    config = config_for(engine, 0.65)
    extract_text(page_of(SENTENCE * 20), config)
    page, before = page_of(HOSTILE[name](size)), peak_megabytes()
    started = time.process_time()
    _, reason = extract_text(page, config)
    print(json.dumps([round(time.process_time() - started, 3), round(peak_megabytes() - before), reason]))


def measured(engine: str, name: str, size: int) -> list | None:
    """What `measure` prints, in a process of its own; None where it crashed or hung."""
    command = [sys.executable, "-m", "tests.chaos.extraction", "--engine", engine, "--one", name, "--size", str(size)]
    try:
        return json.loads(subprocess.run(command, capture_output=True, timeout=HANG_SECONDS, check=True).stdout)
    except (subprocess.SubprocessError, ValueError):
        return None


def verdict(once: list | None, twice: list | None) -> str:
    if once is None or twice is None:
        return "crashed or hung"
    if once[0] > MAX_SECONDS or once[1] > MAX_MEGABYTES:
        return "too dear"
    if twice[0] > NOISE_SECONDS and twice[0] > MAX_GROWTH * once[0]:
        return "more than linear"
    return "ok"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", choices=sorted(ENGINES), help="default: each")
    parser.add_argument("--megabytes", type=float, default=1.0)
    parser.add_argument("--one", choices=HOSTILE, help=argparse.SUPPRESS)
    parser.add_argument("--size", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        measure(arguments.engine, arguments.one, arguments.size)
        return
    failed = 0
    for engine in [arguments.engine] if arguments.engine else ENGINES:
        for name in HOSTILE:
            size = round(arguments.megabytes * 1_000_000)
            once, twice = measured(engine, name, size), measured(engine, name, 2 * size)
            said = verdict(once, twice)
            failed += said != "ok"
            print(json.dumps({"chaos": "extraction", "engine": engine, "page": name, "verdict": said,
                              "seconds_megabytes_reason": [once, twice]}), flush=True)  # fmt: skip
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
