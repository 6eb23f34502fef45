"""The tokenizer that a config asks for: trained, or loaded."""

from collections.abc import Iterable

from lm.config import TokenizerConfig
from lm.errors import UsageError
from lm.tokenizer.base import Tokenizer
from lm.tokenizer.bpe import train_bpe
from lm.tokenizer.characters import train_characters
from lm.tokenizer.sentencepiece import train_sentencepiece


def train_tokenizer(texts: Iterable[str], config: TokenizerConfig) -> Tokenizer:
    """A tokenizer of config.vocab_size symbols, trained on the texts by config.algorithm; of config.load, where
    that is not empty, and then no text is read.

    Raises UsageError when the texts, or what is loaded, do not give just so many symbols, and as load_published.
    """
    if config.load:
        return load_tokenizer(config)
    if config.algorithm == "bpe":
        return train_bpe(texts, config)
    if config.algorithm == "characters":
        return train_characters(texts, config)
    return train_sentencepiece(texts, config)


def load_tokenizer(config: TokenizerConfig) -> Tokenizer:
    """The published vocabulary config.load. Raises UsageError when it has not config.vocab_size symbols, and as
    load_published."""
    from lm.tokenizer.published import load_published

    tokenizer = load_published(config.load)
    if tokenizer.vocab_size != config.vocab_size:
        raise UsageError(
            f"tokenizer.load = {config.load!r} has {tokenizer.vocab_size} symbols, but tokenizer.vocab_size "
            f"is {config.vocab_size}. Set it to {tokenizer.vocab_size}, and model.vocab_size to at least that."
        )
    return tokenizer
