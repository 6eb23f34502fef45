"""Gopher's quality rules (Rae et al. 2021, arXiv:2112.11446, appendix A.1.1), as DataTrove implements them: counts and
mean lengths exclude punctuation, shares are of all words and marks, stop words are case-sensitive."""

import itertools
import math
from dataclasses import dataclass
from typing import Literal

from data_prep.config.filters import Filter, Rule, Signal
from data_prep.text.marks import END, LETTER, PUNCTUATION, SIGNS_2024, SYMBOL
from data_prep.text.nltk_words import punkt_inputs
from data_prep.text.passage import Passage, Splitter
from data_prep.text.words import Memo
from lm.errors import UsageError
from lm.fields import measured, within

BULLETS = ("•", "-")
ELLIPSES = ("...", "…")
IS_MARK = bytes(chr(kind) in (SYMBOL, PUNCTUATION, END) for kind in range(256))
ARE_SIGNS_2024 = Memo(SIGNS_2024.issuperset)


@dataclass(frozen=True)
class GopherQualityFilter(Filter):
    """Quality rules of Gopher (arXiv:2112.11446, appendix A.1.1)."""

    min_words: int
    """Minimum number of words, not counting punctuation."""
    max_words: int
    """Maximum number of words, not counting punctuation."""
    min_mean_word_length: float
    """Minimum mean length of the words in characters, not counting punctuation."""
    max_mean_word_length: float
    """Maximum mean length of the words in characters, not counting punctuation."""
    max_symbols_per_word: float
    """Maximum number of "#" per token, and also of ellipses ("..." or "…") per token."""
    max_bullet_lines: float
    """Maximum share of lines that begin with a bullet."""
    max_ellipsis_lines: float
    """Maximum share of lines that end with an ellipsis."""
    min_words_with_letter: float
    """Minimum share of tokens (words and punctuation marks) with at least one letter."""
    min_stop_words: int
    """Minimum number of stop words, counted as count_stop_words says."""
    stop_words: tuple[str, ...] = measured()
    """Stop words, case-sensitive."""
    words: Splitter = measured(default="spacy")  # noqa: RUF009
    """Tokenizer: spaCy's or NLTK's."""
    count_stop_words: Literal["different", "occurrences"] = measured(default="different")
    """What min_stop_words counts: different stop words, or all occurrences."""
    terminal_marks: bool = measured(default=True)
    """Count the terminal marks of all scripts as punctuation; if disabled, only those of ASCII and full width."""

    name = "gopher_quality"
    title = "Gopher: quality"
    summary = (
        "Rules of the model Gopher (the same paper, appendix A.1.1). They check that a text is prose: of reasonable "
        "length, made of words, with common stop words."
    )
    signals = (
        Signal("words", "Length", "Words of the document; punctuation is not counted.", "doubling"),
        Signal("mean_word_length", "Mean length of a word", "In characters. English prose has about five.", 0.1),
        Signal("hashes_per_word", "Hash signs", "“#” per word or mark. Lists of tags have many."),
        Signal("ellipses_per_word", "Ellipses", "“…” per word or mark. Truncated teasers have many."),
        Signal("bullet_lines", "Bulleted lines", "Share of lines that begin with a bullet, “•” or “-”."),
        Signal(
            "ellipsis_lines", "Truncated lines", "Share of lines that end with an ellipsis, as previews of articles do."
        ),
        Signal(
            "words_with_letter",
            "Words with a letter",
            "Share of words and marks with a letter. Tables of numbers have few.",
        ),
        Signal("stop_words", "Stop words", "Number of stop words that occur: the, of, and …", "whole"),
    )
    rules = (
        Rule("gopher_short_document", "words", "below", "min_words", datatrove="gopher_short_doc"),
        Rule("gopher_long_document", "words", "above", "max_words", datatrove="gopher_long_doc"),
        Rule("gopher_below_mean_word_length", "mean_word_length", "below", "min_mean_word_length",
             datatrove="gopher_below_avg_threshold"),
        Rule("gopher_above_mean_word_length", "mean_word_length", "above", "max_mean_word_length",
             datatrove="gopher_above_avg_threshold"),
        Rule("gopher_too_many_hashes", "hashes_per_word", "above", "max_symbols_per_word",
             datatrove="gopher_too_many_hashes"),
        Rule("gopher_too_many_ellipses", "ellipses_per_word", "above", "max_symbols_per_word",
             datatrove="gopher_too_many_ellipsis"),
        Rule("gopher_too_many_bullet_lines", "bullet_lines", "above", "max_bullet_lines",
             datatrove="gopher_too_many_bullets"),
        Rule("gopher_too_many_ellipsis_lines", "ellipsis_lines", "above", "max_ellipsis_lines",
             datatrove="gopher_too_many_end_ellipsis"),
        Rule("gopher_too_few_words_with_letter", "words_with_letter", "below", "min_words_with_letter",
             datatrove="gopher_below_alpha_threshold"),
        Rule("gopher_too_few_stop_words", "stop_words", "below", "min_stop_words",
             datatrove="gopher_enough_stop_words"),
    )  # fmt: skip

    def check_values(self):
        within(self, self.path(), 0, 1, "max_bullet_lines", "max_ellipsis_lines", "min_words_with_letter")
        within(
            self, self.path(), 0, math.inf, "min_words", "max_words", "min_mean_word_length", "max_mean_word_length",
            "max_symbols_per_word", "min_stop_words",
        )  # fmt: skip
        for low, high in (("min_words", "max_words"), ("min_mean_word_length", "max_mean_word_length")):
            if getattr(self, low) > getattr(self, high):
                raise UsageError(
                    f"{self.path()}.{low} = {getattr(self, low)} is above {high} = {getattr(self, high)}, so nothing "
                    "could pass. Lower the first or raise the second."
                )
        if self.count_stop_words == "different" and self.min_stop_words > len(set(self.stop_words)):
            raise UsageError(
                f"{self.path()}.min_stop_words = {self.min_stop_words}, but there are only {len(set(self.stop_words))} "
                "stop words, so nothing could pass. Lower min_stop_words, or add stop words."
            )

    def external_inputs(self) -> dict[str, object]:
        return punkt_inputs(self.words)

    def measure(self, passage: Passage) -> list[float]:
        words, kinds, lines = passage.words_by(self.words), passage.kinds_by(self.words), passage.text.splitlines()
        if self.terminal_marks:
            marks = list(itertools.compress(words, kinds.encode("ascii").translate(IS_MARK)))
        else:
            marks = [word for word in words if ARE_SIGNS_2024[word]]
        count = len(words) - len(marks)
        letters = sum(map(len, words)) - sum(map(len, marks))
        stop_words, different = frozenset(self.stop_words), self.count_stop_words == "different"
        return [
            count,
            share(letters, count),
            share(passage.text.count("#"), len(words)),
            share(sum(passage.text.count(ellipsis) for ellipsis in ELLIPSES), len(words)),
            share(sum(line.lstrip().startswith(BULLETS) for line in lines), len(lines)),
            share(sum(line.rstrip().endswith(ELLIPSES) for line in lines), len(lines)),
            share(kinds.count(LETTER), len(words)),
            len(stop_words.intersection(words)) if different else sum(map(stop_words.__contains__, words)),
        ]


def share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
