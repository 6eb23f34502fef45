"""FineWeb's own rules (Penedo et al. 2024, arXiv:2406.17557, section 3.6), on lines that are not blank.

They look for texts that are lists rather than prose, as DataTrove 0.10 has them, on what C4's line rules leave.
"""

from data_prep.config import FineWebConfig
from data_prep.quality.gopher import share
from data_prep.quality.repetition import duplicate_characters
from data_prep.text.marks import TERMINAL

SIGNALS = (
    "terminal_punctuation_lines",
    "short_lines",
    "fineweb_duplicate_line_characters",
    "newlines_per_word",
)


def measure(text: str, words: int, config: FineWebConfig) -> list[float]:
    """The values of SIGNALS of `text`, which has so many words; all are 0 of an empty one."""
    lines = [line for line in text.split("\n") if line and not line.isspace()]
    newlines = text.count("\n")
    return [
        share(sum(line[-1] in TERMINAL for line in lines), len(lines)),
        share(sum(len(line) <= config.short_line_length for line in lines), len(lines)),
        share(duplicate_characters(lines), len(text) - newlines),
        share(newlines, words),
    ]
