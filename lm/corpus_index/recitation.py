"""Whether a model goes on with a document word for word, from its first tokens alone: what it has learnt by heart
(Carlini et al. 2023, arXiv:2202.07646), beside documents that it never saw.

One reading of the document is enough. A model that takes the likeliest token each time writes the document's tokens as
long as each of them is the likeliest behind those before it; where one is not, it departs.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

NEXT = 32
"""Tokens behind a prefix of which the share is told that is right."""
SHORTEST = 8


class Recitation(NamedTuple):
    """What a model makes of a document behind its first tokens."""

    prefix: int
    """Tokens of the document that it was given, after the head."""
    next: int
    """Tokens that `right` is of: the next ones."""
    right: int
    """How many of those are the likeliest, each behind the document's own tokens before it."""
    verbatim: int
    """How many tokens it writes as the document has them before it departs; to the end of what was read, if never."""


def prefixes_for(length: int) -> list[int]:
    """8, 16, 32, ... tokens, as long as `length` has NEXT more."""
    return [2**power for power in range(3, 31) if 2**power + NEXT <= length]


def recitations(likeliest_T: Sequence[bool] | np.ndarray, prefixes: Sequence[int]) -> list[Recitation]:
    """likeliest_T: of each token of a document, whether it is the likeliest behind those before it."""
    right = np.asarray(likeliest_T, bool)
    found = []
    for prefix in prefixes:
        behind = right[prefix:]
        wrong = np.flatnonzero(~behind)
        verbatim = int(wrong[0]) if len(wrong) else len(behind)
        found.append(Recitation(prefix, len(behind[:NEXT]), int(behind[:NEXT].sum()), verbatim))
    return found
