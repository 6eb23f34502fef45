"""Terminal output: a status line that is overwritten, and formatted numbers."""

import math
import sys
import time
from collections.abc import Sequence

from lm.errors import for_terminal, print_untrusted


class LiveLine:
    """Status line that is overwritten on a terminal; elsewhere, a new line at most every `seconds_apart` seconds."""

    def __init__(self, seconds_apart: float = 15.0, quiet: bool = False):
        """With `quiet`, nothing is printed: only one of several processes reports."""
        self.terminal, self.quiet = sys.stdout.isatty(), quiet
        self.seconds_apart = seconds_apart
        self.last = -float("inf")

    def show(self, text: str) -> None:
        now = time.monotonic()
        if self.quiet:
            return
        if self.terminal:
            print(f"\r\033[K{for_terminal(text)}", end="", flush=True)
        elif now - self.last >= self.seconds_apart:
            print_untrusted(text)
            self.last = now

    def end(self) -> None:
        """Clear the status line, so that other text can follow."""
        if self.terminal and not self.quiet:
            print("\r\033[K", end="", flush=True)

    def print(self, text: str) -> None:
        """Print a line that stays, instead of the status line."""
        self.end()
        if not self.quiet:
            print_untrusted(text)


def duration(seconds: float) -> str:
    """Format seconds as "1:02:03" or "2:03"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def counted(number: float, noun: str) -> str:
    """Format a count with its noun: (1, "page") as "1 page", (1234, "page") as "1,234 pages"."""
    return f"{number:,.0f} {noun}{'' if number == 1 else 's'}"


def listed(names: Sequence[str], most: int = 3) -> str:
    """Join at most `most` names, and count the others: "a, b, c and 2 more"."""
    return ", ".join(names[:most]) + (f" and {len(names) - most:,} more" if names[most:] else "")


def quantity(value: int | float, unit: str) -> str:
    """Format a number with a prefix of its unit, in steps of a thousand: "3.1 GB", "1.2 TFLOP", "12 MB"."""
    power = max(0, min(5, int(math.log10(value) / 3))) if value >= 1 else 0
    scaled = value / 1000**power
    return f"{scaled:.{1 if scaled < 10 and power else 0}f} {['', 'k', 'M', 'G', 'T', 'P'][power]}{unit}"
