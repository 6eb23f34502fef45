"""Filter by a list of bad words: C4 dropped every page with a word of such a list (Raffel et al. 2020,
arXiv:1910.10683, section 2.2). No list is included; C4's is "List of Dirty, Naughty, Obscene, and Otherwise Bad Words"
(LDNOOBW, CC BY 4.0)."""

import functools
import math
import re
from dataclasses import dataclass

from data_prep.config.filters import Filter, Rule, Signal
from data_prep.text.passage import Passage
from lm.errors import InputError, UsageError
from lm.fields import measured, within
from lm.storage import Url, as_local_file, digest, place_of

WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class BadWordsFilter(Filter):
    """Drop texts with too many words of a list (C4, arXiv:1910.10683, section 2.2)."""

    max_bad_words: int
    """Maximum number of listed words in a text, with repetitions; 0 drops every text with one."""
    files: tuple[str, ...] = measured()
    """Paths or URLs of word lists in UTF-8: one word or phrase per line, compared in lower case; lines that begin with
    "#" are comments, also if they are indented."""
    whole_words: bool = measured(default=True)
    """Match only whole words: no letter or digit directly before or after. Disable for languages without spaces."""

    name = "bad_words"
    title = "Bad words"
    summary = "Drops texts with words of a list, as C4 did (Raffel et al. 2020, arXiv:1910.10683, section 2.2)."
    signals = (Signal("bad_words_found", "Bad words", "Occurrences of words and phrases of the list.", "whole"),)
    rules = (Rule("too_many_bad_words", "bad_words_found", "above", "max_bad_words", datatrove="document_removed_with_badwords"),)  # fmt: skip  # noqa: E501

    def check_values(self):
        within(self, self.path(), 0, math.inf, "max_bad_words")
        if not self.files:
            raise UsageError(f"{self.path()}.files is empty: give a list of words, or remove the filter.")

    def external_inputs(self) -> dict[str, object]:
        return {file: digest(as_local_file(place_of(file)))[1] for file in self.files}

    def measure(self, passage: Passage) -> list[float]:
        return [words_of(self.files, self.whole_words).count(passage.text.lower())]


class WordList:
    """Listed words and phrases in lower case, prepared for counting them in texts."""

    def __init__(self, entries: frozenset[str], whole_words: bool):
        is_word = lambda entry: whole_words and WORD.fullmatch(entry)
        self.words = frozenset(entry for entry in entries if is_word(entry))
        self.phrases = {
            entry: re.compile(rf"(?<!\w){re.escape(entry)}(?!\w)" if whole_words else re.escape(entry))
            for entry in sorted(entries - self.words)
        }

    def count(self, text: str) -> int:
        """Return the number of occurrences in a lower-case text. Listed words inside listed phrases are counted too."""
        found = sum(word in self.words for word in WORD.findall(text)) if self.words else 0
        return found + sum(len(pattern.findall(text)) for phrase, pattern in self.phrases.items() if phrase in text)


@functools.lru_cache(maxsize=8)
def words_of(files: tuple[str, ...], whole_words: bool) -> WordList:
    """Return the words of all `files`, read once per process. Raises InputError if one cannot be read or is empty."""
    entries: set[str] = set()
    for file in files:
        place = place_of(file)
        try:
            lines = as_local_file(place).read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(
                f"The list {place} of documents.bad_words.files cannot be read: {error}. Give a UTF-8 file with one "
                f"word per line{' that the workers reach' if isinstance(place, Url) else ''}."
            ) from error
        found = {entry.lower() for line in lines if (entry := line.strip()) and not entry.startswith("#")}
        if not found:
            raise InputError(f"The list {place} of documents.bad_words.files has no words. Give another list.")
        entries |= found
    return WordList(frozenset(entries), whole_words)
