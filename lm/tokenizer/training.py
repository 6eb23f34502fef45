"""Train or load the tokenizer of a config."""

from collections.abc import Iterable

from lm.config import TokenizerConfig
from lm.errors import UsageError
from lm.tokenizer.base import Tokenizer
from lm.tokenizer.bpe import train_bpe
from lm.tokenizer.characters import train_characters
from lm.tokenizer.sentencepiece import train_sentencepiece


def train_tokenizer(texts: Iterable[str], config: TokenizerConfig) -> Tokenizer:
    """Return a tokenizer of config.vocab_size symbols: trained on the texts by config.algorithm or, if config.load is
    set, loaded without reading any text. Raises UsageError if the texts, or the loaded vocabulary, do not give that
    many symbols, and the errors of `load_published`."""
    if config.load:
        return load_tokenizer(config)
    if config.algorithm == "bpe":
        return train_bpe(texts, config)
    if config.algorithm == "characters":
        return train_characters(texts, config)
    return train_sentencepiece(texts, config)


def load_tokenizer(config: TokenizerConfig) -> Tokenizer:
    """Load the tokenizer that config.load names. Raises UsageError if it does not have config.vocab_size symbols, and
    the errors of `load_published`."""
    from lm.tokenizer.published import load_published

    tokenizer = load_published(config.load)
    if tokenizer.vocab_size != config.vocab_size:
        raise UsageError(
            f"tokenizer.load = {config.load!r} has {tokenizer.vocab_size} symbols, but tokenizer.vocab_size "
            f"is {config.vocab_size}. Set that to {tokenizer.vocab_size}, and model.vocab_size to that or more."
        )
    return tokenizer
