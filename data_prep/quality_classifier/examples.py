"""Labeled training documents of a quality classifier: files of the two sets, a random sample of their documents, and
its hashed words in one file on disk.

Each document is read and split into words once, and each epoch has its own order. Memory: about ten bytes per document.
"""

import hashlib
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from data_prep.config import QualityTrainingConfig
from data_prep.quality_classifier.model import word_hashes
from data_prep.sources.columns import QuarantinedRow
from data_prep.sources.listing import named_files
from data_prep.sources.tables import read_table
from data_prep.text.words import split_words
from lm.errors import UsageError
from lm.storage import Url, fetched, file_sha256, writing

OPTION = "documents.quality_classifier.training"


@dataclass(frozen=True)
class DocumentFile:
    path: Path
    name: str
    """Path relative to the folder before the pattern's first wildcard."""
    sha256: str


def document_sets(good: Iterable[str], other: Iterable[str]) -> dict[str, list[DocumentFile]]:
    """Return {"good": files, "other": files} that match the shell patterns, sorted by name. Raises UsageError if a set
    is empty, a pattern matches nothing, or a file is in both sets."""
    sets = {}
    for name, patterns in (("good", tuple(good)), ("other", tuple(other))):
        if not patterns:
            raise UsageError(f"{OPTION}.{name} is empty: a model is trained on two sets of documents. Give files.")
        named = named_files(f"{OPTION}.{name}", patterns)
        found = {fetched(place) if isinstance(place, Url) else place: called for place, called in named.items()}
        sets[name] = [DocumentFile(path, called, file_sha256(path)) for path, called in found.items()]
    by_contents = {file.sha256: file.path for file in sets["good"]}
    for file in sets["other"]:
        if file.sha256 in by_contents:
            raise UsageError(
                f"{OPTION}: {by_contents[file.sha256]} of `good` and {file.path} of `other` are the same file. Remove "
                "it from one of the sets."
            )
    return sets


def read_texts(files: Iterable[DocumentFile], on_quarantine: Callable[[QuarantinedRow], None]) -> Iterator[str]:
    """Yield the texts of all files, in order; rows without a text go to `on_quarantine`. Raises like `read_table`."""
    for file in files:
        for document in read_table(file.path, name=file.name, on_quarantine=on_quarantine):
            yield document.text


def sample_texts(
    files: list[DocumentFile], wanted: int, seed: int, on_quarantine: Callable[[QuarantinedRow], None]
) -> Iterator[str]:
    """Yield a random sample of `wanted` texts of the files, in order; all texts if there are fewer.

    Every sample is equally likely, and only counts are in memory (Knuth, vol. 2, section 3.4.2, algorithm S). The files
    are read twice, because the texts must be counted first.
    """
    remaining = sum(1 for _ in read_texts(files, on_quarantine))
    generator = random.Random(seed)
    for text in read_texts(files, lambda row: None):
        if generator.random() * remaining < wanted:
            wanted -= 1
            yield text
        remaining -= 1


DOCUMENTS_BETWEEN_LINES = 50_000
LABELS = {"good": True, "other": False}


@dataclass(frozen=True)
class Examples:
    hashes: np.ndarray
    """uint32 [words of all documents]: hash of each word; a memory map."""
    ends: np.ndarray
    """int64 [documents]: index in `hashes` after each document's last word."""
    labels: np.ndarray
    """bool [documents]: whether the document is in the set "good"."""
    held_out: np.ndarray
    """bool [documents]: whether the document is held out from training, for evaluation."""

    def hashes_of(self, document: int) -> np.ndarray:
        """uint32 [words of the document]: hash of each word of the document with that index."""
        start = self.ends[document - 1] if document else 0
        return self.hashes[start : self.ends[document]]

    def documents(self, set_name: str, held_out: bool) -> np.ndarray:
        """int64: indices of the documents of a set, "good" or "other", for evaluation (`held_out`) or for training."""
        return np.flatnonzero((self.labels == LABELS[set_name]) & (self.held_out == held_out))


@dataclass
class SkippedRows:
    """Callback for rows without usable text: counts them, and keeps the first for a message."""

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
    """Sample documents of both sets, and write the hashes of their words to the empty file `scratch`. Documents without
    words are skipped. Raises InputError if a file cannot be read, or the disk cannot be written."""
    ends, labels, held_out, end = [], [], [], 0
    for name, files in sets.items():
        skipped_rows = SkippedRows()
        texts = sample_texts(files, config.documents_per_set, config.seed, skipped_rows)
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
        if skipped_rows.rows:
            progress(
                f"quality classifier: {skipped_rows.rows:,} rows of the set {name} skipped; first {skipped_rows.first}"
            )
    with writing("The scratch file of the training"):
        scratch.flush()
    words = np.memmap(scratch, np.uint32, "r") if end else np.empty(0, np.uint32)
    return Examples(words, np.array(ends, np.int64), np.array(labels, bool), np.array(held_out, bool))


def is_held_out(text: str, share: float) -> bool:
    """Whether a hash of the text puts it in the held-out `share`; so equal texts are all held out, or none of them."""
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little") < share * 2**64
