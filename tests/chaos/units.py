"""2,000 units, of which 20 kill their process, 20 read without end and 20 are damaged: all else comes out as without
them, and the 60 are named.

    python -m tests.chaos.units [--units 1940] [--bad 20] [--workers 2]

Prints one JSON line, and `N passed, N failed` last; exits with code 1 when it failed.
"""

import argparse
import contextlib
import hashlib
import io
import json
import tempfile
import time
from pathlib import Path

from data_prep.config import EngineConfig
from data_prep.engine import run_step
from tests.data_prep.engine.test_units import CRASH, DAMAGED, HANG, contents, records, step_of, texts

LIMIT = 10_000_000
"""Bytes that a unit may read."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--units", type=int, default=1940, help="that are well (default: 1940)")
    parser.add_argument("--bad", type=int, default=20, help="of each kind (default: 20)")
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    good = texts(arguments.units)
    bad = {f"{kind}-{n:02d}": f"{kind} " for kind in (CRASH, HANG, DAMAGED) for n in range(arguments.bad)}
    mixed = dict(sorted((good | bad).items(), key=lambda item: hashlib.md5(item[0].encode()).digest()))
    with tempfile.TemporaryDirectory() as scratch:
        alone, together = Path(scratch) / "alone", Path(scratch) / "together"
        engine = EngineConfig(workers=arguments.workers, max_failed=0.05, max_unit_bytes=LIMIT)
        start = time.perf_counter()
        run_step(step_of(good), engine, alone)
        middle = time.perf_counter()
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            run_step(step_of(mixed), engine, together)
        end = time.perf_counter()
        named = records(together)
        result = {
            "same_bytes": contents(together) == contents(alone),
            "named": set(named) == set(bad),
            "told": f"{len(bad)} of {len(mixed):,} units failed" in said.getvalue(),
            "each_with_its_cause": all(
                {CRASH: "SIGKILL", HANG: "max_unit_bytes", DAMAGED: "is damaged"}[name.split("-")[0]] in one["error"]
                for name, one in named.items()
            ),
        }
    row = {"row": "units that fail", "units": len(mixed), "bad": len(bad), "seconds_without": round(middle - start, 1)}
    print(json.dumps(row | {"seconds": round(end - middle, 1)} | result))
    passed = sum(result.values())
    print(f"{passed} passed, {len(result) - passed} failed")
    raise SystemExit(passed < len(result))


if __name__ == "__main__":
    main()
