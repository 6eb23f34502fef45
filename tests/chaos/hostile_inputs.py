"""CPU time and memory of every text function and extraction engine on hostile texts and pages of 1 MB."""

import re
import sys
from collections.abc import Iterator

from data_prep.config.extract import ENGINES
from tests.adversarial import GENERATORS
from tests.bench.runner import ask_peer
from tests.chaos.runner import Figures, Trial
from tests.data_prep.untrusted import FUNCTIONS, forget
from tests.growth import cpu_seconds
from tests.hostile_pages import HOSTILE

SIZE = 1_000_000
MOST_TIMES, ATTEMPTS = 13, 4
"""Times the CPU seconds of `count_words`: a limit in seconds would depend on the machine."""
MAX_SECONDS, MAX_MEGABYTES, MAX_GROWTH, NOISE_SECONDS = 2.0, 512, 2.2, 1.0
WORD = re.compile(r"\w+")
EXTRACT = """
import json, resource, sys, time
from data_prep.documents import WebPage
from data_prep.extract import extract_text
from tests.bench.extraction import config_for
from tests.hostile_pages import HOSTILE, SENTENCE

page_of = lambda body: WebPage(
    "http://a.example/", "<urn:x>", "2026-01-01T00:00:00Z", "text/html; charset=utf-8", body.encode(), "x")
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
config = config_for(sys.argv[1], 0.65)
extract_text(page_of(SENTENCE * 20), config)  # imports and tables do not count
page, before = page_of(HOSTILE[sys.argv[2]](int(sys.argv[3]))), peak()
started = time.process_time()
_, reason = extract_text(page, config)
print(json.dumps([round(time.process_time() - started, 3), round(peak() - before), reason]))
"""


def count_words(text: str) -> dict[str, int]:
    """The reference loop: one match, one slice and one look-up per word."""
    counts: dict[str, int] = {}
    for match in WORD.finditer(text):
        word = text[match.start() : match.end()]
        counts[word] = counts.get(word, 0) + 1
    return counts


def texts(trial: Trial) -> Iterator[Figures]:
    """Each function with each kind of hostile text: at most 13 times as slow as `count_words`."""
    for name, function in FUNCTIONS.items():
        for make in GENERATORS.values():
            function(make(1000))  # loads models
        loop = min(cpu_seconds(count_words, "word " * 200_000) for _ in range(ATTEMPTS))
        slowest, kind = 0.0, ""
        for generator, make in GENERATORS.items():
            text, least = make(SIZE), float("inf")
            for _ in range(ATTEMPTS):  # other processes may disturb a measurement
                forget()
                least = min(least, cpu_seconds(function, text))
                if least <= MOST_TIMES * loop:
                    break
            slowest, kind = max((slowest, kind), (least, generator))
        yield {
            "function": name, "passed": slowest <= MOST_TIMES * loop, "slowest": kind,
            "seconds_a_megabyte": round(slowest, 3), "times_the_loop": round(slowest / loop, 1),
        }  # fmt: skip


def pages(trial: Trial) -> Iterator[Figures]:
    """Each engine with each hostile page in its own process: 2 s and 512 MB for 1 MB, and linear in the size."""
    for engine in ENGINES:
        for name in HOSTILE:
            once, twice = (ask_peer(sys.executable, EXTRACT, engine, name, n * SIZE, timeout=120) for n in (1, 2))
            linear = twice[0] <= NOISE_SECONDS or twice[0] <= MAX_GROWTH * once[0]
            passed = once[0] <= MAX_SECONDS and once[1] <= MAX_MEGABYTES and linear
            yield {"engine": engine, "page": name, "passed": passed, "seconds_megabytes_reason": [once, twice]}
