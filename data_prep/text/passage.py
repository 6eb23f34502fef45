"""A text as filters see it: split into words once, however many ask."""

import functools
from collections.abc import Callable

from data_prep.text.words import KINDS, count_words, line_kinds, split


class Passage:
    """A text with its words. `lines` are given where it is what a filter has left of another text, `splitter` where it
    is of a language whose words and marks are found in another way than English ones."""

    def __init__(self, text: str, lines: list[str] | None = None, splitter: Callable[[str], list[str]] | None = None):
        self.text, self.lines, self.splitter = text, lines, splitter
        self.rewritten: dict[object, Passage] = {}
        """{filter: what it leaves of this text}, as far as one has been asked (Filter.left_of)."""

    @functools.cached_property
    def split(self) -> tuple[list[str], str]:
        """Its words and marks, and their kinds, a character each (data_prep/text/words.py)."""
        if self.splitter is None:
            return split(self.text)
        words = self.splitter(self.text)
        return words, "".join(map(KINDS.__getitem__, words))

    @property
    def words(self) -> list[str]:
        return self.split[0]

    @property
    def kinds(self) -> str:
        return self.split[1]

    @functools.cached_property
    def line_kinds(self) -> str:
        """The kinds of the words of its lines, with the breaks between."""
        return line_kinds(self.text.split("\n") if self.lines is None else self.lines)

    @functools.cached_property
    def word_count(self) -> int:
        """Words and marks."""
        by_words = self.lines is None or self.splitter is not None
        return len(self.words) if by_words else count_words(self.line_kinds)
