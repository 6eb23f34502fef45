"""Reference writer of shards, and a naive reference for their windows."""

import hashlib
from pathlib import Path

import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter  # ty: ignore[import-not-found]

from lm.data.records import DocumentTable, Manifest, SequenceRecord, Shard, Split, to_bytes

LENGTH = 24  # of a record
TABLE = DocumentTable("documents.parquet", 0, 0, "")
"""Table of documents that tests write next to the shards, if they read one."""
FINGERPRINT = "ab" * 32
Stream = tuple[np.ndarray, np.ndarray]
"""(tokens, the document of each token) of one shard."""


def random_stream(seed: int, size: int, first_token: int, first_document: int) -> Stream:
    """Unique tokens, in documents of 1 to 20 tokens."""
    generator = np.random.default_rng(seed)
    documents = np.repeat(np.arange(size), generator.integers(1, 20, size))[:size]
    return first_token + np.arange(size), first_document + documents


# Streams end within a window, at the end of a record, and one token into a record; one shard is empty.
STREAMS = [
    random_stream(0, 5 * LENGTH + 1 + 11, 1, 0),
    random_stream(1, 4 * LENGTH + 1, 1000, 200),
    (np.zeros(0, np.int64), np.zeros(0, np.int64)),
    random_stream(2, 3 * LENGTH + 2, 2000, 400),
]


def write_split(folder: Path, name: str, streams: list[Stream], length: int, dtype: str) -> Split:
    shards = []
    for i, (tokens, documents) in enumerate(streams):
        path = folder / f"{name}-{i:05d}-of-{len(streams):05d}.array_record"
        writer = ArrayRecordWriter(str(path), "group_size:1")
        starts = range(0, max(len(tokens) - 1, 0), length)
        for start in starts:
            part, owners = tokens[start : start + length + 1], documents[start : start + length + 1]
            segments = np.flatnonzero(np.diff(owners, prepend=-1))
            padded = np.pad(part, (0, length + 1 - len(part))).astype(dtype)
            writer.write(to_bytes(SequenceRecord(padded, len(part), segments, owners[segments])))
        writer.close()
        data = path.read_bytes()
        count = len(set(documents.tolist()))
        digest = hashlib.sha256(data).hexdigest()
        shards.append(Shard(path.name, len(starts), len(data), digest, count, len(tokens), 4 * len(tokens)))
    sums = [sum(getattr(s, field) for s in shards) for field in ("documents", "tokens", "text_bytes", "records")]
    return Split(*sums, tuple(shards))


def write_tokens(
    folder: Path, splits: dict[str, list[Stream]], length: int = LENGTH, dtype="uint16", fingerprint=FINGERPRINT
) -> Path:
    """Write the shards of each split and their manifest to `folder`, and return it."""
    written = {name: write_split(folder, name, streams, length, dtype) for name, streams in splits.items()}
    vocab_size = {"uint16": 4096, "uint32": 2**31}[dtype]
    manifest = Manifest(fingerprint, vocab_size, length, dtype, written, (TABLE,))
    (folder / "manifest.json").write_text(manifest.to_json())
    return folder


def same(a, b) -> bool:
    return all(x.dtype == y.dtype and np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def naive_rows(streams: list[Stream], context: int) -> dict[int, tuple]:
    """{first token: (inputs, targets, segment ids, weights, documents)} of every window with a target."""
    rows = {}
    for tokens, documents in streams:
        for start in range(0, len(tokens) - 1, context):
            inputs, targets, segments, weights, seen = [], [], [], [], []
            for position in range(start, start + context):
                real = position < len(tokens)
                if real and documents[position] not in seen:
                    seen.append(documents[position])
                inputs.append(tokens[position] if real else 0)
                segments.append(len(seen) if real else 0)
                weights.append(float(position + 1 < len(tokens)))
                targets.append(tokens[position + 1] if weights[-1] else 0)
            rows[int(tokens[start])] = (inputs, targets, segments, weights, set(seen))
    return rows
