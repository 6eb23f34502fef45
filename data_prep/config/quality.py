"""Knobs of the quality rules. A token is a word or a punctuation mark; shares are from 0 to 1.

A document's value above a `max_…`, or below a `min_…`, drops it; a value at the threshold passes. So a share of 1 as
the most, or of 0 as the least, turns its rule off.
"""

import math
from dataclasses import dataclass, fields

from lm.errors import UsageError
from lm.fields import Config, measured, within


@dataclass(frozen=True)
class GopherRepetitionConfig(Config):
    """Repetition rules of Gopher (arXiv:2112.11446, table A1). Shares are of the text's characters or of the count."""

    max_duplicate_lines: float
    """Share of lines that stood before."""
    max_duplicate_paragraphs: float
    """Share of paragraphs (parted by blank lines) that stood before."""
    max_duplicate_line_characters: float
    """Characters of such lines, as a share of the text's."""
    max_duplicate_paragraph_characters: float
    """Characters of such paragraphs, as a share of the text's."""
    max_top_ngram_characters: tuple[float, float, float]
    """Characters of the most frequent 2-, 3- and 4-gram of tokens, all occurrences, as a share of the text's."""
    max_duplicate_ngram_characters: tuple[float, float, float, float, float, float]
    """Characters of 5-, 6-, 7-, 8-, 9- and 10-grams of tokens that stood before, as a share of the text's."""

    def __post_init__(self):
        super().__post_init__()
        within(self, "documents.gopher_repetition", 0, 1, *(field.name for field in fields(self)))


@dataclass(frozen=True)
class GopherQualityConfig(Config):
    """Quality rules of Gopher (arXiv:2112.11446, appendix A.1.1)."""

    min_words: int
    """Words, punctuation not counted."""
    max_words: int
    """Words, punctuation not counted."""
    min_mean_word_length: float
    """Characters, punctuation not counted."""
    max_mean_word_length: float
    """Characters, punctuation not counted."""
    max_symbols_per_word: float
    """Hash signs, and apart from them ellipses, per token."""
    max_bullet_lines: float
    """Share of lines that begin with a bullet."""
    max_ellipsis_lines: float
    """Share of lines that end with an ellipsis."""
    min_words_with_letter: float
    """Share of tokens with at least one letter."""
    min_stop_words: int
    """How many different stop words must occur."""
    stop_words: tuple[str, ...] = measured()
    """Words that prose can hardly do without; the case counts."""

    def __post_init__(self):
        super().__post_init__()
        within(
            self, "documents.gopher_quality", 0, 1, "max_bullet_lines", "max_ellipsis_lines", "min_words_with_letter"
        )
        within(
            self, "documents.gopher_quality", 0, math.inf, "min_words", "max_words", "min_mean_word_length",
            "max_mean_word_length", "max_symbols_per_word", "min_stop_words",
        )  # fmt: skip
        for low, high in (("min_words", "max_words"), ("min_mean_word_length", "max_mean_word_length")):
            if getattr(self, low) > getattr(self, high):
                raise UsageError(
                    f"documents.gopher_quality.{low} = {getattr(self, low)} is above {high} = {getattr(self, high)}: "
                    "nothing could pass. Lower the first or raise the second."
                )
        if self.min_stop_words > len(set(self.stop_words)):
            raise UsageError(
                f"documents.gopher_quality.min_stop_words = {self.min_stop_words}, but there are only "
                f"{len(set(self.stop_words))} stop words: nothing could pass. Lower it or add to stop_words."
            )


@dataclass(frozen=True)
class C4Config(Config):
    """Rules of C4 (Raffel et al. 2020, arXiv:1910.10683, section 2.2): lines are dropped first, then documents."""

    min_sentences: int
    """Sentences in the lines that stay."""
    max_lorem_ipsum: int
    """Lines with the words "lorem ipsum"; 0 drops a document with one."""
    max_curly_brackets: int
    """Lines with "{"; 0 drops a document with one."""
    remove_citations: bool = measured()
    """Take "[1]", "[edit]" and "[citation needed]" out of lines."""
    min_words_per_line: int = measured()
    """Words, by white space; a shorter line is left out."""
    max_word_length: int = measured()
    """Characters; a line with a longer word is left out."""
    script_phrases: tuple[str, ...] = measured()
    """A line that holds one of these, written in lower case here, in any case there, is left out, with its "{"."""
    policy_phrases: tuple[str, ...] = measured()
    """A line that holds one of these, written in lower case here, in any case there, is left out; its "{" counts."""

    def __post_init__(self):
        super().__post_init__()
        within(
            self, "documents.c4", 0, math.inf, "min_sentences", "max_lorem_ipsum", "max_curly_brackets",
            "min_words_per_line", "max_word_length",
        )  # fmt: skip
        for name in ("script_phrases", "policy_phrases"):
            for phrase in getattr(self, name):
                if not phrase or phrase != phrase.lower():
                    raise UsageError(
                        f"documents.c4.{name} has {phrase!r}, but lines are compared in lower case: "
                        f"{'leave it out' if not phrase else f'write {phrase.lower()!r}'}."
                    )


@dataclass(frozen=True)
class FineWebConfig(Config):
    """FineWeb's own rules (arXiv:2406.17557, section 3.6), on the lines that C4's rules leave, where those are used."""

    min_terminal_punctuation_lines: float
    """Share of lines that end with a terminal punctuation mark."""
    max_short_lines: float
    """Share of short lines."""
    max_duplicate_line_characters: float
    """Characters of lines that stood before, as a share of the text's without line breaks."""
    max_newlines_per_word: float
    """Line breaks per token."""
    short_line_length: int = measured()
    """Characters; a line of at most so many is short."""

    def __post_init__(self):
        super().__post_init__()
        within(
            self, "documents.fineweb", 0, 1, "min_terminal_punctuation_lines", "max_short_lines",
            "max_duplicate_line_characters",
        )  # fmt: skip
        within(self, "documents.fineweb", 0, math.inf, "max_newlines_per_word", "short_line_length")
