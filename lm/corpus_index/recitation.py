"""Measure memorization: whether a model continues a document verbatim, given only its first tokens (Carlini et al.
2023, arXiv:2202.07646); compare with documents that it was not trained on.

One forward pass over the document is enough. Under greedy decoding a model reproduces the document's tokens as long as
each is the most likely after those before it.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

NEXT = 32
"""Tokens after a prefix over which the share of correct predictions is computed."""
SHORTEST = 8


class Recitation(NamedTuple):
    """Predictions of a model for a document after a prefix."""

    prefix: int
    """Number of given tokens of the document, after BOS."""
    next: int
    """Number of tokens after the prefix that `right` counts over."""
    right: int
    """How many of them are the most likely, each given the document's own tokens before it."""
    verbatim: int
    """Number of tokens that greedy decoding reproduces before it differs; up to the end of the forward pass."""


def prefixes_for(length: int) -> list[int]:
    """Prefix lengths 8, 16, 32, ... that leave at least NEXT more of `length` tokens."""
    return [2**power for power in range(3, 31) if 2**power + NEXT <= length]


def recitations(likeliest_T: Sequence[bool] | np.ndarray, prefixes: Sequence[int]) -> list[Recitation]:
    """Compare a document with the model's predictions after each of `prefixes`, its first tokens. likeliest_T: whether
    each token of the document is the model's most likely one, given those before it."""
    right = np.asarray(likeliest_T, bool)
    found = []
    for prefix in prefixes:
        behind = right[prefix:]
        wrong = np.flatnonzero(~behind)
        verbatim = int(wrong[0]) if len(wrong) else len(behind)
        found.append(Recitation(prefix, len(behind[:NEXT]), int(behind[:NEXT].sum()), verbatim))
    return found
