"""What there is to see of a tokenizer: how it cuts a text, how merges shorten it, what it spends where."""

import collections
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

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
    places: int
    """How often it was applied."""
    ids: tuple[int, ...]
    """The text's tokens after it."""


@dataclass(frozen=True, slots=True)
class Usage:
    """How often each token occurs in some texts."""

    counts_V: np.ndarray
    """(vocabulary,) int64."""
    texts: int
    text_bytes: int

    @property
    def tokens(self) -> int:
        return int(self.counts_V.sum())

    @property
    def bytes_per_token(self) -> float:
        return self.text_bytes / max(1, self.tokens)


def cut(text: str, tokenizer: Tokenizer) -> list[Piece]:
    """The tokens of `text`, in order."""
    ids = tokenizer.encode(text)
    parts = [tokenizer.token_bytes(id) for id in ids]
    starts = itertools.accumulate(map(len, parts), initial=0)
    return [Piece(id, part, start) for id, part, start in zip(ids, parts, starts, strict=False)]


def merges(text: str, tokenizer: BytePairTokenizer) -> Iterator[Merge]:
    """The merges that shorten `text`, in the order in which they were minted, from its single bytes to its tokens.

    This is byte pair encoding as it is told: the pair with the lowest rank is joined everywhere, and again. Time grows
    with the square of the text; it is for a sentence.
    """
    import regex

    pieces = [
        [tokenizer.ranks[bytes((byte,))] for byte in piece.encode(errors="replace")]
        for piece in regex.findall(tokenizer.pattern, text.encode("utf-8", "replace").decode())
    ]
    while True:
        joined = {
            rank: pair
            for piece in pieces
            for pair in itertools.pairwise(piece)
            if (rank := tokenizer.ranks.get(tokenizer.tokens[pair[0]] + tokenizer.tokens[pair[1]])) is not None
        }
        if not joined:
            return
        rank = min(joined)
        before = sum(map(len, pieces))
        pieces = [join(piece, tokenizer.tokens[rank], rank, tokenizer.tokens) for piece in pieces]
        left, right = (tokenizer.tokens[id] for id in joined[rank])
        yield Merge(rank, left, right, before - sum(map(len, pieces)), tuple(itertools.chain.from_iterable(pieces)))


def join(piece: Sequence[int], token: bytes, rank: int, tokens: Sequence[bytes]) -> list[int]:
    """`piece` with every two neighbours that make `token` joined, from left to right."""
    joined: list[int] = []
    for id in piece:
        if joined and joined[-1] != rank and tokens[joined[-1]] + tokens[id] == token:
            joined[-1] = rank
        else:
            joined.append(id)
    return joined


def count_usage(texts: Iterable[str], tokenizer: Tokenizer, texts_at_once: int = 256, threads: int = 1) -> Usage:
    """How often each token occurs in `texts`."""
    counts_V = np.zeros(tokenizer.vocabulary_size, np.int64)
    seen = text_bytes = 0
    for batch in itertools.batched(texts, texts_at_once):
        seen += len(batch)
        text_bytes += sum(len(text.encode("utf-8", "replace")) for text in batch)
        for ids in tokenizer.encode_batch(batch, threads):
            counts_V += np.bincount(ids, minlength=len(counts_V)) if ids else 0
    return Usage(counts_V, seen, text_bytes)


def longest(tokenizer: Tokenizer, count: int) -> list[int]:
    """Ids of the longest tokens by bytes, the lowest first among equals."""
    return sorted(text_ids(tokenizer), key=lambda id: (-len(tokenizer.token_bytes(id)), id))[:count]


def rarest(usage: Usage, tokenizer: Tokenizer, count: int) -> list[int]:
    """Ids of the tokens that occur least, but do occur; of equally rare ones the highest ids, which were minted last."""
    used = [id for id in text_ids(tokenizer) if usage.counts_V[id]]
    return sorted(used, key=lambda id: (usage.counts_V[id], -id))[:count]


def never_used(usage: Usage, tokenizer: Tokenizer) -> list[int]:
    """Ids of tokens that stand for text and do not occur, ascending."""
    return [id for id in text_ids(tokenizer) if not usage.counts_V[id]]


def text_ids(tokenizer: Tokenizer) -> list[int]:
    """Ids that stand for text."""
    special = frozenset(tokenizer.special_tokens.values())
    return [id for id in range(tokenizer.vocabulary_size) if id not in special and tokenizer.token_bytes(id)]


def kinds_of_text(text: str) -> dict[str, str]:
    """The numbers, white space, words and all other characters of `text`, each joined, for their bytes per token."""
    groups: dict[str, list[str]] = collections.defaultdict(list)
    for kind, run in itertools.groupby(text, kind_of_character):
        groups[kind].append("".join(run))
    return {kind: " ".join(runs) if kind != "white space" else "x".join(runs) for kind, runs in groups.items()}


def kind_of_character(character: str) -> str:
    if character.isspace():
        return "white space"
    if character.isnumeric():
        return "numbers"
    return "words" if character.isalpha() else "marks"
