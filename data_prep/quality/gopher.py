"""Quality in Gopher's sense (Rae et al. 2021, arXiv:2112.11446, appendix A.1.1), as DataTrove 0.10 reads it: counts
and mean lengths leave punctuation out, shares are of all words and marks, stop words are looked up as written.
"""

import itertools

from data_prep.config import GopherQualityConfig
from data_prep.text.marks import END, LETTER, PUNCTUATION, SYMBOL

BULLETS = ("•", "-")
ELLIPSES = ("...", "…")
SIGNALS = (
    "words",
    "mean_word_length",
    "hashes_per_word",
    "ellipses_per_word",
    "bullet_lines",
    "ellipsis_lines",
    "words_with_letter",
    "stop_words",
)
IS_MARK = bytes(chr(kind) in (SYMBOL, PUNCTUATION, END) for kind in range(256))


def measure(text: str, words: list[str], kinds: str, config: GopherQualityConfig) -> list[float]:
    """The values of SIGNALS of `text`; `words` and `kinds` are its words and their kinds (data_prep/text/words.py)."""
    marks = list(itertools.compress(words, kinds.encode("ascii").translate(IS_MARK)))
    count = len(words) - len(marks)
    letters = sum(map(len, words)) - sum(map(len, marks))
    lines = text.splitlines()
    return [
        count,
        share(letters, count),
        share(text.count("#"), len(words)),
        share(sum(text.count(ellipsis) for ellipsis in ELLIPSES), len(words)),
        share(sum(line.lstrip().startswith(BULLETS) for line in lines), len(lines)),
        share(sum(line.rstrip().endswith(ELLIPSES) for line in lines), len(lines)),
        share(kinds.count(LETTER), len(words)),
        len(frozenset(config.stop_words).intersection(words)),
    ]


def share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
