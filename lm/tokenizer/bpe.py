"""Train a byte-level BPE vocabulary.

The result is that of the naive algorithm (Sennrich 2016, arXiv:1508.07909): cut the texts into pieces, start from
single bytes, and repeatedly merge the most frequent pair of neighbors everywhere, from left to right. Ties go to the
pair with the smallest (first id, second id). rustbpe computes this with a heap, in parallel; the result depends only on
the counts, not on the threads or the order of the texts.
"""

import itertools
from collections.abc import Iterable, Iterator

from lm.config import END_OF_TEXT, TokenizerConfig
from lm.errors import UsageError, shown
from lm.tokenizer.encoding import BytePairTokenizer, no_panic, numbered, sections
from lm.tokenizer.pattern_cost import runs_of
from lm.tokenizer.patterns import SPLIT_PATTERNS

TEXTS_AT_ONCE = 256  # texts that rustbpe holds in memory while it counts pieces; does not affect the result


class TrainingText:
    """Iterator over texts up to `limit` characters in total; it truncates the last text. `documents` and `characters`
    count what was read."""

    def __init__(self, texts: Iterable[str], limit: int):
        self.texts, self.limit = texts, limit
        self.documents = self.characters = 0

    def __iter__(self) -> Iterator[str]:
        for text in self.texts:
            text = text[: self.limit - self.characters]
            self.documents += 1
            self.characters += len(text)
            yield from sections(text)
            if self.characters >= self.limit:
                return

    def check(self, config: TokenizerConfig) -> None:
        """Raise UsageError if the texts had no characters."""
        if not self.characters:
            raise UsageError(
                f"tokenizer.train_characters is {config.train_characters:,}, which gave {self.documents} documents "
                "without text. Raise tokenizer.train_characters, or prepare documents with text."
            )


def train_bpe(texts: Iterable[str], config: TokenizerConfig) -> BytePairTokenizer:
    """Train a vocabulary of config.vocab_size symbols: 256 bytes, merges, and the special tokens last. With
    config.allow_fewer it is smaller if the texts have too few pairs for that many merges. Raises UsageError if the
    texts are empty or, without allow_fewer, have too few pairs, and if the split pattern is invalid."""
    import rustbpe

    mergeable = config.vocab_size - len(config.special_tokens)
    pattern = SPLIT_PATTERNS.get(config.split_pattern, config.split_pattern)
    check_pattern(pattern, "tokenizer.split_pattern")
    training = TrainingText(texts, config.train_characters)
    trainer = rustbpe.Tokenizer()  # ty: ignore[missing-attribute]
    with no_panic(f"tokenizer.split_pattern is {pattern!r}, which fails on the texts"):
        trainer.train_from_iterator(iter(training), mergeable, TEXTS_AT_ONCE, pattern)
    tokens = tuple(bytes(token) for token, _ in sorted(trainer.get_mergeable_ranks(), key=lambda pair: pair[1]))
    if len(tokens) < mergeable:
        training.check(config)
    if len(tokens) < mergeable and not config.allow_fewer:
        most = len(tokens) + len(config.special_tokens)
        raise UsageError(
            f"tokenizer.vocab_size = {config.vocab_size} asks for {mergeable - 256} merges, but "
            f"{training.characters} characters in {training.documents} documents hold only {len(tokens) - 256}. "
            f"Set vocab_size to {most} or less (--tokenizer.vocab-size {most} --model.vocab-size {most}), or train on "
            "more text."
        )
    special = numbered(tokens, config.special_tokens)
    return BytePairTokenizer(
        pattern, tokens, special_tokens=special, documents=training.documents, characters=training.characters
    )


def check_pattern(pattern: str, what: str) -> None:
    """Raise UsageError if a custom split pattern is invalid, or skips a character, which would have no token. `what`
    names the pattern in the message. Characters skipped only in some contexts are found when a text is encoded."""
    if pattern in SPLIT_PATTERNS.values():
        return
    tokens = tuple(bytes([byte]) for byte in range(256))
    names = f"Give one of {', '.join(SPLIT_PATTERNS)}, or an expression"
    try:
        runs_of(pattern)
    except ValueError as error:
        raise UsageError(f"{what} is {shown(pattern)}: {error}. {names} without this fault.") from error
    byte_tokenizer = BytePairTokenizer(pattern, tokens, special_tokens=numbered(tokens, (END_OF_TEXT,)))
    try:
        with no_panic(f"{what} is {pattern!r}, which splits no text. {names}"):
            left_out = list(itertools.islice(left_out_by(byte_tokenizer), 8))
    except ValueError as error:
        raise UsageError(f"{what} is {pattern!r}, which is not a regular expression: {error}. {names}.") from error
    if left_out:
        raise UsageError(
            f"{what} is {pattern!r}, which does not match {' '.join(map(repr, left_out))}, so that text would be "
            f"lost. {names} that ends with an alternative for everything else, such as |\\s+|."
        )


def left_out_by(byte_tokenizer: BytePairTokenizer) -> Iterator[str]:
    """Yield the characters that a split pattern skips, by themselves or next to a letter, a digit or white space.
    `byte_tokenizer` has this pattern and only the 256 bytes as tokens: text that is not skipped gives a token per
    byte."""
    encode = byte_tokenizer._encoding.encode_ordinary
    for first in range(0, 0x110000, 0x80):
        characters = [chr(c) for c in range(first, first + 0x80) if not 0xD800 <= c < 0xE000]
        probe = "".join(f"a{c}b {c}1{c}\n{c}" for c in characters)
        skipped = [c for c in characters if first == 0 and encode(c) != [ord(c)]]
        if skipped or len(encode(probe)) < len(probe.encode()):
            yield from skipped or [c for c in characters if not encode(c)] or characters
