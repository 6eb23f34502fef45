"""What a person sees on a terminal: one live line, and numbers and texts as they can be shown."""

import math
import sys
import time


class LiveLine:
    """One line that is written over again on a terminal; elsewhere a line every `seconds_apart` seconds."""

    def __init__(self, seconds_apart: float = 15.0, quiet: bool = False):
        """`quiet` shows nothing: of several processes, one tells."""
        self.terminal, self.quiet = sys.stdout.isatty(), quiet
        self.seconds_apart = seconds_apart
        self.last = -float("inf")

    def show(self, text: str) -> None:
        now = time.monotonic()
        if self.quiet:
            return
        if self.terminal:
            print(f"\r\033[K{text}", end="", flush=True)
        elif now - self.last >= self.seconds_apart:
            print(text, flush=True)
            self.last = now

    def end(self) -> None:
        """Leaves the live line, so that other text can follow."""
        if self.terminal and not self.quiet:
            print("\r\033[K", end="", flush=True)

    def print(self, text: str) -> None:
        """Text that stays."""
        self.end()
        if not self.quiet:
            print(text, flush=True)


def duration(seconds: float) -> str:
    """ "1:02:03" or "2:03" """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def counted(number: float, noun: str) -> str:
    """(1, "page") -> "1 page", (1234, "page") -> "1,234 pages"."""
    return f"{number:,.0f} {noun}{'' if number == 1 else 's'}"


def quantity(value: int | float, unit: str) -> str:
    """ "3.1 GB", "1.2 TFLOP": a large number in steps of a thousand, two digits or more."""
    power = max(0, min(5, int(math.log10(value) / 3))) if value >= 1 else 0
    scaled = value / 1000**power
    return f"{scaled:.{1 if scaled < 10 and power else 0}f} {['', 'k', 'M', 'G', 'T', 'P'][power]}{unit}"
