"""Per-language thresholds, after FineWeb-2 (Penedo et al. 2025, arXiv:2506.20920)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Annotated

import tyro

from lm.errors import UsageError
from lm.fields import Config, not_hashed, within

NEVER = 1.0
"""Limit of a share that no value exceeds: disables the rule."""
ABOVE_ALL = 1_000_000


@dataclass(frozen=True)
class LanguageThresholds(Config):
    """Thresholds of one language in one script. Fields have the names of FineWeb-2's files (configs/deu_Latn.yml)."""

    language: str
    """ISO 639-3 language and ISO 15924 script, e.g. "deu_Latn"."""
    language_score: float
    """Minimum probability of the language (0 to 1)."""
    dup_line_frac: float
    """Maximum share of lines that repeat an earlier line; 0: no limit."""
    top_n_grams: tuple[float, float, float]
    """Maximum share of characters in the most frequent 2-, 3- and 4-gram. May exceed 1, as overlapping occurrences
    count."""
    dup_n_grams: tuple[float, float, float, float, float, float]
    """Maximum share of characters in 5- to 10-grams that repeat earlier ones."""
    line_punct_thr: float
    """Minimum share of lines that end in terminal punctuation; 0 or less: no limit."""
    new_line_ratio: float
    """Maximum number of line breaks per word or punctuation mark."""
    min_avg_word_length: float
    """Minimum mean word length in characters."""
    max_avg_word_length: float
    """Maximum mean word length in characters; 0: no limit."""
    max_non_alpha_words_ratio: float
    """Minimum share of words and marks that contain a letter. datatrove uses it so, despite the name."""
    stopwords: tuple[str, ...]
    """Stop words, case-sensitive."""

    def check_values(self):
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
                f"{self.max_avg_word_length}, so nothing could pass. Lower the first or raise the second."
            )

    def limits(self) -> Mapping[tuple[str, str], tuple[float, ...]]:
        """Return {(filter, field): values}, the limits of this language that replace these fields of filters, such as
        {("fineweb", "max_newlines_per_word"): (0.3,), ...}. There are several values if the field is a tuple."""
        return {
            # The rule drops scores at or below its limit, FineWeb-2 only scores below it.
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
"""{(filter, field)} of all limits that depend on the language."""
STOP_WORDS = ("gopher_quality", "stop_words")
"""(filter, field) that receives the stop words of each language."""


@dataclass(frozen=True)
class ByLanguageConfig(Config):
    """Thresholds, stop words and word splitters for each of documents.language.languages. The contents of the
    thresholds are part of the hash of texts/ and documents/; their location is not."""

    folder: str = not_hashed(default="")
    """Your own files of thresholds, one NAME_Scrp.yml per language, e.g. deu_Latn.yml: the path or URL (s3://, gs://,
    hf://, https://) of their folder. "": download FineWeb-2's, which are cached."""
    thresholds: Annotated[tuple[LanguageThresholds, ...], tyro.conf.Suppress] = ()
    """The thresholds themselves; if set, no file is read."""
    fix_encoding: bool = False
    """Repair wrongly decoded text (mojibake) with ftfy, as FineWeb-2 does."""
    symbol_lines: tuple[str, ...] = ()
    """Characters; lines of only these and blanks are removed. FineWeb-2 uses "|", which is left over from tables."""

    def check_values(self):
        if long := [one for one in self.symbol_lines if len(one) != 1]:
            raise UsageError(f"documents.by_language.symbol_lines has {long[0]!r}; give one character each.")

    def check_languages(self, languages: tuple[str, ...]) -> None:
        """Raise UsageError unless `languages` is not empty, all have a script ("deu_Latn") and, if `thresholds` is set,
        all have thresholds."""
        if not languages:
            raise UsageError(
                "documents.by_language has thresholds for each language, but documents.language.languages is empty. "
                "List the languages to keep, such as deu_Latn tha_Thai."
            )
        if plain := [code for code in languages if "_" not in code]:
            raise UsageError(
                f"documents.language.languages has {plain[0]!r}, but documents.by_language has thresholds by language "
                "and script. Write it as deu_Latn."
            )
        if self.thresholds:
            self.read(languages)

    def read(self, languages: tuple[str, ...]) -> dict[str, LanguageThresholds]:
        """Return {language: its thresholds} for `languages`. Raises UsageError if `thresholds` lacks a language."""
        found = {one.language: one for one in self.thresholds}
        if missing := [one for one in languages if one not in found]:
            raise UsageError(
                f"documents.by_language.thresholds lacks {', '.join(missing)}; it has "
                f"{', '.join(sorted(found)) or 'none yet'}. Add the missing ones, or remove them from "
                "documents.language.languages."
            )
        return {one: found[one] for one in languages}

    def of_texts(self, languages: tuple[str, ...]) -> dict[str, object]:
        """Return {name: value} of those settings that determine texts/: the `languages`, each measured with its own
        word splitter, and their stop words. A part of `DocumentsConfig.of_texts`."""
        found = {one.language: one.stopwords for one in self.thresholds if one.language in languages}
        return {"by_language": sorted(languages), **({"stop words": found} if found else {})}
