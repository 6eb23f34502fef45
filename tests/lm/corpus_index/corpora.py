"""Small corpora as run folders with an index, and a naive search in them."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lm.corpus_index.build import build_index
from lm.corpus_index.index import CorpusIndex, Document, Spot
from tests.lm.shard_files import FINGERPRINT, Stream, write_tokens

HEAD = 0
Documents = Sequence[Sequence[int]]


def stream_of(documents: Documents, first: int) -> Stream:
    """Each document after a head; document numbers begin at `first`."""
    tokens = [token for document in documents for token in (HEAD, *document)]
    owners = [first + number for number, document in enumerate(documents) for _ in range(1 + len(document))]
    return np.array(tokens, np.int64), np.array(owners, np.int64)


def write_run(
    run: Path,
    train: Documents,
    val: Documents = (),
    length: int = 8,
    dtype: str = "uint16",
    site: str = "a.example",
    fingerprint: str = FINGERPRINT,
) -> Path:
    """Write a run folder with only shards, two of them of the training split, and the table of documents."""
    (run / "tokens").mkdir(parents=True)
    half = len(train) // 2
    streams = {"train": [stream_of(train[:half], 0), stream_of(train[half:], half)]}
    streams["val"] = [stream_of(val, len(train))]
    write_tokens(run / "tokens", streams, length, dtype, fingerprint)
    names = [{"id": f"<urn:{n}>", "url": f"https://{site}/{n}"} for n in range(len(train) + len(val))]
    pq.write_table(pa.Table.from_pylist(names), run / "tokens/documents.parquet", row_group_size=3)
    return run


def indexed(run: Path, part_tokens: int = 2**25) -> CorpusIndex:
    build_index(run / "tokens", run / "corpus_index", part_tokens=part_tokens)
    return CorpusIndex(run)


def naive_places(documents: Documents, passage: Sequence[int]) -> list[tuple[int, int]]:
    """(document, offset) of each occurrence of the passage."""
    wanted, length = list(passage), len(passage)
    return [
        (number, offset)
        for number, document in enumerate(documents)
        for offset in range(len(document) - length + 1)
        if list(document[offset : offset + length]) == wanted
    ]


def occurrences(index: CorpusIndex, passage: Sequence[int], split: str | None = None) -> Iterator[tuple[Document, int]]:
    """Yield (document, offset) of each occurrence that the index finds."""
    for part, low, high in index.find(passage, split).ranges:
        for position in part.positions[low:high]:
            own = index.document_at(Spot(part, position))
            assert own.begin <= position and position + len(passage) <= own.end
            yield own, position - own.begin
