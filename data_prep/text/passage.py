"""A text for filters: split into words once and shared by all of them."""

import functools
from collections.abc import Callable
from typing import Literal

from data_prep.text.nltk_words import nltk_words, sentence_spans
from data_prep.text.words import KINDS, count_sentences, count_words, line_kinds, split

Splitter = Literal["spacy", "nltk"]
"""Tokenizer of a filter: spaCy's blank English tokenizer (words.py), as in datatrove since May 2024, or NLTK's
(nltk_words.py), as for the published FineWeb."""


class Passage:
    """A text with its words, each computed once. Set `lines` if the text is made of lines that a filter has kept, and
    `words_of` if its language needs another word splitter than English (data_prep/by_language)."""

    def __init__(self, text: str, lines: list[str] | None = None, words_of: Callable[[str], list[str]] | None = None):
        self.text, self.lines, self.words_of = text, lines, words_of
        self.rewritten: dict[object, Passage] = {}
        """Cache of Filter.left_of: {filter: the text that it leaves}."""

    @functools.cached_property
    def split(self) -> tuple[list[str], str]:
        """(words and punctuation marks; the kind of each, such as number or symbol, as one character: see marks.py)."""
        if self.words_of is None:
            return split(self.text)
        words = self.words_of(self.text)
        return words, "".join(map(KINDS.__getitem__, words))

    @property
    def words(self) -> list[str]:
        return self.split[0]

    def words_by(self, splitter: Splitter) -> list[str]:
        """Return the words and punctuation marks, in order."""
        return self.split[0] if splitter == "spacy" else list(nltk_words(self.text))

    def kinds_by(self, splitter: Splitter) -> str:
        """Return the kind of each word of `words_by` (number, symbol, …) as one character (marks.py)."""
        return self.split[1] if splitter == "spacy" else "".join(map(KINDS.__getitem__, nltk_words(self.text)))

    @functools.cached_property
    def line_kinds(self) -> str:
        """Kind of each word of all lines, one character each (marks.py), with "\\n" between lines."""
        return line_kinds(self.text.split("\n") if self.lines is None else self.lines)

    def word_count_by(self, splitter: Splitter) -> int:
        """Return the number of words and punctuation marks."""
        if splitter == "nltk":
            return len(nltk_words(self.text))
        return len(self.split[0]) if self.lines is None or self.words_of else count_words(self.line_kinds)

    def sentence_count(self, splitter: Literal["spacy", "punkt"]) -> int:
        """Return the number of sentences; each line is split separately."""
        if splitter == "spacy":
            return count_sentences(self.line_kinds)
        return sum(len(sentence_spans(line)) for line in (self.text.split("\n") if self.lines is None else self.lines))
