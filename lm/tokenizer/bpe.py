"""Training a byte-level BPE vocabulary.

The contract is the naive algorithm (Sennrich 2016, arXiv:1508.07909): cut the texts into pieces; start from single
bytes; as often as symbols are wanted, join the most frequent pair of neighbours everywhere, from left to right; of
equally frequent pairs, the one with the smallest (first id, second id). rustbpe computes this with a heap, in parallel;
the outcome depends on the counts alone, so neither threads nor the order of the texts can change it.
"""

from collections.abc import Iterable, Iterator

from lm.config import TokenizerConfig
from lm.errors import UsageError
from lm.tokenizer.encoding import BytePairTokenizer, numbered, sections
from lm.tokenizer.patterns import SPLIT_PATTERNS

TEXTS_AT_ONCE = 256  # held in memory by rustbpe while it counts pieces; changes nothing else


class TrainingText:
    """The texts up to a bound of characters (the last one cut there), counting on the way what was looked at."""

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


def train_bpe(texts: Iterable[str], config: TokenizerConfig) -> BytePairTokenizer:
    """A vocabulary of exactly config.vocabulary_size symbols: 256 bytes, merges, and the special tokens as the last.

    Raises UsageError when the texts hold too few pairs for that many merges, or the split pattern is no expression.
    """
    import rustbpe

    mergeable = config.vocabulary_size - len(config.special_tokens)
    pattern = SPLIT_PATTERNS.get(config.split_pattern, config.split_pattern)
    training = TrainingText(texts, config.train_characters)
    trainer = rustbpe.Tokenizer()  # ty: ignore[missing-attribute]
    try:
        trainer.train_from_iterator(iter(training), mergeable, TEXTS_AT_ONCE, pattern)
    except ValueError as error:
        if pattern in SPLIT_PATTERNS.values() or "egex" not in str(error):
            raise
        raise UsageError(f"tokenizer.split_pattern is {pattern!r}, which is no expression: {error}.") from error
    tokens = tuple(bytes(token) for token, _ in sorted(trainer.get_mergeable_ranks(), key=lambda pair: pair[1]))
    if len(tokens) < mergeable:
        raise UsageError(
            f"tokenizer.vocabulary_size = {config.vocabulary_size} asks for {mergeable - 256} merges, but "
            f"{training.characters} characters in {training.documents} documents hold only {len(tokens) - 256}. "
            f"Set it to {len(tokens) + len(config.special_tokens)} or less, or train on more text."
        )
    special = numbered(tokens, config.special_tokens)
    tokenizer = BytePairTokenizer(
        pattern, tokens, special_tokens=special, documents=training.documents, characters=training.characters
    )
    if pattern not in SPLIT_PATTERNS.values():
        check_pattern(tokenizer)
    return tokenizer


def check_pattern(tokenizer: BytePairTokenizer) -> None:
    """Raises UsageError where the split pattern leaves out text, which no token would then stand for."""
    probe = "".join(f"a{chr(c)}b {chr(c)}1{chr(c)}\n{chr(c)}" for c in (*range(0x300), *range(0x300, 0xD800, 97)))
    if tokenizer.decode(tokenizer.encode(probe)) == probe:
        return
    left_out = [repr(c) for c in sorted(set(probe)) if tokenizer.decode(tokenizer.encode(c)) != c]
    raise UsageError(
        f"tokenizer.split_pattern is {tokenizer.pattern!r}, which leaves out {' '.join(left_out[:8]) or 'some text'}: "
        "no token would stand for it. End it with an alternative for all the rest, as |\\s+|."
    )
