"""Measure memorization: whether a model continues a document verbatim, given only its first tokens (Carlini et al.
2023, arXiv:2202.07646); compare with documents that it was not trained on.

One forward pass over the document is enough. Under greedy decoding a model reproduces the document's tokens as long as
each is the most likely after those before it.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

NEXT = 32
"""Number of tokens after a prefix over which correct predictions are counted."""
SHORTEST = 8


class Recitation(NamedTuple):
    """How well a model continues a document after a prefix of it."""

    prefix: int
    """Number of the document's tokens that are given, after BOS."""
    next: int
    """Number of tokens after the prefix that `right` counts over."""
    right: int
    """Number of these tokens that the model ranks first, each given all tokens of the document before it."""
    verbatim: int
    """Number of tokens that greedy decoding reproduces before the first difference or the end of the forward pass."""


def prefixes_for(length: int) -> list[int]:
    """Return the prefix lengths 8, 16, 32, ... after which at least NEXT of a document's `length` tokens follow."""
    return [2**power for power in range(3, 31) if 2**power + NEXT <= length]


def recitations(likeliest_T: Sequence[bool] | np.ndarray, prefixes: Sequence[int]) -> list[Recitation]:
    """Compare a document with the model's predictions after each of the prefix lengths. likeliest_T: whether each token
    of the document is the model's most likely one, given those before it."""
    right = np.asarray(likeliest_T, bool)
    found = []
    for prefix in prefixes:
        behind = right[prefix:]
        wrong = np.flatnonzero(~behind)
        verbatim = int(wrong[0]) if len(wrong) else len(behind)
        found.append(Recitation(prefix, len(behind[:NEXT]), int(behind[:NEXT].sum()), verbatim))
    return found
