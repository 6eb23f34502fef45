"""Which passages of a text stand in the training text: OLMoTrace's rule (Liu et al. 2025, arXiv:2504.07096), as coded.

From every place at which a word begins, the longest passage that stands in the corpus, within one document, and ends
where a word ends. Of those, the ones that are long enough and not too frequent; of those, read from left to right, the
ones that reach further than all before; of those, a twentieth as many as the text has tokens: the ones whose tokens are
the rarest together, by the sum of their logarithmic frequencies.
"""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from lm.corpus_index.index import CorpusIndex, Matches
from lm.tokenizer import Tokenizer

WITHOUT_SPACES = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
"""Thai, Lao, Burmese, Khmer, Japanese, Chinese: each character counts as a word."""
WORD = re.compile(rf"[^\W{WITHOUT_SPACES}]")


@dataclass(frozen=True)
class TraceRule:
    """What a passage must be to be shown."""

    least_tokens: int = 1
    most_count: int = 10
    """A passage that stands in the corpus more often says little about where it is from."""
    share: float = 0.05
    """Passages for each token of the text, rounded up."""


class Span(NamedTuple):
    """A passage of the text that stands in the corpus."""

    start: int
    """In tokens of the text."""
    end: int
    count: int
    log_probability: float
    """In nats: the sum over its tokens of the logarithm of their share of the training text."""
    matches: Matches


def word_edges(pieces: Sequence[bytes]) -> np.ndarray:
    """bool (pieces + 1,): before which piece, or behind the last, a word may begin or end: not in the middle of one,
    nor of a character. pieces: the bytes of each token."""
    data = b"".join(pieces)
    edges = np.ones(len(pieces) + 1, bool)
    at = 0
    for number, piece in enumerate(pieces):
        if 0 < at < len(data):
            inside = (data[at] & 0xC0) == 0x80
            edges[number] = not inside and not (
                in_word(data[max(0, at - 4) : at], -1) and in_word(data[at : at + 4], 0)
            )
        at += len(piece)
    return edges


def in_word(data: bytes, which: int) -> bool:
    """Whether the first (0) or last (-1) character of some bytes belongs to a word."""
    text = data.decode("utf-8", "ignore")
    return bool(text) and WORD.match(text[which]) is not None


def longest_spans(
    index: CorpusIndex,
    tokens: Sequence[int],
    edges: np.ndarray,
    split: str | None,
    go_on: Callable[[], None] = lambda: None,
) -> list[Span]:
    """From each edge the longest passage that stands in the split and ends at an edge. `go_on` is called at each, and
    may raise."""
    logs = log_frequencies(index, tokens)
    at_edges = np.flatnonzero(edges)
    found = []
    for start in at_edges[at_edges < len(tokens)].tolist():
        go_on()
        reach = start + index.longest(tokens[start:], split)
        end = int(at_edges[np.searchsorted(at_edges, reach, side="right") - 1])
        if end > start:
            matches = index.find(tokens[start:end], split)
            found.append(Span(start, end, matches.count, float(logs[start:end].sum()), matches))
    return found


def log_frequencies(index: CorpusIndex, tokens: Sequence[int]) -> np.ndarray:
    """The logarithm of each token's share of the training text; of one that is not there, as if it stood there once."""
    counts = index.counts[np.asarray(tokens, np.int64)] if len(tokens) else np.zeros(0)
    return np.log(np.maximum(counts, 1) / max(1, int(index.counts.sum())))


def chosen(spans: Sequence[Span], tokens: int, rule: TraceRule) -> list[Span]:
    """Those that the rule keeps, in the order of the text of `tokens` tokens."""
    fitting = [one for one in spans if one.end - one.start >= rule.least_tokens and one.count <= rule.most_count]
    reach, maximal = 0, []
    for one in fitting:
        if one.end > reach:
            maximal.append(one)
            reach = one.end
    rarest = sorted(maximal, key=lambda one: one.log_probability)[: math.ceil(rule.share * tokens)]
    return sorted(rarest, key=lambda one: one.start)


def trace(
    index: CorpusIndex,
    tokenizer: Tokenizer,
    tokens: Sequence[int],
    rule: TraceRule | None = None,
    begin: int = 0,
    split: str | None = "train",
    go_on: Callable[[], None] = lambda: None,
) -> list[Span]:
    """The passages of `tokens` from token `begin` on that the rule shows, in their order. Raises ValueError for ids
    outside of the vocabulary, and what `go_on` raises, which is called for each word."""
    rule, traced = rule or TraceRule(), tokens[begin:]
    edges = word_edges([tokenizer.token_bytes(id) for id in tokens])[begin:]
    kept = chosen(longest_spans(index, traced, edges, split, go_on), len(traced), rule)
    return [one._replace(start=one.start + begin, end=one.end + begin) for one in kept]
