"""C4's rules (Raffel et al. 2020, arXiv:1910.10683, section 2.2) as FineWeb uses them: not the one on terminal marks.

First each line is judged: one with an overlong word, too few words, or a phrase of boilerplate is left out; citations
are taken out of the others. What is left is the document's text. It is dropped for "lorem ipsum", for a curly bracket,
or for too few sentences. Words of a line are what white space parts, counted before citations are taken out. Lines are
judged in that order, so that "lorem ipsum" counts in lines that hold a phrase too, but not in short ones, and a curly
bracket counts in lines that hold a policy phrase, but not in those that hold a script phrase.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from data_prep.config import C4Config
from data_prep.text.words import count_sentences

LOREM_IPSUM = "lorem ipsum"
CITATION = re.compile(r"\[(?:\d*|edit|citation needed)\]")
CHARACTERS_LEFT = "c4_characters"
SIGNALS = ("c4_lorem_ipsum", "c4_curly_brackets", "c4_sentences", CHARACTERS_LEFT)


@dataclass(frozen=True, slots=True)
class Cleaned:
    """What C4's line rules leave of a text, and what its rules on documents count."""

    lines: list[str]
    """The lines that stay, citations taken out."""
    lorem_ipsum: int
    """Lines with "lorem ipsum"."""
    curly_brackets: int
    """Lines with "{"."""

    @property
    def text(self) -> str:
        return "\n".join(self.lines).strip()


def clean_lines(text: str, config: C4Config) -> str:
    """`text` without the lines that C4 leaves out, and without citations."""
    return clean(text, config).text


def clean(text: str, config: C4Config) -> Cleaned:
    """Judges each line of `text`."""
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


def long_enough_lines(text: str, config: C4Config) -> Iterator[str]:
    """Lines with enough words and no overlong one, citations taken out."""
    for line in map(str.strip, text.splitlines()):
        words = line.split()
        if len(words) < config.min_words_per_line or has_long_word(line, words, config.max_word_length):
            continue
        yield CITATION.sub("", line) if config.remove_citations and "[" in line else line


def has_long_word(line: str, words: list[str], limit: int) -> bool:
    return len(line) > limit and max(map(len, words), default=0) > limit


def without_phrases(lines: list[str], lowered: str, phrases: tuple[str, ...]) -> list[str]:
    """Those of `lines` that hold none of `phrases`; `lowered` is all their text in lower case, to look in once."""
    present = [phrase for phrase in phrases if phrase in lowered]
    return [line for line in lines if not contains(line.lower(), present)] if present else lines


def contains(line: str, phrases: list[str]) -> bool:
    return any(phrase in line for phrase in phrases)


def measure(cleaned: Cleaned, kinds: str) -> list[float]:
    """The values of SIGNALS; `kinds` are those of the lines that stay (data_prep.text.words.line_kinds)."""
    sentences = count_sentences(kinds) if cleaned.lines else 0
    return [cleaned.lorem_ipsum, cleaned.curly_brackets, sentences, len(cleaned.text)]
