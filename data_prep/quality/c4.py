"""C4's rules (Raffel et al. 2020, arXiv:1910.10683, section 2.2) as FineWeb uses them, without the rule on terminal
punctuation.

Lines with an overlong word, too few words (separated by white space, counting citations), or a boilerplate phrase are
removed; citations are removed from the others. The rest is the text of the document; it is dropped if it has "lorem
ipsum", a curly bracket or too few sentences. Because of this order, "lorem ipsum" counts in lines with a phrase but not
in short ones, and a curly bracket counts in lines with a policy phrase but not with a script phrase.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from data_prep.config.filters import Filter, Rule, Signal
from data_prep.text.nltk_words import punkt_inputs
from data_prep.text.passage import Passage
from lm.errors import UsageError
from lm.fields import measured, within

LOREM_IPSUM = "lorem ipsum"
CITATION = re.compile(r"\[(?:\d*|edit|citation needed)\]")


class Cleaned(Passage):
    """Text that C4's line rules keep, and the counts that its document rules need."""

    def __init__(self, lines: list[str], lorem_ipsum: int, curly_brackets: int):
        super().__init__("\n".join(lines).strip(), lines)
        self.lorem_ipsum, self.curly_brackets = lorem_ipsum, curly_brackets
        """Lines with "lorem ipsum", and with "{"."""


@dataclass(frozen=True)
class C4Filter(Filter):
    """Rules of C4 (Raffel et al. 2020, arXiv:1910.10683, section 2.2): remove lines first, then drop documents."""

    min_sentences: int
    """Minimum number of sentences in the lines that remain."""
    max_lorem_ipsum: int
    """Maximum number of lines with "lorem ipsum"; 0 drops every document with one."""
    max_curly_brackets: int
    """Maximum number of lines with "{"; 0 drops every document with one."""
    remove_citations: bool = measured()
    """Remove "[1]", "[edit]" and "[citation needed]" from lines."""
    min_words_per_line: int = measured()
    """Minimum number of words (separated by white space) in a line; lines with fewer are removed."""
    max_word_length: int = measured()
    """Maximum word length in characters; lines with a longer word are removed."""
    script_phrases: tuple[str, ...] = measured()
    """Phrases in lower case, compared with lower-cased lines. Lines with one are removed, and their "{" is ignored."""
    policy_phrases: tuple[str, ...] = measured()
    """Phrases in lower case, compared with lower-cased lines. Lines with one are removed, but their "{" is counted."""
    sentences: Literal["spacy", "punkt"] = measured(default="spacy")
    """Sentence splitter: spaCy's sentencizer, which ends a sentence at each terminal mark, or Punkt, which knows
    abbreviations."""

    name = "c4"
    title = "C4"
    summary = (
        "Rules of C4, the corpus of the model T5 (Raffel et al. 2020, arXiv:1910.10683, section 2.2). Lines of "
        "boilerplate are removed first; the rules apply to the rest."
    )
    signals = (
        Signal("c4_lorem_ipsum", "Filler text", "Lines with “lorem ipsum”, a placeholder for missing text.", "whole"),
        Signal("c4_curly_brackets", "Curly brackets", "Lines with “{”, a sign of program code.", "whole"),
        Signal("c4_sentences", "Sentences", "Sentences in the remaining lines.", "doubling"),
        Signal("c4_characters", "What remains", "Characters in the remaining lines, without citations."),
    )
    rules = (
        Rule("c4_lorem_ipsum", "c4_lorem_ipsum", "above", "max_lorem_ipsum", datatrove="lorem_ipsum"),
        Rule("c4_curly_bracket", "c4_curly_brackets", "above", "max_curly_brackets", datatrove="curly_bracket"),
        Rule("c4_too_few_sentences", "c4_sentences", "below", "min_sentences", datatrove="too_few_sentences"),
        # datatrove has no such reason: most such texts have too few sentences, others are "empty" for a later filter.
        Rule("c4_no_lines", "c4_characters", "at most", fixed=0, sentence="C4's line rules removed every line."),
    )
    rewrites = True

    def check_values(self):
        within(
            self, self.path(), 0, math.inf, "min_sentences", "max_lorem_ipsum", "max_curly_brackets",
            "min_words_per_line", "max_word_length",
        )  # fmt: skip
        for name in ("script_phrases", "policy_phrases"):
            for phrase in getattr(self, name):
                if not phrase or phrase != phrase.lower():
                    raise UsageError(
                        f"{self.path()}.{name} has {phrase!r}, but lines are compared in lower case: "
                        f"{'leave it out' if not phrase else f'write {phrase.lower()!r}'}."
                    )

    def external_inputs(self) -> dict[str, object]:
        return punkt_inputs(self.sentences)

    def measure(self, passage: Passage) -> list[float]:
        cleaned = self.left_of(passage)
        assert isinstance(cleaned, Cleaned)
        sentences = cleaned.sentence_count(self.sentences) if cleaned.lines else 0
        return [cleaned.lorem_ipsum, cleaned.curly_brackets, sentences, len(cleaned.text)]

    def rewrite(self, passage: Passage) -> Cleaned:
        return clean(passage.text, self)


def clean(text: str, config: C4Filter) -> Cleaned:
    """Return `text` without the lines that the line rules remove, and without citations if so configured."""
    lines = list(long_enough_lines(text, config))
    lowered = "\n".join(lines).lower()
    lorem_ipsum = curly_brackets = 0
    if LOREM_IPSUM in lowered:
        lorem_ipsum = sum(LOREM_IPSUM in line.lower() for line in lines)
    lines = without_phrases(lines, lowered, config.script_phrases)
    if "{" in lowered:
        curly_brackets = sum("{" in line for line in lines)
    lines = without_phrases(lines, lowered, config.policy_phrases)
    return Cleaned(lines, lorem_ipsum, curly_brackets)


def long_enough_lines(text: str, config: C4Filter) -> Iterator[str]:
    """Yield the lines with enough words and no overlong one, without citations if so configured."""
    for line in map(str.strip, text.splitlines()):
        words = line.split()
        limit = config.max_word_length
        if len(words) >= config.min_words_per_line and (len(line) <= limit or max(map(len, words)) <= limit):
            yield CITATION.sub("", line) if config.remove_citations and "[" in line else line


def without_phrases(lines: list[str], lowered: str, phrases: tuple[str, ...]) -> list[str]:
    """Return the lines with none of `phrases`; `lowered` is the text of all lines in lower case, for a fast test."""
    present = [phrase for phrase in phrases if phrase in lowered]
    if not present:
        return lines
    return [line for line in lines if not any(map(line.lower().__contains__, present))]
