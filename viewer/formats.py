"""Format numbers and texts for the pages."""

import math
import unicodedata


def count(value: float | None) -> str:
    """1234567 -> "1,234,567"."""
    return "–" if value is None else f"{value:,.0f}"


def three_figures(value: float) -> str:
    """1.234 -> "1.23", 999.9 -> "1,000"."""
    return f"{value:.3g}" if value < 999.5 else f"{value:,.0f}"


def value(number: float) -> str:
    """A threshold or a measured value: 0.12 -> "0.12", 100000 -> "100,000", 0.123456 -> "0.123"."""
    return three_figures(number) if number else "0"


def compact(value: float | None) -> str:
    """Three digits and a unit: 1234567 -> "1.23 M"."""
    if value is None or not math.isfinite(value):
        return "–"
    for unit, size in (("B", 1e9), ("M", 1e6), ("k", 1e4)):
        if abs(value) >= size:
            scaled = value / (1e3 if unit == "k" else size)
            return f"{three_figures(scaled)} {unit}"
    return f"{value:,.0f}"


def size(value: float) -> str:
    """Bytes in decimal units with three digits: 1234567 -> "1.23 MB", 3000 -> "3.00 kB"."""
    if not math.isfinite(value):
        return "–"
    for unit, unit_bytes in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= unit_bytes:
            scaled = value / unit_bytes
            return f"{f'{scaled:#.3g}'.rstrip('.') if scaled < 999.5 else count(scaled)} {unit}"
    return f"{value:.0f} B"


def seconds(value: float) -> str:
    """75.2 -> "1 min 15 s"."""
    if value < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def decimals(value: float | None, places: int = 2) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{value:.{places}f}"


def bits(probability: float) -> float:
    """Bits that a token of this probability costs: 0.25 -> 2."""
    return -math.log2(probability)


def percent(part: float, whole: float) -> str:
    """(1, 4) -> "25.0 %"; shares close to 0 or 100 % are not rounded to them."""
    share = 100 * part / whole if whole else 0.0
    if 0 < share < 0.05:
        return "< 0.1 %"
    return "> 99.9 %" if 99.95 <= share < 100 else f"{share:,.1f} %"


def plain(text: str) -> str:
    """Replace characters that are invisible or change the text direction: controls, format characters, lone
    surrogates."""
    return "".join(c if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cf", "Cs") else "\ufffd" for c in text)
