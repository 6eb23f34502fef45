"""Knobs of decontamination: which evaluation sets are kept out of the documents, and what counts as an overlap."""

from dataclasses import dataclass
from typing import Literal

from lm.errors import UsageError
from lm.fields import Config, within

ROLES = ("prompt", "answer")


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
