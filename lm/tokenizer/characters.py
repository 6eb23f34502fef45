"""Tokenizer with one token per character, as in classic small experiments: the loss is that per character."""

import functools
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lm.bounded import MOST_TOKENIZER_BYTES, parse_json, read_bounded
from lm.config import TokenizerConfig
from lm.errors import InputError, UsageError
from lm.storage import file_inside
from lm.tokenizer.base import Tokenizer, whole_characters
from lm.tokenizer.bpe import TrainingText

SYMBOLS = "characters.json"
SEPARATOR = "\n"


@dataclass(frozen=True)
class CharacterTokenizer(Tokenizer):
    """The characters of a text, numbered in the order of their code points. There are no special tokens: every document
    begins with a newline, so the end of a document looks like the end of a line. Raises ValueError if the symbols are
    not ascending or lack the newline."""

    kind = "characters"
    symbols: str
    """The vocabulary: characters of ids 0, 1, ..."""
    special_tokens: Mapping[str, int] = field(init=False, default_factory=dict)
    """Always empty."""

    def __post_init__(self):
        if list(self.symbols) != sorted(set(self.symbols)) or SEPARATOR not in self.symbols:
            raise ValueError(f"{self.symbols[:40]!r} is not a sorted list of characters with a newline")
        if whole_characters(self.symbols) != self.symbols:
            lone = next(one for one in self.symbols if whole_characters(one) != one)
            raise ValueError(f"symbol {lone!r} is half of a surrogate pair, which UTF-8 cannot encode")

    @property
    def vocab_size(self) -> int:
        return len(self.symbols)

    @property
    def bos_id(self) -> int:
        return self._ids[SEPARATOR]

    @property
    def _own_eos_ids(self) -> frozenset[int]:
        return frozenset()

    @functools.cached_property
    def fingerprint(self) -> str:
        return hashlib.sha256(b"gristmill characters 1\n" + self.symbols.encode()).hexdigest()

    @functools.cached_property
    def _ids(self) -> dict[str, int]:
        return {symbol: id for id, symbol in enumerate(self.symbols)}

    @functools.cached_property
    def _bytes(self) -> dict[int, bytes]:
        return {id: symbol.encode() for id, symbol in enumerate(self.symbols)}

    def settings(self) -> dict[str, object]:
        return {}

    def files(self) -> dict[str, bytes]:
        return {SYMBOLS: json.dumps(self.symbols).encode() + b"\n"}

    @classmethod
    def from_files(cls, folder: Path, settings: Mapping) -> "CharacterTokenizer":
        symbols = parse_json(read_bounded(file_inside(folder, SYMBOLS), MOST_TOKENIZER_BYTES))
        if not isinstance(symbols, str):
            raise ValueError(f"{SYMBOLS} holds no string")
        return cls(symbols)

    def _encode(self, text: str) -> list[int]:
        """Raises InputError for a character outside the vocabulary."""
        try:
            return list(map(self._ids.__getitem__, whole_characters(text)))
        except KeyError as error:
            character = error.args[0]
            raise InputError(
                f"The character {character!r} (U+{ord(character):04X}) is not one of the {self.vocab_size} of this "
                "vocabulary. Remove it from the text, or train the vocabulary on text that has it: raise "
                "tokenizer.train_characters, or use tokenizer.algorithm = bpe, which encodes any text."
            ) from None


def train_characters(texts: Iterable[str], config: TokenizerConfig) -> CharacterTokenizer:
    """Return a tokenizer of all characters in the texts, and the newline. Raises UsageError if their number is not
    config.vocab_size; with config.allow_fewer, only if it is larger."""
    training = TrainingText(texts, config.train_characters)
    symbols = {SEPARATOR}
    for text in training:
        symbols.update(whole_characters(text))
    if len(symbols) != config.vocab_size:
        training.check(config)
    if len(symbols) > config.vocab_size or (len(symbols) < config.vocab_size and not config.allow_fewer):
        raise UsageError(
            f"tokenizer.vocab_size is {config.vocab_size}, but {training.characters} characters in "
            f"{training.documents} documents have {len(symbols)} different ones, including the newline before each "
            f"document. Set tokenizer.vocab_size to {len(symbols)}, and model.vocab_size to at least that."
        )
    ordered = "".join(sorted(symbols))
    return CharacterTokenizer(ordered, documents=training.documents, characters=training.characters)
