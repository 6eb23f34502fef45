"""Analyze a tokenizer: the tokens of a text, the merges that lead to them, and the usage of tokens in texts."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from lm.errors import InputError
from lm.tokenizer.base import Tokenizer
from lm.tokenizer.encoding import BytePairTokenizer


@dataclass(frozen=True, slots=True)
class Piece:
    """One token of a text."""

    id: int
    bytes: bytes
    start: int
    """Bytes of the text before it."""


@dataclass(frozen=True, slots=True)
class Merge:
    """One merge as applied to a text."""

    rank: int
    """Id of the resulting token."""
    left: bytes
    right: bytes
    at: tuple[int, ...]
    """Indices of the left halves among the previous tokens, ascending."""
    ids: tuple[int, ...]
    """Tokens of the text after the merge."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Number of occurrences of each token in some texts."""

    counts: np.ndarray
    """(vocabulary,) int64."""
    texts: int
    text_bytes: int

    @property
    def tokens(self) -> int:
        return int(self.counts.sum())

    @property
    def bytes_per_token(self) -> float:
        return self.text_bytes / max(1, self.tokens)

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(self.counts + other.counts, self.texts + other.texts, self.text_bytes + other.text_bytes)


def cut(text: str, tokenizer: Tokenizer) -> list[Piece]:
    """Tokens of `text`, in order."""
    ids = tokenizer.encode(text)
    parts = [tokenizer.token_bytes(id) for id in ids]
    starts = itertools.accumulate(map(len, parts), initial=0)
    return [Piece(id, part, start) for id, part, start in zip(ids, parts, starts, strict=False)]


def known(text: str, tokenizer: Tokenizer) -> str:
    """Remove the characters that the vocabulary has no tokens for; only vocabularies of characters lack any."""
    if has_tokens(text, tokenizer):
        return text
    return "".join(symbol for symbol in text if has_tokens(symbol, tokenizer))


def has_tokens(text: str, tokenizer: Tokenizer) -> bool:
    """Whether `text` can be encoded."""
    try:
        tokenizer.encode(text)
    except InputError:
        return False
    return True


def single_bytes(text: str, tokenizer: BytePairTokenizer) -> list[list[int]]:
    """Tokens of `text` before any merge: the single bytes of each piece of the split pattern."""
    import regex

    text = text.encode("utf-8", "replace").decode()
    return [
        [tokenizer.ranks[bytes((byte,))] for byte in match.group().encode()]
        for match in regex.finditer(tokenizer.pattern, text)
    ]


def merges(text: str, tokenizer: BytePairTokenizer) -> Iterator[Merge]:
    """Yield the merges that shorten `text`, from single bytes to tokens, in order of rank.

    This is the textbook algorithm: repeatedly merge the pair with the lowest rank everywhere, from left to right. It
    takes quadratic time and is meant for a sentence. Published vocabularies may contain tokens that no merges lead to:
    encoding uses them if they are a whole piece, this function does not.
    """
    pieces, tokens, ranks = single_bytes(text, tokenizer), tokenizer.tokens, tokenizer.ranks
    while True:
        found = {
            rank: pair
            for piece in pieces
            for pair in itertools.pairwise(piece)
            if (rank := ranks.get(tokens[pair[0]] + tokens[pair[1]])) is not None
        }
        if not found:
            return
        rank = min(found)
        places, before = [], 0
        for i, piece in enumerate(pieces):
            at = joints(piece, tokens[rank], tokens)
            places += [before + place for place in at]
            before += len(piece)
            if at:
                pieces[i] = joined(piece, at, rank)
        left, right = (tokens[id] for id in found[rank])
        yield Merge(rank, left, right, tuple(places), tuple(itertools.chain.from_iterable(pieces)))


def joints(ids: list[int], token: bytes, tokens: tuple[bytes, ...]) -> list[int]:
    """Indices where two neighbors in `ids` form `token`, from left to right, without overlaps."""
    places: list[int] = []
    for i, (left, right) in enumerate(itertools.pairwise(ids)):
        if tokens[left] + tokens[right] == token and (not places or places[-1] < i - 1):
            places.append(i)
    return places


def joined(ids: list[int], places: Iterable[int], rank: int) -> list[int]:
    """Replace the pairs at `places` by `rank`."""
    left = set(places)
    return [rank if i in left else id for i, id in enumerate(ids) if i - 1 not in left]


def count_usage(texts: Iterable[str], tokenizer: Tokenizer, texts_at_once: int = 256, threads: int = 1) -> Usage:
    """Count the occurrences of each token in `texts`."""
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
    """Ids of the longest tokens in bytes for which `keep` is true; ties in ascending order."""
    ids = [id for id in text_ids(tokenizer) if keep(tokenizer.token_bytes(id))]
    return sorted(ids, key=lambda id: (-len(tokenizer.token_bytes(id)), id))[:count]


def rarest(usage: Usage, tokenizer: Tokenizer, count: int) -> list[int]:
    """Ids of the tokens with the fewest occurrences, but at least one; ties in descending order, last merged first."""
    used = [id for id in text_ids(tokenizer) if usage.counts[id]]
    return sorted(used, key=lambda id: (usage.counts[id], -id))[:count]


def never_used(usage: Usage, tokenizer: Tokenizer) -> list[int]:
    """Ids of tokens of text that do not occur, ascending."""
    return [id for id in text_ids(tokenizer) if not usage.counts[id]]


def text_ids(tokenizer: Tokenizer) -> list[int]:
    """Ids of tokens of text, without special and unused ones."""
    special = frozenset(tokenizer.special_tokens.values())
    return [id for id in range(tokenizer.vocab_size) if id not in special and tokenizer.token_bytes(id)]
