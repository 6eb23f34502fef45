"""Documents that are drawn by a hash, read without the rest: first ids alone, then the row groups that are hit."""

import hashlib
from collections.abc import Iterator

import numpy as np

from data_prep.parquet import check_columns, opened
from data_prep.shards.tokenize import DOCUMENTS_AT_ONCE, DocumentFile, read_texts


def sample_texts(files: list[DocumentFile], characters: int) -> Iterator[str]:
    """About `characters` characters of text, or all where there are no more: whole documents, drawn by the hash of
    their ids, so that every part of the corpus has its share and the order of the files none.

    How large a share is asked of the files' indices, which count bytes: text in other scripts than Latin gives fewer
    characters. Raises InputError as `read_batches`.
    """
    text_bytes = sum(file.text_bytes for file in files)
    share = characters / text_bytes if text_bytes else 1
    if share >= 1:
        yield from read_texts(files)
        return
    none = True
    for file in files:
        for text in drawn_texts(file, share):
            none = False
            yield text
    if none:  # a few large documents: who reads takes as much of the first as it wants
        yield from read_texts(files)


def position(id: str, purpose: bytes) -> float:
    """Where in [0, 1) the hash of a document's id lies, another place for each purpose."""
    return int.from_bytes(hashlib.blake2b(id.encode(), digest_size=8, key=purpose).digest(), "big") / 2**64


def drawn_texts(file: DocumentFile, share: float) -> Iterator[str]:
    """The texts of a file whose ids lie below `share`, in order; of other row groups than theirs no text is read."""
    with opened(file.path) as table:
        check_columns(table, file.path, ["id", "text"])
        for group in range(table.num_row_groups):
            ids = table.read_row_group(group, ["id"])["id"].to_pylist()
            hit = np.flatnonzero([position(id, b"tokenizer") < share for id in ids])
            if not len(hit):
                continue
            first = 0
            for batch in table.iter_batches(DOCUMENTS_AT_ONCE, row_groups=[group], columns=["text"]):
                rows = hit[(first <= hit) & (hit < first + len(batch))] - first
                yield from batch["text"].take(rows).to_pylist()
                first += len(batch)
