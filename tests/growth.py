"""Whether the time of a function grows in proportion to its input: the one way in which tests look at time.

No bound is in seconds, which would depend on the machine: four times the input may take eight times the CPU time, where
a linear function takes four times as long and a quadratic one sixteen times. How many seconds a megabyte takes, the
benchmarks and tests/chaos measure.
"""

import gc
import math
import time
from collections.abc import Callable

TIMES, ALLOWED = 4, 8
CLOCK = 0.02
"""Seconds by which a measurement may be wrong, whatever its length; what is quadratic takes far longer."""
ATTEMPTS = 8
ENOUGH = 5.0
"""Seconds that no disturbance explains: then two attempts say it."""


def cpu_seconds[Input](function: Callable[[Input], object], given: Input) -> float:
    collecting = gc.isenabled()
    gc.disable()
    start = time.process_time()
    try:
        function(given)
        return time.process_time() - start
    finally:
        if collecting:
            gc.enable()


def superlinear[Input](
    function: Callable[[Input], object], make: Callable[[int], Input], size: int, forget: Callable[[], object] = int
) -> str | None:
    """None if `function(make(n))` takes time in proportion to n, up to four times `size`; else what was measured.

    `forget` empties the function's memory of earlier inputs. What is done but once, such as loading a model, must have
    been done before.
    """
    # A small size first: what takes exponential time must not run for hours before it is noticed.
    return grown(function, make, size // 16, forget) or grown(function, make, size, forget)


def grown[Input](
    function: Callable[[Input], object], make: Callable[[int], Input], size: int, forget: Callable[[], object] = int
) -> str | None:
    """As `superlinear`, from `size` on alone."""
    short, long = make(size), make(TIMES * size)
    least_short = least_long = math.inf
    for attempt in range(ATTEMPTS):  # the least counts: others may be busy on the machine
        forget()
        least_long = min(least_long, cpu_seconds(function, long))
        if attempt and least_long > ENOUGH:
            break
        if least_long <= CLOCK:
            return None
        forget()
        least_short = min(least_short, cpu_seconds(function, short))
        if least_long <= ALLOWED * least_short + CLOCK:
            return None
    return f"a size of {size:,} takes {least_short:.3f} s, {TIMES} times that {least_long:.3f} s"
