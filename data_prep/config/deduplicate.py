"""Configs of deduplication, of whole documents and of parts, and of decontamination."""

from dataclasses import dataclass
from typing import Literal

from lm.errors import UsageError, shown
from lm.fields import Config, not_hashed, within

TRACKING = (
    "utm_*", "fbclid", "gclid", "gclsrc", "dclid", "gbraid", "wbraid", "msclkid", "yclid", "twclid", "ttclid", "igshid",
    "mc_cid", "mc_eid", "_ga", "_gl", "_hsenc", "_hsmi", "mkt_tok", "phpsessid", "jsessionid", "aspsessionid*",
)  # fmt: skip
"""Query parameters that identify the visitor's origin or session, not the page."""


@dataclass(frozen=True)
class UrlDedupConfig(Config):
    """Deduplication by normalized URL (data_prep/urls.py)."""

    keep: Literal["first", "latest"] = "latest"
    """Which document of a URL to keep, by fetch time: the first or the latest."""
    ignored_parameters: tuple[str, ...] = TRACKING
    """Query parameters to ignore in the comparison; a trailing * matches any ending."""


@dataclass(frozen=True)
class DedupIndexConfig(Config):
    """Deduplication against the documents of earlier runs, by their stored keys (data_prep/dedup_index)."""

    against: tuple[str, ...] = not_hashed(default=())
    """Paths or URLs of indices, or of runs that wrote one. Documents that duplicate theirs are dropped by the
    deduplication steps in use, across all dumps. The contents of the indices are hashed, their locations are not."""
    write: bool = False
    """Write an index of the documents of this run to dedup_index/."""
    key_bytes: Literal[8, 16] = 8
    """Bytes per key of the written index. With 8, an index of 10^12 keys wrongly drops one document in about a
    million."""


@dataclass(frozen=True)
class MinHashConfig(Config):
    """Near-duplicates by MinHash (Broder 1997) with banding (Leskovec et al., Mining of Massive Datasets, chapter 3).
    Two documents whose shingles have the Jaccard similarity s match with probability 1 - (1 - s^rows)^bands."""

    shingle_words: int
    """Words per shingle."""
    bands: int
    """Bands per signature; documents that agree in all rows of one band are duplicates."""
    rows: int
    """Hash values per band."""
    seed: int
    """Seed of the hash functions."""
    normalisation: Literal["datatrove_0_10", "fineweb_2024"] = "datatrove_0_10"
    """How to normalize text before splitting it into words. "datatrove_0_10" replaces numbers, then replaces
    punctuation by spaces; "fineweb_2024", as in the published release, deletes punctuation, then replaces numbers."""
    before_filters: bool = False
    """Deduplicate before the filters, among all documents that pass the language filter, as FineWeb-2 does; if
    disabled, after the filters, as FineWeb does. Also applies to url_dedup and exact_dedup."""
    by_language: bool = False
    """Compare only documents of the same language, as FineWeb-2 does. Also applies to exact_dedup."""

    cluster_sizes: bool = False
    """Add the column cluster_size to documents/: the number of documents of this run in the cluster of the kept
    document, in the last deduplication step in use; 1 without duplicates."""
    upsampling_weights: tuple[tuple[int, int], ...] = ()
    """(size, weight) pairs: add the column repeat to documents/, the weight of the largest size that the document's
    cluster reaches, to "rehydrate" a corpus; (): no such column. FineWeb-2's are 1 1 2 2 3 3 5 5 100 8 1000 1, so
    documents of clusters of 1,000 or more are used once."""

    def check_values(self):
        within(self, "documents.minhash", 1, 10_000, "shingle_words", "bands", "rows")
        limits = [limit for limit, _ in self.upsampling_weights]
        if limits and (limits[0] != 1 or limits != sorted(set(limits))):
            raise UsageError(
                f"documents.minhash.upsampling_weights has the sizes {shown(limits)}; give increasing sizes from 1."
            )
        if bad := [weight for _, weight in self.upsampling_weights if weight < 1]:
            raise UsageError(
                f"documents.minhash.upsampling_weights has the weight {bad[0]}; it must be at least 1. To drop "
                "documents, use a filter."
            )


ROLES = ("prompt", "answer")
MEMORY = 1_200_000_000
"""Bytes that a worker may use for a group of documents, on top of its base memory."""
BYTES_PER_TOKEN = 44
"""Bytes of memory per token of a group: the text and the peak of the ranks (data_prep/dedup/substrings.py)."""
BYTES_IN_TOKEN = 3
"""Minimum mean bytes of text per token: 3 for a Chinese character (an English word has about 6)."""


