"""Labelled training documents of a quality classifier: hashed words in one file on disk.

Each document is read and split into words once, and each epoch has its own order. Memory: about ten bytes per document.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO

import numpy as np

from data_prep.config import QualityTrainingConfig
from data_prep.quality_classifier.document_sets import DocumentFile, drawn
from data_prep.quality_classifier.features import word_hashes
from data_prep.sources.columns import QuarantinedRow
from data_prep.text.words import split_words
from lm.storage import writing

DOCUMENTS_BETWEEN_LINES = 50_000
LABELS = {"good": True, "other": False}


@dataclass(frozen=True)
class Examples:
    hashes: np.ndarray
    """uint32 [words of all documents]; a memory map."""
    ends: np.ndarray
    """int64 [documents]: end of each document in `hashes`."""
    labels: np.ndarray
    """bool [documents]: whether it is in the good set."""
    held_out: np.ndarray
    """bool [documents]: whether it is held out."""

    def hashes_of(self, document: int) -> np.ndarray:
        """uint32 [words of the document]."""
        start = self.ends[document - 1] if document else 0
        return self.hashes[start : self.ends[document]]

    def documents(self, set_name: str, held_out: bool) -> np.ndarray:
        """int64: the numbers of the documents of the set that are held out, or of those for training."""
        return np.flatnonzero((self.labels == LABELS[set_name]) & (self.held_out == held_out))


@dataclass
class PassedOver:
    """Rows without usable text: their number, and the first."""

    rows: int = 0
    first: QuarantinedRow | None = None

    def __call__(self, row: QuarantinedRow) -> None:
        self.rows += 1
        self.first = self.first or row


def read_examples(
    sets: dict[str, list[DocumentFile]],
    config: QualityTrainingConfig,
    scratch: IO[bytes],
    progress: Callable[[str], None],
) -> Examples:
    """Sample the documents and write their hashed words to `scratch`, an empty file. Documents without words are
    skipped. Raises InputError if a file cannot be read, or the disk cannot be written."""
    ends, labels, held_out, end = [], [], [], 0
    for name, files in sets.items():
        passed_over = PassedOver()
        texts = drawn(files, config.documents_per_set, config.seed, passed_over)
        for number, text in enumerate(texts, start=1):
            if number % DOCUMENTS_BETWEEN_LINES == 0:
                progress(f"quality classifier: {number:,} documents of the set {name} read")
            hashes = word_hashes(split_words(text))
            if not len(hashes):
                continue
            with writing("The scratch file of the training"):
                scratch.write(hashes.tobytes())
            end += len(hashes)
            ends.append(end)
            labels.append(LABELS[name])
            held_out.append(is_held_out(text, config.held_out_share))
        if passed_over.rows:
            progress(
                f"quality classifier: {passed_over.rows:,} rows of the set {name} passed over; first "
                f"{passed_over.first}"
            )
    with writing("The scratch file of the training"):
        scratch.flush()
    words = np.memmap(scratch, np.uint32, "r") if end else np.empty(0, np.uint32)
    return Examples(words, np.array(ends, np.int64), np.array(labels, bool), np.array(held_out, bool))


def is_held_out(text: str, share: float) -> bool:
    """Decide by a hash of the text, so equal texts are never in both sets."""
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little") < share * 2**64
