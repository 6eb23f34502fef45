"""Knobs of the token shards."""

from dataclasses import dataclass
from typing import Literal

from lm.errors import UsageError
from lm.fields import Config, not_hashed, within


@dataclass(frozen=True)
class ShardsConfig(Config):
    """From documents to fixed-length token records."""

    record_length: int
    """Tokens in a record; at least the longest context to be trained on. Contexts that divide it are read fastest."""
    token_dtype: Literal["uint16", "uint32"]
    """Type of a stored token id: uint16 holds vocabularies up to 65,536 symbols."""
    train_shards: int
    """Files of the training split, at least: fewer where there are fewer document files, more where they would be
    larger than shard_bytes. Document files are encoded each by itself, however many shards there are."""
    validation_fraction: float
    """Share of the documents, or of each one's characters, that is held out (0 to 1, both excluded); less where that
    would be more than validation_tokens."""
    held_out: Literal["documents", "ends"] = "documents"
    """What is held out: whole documents, chosen by a hash of their URL, or the last characters of every document, as is
    usual where the corpus is a single text, or a few long ones. A document's two parts are documents of their own
    then: rows 2n and 2n + 1 of documents/."""
    shard_bytes: int = 1_000_000_000
    """Bytes that a file has at most. A document is never divided: one that is larger makes a larger file."""
    validation_tokens: int = 100_000_000
    """Tokens that are held out, at most about: how many a corpus has is estimated from a sample. A larger corpus holds
    out a smaller share of its documents."""
    held_out_index: tuple[str, ...] = ()
    """held_out_keys.parquet of other runs, paths or addresses: what these hold out is not trained on here either."""
    repeat_documents: bool = False
    """Whether a document that is trained on stands in the stream as often as the column repeat of documents/ says
    (documents.minhash.upsampling_weights), its copies spread over the shards that its file goes into. What is held out
    is never repeated."""
    encoder: Literal["tiktoken", "gigatoken"] = not_hashed(default="tiktoken")
    """What encodes with byte-level BPE. gigatoken, to be installed besides, is several times as fast; the ids are the
    same, and a tokenizer that it cannot encode with is refused."""

    def __post_init__(self):
        super().__post_init__()
        if not 0 < self.validation_fraction < 1:
            raise UsageError(
                f"shards.validation_fraction is {self.validation_fraction}; it must lie between 0 and 1, both excluded."
            )
        within(self, "shards", 1, 2**26, "record_length")
        within(self, "shards", 1, 99_999, "train_shards")
        within(self, "shards", 2**20, 2**50, "shard_bytes")
        within(self, "shards", 1, 2**50, "validation_tokens")
