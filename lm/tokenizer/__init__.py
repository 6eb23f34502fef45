"""Text <-> token ids: byte-level BPE (Sennrich 2016, arXiv:1508.07909; on bytes: Radford 2019). No jax here."""

from lm.tokenizer.bpe import train_bpe
from lm.tokenizer.encoding import Tokenizer
from lm.tokenizer.files import load, save

__all__ = ["Tokenizer", "load", "save", "train_bpe"]
