"""Waits of tests."""

import time
from collections.abc import Callable

from tests.run_files import HANG_SECONDS


def until(holds: Callable[[], bool], said: Callable[[], str] = str, seconds: float = HANG_SECONDS) -> None:
    """Wait until a condition holds. Raises AssertionError with the text `said()` if it takes too long."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, said()
        time.sleep(0.02)
