"""No text from outside is dear: every function of a text, over every hostile text, at 1 MB.

    python -m tests.chaos.hostile_texts [--function measure] [--megabytes 1.0]

The functions and texts are those of which `make test` holds that their time grows in proportion to the length. Prints
one JSON line for each function: the slowest kind of text, its CPU seconds a megabyte, the least of four, and how many
times those of a plain loop that is timed just before, `count_words`. Exits with 1 if they are more than 13 times
as many. A bound in seconds would say as much of the machine as of the function: of two machines in use one took .61 s
for what the other took .84 s for.
"""

import argparse
import json
import re
import sys

from tests.adversarial import GENERATORS
from tests.data_prep.untrusted import FUNCTIONS, forget
from tests.growth import cpu_seconds

MAX_TIMES, ATTEMPTS = 13, 4
WORD = re.compile(r"\w+")


def count_words(text: str) -> dict[str, int]:
    """What the others are measured by: one match, one slice and one look into a table for each word."""
    counts: dict[str, int] = {}
    for match in WORD.finditer(text):
        word = text[match.start() : match.end()]
        counts[word] = counts.get(word, 0) + 1
    return counts


def seconds_of_loop() -> float:
    """CPU seconds of `count_words` for a megabyte of five letters a word, the least of some measurements."""
    text = "word " * 200_000
    return min(cpu_seconds(count_words, text) for _ in range(ATTEMPTS))


def seconds_a_megabyte(name: str, kind: str, megabytes: float, enough: float) -> float:
    """The least of some measurements, since others may be busy on the machine; one is enough if it is not too long."""
    text, least = GENERATORS[kind](round(megabytes * 1_000_000)), float("inf")
    for _ in range(ATTEMPTS):
        forget()
        least = min(least, cpu_seconds(FUNCTIONS[name], text) / megabytes)
        if least <= enough:
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
        loop = seconds_of_loop()
        enough = MAX_TIMES * loop
        slowest, kind = max((seconds_a_megabyte(name, kind, arguments.megabytes, enough), kind) for kind in GENERATORS)
        failed += slowest > enough
        row = {
            "chaos": "hostile_texts",
            "function": name,
            "verdict": "too dear" if slowest > enough else "ok",
            "slowest": kind,
            "seconds_a_megabyte": round(slowest, 3),
            "times_the_loop": round(slowest / loop, 1),
        }
        print(json.dumps(row), flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
