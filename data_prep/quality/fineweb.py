"""FineWeb's own rules (Penedo et al. 2024, arXiv:2406.17557, section 3.6), which drop lists that are not prose.

They apply to the lines that remain after C4's line rules. By default they equal DataTrove 0.10; the last fields select
the rules of the published FineWeb.
"""

import math
from dataclasses import dataclass

from data_prep.config.filters import Filter, Rule, Signal
from data_prep.quality.gopher import share
from data_prep.quality.repetition import duplicate_characters
from data_prep.text.marks import TERMINAL
from data_prep.text.nltk_words import punkt_inputs
from data_prep.text.passage import Passage, Splitter
from lm.fields import measured, within


@dataclass(frozen=True)
class FineWebFilter(Filter):
    """FineWeb's own rules (arXiv:2406.17557, section 3.6), for the lines that C4's rules keep, if those are used."""

    min_terminal_punctuation_lines: float
    """Minimum share of lines that end in terminal punctuation."""
    max_short_lines: float
    """Maximum share of lines with at most short_line_length characters."""
    max_duplicate_line_characters: float
    """Maximum share of characters in lines that repeat an earlier line; line breaks are not counted."""
    max_newlines_per_word: float
    """Maximum number of line breaks per token."""
    short_line_length: int = measured()
    """Maximum characters of a short line."""
    limit_falls: bool = False
    """Also drop values equal to the limit, except for line breaks per token."""
    words: Splitter = measured(default="spacy")  # noqa: RUF009
    """Tokenizer: spaCy's or NLTK's."""
    count_blank_lines: bool = measured(default=False)
    """Count blank lines as short lines without terminal punctuation. None remain after C4's rules."""
    line_ends: tuple[str, ...] = measured(default=())
    """Marks that count as terminal punctuation at line ends; (): all of Unicode's Sentence_Terminal."""

    name = "fineweb"
    title = "FineWeb"
    summary = (
        "Rules of the corpus FineWeb (Penedo et al. 2024, arXiv:2406.17557, section 3.6). They find lists, menus and "
        "tables that pass the other rules."
    )
    signals = (
        Signal(
            "terminal_punctuation_lines",
            "Lines that end a sentence",
            "Share of lines that end with a period, a question mark or similar. Menus have few.",
        ),
        Signal("short_lines", "Short lines", "Share of lines with few characters (in FineWeb, at most 30)."),
        Signal(
            "fineweb_duplicate_line_characters",
            "Text in repeated lines",
            "Characters of repeated lines, as a share of the text without line breaks.",
        ),
        Signal("newlines_per_word", "Line breaks", "Line breaks per word or mark. Lists have many."),
    )
    rules = (
        Rule("fineweb_too_few_terminal_punctuation_lines", "terminal_punctuation_lines", "below",
             "min_terminal_punctuation_lines", limit_falls="limit_falls", datatrove="line_punct_ratio"),
        Rule("fineweb_too_many_short_lines", "short_lines", "above", "max_short_lines", limit_falls="limit_falls",
             datatrove="short_line_ratio"),
        Rule("fineweb_duplicate_line_characters", "fineweb_duplicate_line_characters", "above",
             "max_duplicate_line_characters", limit_falls="limit_falls", datatrove="char_dup_ratio"),
        Rule("fineweb_too_many_newlines", "newlines_per_word", "above", "max_newlines_per_word",
             datatrove="list_ratio"),
    )  # fmt: skip

    def check_values(self):
        within(
            self, self.path(), 0, 1, "min_terminal_punctuation_lines", "max_short_lines",
            "max_duplicate_line_characters",
        )  # fmt: skip
        within(self, self.path(), 0, math.inf, "max_newlines_per_word", "short_line_length")

    def external_inputs(self) -> dict[str, object]:
        return punkt_inputs(self.words)

    def measure(self, passage: Passage) -> list[float]:
        text, newlines = passage.text, passage.text.count("\n")
        filled = [line for line in text.split("\n") if line and not line.isspace()]
        ends = frozenset(self.line_ends) if self.line_ends else TERMINAL
        lines = newlines + 1 if self.count_blank_lines else len(filled)
        short = sum(len(line) <= self.short_line_length for line in filled) + lines - len(filled)
        return [
            share(sum(line[-1] in ends for line in filled), lines),
            share(short, lines),
            share(duplicate_characters(filled), len(text) - newlines),
            share(newlines, passage.word_count_by(self.words)),
        ]
