"""Knobs of deduplication, of documents and of parts of them, and of decontamination."""

from dataclasses import dataclass
from typing import Literal

from lm.errors import UsageError, shown
from lm.fields import Config, not_hashed, within

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
    normalisation: Literal["datatrove_0_10", "fineweb_2024"] = "datatrove_0_10"
    """What becomes of a text before it is cut into words: "datatrove_0_10" replaces numbers, then punctuation by
    spaces; "fineweb_2024", that of the published release, deletes punctuation, then replaces numbers."""
    before_filters: bool = False
    """Duplicates are looked for among all documents that passed the language, before the filters, as FineWeb-2 does;
    else, as FineWeb, among those that passed all. It holds for url_dedup and exact_dedup too."""
    by_language: bool = False
    """Only documents of the same language meet, as in FineWeb-2. It holds for exact_dedup too."""

    cluster_sizes: bool = False
    """documents/ has the column cluster_size: how many documents of the run the cluster holds that this one stayed of,
    by the last step of deduplication in use; 1 of one that is alone."""
    upsampling_weights: tuple[tuple[int, int], ...] = ()
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


ROLES = ("prompt", "answer")
MEMORY = 1_200_000_000
"""Bytes that a worker may take for a group of documents, beside what it has anyway."""
BYTES_PER_TOKEN = 44
"""Of memory, for each token of a group: the text's own and the most that the ranks take (data_prep/dedup/ranks.py)."""
BYTES_IN_TOKEN = {"words": 3, "bytes": 1}
"""Of text, the fewest that a token takes on the average: so many has a character of Chinese, an English word 6."""


@dataclass(frozen=True)
class LineDedupConfig(Config):
    """Lines that stand in more documents than one are removed from all but the first of them (C4 removed spans of
    three sentences, arXiv:1910.10683, section 2.2; CCNet paragraphs, arXiv:1911.00359, section 3.1)."""

    unit: Literal["line", "paragraph"] = "line"
    """What is compared: lines, or paragraphs, which blank lines part."""
    span: int = 1
    """So many units in a row are compared and removed together; C4 has 3."""
    min_words: int = 3
    """Spans with fewer words are left where they are."""
    max_documents: int = 1
    """A span that stands in at most so many documents of the dump is left where it is."""
    max_removed: float = 0.5
    """A document that would lose more than this share of its characters is dropped (`repeated_lines`)."""
    min_words_left: int = 50
    """A document that lost something and has fewer words then is dropped (`short_after_line_dedup`)."""

    def __post_init__(self):
        super().__post_init__()
        within(self, "documents.line_dedup", 1, 2**40, "span", "min_words", "max_documents")
        within(self, "documents.line_dedup", 0, 2**40, "min_words_left")
        within(self, "documents.line_dedup", 0, 1, "max_removed")


@dataclass(frozen=True)
class SubstringDedupConfig(Config):
    """Runs of 50 tokens that stand twice in a group of documents are removed but for the first (Lee et al. 2022,
    arXiv:2107.06499, section 4.1)."""

    tokens: Literal["words", "bytes"] = "words"
    """What is compared: words between white space (in scripts without spaces, characters), or UTF-8 bytes."""
    length: int = 50
    """Tokens of the shortest run that is removed."""
    group_bytes: int = 80_000_000
    """Bytes of text of documents that are looked at together, by one worker: files in the order of their names, cut
    between row groups. Runs that stand in two groups stay."""
    max_removed: float = 0.5
    """A document that would lose more than this share of its characters is dropped (`repeated_substrings`)."""
    min_words_left: int = 50
    """A document that lost something and has fewer words then is dropped (`short_after_substring_dedup`)."""

    def __post_init__(self):
        super().__post_init__()
        within(self, "documents.substring_dedup", 2, 100_000, "length")
        within(self, "documents.substring_dedup", 1, 2**40, "group_bytes")
        within(self, "documents.substring_dedup", 0, 2**40, "min_words_left")
        within(self, "documents.substring_dedup", 0, 1, "max_removed")
        most = MEMORY // BYTES_PER_TOKEN * BYTES_IN_TOKEN[self.tokens]
        if self.group_bytes > most:
            raise UsageError(
                f"documents.substring_dedup.group_bytes is {self.group_bytes:,}; by {self.tokens} a worker would take "
                f"more than {MEMORY / 1e9:g} GB of memory. Give at most {most:,}."
            )


@dataclass(frozen=True)
class DecontaminationConfig(Config):
    """Documents that hold an n-gram of an evaluation example (Brown et al. 2020, arXiv:2005.14165, appendix C)."""

    sets: tuple[str, ...] = ()
    """The evaluation sets: paths, shell patterns or URLs of .jsonl or .parquet files, also with .gz, .bz2 or .zst. Each
    file is a set by its name; "NAME=PATTERN" makes one set, called NAME, of all files that the pattern matches."""
    fields: tuple[str, ...] = ()
    """Where a row has the texts, as "prompt=FIELD" and "answer=FIELD" in any number, in reading order; () finds the
    fields of the usual sets by their names (docs/decontamination.md)."""
    ngram_words: int = 13
    """Words of an n-gram; one that an example and a document share is an overlap."""
    min_words: int = 8
    """An example with fewer words than an n-gram is looked for as a whole if it has at least so many, else skipped."""
    max_corpus_documents: int = 10
    """An n-gram that stands in more documents of the corpus than this, copies taken out, is a common phrase: it is
    reported, and drops nothing."""
    action: Literal["drop", "report"] = "drop"
    """What becomes of a document with an overlap: it is dropped as `contaminated`, or only reported."""

    def __post_init__(self):
        super().__post_init__()
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
