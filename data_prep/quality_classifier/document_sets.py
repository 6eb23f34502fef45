"""The two sets of training documents of a quality classifier: find, check and sample them."""

import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from data_prep.sources.columns import QuarantinedRow
from data_prep.sources.listing import named_files
from data_prep.sources.tables import read_table
from lm.errors import UsageError
from lm.storage import Url, fetched, file_sha256

OPTION = "documents.quality_classifier.training"


@dataclass(frozen=True)
class DocumentFile:
    path: Path
    name: str
    """Path inside the folder where the pattern's wildcards begin."""
    sha256: str


def document_sets(good: Iterable[str], other: Iterable[str]) -> dict[str, list[DocumentFile]]:
    """Return {"good": files, "other": files}: the matches of the shell patterns, sorted by name.

    Raises UsageError if a set is empty, a pattern matches nothing, or the sets share a file.
    """
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
                f"{OPTION}: {by_contents[file.sha256]} of `good` and {file.path} of `other` are the same file; nothing "
                "can be learnt from it. Take it out of one of the sets."
            )
    return sets


def read_texts(files: Iterable[DocumentFile], on_quarantine: Callable[[QuarantinedRow], None]) -> Iterator[str]:
    """Yield the texts of all files, in order. Rows without text are passed to `on_quarantine`. Raises like
    `read_table`."""
    for file in files:
        for document in read_table(file.path, name=file.name, on_quarantine=on_quarantine):
            yield document.text


def drawn(
    files: list[DocumentFile], wanted: int, seed: int, on_quarantine: Callable[[QuarantinedRow], None]
) -> Iterator[str]:
    """Yield a random sample of `wanted` texts of the files, in order; all texts if there are no more.

    Every such sample is equally likely, and only counts are in memory (Knuth, vol. 2, section 3.4.2, algorithm S). The
    files are read twice, because the texts must be counted first.
    """
    remaining = sum(1 for _ in read_texts(files, on_quarantine))
    generator = random.Random(seed)
    for text in read_texts(files, lambda row: None):
        if generator.random() * remaining < wanted:
            wanted -= 1
            yield text
        remaining -= 1
