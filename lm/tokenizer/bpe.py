"""Training a byte-level BPE vocabulary.

The contract is the naive algorithm (Sennrich 2016, arXiv:1508.07909): cut the texts into pieces; start from single
bytes; as often as symbols are wanted, join the most frequent pair of neighbours everywhere, from left to right; of
equally frequent pairs, the one with the smallest (first id, second id). rustbpe computes this with a heap, in parallel;
the outcome depends on the counts alone, so neither threads nor the order of the texts can change it.
"""

from collections.abc import Iterable, Iterator

from lm.config import TokenizerConfig
from lm.errors import UsageError
from lm.tokenizer.encoding import END_OF_TEXT, Tokenizer, sections

# The split patterns of GPT-2 (openai/gpt-2: src/encoder.py), of GPT-4 and of GPT-4o (openai/tiktoken:
# tiktoken_ext/openai_public.py), written without possessive quantifiers, which change no match: to the regular
# expressions of Hugging Face's tokenizers (Oniguruma), {1,3}+ would not be possessive but a repetition.
SPLIT_PATTERNS = {
    "gpt2": r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "cl100k": (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
    "o200k": (
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
        r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
        r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
}
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


def train_bpe(texts: Iterable[str], config: TokenizerConfig) -> Tokenizer:
    """A vocabulary of exactly config.vocabulary_size symbols: 256 bytes, merges, and <|endoftext|> as the last.

    Raises UsageError when the texts hold too few pairs for that many merges.
    """
    import rustbpe

    mergeable = config.vocabulary_size - 1
    pattern = SPLIT_PATTERNS[config.split_pattern]
    training = TrainingText(texts, config.train_characters)
    trainer = rustbpe.Tokenizer()  # ty: ignore[missing-attribute]
    trainer.train_from_iterator(iter(training), mergeable, TEXTS_AT_ONCE, pattern)
    tokens = tuple(bytes(token) for token, _ in sorted(trainer.get_mergeable_ranks(), key=lambda pair: pair[1]))
    if len(tokens) < mergeable:
        raise UsageError(
            f"tokenizer.vocabulary_size = {config.vocabulary_size} asks for {mergeable - 256} merges, but "
            f"{training.characters} characters in {training.documents} documents hold only {len(tokens) - 256}. "
            f"Set it to {len(tokens) + 1} or less, or train on more text."
        )
    return Tokenizer(pattern, tokens, (END_OF_TEXT,), training.documents, training.characters)
