"""Check that the time of a function grows linearly with its input; tests check time in no other way.

No bound is in seconds, which would depend on the machine: four times the input may take eight times the CPU time,
whereas a linear function takes four times as long and a quadratic one sixteen times. The benchmarks and tests/chaos
measure the seconds per megabyte.
"""

import gc
import math
import time
from collections.abc import Callable

TIMES, ALLOWED = 4, 8
CLOCK = 0.02
"""Possible measurement error in seconds, for any duration; quadratic functions take far longer."""
ATTEMPTS = 8
ENOUGH = 5.0
"""Seconds that no disturbance explains: then two attempts are enough."""


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
    """None if `function(make(n))` takes time proportional to n, up to four times `size`; else the measurements.

    `forget` clears the function's cache of earlier inputs. Work that is done only once, such as loading a model, must
    have been done before.
    """
    # A small size first: exponential time must be noticed before it runs for hours.
    return grown(function, make, size // 16, forget) or grown(function, make, size, forget)


def grown[Input](
    function: Callable[[Input], object], make: Callable[[int], Input], size: int, forget: Callable[[], object] = int
) -> str | None:
    """As `superlinear`, from `size` on only.

    Caches of the processor, and neighbours that use them, may make the longer input of one pair some times slower, so
    what is too slow there must be too slow from the longer input on, too: what grows faster than linearly is.
    """
    measured: list[str] = []
    for start in (size, TIMES * size):
        short, long = make(start), make(TIMES * start)
        least_short = least_long = math.inf
        for attempt in range(ATTEMPTS):  # the minimum counts: other processes may be busy on the machine
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
        measured.append(f"a size of {start:,} takes {least_short:.3f} s, {TIMES} times that {least_long:.3f} s")
        if least_long > ENOUGH:
            break
    return "; ".join(measured)
