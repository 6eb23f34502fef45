"""Configuration of the tokenizer."""

from dataclasses import dataclass
from typing import Literal

from lm.errors import UsageError
from lm.fields import Config, positive

END_OF_TEXT = "<|endoftext|>"
"""Special token at the beginning of every document."""
CHAT_TOKENS = ("<|system|>", "<|user|>", "<|assistant|>", "<|call|>", "<|tool|>", "<|end|>")
"""Special tokens of the chat template gristmill."""
SPECIAL_TOKENS = (END_OF_TEXT, *CHAT_TOKENS)
"""Special tokens of a BPE that the shipped configs train. Those of the chat are reserved, so that finetuning appends no
rows to the model."""


@dataclass(frozen=True)
class TokenizerConfig(Config):
    """Tokenizer, trained on the documents of the run or loaded."""

    vocab_size: int
    """Vocabulary size, including special tokens. A loaded tokenizer must have exactly this size."""
    split_pattern: str
    """Pre-tokenization of BPE: gpt2, cl100k, o200k, or your regular expression, which must match every character.
    Merges never cross a split. Only for algorithm bpe."""
    train_characters: int
    """Maximum number of characters to train on (at most 700 million); if the documents have more, a sample is used."""
    algorithm: Literal["bpe", "sentencepiece_bpe", "sentencepiece_unigram", "characters"] = "bpe"
    """Byte-level BPE, sentencepiece's BPE or unigram model with byte fallback, or one symbol per character."""
    load: str = ""
    """Published tokenizer to load instead of training one: gpt2, cl100k, o200k, llama3, or the path of a .tiktoken
    file, a tokenizer.json, a sentencepiece .model, or a tokenizer folder, which can be in a bucket (s3://, gs://)."""
    special_tokens: tuple[str, ...] = (END_OF_TEXT,)
    """Names of tokens that represent no text; must include <|endoftext|>. Only for algorithm bpe. A loaded tokenizer
    has its own; then those of our chat template, which the shipped configs reserve, are ignored."""
    allow_fewer: bool = False
    """Accept a vocabulary smaller than vocab_size if the texts do not yield more symbols (bpe and characters).
    Otherwise this is an error."""

    def check_values(self):
        names = self.special_tokens
        if END_OF_TEXT not in names or len(set(names)) < len(names) or not all(names):
            raise UsageError(
                f"tokenizer.special_tokens is {', '.join(map(repr, names)) or 'empty'}; it must have {END_OF_TEXT!r}, "
                "the first token of every document, and no name twice."
            )
        if odd := [name for name in names if not name.isprintable()]:
            raise UsageError(f"tokenizer.special_tokens has {odd[0]!r}; names must consist of printable characters.")
        what = f"load = {self.load!r}" if self.load else f"algorithm = {self.algorithm}"
        if names not in ((END_OF_TEXT,), SPECIAL_TOKENS) and (self.load or self.algorithm != "bpe"):
            raise UsageError(
                f"tokenizer.special_tokens is {', '.join(names)}, but tokenizer.{what} has its own. Remove one of them."
            )
        if self.load and self.algorithm != "bpe":
            raise UsageError(
                f"tokenizer.load = {self.load!r} is already trained, but tokenizer.algorithm is {self.algorithm}. "
                "Remove one of them."
            )
        if self.allow_fewer and (self.load or self.algorithm not in ("bpe", "characters")):
            raise UsageError(
                f"tokenizer.allow_fewer is True, but must be False: tokenizer.{what} has exactly vocab_size symbols."
            )
        least = 256 + len(names)
        if self.algorithm == "bpe" and not self.load and self.vocab_size < least:
            raise UsageError(
                f"tokenizer.vocab_size is {self.vocab_size}, but 256 bytes and {len(names)} special tokens need "
                f"{least}. Set tokenizer.vocab_size to {least} or more."
            )
        positive(self, "tokenizer", "vocab_size", "train_characters")
        if self.train_characters > 700_000_000:  # 32-bit pair counts; up to 3 pairs per character
            raise UsageError(
                f"tokenizer.train_characters is {self.train_characters:,}, but the trainer can count pairs in at most "
                "700,000,000 characters. Lower train_characters: a sample of the documents gives as good a vocabulary."
            )
