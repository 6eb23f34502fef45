"""Decide the number of training shards and the held-out fraction from document sizes and a sample, independently of the
number of workers."""

import math
from collections.abc import Sequence

from data_prep.config import ShardsConfig
from data_prep.parquet import read_batches
from data_prep.shards.tokenize import PACKED_AT_ONCE, DocumentFile, Encode
from lm.data.records import DTYPES, record_bytes

SAMPLED_FILES, SAMPLED_DOCUMENTS = 16, 32
"""Number of evenly spaced files, and of the first documents of each, used to estimate the tokens per byte of text."""
MARGIN = 1.1
"""Factor by which the number of tokens is overestimated, so that shards and validation stay below their limits."""
BYTES_A_RECORD = 80
"""Overhead of ArrayRecord per record in its own chunk; 67 to 75 bytes were measured."""
BYTES_A_FILE = 2**18
"""Overhead of ArrayRecord per file, which it pads to blocks of 64 KiB; 128 KiB were measured."""


def estimated_tokens(files: Sequence[DocumentFile], encode: Encode) -> int:
    """Return an estimate, increased by MARGIN, of the number of tokens in the documents. Raises as `read_batches`
    does."""
    tokens, text_bytes = 0, 0
    for file in files[:: -(-len(files) // SAMPLED_FILES)]:
        for rows in read_batches(file.path, ["text"], SAMPLED_DOCUMENTS):
            for text in rows.column("text").to_pylist():
                tokens += 1 + len(encode(text))
                text_bytes += len(text.encode())
            break
    return round(MARGIN * sum(file.text_bytes for file in files) * tokens / max(text_bytes, 1))


def held_out_fraction(tokens: int, config: ShardsConfig) -> float:
    """Return the share of documents to hold out: config.validation_fraction, reduced if it would hold out more than
    config.validation_tokens of `tokens`. A reduced share is the original one divided by the smallest sufficient power
    of 2^(1/4), so that a corpus that grows slightly holds out the same documents."""
    asked, most = config.validation_fraction, config.validation_tokens / max(tokens, 1)
    return asked if asked <= most else asked * 2 ** (-math.ceil(4 * math.log2(asked / most)) / 4)


def shard_count(files: int, tokens: int, config: ShardsConfig, least: int) -> int:
    """Return the number of groups into which `files` document files are divided to write a split of `tokens` tokens: at
    least `least`, at most `files`. A group is one shard, or several if it is too large."""
    size = tokens * DTYPES[config.token_dtype]
    return min(max(least, -(-size // config.shard_bytes)), files)


def most_bytes(tokens: int, documents: int, config: ShardsConfig) -> int:
    """Return an upper bound on the bytes of a shard of this number of tokens and documents, even if incompressible."""
    records = max(-(-(tokens - 1) // config.record_length), 0)
    if config.packing == "best_fit":  # of two records that are packed together, one is more than half full
        records = 2 * records + tokens // PACKED_AT_ONCE + 1
    empty = record_bytes(config.record_length, config.token_dtype, 0)
    # A document that continues in another record has a segment there too.
    segments = record_bytes(0, config.token_dtype, documents + records) - record_bytes(0, config.token_dtype, 0)
    size = records * (empty + BYTES_A_RECORD) + segments
    return size + size // 1000 + BYTES_A_FILE
