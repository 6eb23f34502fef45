"""Knobs of deduplication."""

from dataclasses import dataclass
from typing import Literal

from lm.fields import Config, added, within


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
    normalisation: Literal["datatrove_0_10", "fineweb_2024"] = added(default="datatrove_0_10")
    """What becomes of a text before it is cut into words: "datatrove_0_10" replaces numbers, then punctuation by
    spaces; "fineweb_2024", that of the published release, deletes punctuation, then replaces numbers."""
    before_filters: bool = added(default=False)
    """Duplicates are looked for among all documents that passed the language, before the filters, as FineWeb-2 does;
    else, as FineWeb, among those that passed all. It holds for url_dedup and exact_dedup too."""
    by_language: bool = added(default=False)
    """Only documents of the same language meet, as in FineWeb-2. It holds for exact_dedup too."""

    def __post_init__(self):
        super().__post_init__()
        within(self, "documents.minhash", 1, 10_000, "shingle_words", "bands", "rows")