@dataclass(frozen=True)
class LineDedupConfig(Config):
    """Remove lines that occur in several documents from all but the first of them. C4 removes spans of three sentences
    (arXiv:1910.10683, section 2.2), CCNet paragraphs (arXiv:1911.00359, section 3.1)."""

    unit: Literal["line", "paragraph"] = "line"
    """Unit to compare: lines, or paragraphs separated by blank lines."""
    span: int = 1
    """Consecutive units that are compared and removed together; C4 uses 3."""
    min_words: int = 3
    """Keep spans with fewer words."""
    max_documents: int = 1
    """Keep spans that occur in at most this many documents of the dump."""
    max_removed: float = 0.5
    """Drop documents that would lose more than this share of their characters (`repeated_lines`)."""
    min_words_left: int = 50
    """Drop documents that lost lines and have fewer words left (`short_after_line_dedup`)."""

    def check_values(self):
        within(self, "documents.line_dedup", 1, 2**40, "span", "min_words", "max_documents")
        within(self, "documents.line_dedup", 0, 2**40, "min_words_left")
        within(self, "documents.line_dedup", 0, 1, "max_removed")


@dataclass(frozen=True)
class SubstringDedupConfig(Config):
    """Remove all but the first occurrence of token sequences that are repeated within a group of documents (Lee et al.
    2022, arXiv:2107.06499, section 4.1). A token is a word between white space, or a character in scripts without
    spaces."""

    length: int = 50
    """Minimum length of a removed sequence, in tokens."""
    group_bytes: int = 80_000_000
    """Bytes of text per group. One worker compares the documents of a group: consecutive files by name, split between
    row groups. Sequences repeated only across groups are kept."""
    max_removed: float = 0.5
    """Drop documents that would lose more than this share of their characters (`repeated_substrings`)."""
    min_words_left: int = 50
    """Drop documents that lost text and have fewer words left (`short_after_substring_dedup`)."""

    def check_values(self):
        within(self, "documents.substring_dedup", 2, 100_000, "length")
        within(self, "documents.substring_dedup", 1, 2**40, "group_bytes")
        within(self, "documents.substring_dedup", 0, 2**40, "min_words_left")
        within(self, "documents.substring_dedup", 0, 1, "max_removed")
        most = MEMORY // BYTES_PER_TOKEN * BYTES_IN_TOKEN
        if self.group_bytes > most:
            raise UsageError(
                f"documents.substring_dedup.group_bytes is {self.group_bytes:,}; a worker would take more "
                f"than {MEMORY / 1e9:g} GB of memory. Give at most {most:,}."
            )


@dataclass(frozen=True)
class DecontaminationConfig(Config):
    """Drop documents that share an n-gram with an evaluation example (Brown et al. 2020, arXiv:2005.14165, App. C)."""

    sets: tuple[str, ...] = ()
    """Evaluation sets: paths, shell patterns or URLs of .jsonl or .parquet files, also with .gz, .bz2 or .zst. Each
    file is a set with its own name; "NAME=PATTERN" makes one set NAME of all matching files."""
    fields: tuple[str, ...] = ()
    """Fields with the texts of a row, in reading order, each as "prompt=FIELD" or "answer=FIELD"; (): find the fields
    of common sets by their names (docs/decontamination.md)."""
    ngram_words: int = 13
    """Words per n-gram; an n-gram in both an example and a document is an overlap."""
    min_words: int = 8
    """Examples shorter than an n-gram are searched for as a whole if they have at least this many words, else
    skipped."""
    max_corpus_documents: int = 10
    """N-grams in more documents of the deduplicated corpus than this are common phrases: reported, never a reason to
    drop."""
    action: Literal["drop", "report"] = "drop"
    """Drop documents with an overlap, with the reason `contaminated`, or only report them."""

    def check_values(self):
        within(self, "documents.decontamination", 2, 100, "ngram_words")
        within(self, "documents.decontamination", 1, self.ngram_words, "min_words")
        within(self, "documents.decontamination", 1, 2**62, "max_corpus_documents")
        for one in self.fields:
            role, found, name = one.partition("=")
            if role not in ROLES or not found or not name:
                raise UsageError(
                    f"documents.decontamination.fields has {one!r}; give prompt=FIELD or answer=FIELD, where FIELD is "
                    "a key of the rows."
                )
