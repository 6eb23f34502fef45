"""Knobs of deduplication."""

from dataclasses import dataclass

from lm.fields import Config, within


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
        within(self, "documents.minhash", 1, 10_000, "shingle_words", "bands", "rows")
