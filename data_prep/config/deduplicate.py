"""Knobs of deduplication."""

from dataclasses import dataclass
from typing import Literal

from lm.errors import UsageError, shown
from lm.fields import Config, added, not_hashed, within

TRACKING = (
    "utm_*", "fbclid", "gclid", "gclsrc", "dclid", "gbraid", "wbraid", "msclkid", "yclid", "twclid", "ttclid", "igshid",
    "mc_cid", "mc_eid", "_ga", "_gl", "_hsenc", "_hsmi", "mkt_tok", "phpsessid", "jsessionid", "aspsessionid*",
)  # fmt: skip
"""Parameters of a query that say where a visitor came from, or which visit it is, and not which page is asked for."""


@dataclass(frozen=True)
class UrlDedupConfig(Config):
    """Documents of the same page, by its address (data_prep/urls.py says what is the same)."""

    keep: Literal["first", "latest"] = "latest"
    """Which of them stays, by when they were fetched."""
    ignored_parameters: tuple[str, ...] = TRACKING
    """Names of parameters of a query that do not count; one that ends in * stands for all that begin so."""


@dataclass(frozen=True)
class DedupIndexConfig(Config):
    """Deduplication against the documents of earlier runs, by the keys that they wrote down (data_prep/dedup_index)."""

    against: tuple[str, ...] = not_hashed(default=())
    """Folders or URLs of indices, or of runs that wrote one: documents that are duplicates of theirs are dropped, by
    the steps of deduplication in use. Of which dump a document is does not count. What the indices hold decides, not
    where they lie."""
    write: bool = False
    """Whether the run writes an index of its own documents, in dedup_index/."""
    key_bytes: Literal[8, 16] = 8
    """Of a key in the index that is written. With 8, one document in a million is dropped in vain by 10^12 keys."""


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

    cluster_sizes: bool = added(default=False)
    """documents/ has the column cluster_size: how many documents of the run the cluster holds that this one stayed of,
    by the last step of deduplication in use; 1 of one that is alone."""
    upsampling_weights: tuple[tuple[int, int], ...] = added(default=())
    """(size, weight): documents/ has the column repeat, the weight of the largest of these sizes that its cluster
    reaches, by which a corpus may be "rehydrated"; () for no such column. FineWeb-2 names 1 1 2 2 3 3 5 5 100 8 1000 1:
    of clusters of 1,000 and more each document once."""

    def __post_init__(self):
        super().__post_init__()
        within(self, "documents.minhash", 1, 10_000, "shingle_words", "bands", "rows")
        limits = [limit for limit, _ in self.upsampling_weights]
        if limits and (limits[0] != 1 or limits != sorted(set(limits))):
            raise UsageError(
                f"documents.minhash.upsampling_weights has the sizes {shown(limits)}; they must begin with 1 and grow."
            )
        if bad := [weight for _, weight in self.upsampling_weights if weight < 1]:
            raise UsageError(
                f"documents.minhash.upsampling_weights has the weight {bad[0]}; it must be at least 1. What is not "
                "wanted at all is left out by a filter."
            )
