"""Knobs of language detection."""

from dataclasses import dataclass

from lm.fields import Config, measured


@dataclass(frozen=True)
class LanguageConfig(Config):
    """Language by fastText's lid.176 (arXiv:1607.01759)."""

    languages: tuple[str, ...]
    """ISO 639 codes that are kept; () for all."""
    min_score: float
    """The best language's probability must be above this (0 to 1)."""
    letters_only: bool = measured()
    """Score the letters alone, without digits and punctuation, which draw probability away from every language."""
