"""Whatever the text: twice the text takes at most 2.2 times the time, and a megabyte at most half a second.

A function of the pipeline that is applied to texts from the web joins FUNCTIONS.
"""

import math
import time
from collections.abc import Callable

import pytest

from configs import fineweb_recipe as recipe
from data_prep.charset import decode
from data_prep.dedup.minhash import band_keys
from data_prep.documents import Document
from data_prep.extract import normalise
from data_prep.language import detect_language
from data_prep.pii import replace_personal_data
from data_prep.quality.c4 import clean_lines
from data_prep.quality.signals import measure
from data_prep.url_filter import reject_reason
from tests.adversarial import GENERATORS
from tests.data_prep.pages import demo_config

CONFIG = demo_config()
FUNCTIONS: dict[str, Callable[[str], object]] = {
    "decode": lambda text: decode(text.encode("utf-16-le"), ""),
    "normalise": normalise,
    "reject_reason": lambda text: reject_reason(text, CONFIG.url_filter),
    "detect_language": lambda text: detect_language(
        Document(text, "id", "dump", "", "", "x.warc.gz", "", 0.0), recipe.LANGUAGE
    ),
    "measure": lambda text: measure(text, CONFIG),
    "clean_lines": lambda text: clean_lines(text, recipe.C4),
    "band_keys": lambda text: band_keys(text, "dump", recipe.MINHASH),
    "replace_personal_data": lambda text: replace_personal_data(text, recipe.PERSONAL_DATA),
}
MEGABYTE = 1_000_000
SECONDS_PER_MEGABYTE = 0.5
RATIO = 2.2
CLOCK = 0.004
"""Seconds by which a measurement may be wrong on a busy machine, whatever its length."""
ATTEMPTS = 4


def seconds(function: Callable[[str], object], text: str, runs: int = 1) -> float:
    """CPU time, the least of some runs."""
    times = []
    for _ in range(runs):
        start = time.process_time()
        function(text)
        times.append(time.process_time() - start)
    return min(times)


@pytest.mark.parametrize("generator", GENERATORS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_time_is_linear(name, generator):
    function, generate = FUNCTIONS[name], GENERATORS[generator]
    function(generate(1000))  # loads what is loaded but once
    once, twice = generate(MEGABYTE // 16), generate(MEGABYTE // 8)
    short = long = math.inf
    for attempt in range(1, 2 * ATTEMPTS + 1):
        short = min(short, seconds(function, once, attempt))
        long = min(long, seconds(function, twice, attempt))
        if long <= RATIO * short + CLOCK:
            break
    else:
        pytest.fail(f"{name}: {len(once)} characters of {generator} take {short:.3f} s, twice as many {long:.3f} s")
    text = generate(MEGABYTE)
    taken = math.inf
    for _ in range(ATTEMPTS):  # on a machine that others use too, CPU time may be thrice what it is
        taken = min(taken, seconds(function, text))
        if taken <= SECONDS_PER_MEGABYTE:
            break
    assert taken <= SECONDS_PER_MEGABYTE, f"{name}: {len(text)} characters of {generator} take {taken:.2f} s"
