"""No text from outside is dear: every function of a text, over every hostile text, at 1 MB.

    python -m tests.chaos.hostile_texts [--function measure] [--megabytes 1.0]

The functions and texts are those of which `make test` holds that their time grows in proportion to the length. Prints
one JSON line for each function: the slowest kind of text and its CPU seconds a megabyte, the least of four. Exits with
1 if that is above half a second.
"""

import argparse
import json
import sys

from tests.adversarial import GENERATORS
from tests.data_prep.untrusted import FUNCTIONS, forget
from tests.growth import cpu_seconds

MAX_SECONDS, ATTEMPTS = 0.5, 4


def seconds_a_megabyte(name: str, kind: str, megabytes: float) -> float:
    """The least of some measurements, since others may be busy on the machine; one is enough if it is not too long."""
    text, least = GENERATORS[kind](round(megabytes * 1_000_000)), float("inf")
    for _ in range(ATTEMPTS):
        forget()
        least = min(least, cpu_seconds(FUNCTIONS[name], text) / megabytes)
        if least <= MAX_SECONDS:
            break
    return least


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--function", choices=sorted(FUNCTIONS), help="default: each")
    parser.add_argument("--megabytes", type=float, default=1.0)
    arguments = parser.parse_args()
    failed = 0
    for name in [arguments.function] if arguments.function else FUNCTIONS:
        for make in GENERATORS.values():
            FUNCTIONS[name](make(1000))  # loads what is loaded but once
        slowest, kind = max((seconds_a_megabyte(name, kind, arguments.megabytes), kind) for kind in GENERATORS)
        failed += slowest > MAX_SECONDS
        verdict = "too dear" if slowest > MAX_SECONDS else "ok"
        print(json.dumps({"chaos": "hostile_texts", "function": name, "verdict": verdict, "slowest": kind,
                          "seconds_a_megabyte": round(slowest, 3)}), flush=True)  # fmt: skip
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
