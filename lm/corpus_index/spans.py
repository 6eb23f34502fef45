"""Find passages of a text in the training text by OLMoTrace's rule (Liu et al. 2025, arXiv:2504.07096), as in its code.

From every word start, take the longest passage that occurs within one document of the corpus and ends at a word end.
Keep those that are long enough and not too frequent. Of these, from left to right, keep those that end further right
than all before. Of these, keep a number of 5 % of the text's tokens: those with the rarest tokens, by the sum of their
log frequencies.
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
"""Characters of Thai, Lao, Burmese, Khmer, Japanese and Chinese, each of which counts as a word."""
WORD = re.compile(rf"[^\W{WITHOUT_SPACES}]")


@dataclass(frozen=True)
class TraceRule:
    """Limits on the passages that `trace` returns."""

    least_tokens: int = 1
    """Minimum number of tokens of a passage."""
    most_count: int = 10
    """Maximum occurrences in the corpus: a more frequent passage says little about its origin."""
    share: float = 0.05
    """Maximum number of passages per token of the text; the total is rounded up."""


class Span(NamedTuple):
    """A passage of the text that occurs in the corpus."""

    start: int
    """Index of the passage's first token in the text; `end` is the index after its last token."""
    end: int
    count: int
    """Occurrences in the corpus."""
    log_probability: float
    """Sum over its tokens of log(the token's share of the training text), in nats."""
    matches: Matches


def word_edges(pieces: Sequence[bytes]) -> np.ndarray:
    """Return bool (pieces + 1,): whether a word may begin or end before each token, or after the last: not inside a
    word or a character. `pieces` are the bytes of each token."""
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
    """Return whether the first (`which` 0) or last (-1) character of `data` belongs to a word."""
    text = data.decode("utf-8", "ignore")
    return bool(text) and WORD.match(text[which]) is not None


def longest_spans(
    index: CorpusIndex,
    tokens: Sequence[int],
    edges: np.ndarray,
    split: str | None,
    check_cancelled: Callable[[], None] = lambda: None,
) -> list[Span]:
    """Return, for each edge (`word_edges`), the longest passage that begins there, occurs in the split (None: in any),
    and ends at an edge. `check_cancelled` is called for each edge, and may raise to stop."""
    # An absent token counts as if it occurred once.
    counts = index.counts[np.asarray(tokens, np.int64)]
    logs = np.log(np.maximum(counts, 1) / max(1, int(index.counts.sum())))
    at_edges = np.flatnonzero(edges)
    found = []
    for start in at_edges[at_edges < len(tokens)].tolist():
        check_cancelled()
        reach = start + index.longest(tokens[start:], split)
        end = int(at_edges[np.searchsorted(at_edges, reach, side="right") - 1])
        if end > start:
            matches = index.find(tokens[start:end], split)
            found.append(Span(start, end, matches.count, float(logs[start:end].sum()), matches))
    return found


def chosen(spans: Sequence[Span], tokens: int, rule: TraceRule) -> list[Span]:
    """Return the spans that the rule keeps, in the order of the text, which has `tokens` tokens."""
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
    *,
    split: str | None = "train",
    check_cancelled: Callable[[], None] = lambda: None,
) -> list[Span]:
    """Return the passages of `tokens`, from index `begin` on, that occur in the corpus and that the rule keeps, in
    order. `check_cancelled` is called for each word and may raise to stop. Raises ValueError for ids outside the
    vocabulary."""
    rule, traced = rule or TraceRule(), tokens[begin:]
    edges = word_edges([tokenizer.token_bytes(id) for id in tokens])[begin:]
    kept = chosen(longest_spans(index, traced, edges, split, check_cancelled), len(traced), rule)
    return [one._replace(start=one.start + begin, end=one.end + begin) for one in kept]
