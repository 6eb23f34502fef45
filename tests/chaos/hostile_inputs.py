"""CPU time and memory of every extraction engine on hostile pages of 1 MB; CPU time of commands on hostile models."""

import sys
from collections.abc import Iterator

from data_prep.config.extract import ENGINES
from tests.bench.runner import ask_peer
from tests.chaos.runner import Figures, Trial
from tests.hostile_models import cases, good_commands, make_base, measured
from tests.hostile_pages import HOSTILE
from tests.launch.test_hostile_models import LIKE

SIZE = 1_000_000
MAX_SECONDS, MAX_MEGABYTES, MAX_GROWTH, NOISE_SECONDS = 2.0, 512, 2.2, 1.0
MORE_SECONDS = 3.0
"""Excess over the same command on good files."""


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


def pages(trial: Trial) -> Iterator[Figures]:
    """Each engine with each hostile page in its own process: 2 s and 512 MB for 1 MB, and linear in the size."""
    for engine in ENGINES:
        for name in HOSTILE:
            once, twice = (ask_peer(sys.executable, EXTRACT, engine, name, n * SIZE, timeout=120) for n in (1, 2))
            linear = twice[0] <= NOISE_SECONDS or twice[0] <= MAX_GROWTH * once[0]
            passed = once[0] <= MAX_SECONDS and once[1] <= MAX_MEGABYTES and linear
            yield {"engine": engine, "page": name, "passed": passed, "seconds_megabytes_reason": [once, twice]}


def models(trial: Trial) -> Iterator[Figures]:
    """Reject each hostile model file in about the CPU time that a good one takes."""
    base, out = trial.folder / "base", trial.folder / "out"
    make_base(base)
    out.mkdir()
    good = {kind: measured(command).seconds for kind, command in good_commands(base, out).items()}
    for number, case in enumerate(cases()):
        place = trial.folder / str(number)
        place.mkdir()
        seconds, usual = measured(case.make(base, place)).seconds, good[LIKE[case.name.partition(":")[0]]]
        passed = seconds <= usual + MORE_SECONDS
        yield {"case": case.name, "passed": passed, "cpu_seconds": [round(seconds, 2), round(usual, 2)]}
