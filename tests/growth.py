"""Check that the work of a function grows linearly with its input, by the lines, jumps and calls that Python executes.

The counts are the same on every machine and under any load. Work inside a call of a library counts as one call:
tests/bench/linear_time.py measures it.
"""

import sys
import threading
from collections.abc import Callable

TIMES, ALLOWED, FEW = 4, 4.2, 300
"""`TIMES` the input may take `ALLOWED` times the steps and `FEW` more; quadratic functions take 16 times as many."""
TOOL = 3
EVENTS = sys.monitoring.events.LINE, sys.monitoring.events.JUMP, sys.monitoring.events.CALL


def steps[Input](function: Callable[[Input], object], given: Input) -> int:
    """Count the lines, jumps and calls of `function(given)` in this thread."""
    count, thread = 0, threading.get_ident()

    def add(*_: object) -> None:
        nonlocal count
        count += threading.get_ident() == thread

    sys.monitoring.use_tool_id(TOOL, "growth")
    try:
        for event in EVENTS:
            sys.monitoring.register_callback(TOOL, event, add)
        sys.monitoring.set_events(TOOL, sum(EVENTS))
        function(given)
    finally:
        sys.monitoring.set_events(TOOL, 0)
        sys.monitoring.free_tool_id(TOOL)
    return count


def superlinear[Input](
    function: Callable[[Input], object], make: Callable[[int], Input], size: int, forget: Callable[[], object] = int
) -> str | None:
    """None if the steps of `function(make(n))` grow at most as n does, up to four times `size`; else the counts.

    `forget` clears the function's cache of earlier inputs. Work that is done only once, such as loading a model, is
    not counted.
    """
    short, long = make(size), make(TIMES * size)
    function(long)
    forget()
    of_short = steps(function, short)
    forget()
    of_long = steps(function, long)
    if of_long <= ALLOWED * of_short + FEW:
        return None
    return f"a size of {size:,} takes {of_short:,} steps, {TIMES} times that {of_long:,}"
