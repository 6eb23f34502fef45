"""Usage of tokens in the documents of a run, and bytes per token by language."""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_prep.parquet import read_batches
from data_prep.shards.tokenize import DocumentFile, document_files
from lm.errors import UsageError
from lm.run_paths import RunPaths
from lm.tokenizer import Tokenizer
from viewer.tokenizer.look import Usage, count_usage

DOCUMENT_CHARACTERS = 1_000_000
"""Default maximum characters of a document."""


@dataclass(frozen=True)
class Corpus:
    """How often a tokenizer's tokens occur in documents of a run."""

    usage: Usage
    by_language: dict[str, tuple[int, float]]
    """{detected language: (documents, bytes per token)}, by descending number of documents."""
    documents: int
    """Total number of documents; usage.texts of them were read."""


def read_corpus(folder: Path, tokenizer: Tokenizer, documents: int, characters: int) -> Corpus:
    """Count tokens in about `documents` documents of documents/ (`folder`), in at most `characters` of each. Raises
    InputError if there are no documents."""
    files = document_files(folder)
    texts: dict[str, list[str]] = defaultdict(list)
    for text, language in sampled(files, documents):
        texts[language or "unknown"].append(text[:characters])
    total = Usage(np.zeros(tokenizer.vocab_size, np.int64), 0, 0)
    rates = {}
    for language in sorted(texts, key=lambda name: (-len(texts[name]), name)):
        usage = count_usage(texts[language], tokenizer)
        rates[language] = usage.texts, usage.bytes_per_token
        total += usage
    return Corpus(total, rates, sum(file.rows for file in files))


def read_corpora(workdir: str, tokenizers: list[Tokenizer], documents: int) -> list[Corpus]:
    """Count each tokenizer's tokens in about `documents` documents of a run. Raises UsageError if `documents` is not
    positive, InputError if the run has no documents."""
    if documents < 1:
        raise UsageError(f"--documents is {documents}; it must be at least 1.")
    folder = RunPaths(Path(workdir).expanduser()).documents
    return [read_corpus(folder, tokenizer, documents, DOCUMENT_CHARACTERS) for tokenizer in tokenizers]


def sampled(files: list[DocumentFile], documents: int) -> list[tuple[str, str]]:
    """Return (text, language) of the first documents of each file, about equally many, `documents` in total. If there
    are more than `documents` files, take one document from each of `documents` files spread over the corpus."""
    files = [file for file in files if file.rows]
    if len(files) > documents:
        files = [files[len(files) * i // documents] for i in range(documents)]
    rows: list[tuple[str, str]] = []
    for number, file in enumerate(
        sorted(files, key=lambda file: file.rows)
    ):  # smallest first: the others make up for it
        share = -(-(documents - len(rows)) // (len(files) - number))
        taken = 0
        for batch in read_batches(file.path, ["text", "language"], min(256, max(1, share))):
            some = batch.slice(0, share - taken)
            rows += zip(some.column("text").to_pylist(), some.column("language").to_pylist(), strict=True)
            taken += some.num_rows
            if taken >= share:
                break
    return rows
