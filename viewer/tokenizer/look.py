"""Analyze a tokenizer: the tokens of a text, and the usage of tokens in texts."""

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from lm.errors import InputError
from lm.tokenizer.base import Tokenizer


@dataclass(frozen=True, slots=True)
class Piece:
    """A token in a text: its id and its bytes."""

    id: int
    bytes: bytes


@dataclass(frozen=True, slots=True)
class Usage:
    """Number of occurrences of each token in some texts."""

    counts: np.ndarray
    """(vocabulary,) int64."""
    texts: int
    text_bytes: int
    """UTF-8 bytes of the texts."""

    @property
    def tokens(self) -> int:
        return int(self.counts.sum())

    @property
    def bytes_per_token(self) -> float:
        return self.text_bytes / max(1, self.tokens)

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(self.counts + other.counts, self.texts + other.texts, self.text_bytes + other.text_bytes)


def cut(text: str, tokenizer: Tokenizer) -> list[Piece]:
    """Encode `text`; return its tokens in order."""
    return [Piece(id, tokenizer.token_bytes(id)) for id in tokenizer.encode(text)]


def has_tokens(text: str, tokenizer: Tokenizer) -> bool:
    """Whether the tokenizer can encode `text`; a tokenizer of characters may lack one."""
    try:
        tokenizer.encode(text)
    except InputError:
        return False
    return True


def count_usage(texts: Iterable[str], tokenizer: Tokenizer, texts_at_once: int = 256, threads: int = 1) -> Usage:
    """Count how often each token occurs in `texts`, encoding `texts_at_once` at a time in `threads` threads."""
    counts_V = np.zeros(tokenizer.vocab_size, np.int64)
    seen = text_bytes = 0
    for batch in itertools.batched(texts, texts_at_once):
        seen += len(batch)
        text_bytes += sum(len(text.encode("utf-8", "replace")) for text in batch)
        ids = list(itertools.chain.from_iterable(tokenizer.encode_batch(batch, threads)))
        if ids:
            counts_V += np.bincount(ids, minlength=len(counts_V))
    return Usage(counts_V, seen, text_bytes)


def longest(tokenizer: Tokenizer, count: int, keep: Callable[[bytes], bool] = bool) -> list[int]:
    """Ids of the `count` tokens with the most bytes for which `keep` is true, longest first; ties by ascending id."""
    ids = [id for id in text_ids(tokenizer) if keep(tokenizer.token_bytes(id))]
    return sorted(ids, key=lambda id: (-len(tokenizer.token_bytes(id)), id))[:count]


def rarest(usage: Usage, tokenizer: Tokenizer, count: int) -> list[int]:
    """Ids of the `count` tokens that occur least often, but at least once; ties by descending id, last merged first."""
    used = [id for id in text_ids(tokenizer) if usage.counts[id]]
    return sorted(used, key=lambda id: (usage.counts[id], -id))[:count]


def never_used(usage: Usage, tokenizer: Tokenizer) -> list[int]:
    """Ids of the tokens that occur in no text, ascending, without special tokens."""
    return [id for id in text_ids(tokenizer) if not usage.counts[id]]


def text_ids(tokenizer: Tokenizer) -> list[int]:
    """Ids of all tokens that encode text: not the special tokens, and not unused ids."""
    special = frozenset(tokenizer.special_tokens.values())
    return [id for id in range(tokenizer.vocab_size) if id not in special and tokenizer.token_bytes(id)]
