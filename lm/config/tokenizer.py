"""How the vocabulary is made or which one is loaded."""

from dataclasses import dataclass
from typing import Literal

from lm.errors import UsageError
from lm.fields import Config, positive

END_OF_TEXT = "<|endoftext|>"
"""The special token that heads every document."""


@dataclass(frozen=True)
class TokenizerConfig(Config):
    """The vocabulary: trained on the run's documents, or loaded."""

    vocab_size: int
    """Symbols in all, special tokens included. A loaded vocabulary must have just as many."""
    split_pattern: str
    """How text is cut before merging: gpt2, cl100k, o200k, or a regular expression of your own that leaves nothing
    out; merges never cross a cut. Of bpe alone."""
    train_characters: int
    """Upper bound on the characters of text to train on: a sample of the documents, where they have more (at most 700
    million)."""
    algorithm: Literal["bpe", "sentencepiece_bpe", "sentencepiece_unigram", "characters"] = "bpe"
    """Byte-level BPE, sentencepiece's BPE or unigram model with byte fallback, or one symbol a character."""
    load: str = ""
    """A published vocabulary in place of a trained one: gpt2, cl100k, o200k, llama3, or the path of a .tiktoken file, a
    tokenizer.json, a sentencepiece .model, or a tokenizer's folder; the folder may be in a bucket (s3://, gs://)."""
    special_tokens: tuple[str, ...] = ("<|endoftext|>",)
    """Names of symbols that stand for no text, <|endoftext|> among them. Of bpe alone."""
    allow_fewer: bool = False
    """Accept fewer than vocab_size symbols if the texts hold no more (bpe and characters). Without it such texts are
    refused."""

    def __post_init__(self):
        super().__post_init__()
        names = self.special_tokens
        if END_OF_TEXT not in names or len(set(names)) < len(names) or not all(names):
            raise UsageError(
                f"tokenizer.special_tokens is {', '.join(map(repr, names)) or 'empty'}; give {END_OF_TEXT!r}, which "
                "heads every document, and each other name once."
            )
        if odd := [name for name in names if not name.isprintable()]:
            raise UsageError(f"tokenizer.special_tokens has {odd[0]!r}; names must be of printable characters.")
        if names != (END_OF_TEXT,) and (self.load or self.algorithm != "bpe"):
            what = f"load = {self.load!r}" if self.load else f"algorithm = {self.algorithm}"
            raise UsageError(
                f"tokenizer.special_tokens is {', '.join(names)}, but tokenizer.{what} has its own. Leave one out."
            )
        if self.load and self.algorithm != "bpe":
            raise UsageError(
                f"tokenizer.load = {self.load!r} is trained already, but tokenizer.algorithm is {self.algorithm}. "
                "Leave one out."
            )
        if self.allow_fewer and (self.load or self.algorithm not in ("bpe", "characters")):
            what = f"load = {self.load!r}" if self.load else f"algorithm = {self.algorithm}"
            raise UsageError(
                f"tokenizer.allow_fewer is True, but tokenizer.{what} has exactly vocab_size symbols. Set it to False."
            )
        least = 256 + len(names)
        if self.algorithm == "bpe" and not self.load and self.vocab_size < least:
            raise UsageError(
                f"tokenizer.vocab_size is {self.vocab_size}, but 256 bytes and {len(names)} special tokens "
                f"alone need {least}. Set it to {least} or more."
            )
        positive(self, "tokenizer", "vocab_size", "train_characters")
        if self.train_characters > 700_000_000:  # it counts in 32 bits; a pair occurs at most 3 times a character
            raise UsageError(
                f"tokenizer.train_characters is {self.train_characters:,}, but the trainer can count pairs in at most "
                "700,000,000 characters. Lower it: a sample of the documents makes as good a vocabulary."
            )
