"""Time of every function and pattern of external text, for inputs of growing length.

    python -m tests.bench.linear_time [--names NAME ...]

Prints a row for each function and pattern of tests/untrusted.py and each extraction engine: the kinds of text over
which four times the input took more than eight times the CPU time, and the measurements. A linear function takes four
times as long, a quadratic one sixteen times. The tests count lines and calls instead (tests/growth.py), which does not
show the work inside regular expressions and libraries.
"""

import collections
import functools
import gc
import itertools
import math
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from configs.recipes.gristmill import EXTRACT
from data_prep.config.extract import ENGINES
from data_prep.dedup.substrings import repeated_earlier
from data_prep.extract import extract_text
from data_prep.measure.run import unit_names
from data_prep.sources import InputFile
from tests.adversarial import GENERATORS
from tests.bench.extraction import config_for
from tests.bench.runner import run_benchmark
from tests.data_prep.pages import page
from tests.data_prep.untrusted import AtPlace, forget
from tests.growth import TIMES
from tests.hostile_pages import HOSTILE
from tests.test_linear_time import WALKED, constant, fitting, pumped
from tests.untrusted import FUNCTIONS, TOKENIZER

ALLOWED = 8
TEXT, PAGE, PATTERN_TEXT, TOKENS = 15_000, 30_000, 5_000, 40_000
"""Length of the shorter input. A pattern takes a moment if it is linear, and seconds if it is quadratic."""
CLOCK, ATTEMPTS = 0.02, 8
"""Clock error in seconds; number of tries. The minimum counts, since other processes may be busy."""


def cpu_seconds[Input](function: Callable[[Input], object], given: Input) -> float:
    forget()
    gc.collect()
    start = time.process_time()
    function(given)
    return time.process_time() - start


def slower[Input](function: Callable[[Input], object], make: Callable[[int], Input], size: int) -> str:
    """Return the seconds if four times `size` takes over eight times as long, else ""."""
    short, long, of_short, of_long = make(size), make(TIMES * size), math.inf, math.inf
    for _ in range(ATTEMPTS):
        of_long = min(of_long, cpu_seconds(function, long))
        if of_long > CLOCK:
            of_short = min(of_short, cpu_seconds(function, short))
        if of_long <= ALLOWED * of_short + CLOCK:
            return ""
    return f"a size of {size:,} takes {of_short:.3f} s, {TIMES} times that {of_long:.3f} s"


def superlinear[Input](function: Callable[[Input], object], make: Callable[[int], Input], size: int) -> str:
    function(make(1000))  # work that is done once, such as loading a model
    # A small size first: exponential time must be noticed before it runs for hours.
    return slower(function, make, size // 16) or slower(function, make, size)


def over_pages(engine: str) -> dict[str, str]:
    """Limits bound the cost of the libraries (extract/libraries.py): before a page is rejected, its cost may be
    superlinear, so only pages of some size are measured."""
    config = config_for(engine, EXTRACT.min_probability)
    walk = lambda page: extract_text(page, config)
    measure = superlinear if engine == "gristmill" else slower
    made = lambda size, make: page(make(size).encode())
    return {kind: measure(walk, functools.partial(made, make=make), PAGE) for kind, make in HOSTILE.items()}


def over_pattern(name: str) -> dict[str, str]:
    how = WALKED[name]

    def walk(pattern: re.Pattern, text: str | bytes) -> None:
        if isinstance(how, AtPlace):
            pattern.match(text), pattern.fullmatch(text)
        else:
            collections.deque(pattern.finditer(text), maxlen=0)

    makers = [*GENERATORS.values(), *(make for example in how.examples for make in pumped(example))]
    found = {}
    for pattern, make in itertools.product(constant(name), makers):
        made = lambda size, pattern=pattern, make=make: fitting(pattern, make(size))
        kind = f"{pattern.pattern!r} over {make(40)!r}..."
        found[kind] = superlinear(functools.partial(walk, pattern), made, PATTERN_TEXT)
    return found


def repeated_tokens(size: int) -> np.ndarray:
    some = np.random.default_rng(0).integers(1, 2000, size // 2, dtype=np.uint32)
    return np.concatenate([some, [np.uint32(0)], some])


def files(count: int) -> list[InputFile]:
    return [InputFile(Path(f"{i}.warc.gz"), f"{i}.warc.gz", "warc", 1) for i in range(count)]


def measure(names: tuple[str, ...] = ()) -> Iterator[dict]:
    gc.freeze()  # collections of loaded modules would take most of the time
    over_texts = lambda function: {kind: superlinear(function, make, TEXT) for kind, make in GENERATORS.items()}
    rows: dict[str, Callable[[], dict[str, str]]] = {
        **{name: functools.partial(over_texts, function) for name, function in FUNCTIONS.items()},
        **{f"extract_text: {engine}": functools.partial(over_pages, engine) for engine in ENGINES},
        **{name: functools.partial(over_pattern, name) for name in WALKED},
        "BytePairTokenizer.encode": lambda: over_texts(TOKENIZER.encode),
        "unit_names": lambda: {"files": superlinear(unit_names, files, 2_000)},
        "repeated_earlier": lambda: {
            "copies": superlinear(lambda tokens: repeated_earlier(tokens, 50), repeated_tokens, TOKENS)
        },
    }
    if unknown := [name for name in names if name not in rows]:
        raise SystemExit(f"--names has {', '.join(unknown)}. Choose from: {', '.join(rows)}")
    for name in names or rows:
        found = rows[name]()
        yield {"name": name, "kinds": len(found), "superlinear": {kind: said for kind, said in found.items() if said}}


if __name__ == "__main__":
    run_benchmark(measure)
