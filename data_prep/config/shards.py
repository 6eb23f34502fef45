"""Config of token shards."""

from dataclasses import dataclass
from typing import Literal

from lm.fields import Config, not_hashed, within


@dataclass(frozen=True)
class ShardsConfig(Config):
    """Tokenization of documents into fixed-length records."""

    record_length: int
    """Tokens per record; at least the longest training context. Contexts that divide it are read fastest."""
    token_dtype: Literal["uint16", "uint32"]
    """Type of stored token ids: uint16 is enough for vocabularies of up to 65,536 symbols."""
    train_shards: int
    """Minimum number of files of the training split: fewer if there are fewer document files, more if files would
    exceed shard_bytes. Each document file is encoded separately, however many shards there are."""
    validation_fraction: float
    """Share of documents, or of the characters of each, to hold out (0 to 1, exclusive), up to validation_tokens."""
    held_out: Literal["documents", "ends"] = "documents"
    """What to hold out: whole documents, by a hash of their URL, or the last characters of every document, as is common
    for a corpus of a few long texts. The two parts of document n are then rows 2n and 2n + 1 of tokens/documents/."""
    shard_bytes: int = 1_000_000_000
    """Maximum bytes per file. Documents are not split: a larger one makes a larger file."""
    validation_tokens: int = 100_000_000
    """Approximate maximum of held-out tokens; the tokens of the corpus are estimated from a sample. Larger corpora hold
    out a smaller share of documents."""
    held_out_index: tuple[str, ...] = ()
    """Paths or URLs of held_out_keys.parquet of other runs, whose documents are not trained on (only if held_out =
    documents)."""
    repeat_documents: bool = False
    """Repeat each training document as often as the column repeat of documents/ says
    (documents.minhash.upsampling_weights). The copies are spread over the shards of its file. Held-out documents are
    not repeated."""
    packing: Literal["concatenate", "best_fit"] = "concatenate"
    """How training records are filled: with one stream of all documents, cut every record_length tokens, or best_fit
    (Ding et al. 2024, arXiv:2404.10830): each record with whole documents, so that only documents longer than a record
    are split; space that no document fits is padded. model.context_length must divide record_length."""
    encoder: Literal["tiktoken", "gigatoken"] = not_hashed(default="tiktoken")
    """Encoder of byte-level BPE. gigatoken, installed separately, is several times faster and gives the same ids;
    tokenizers that it does not support are refused."""

    def check_values(self):
        within(self, "shards", 0, 1, "validation_fraction", above=True, below=True)
        within(self, "shards", 1, 2**26, "record_length")
        within(self, "shards", 1, 99_999, "train_shards")
        within(self, "shards", 2**20, 2**50, "shard_bytes")
        within(self, "shards", 1, 2**50, "validation_tokens")
