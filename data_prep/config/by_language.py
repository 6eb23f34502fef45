"""Knobs that differ from language to language, after FineWeb-2 (Penedo et al. 2025, arXiv:2506.20920)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Annotated

import tyro

from lm.errors import UsageError
from lm.fields import Config, not_hashed, within

NEVER = 1.0
"""The limit of a share that is never above it: the rule is off."""
ABOVE_ALL = 1_000_000


@dataclass(frozen=True)
class LanguageThresholds(Config):
    """The thresholds of one language in one script, under the names of FineWeb-2's files (configs/deu_Latn.yml)."""

    language: str
    """ISO 639-3 and ISO 15924 codes, as "deu_Latn"."""
    language_score: float
    """The language's probability must be at least this (0 to 1)."""
    dup_line_frac: float
    """Share of lines that stood before, at most; 0 for no limit."""
    top_n_grams: tuple[float, float, float]
    """Characters of the most frequent 2-, 3- and 4-gram, at most, as a share of the text's. Occurrences may overlap,
    and so it may be above 1."""
    dup_n_grams: tuple[float, float, float, float, float, float]
    """Characters of 5- to 10-grams that stood before, at most, as a share of the text's."""
    line_punct_thr: float
    """Share of lines that end with a terminal punctuation mark, at least; 0 or less for no limit."""
    new_line_ratio: float
    """Line breaks per word or mark, at most."""
    min_avg_word_length: float
    """Characters of a word on average, at least."""
    max_avg_word_length: float
    """Characters of a word on average, at most."""
    max_non_alpha_words_ratio: float
    """Share of words and marks with a letter, at least, whatever its name says: so datatrove uses it."""
    stopwords: tuple[str, ...]
    """Words of which prose has some; the case counts."""

    def __post_init__(self):
        super().__post_init__()
        path = f"thresholds of {self.language}"
        within(self, path, 0, 1, "language_score", "max_non_alpha_words_ratio")
        within(
            self, path, 0, math.inf, "dup_line_frac", "top_n_grams", "dup_n_grams", "new_line_ratio",
            "min_avg_word_length", "max_avg_word_length",
        )  # fmt: skip
        within(self, path, -1, 1, "line_punct_thr")
        if self.min_avg_word_length > (self.max_avg_word_length or ABOVE_ALL):
            raise UsageError(
                f"{path}: min_avg_word_length = {self.min_avg_word_length} is above max_avg_word_length = "
                f"{self.max_avg_word_length}: nothing could pass. Lower the first or raise the second."
            )

    def limits(self) -> Mapping[tuple[str, str], tuple[float, ...]]:
        """{(filter, its field): the limits that take the field's place}, one or as many as the field has."""
        return {
            # The rule drops what is at most its limit, FineWeb-2 what is below.
            ("language", "min_score"): (math.nextafter(self.language_score, 0),),
            ("gopher_repetition", "max_duplicate_lines"): (self.dup_line_frac or NEVER,),
            ("gopher_repetition", "max_top_ngram_characters"): self.top_n_grams,
            ("gopher_repetition", "max_duplicate_ngram_characters"): self.dup_n_grams,
            ("gopher_quality", "min_mean_word_length"): (self.min_avg_word_length,),
            ("gopher_quality", "max_mean_word_length"): (self.max_avg_word_length or ABOVE_ALL,),
            ("gopher_quality", "min_words_with_letter"): (self.max_non_alpha_words_ratio,),
            ("fineweb", "min_terminal_punctuation_lines"): (self.line_punct_thr,),
            ("fineweb", "max_newlines_per_word"): (self.new_line_ratio,),
        }


YAML_KEYS = frozenset(field.name for field in fields(LanguageThresholds)) - {"language"}
LIMITED = frozenset(LanguageThresholds("", 0, 0, (0, 0, 0), (0, 0, 0, 0, 0, 0), 0, 0, 0, 1, 0, ()).limits())
"""{(filter, field)} whose limits differ from language to language."""
STOP_WORDS = ("gopher_quality", "stop_words")
"""The filter, and its field, that the stop words of each language go into."""


@dataclass(frozen=True)
class ByLanguageConfig(Config):
    """Thresholds, stop words and word splitters by language. Which languages: documents.language.languages.

    What the thresholds say, not where they lie, is part of what identifies texts/ and documents/.
    """

    address: str = not_hashed(default="")
    """Folder on a server that holds NAME_Scrp.yml of each language; a file must have the SHA-256 of
    data_prep/by_language/fineweb_2.sha256, and is kept in the user's cache."""
    folder: str = not_hashed(default="")
    """Folder with such files of your own, on a disk or at an address (s3://, gs://, hf://, https://); when it is given,
    the other address is not asked."""
    thresholds: Annotated[tuple[LanguageThresholds, ...], tyro.conf.Suppress] = ()
    """The thresholds themselves; when they are given, neither is read."""
    fix_encoding: bool = False
    """Mend texts that were decoded wrongly, by ftfy, as FineWeb-2 does."""
    symbol_lines: tuple[str, ...] = ()
    """Characters; a line of these and of blanks alone is taken out. FineWeb-2's is "|", a rest of tables."""

    def __post_init__(self):
        super().__post_init__()
        if not (self.address or self.folder or self.thresholds):
            raise UsageError(
                "documents.by_language has neither folder, address nor thresholds. Give the folder of FineWeb-2's "
                "files: --documents.by-language.folder fineweb-2/configs"
            )
        if long := [one for one in self.symbol_lines if len(one) != 1]:
            raise UsageError(f"documents.by_language.symbol_lines has {long[0]!r}; give one character each.")

    def check_languages(self, languages: tuple[str, ...]) -> None:
        """Raises UsageError unless `languages`, which have thresholds of their own, are named with their scripts."""
        if not languages:
            raise UsageError(
                "documents.by_language has thresholds for each language, but documents.language.languages is empty. "
                "Name those to keep, as deu_Latn tha_Thai."
            )
        if plain := [code for code in languages if "_" not in code]:
            raise UsageError(
                f"documents.language.languages has {plain[0]!r}, but documents.by_language has thresholds by language "
                "and script. Write it as deu_Latn."
            )
        if self.thresholds:
            self.read(languages)

    def read(self, languages: tuple[str, ...]) -> dict[str, LanguageThresholds]:
        """{language: thresholds} of `languages`, which were read from their files before. Raises UsageError where one
        is missing."""
        found = {one.language: one for one in self.thresholds}
        if missing := [one for one in languages if one not in found]:
            raise UsageError(
                f"documents.by_language.thresholds has none of {', '.join(missing)}; it has "
                f"{', '.join(sorted(found)) or 'none yet'}. Add them, or leave the language out of "
                "documents.language.languages."
            )
        return {one: found[one] for one in languages}

    def of_texts(self, languages: tuple[str, ...]) -> dict[str, object]:
        """Of `DocumentsConfig.of_texts`: whose texts are measured in their own way, and by which stop words."""
        found = {one.language: one.stopwords for one in self.thresholds if one.language in languages}
        return {"by_language": sorted(languages), **({"stop words": found} if found else {})}
