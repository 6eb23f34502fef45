"""Knobs of deduplication."""

from dataclasses import dataclass

from lm.errors import UsageError
from lm.fields import Config


@dataclass(frozen=True)
class MinHashConfig(Config):
    """Near-duplicates by MinHash (Broder 1997) with banding (Leskovec et al., Mining of Massive Datasets, chapter 3).

    Two documents of Jaccard similarity s, by their shingles, meet with probability 1 - (1 - s^rows)^bands.
    """

    shingle_words: int
    """Words in a shingle."""
    bands: int
    """Bands of a signature; documents that agree in one whole band are duplicates."""
    rows: int
    """Hash values in a band."""
    seed: int
    """Chooses the hash functions."""

    def __post_init__(self):
        super().__post_init__()
        for name in ("shingle_words", "bands", "rows"):
            if getattr(self, name) < 1:
                raise UsageError(f"documents.minhash.{name} is {getattr(self, name)}; it must be at least 1.")
