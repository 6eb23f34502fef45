"""What there is to see of a tokenizer: how it cuts a text, how merges shorten it, which tokens some texts use."""

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
    """One merge, as it was applied to a text."""

    rank: int
    """Id of the token it mints."""
    left: bytes
    right: bytes
    at: tuple[int, ...]
    """Where it was applied: the indices, among the tokens before it, of the left halves; ascending."""
    ids: tuple[int, ...]
    """The text's tokens after it."""


@dataclass(frozen=True, slots=True)
class Usage:
    """How often each token occurs in some texts."""

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
    """The tokens of `text`, in order."""
    ids = tokenizer.encode(text)
    parts = [tokenizer.token_bytes(id) for id in ids]
    starts = itertools.accumulate(map(len, parts), initial=0)
    return [Piece(id, part, start) for id, part, start in zip(ids, parts, starts, strict=False)]


def known(text: str, tokenizer: Tokenizer) -> str:
    """`text` without the characters that the vocabulary has no tokens for: only one of characters lacks any."""
    if has_tokens(text, tokenizer):
        return text
    return "".join(symbol for symbol in text if has_tokens(symbol, tokenizer))


def has_tokens(text: str, tokenizer: Tokenizer) -> bool:
    """Whether `text` can be encoded at all."""
    try:
        tokenizer.encode(text)
    except InputError:
        return False
    return True


def single_bytes(text: str, tokenizer: BytePairTokenizer) -> list[list[int]]:
    """The tokens of `text` before any merge: the single bytes of each piece that the split pattern cuts."""
    import regex

    text = text.encode("utf-8", "replace").decode()
    return [
        [tokenizer.ranks[bytes((byte,))] for byte in match.group().encode()]
        for match in regex.finditer(tokenizer.pattern, text)
    ]


def merges(text: str, tokenizer: BytePairTokenizer) -> Iterator[Merge]:
    """The merges that shorten `text`, from its single bytes to its tokens, in the order in which they were minted.

    This is byte pair encoding as it is told: the pair with the lowest rank is joined everywhere, from left to right,
    and again. Time grows with the square of the text; it is for a sentence. A published vocabulary may hold tokens that
    no merges lead to: encoding gives them where they are a whole piece, and this does not.
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
    """Where two neighbours among `ids` make `token`, from left to right, none overlapping the one before."""
    places: list[int] = []
    for i, (left, right) in enumerate(itertools.pairwise(ids)):
        if tokens[left] + tokens[right] == token and (not places or places[-1] < i - 1):
            places.append(i)
    return places


def joined(ids: list[int], places: Iterable[int], rank: int) -> list[int]:
    """`ids` with `rank` in place of the two at each of `places`."""
    left = set(places)
    return [rank if i in left else id for i, id in enumerate(ids) if i - 1 not in left]


def count_usage(texts: Iterable[str], tokenizer: Tokenizer, texts_at_once: int = 256, threads: int = 1) -> Usage:
    """How often each token occurs in `texts`."""
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
    """Ids of the longest tokens by bytes, of those that `keep` keeps; the lowest first among equals."""
    ids = [id for id in text_ids(tokenizer) if keep(tokenizer.token_bytes(id))]
    return sorted(ids, key=lambda id: (-len(tokenizer.token_bytes(id)), id))[:count]


def rarest(usage: Usage, tokenizer: Tokenizer, count: int) -> list[int]:
    """Ids of the tokens that occur least, but do occur; of equally rare ones the highest ids, minted last."""
    used = [id for id in text_ids(tokenizer) if usage.counts[id]]
    return sorted(used, key=lambda id: (usage.counts[id], -id))[:count]


def never_used(usage: Usage, tokenizer: Tokenizer) -> list[int]:
    """Ids of tokens that stand for text and do not occur, ascending."""
    return [id for id in text_ids(tokenizer) if not usage.counts[id]]


def text_ids(tokenizer: Tokenizer) -> list[int]:
    """Ids that stand for text."""
    special = frozenset(tokenizer.special_tokens.values())
    return [id for id in range(tokenizer.vocab_size) if id not in special and tokenizer.token_bytes(id)]
