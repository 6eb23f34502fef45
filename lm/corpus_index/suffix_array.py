"""Positions of a stream of tokens, sorted by what follows them: every passage is then found by bisection.

The ranks of passages of 2k tokens follow from those of k, as pairs (Manber and Myers 1993); a passage whose rank is its
own already takes part no more (Larsson and Sadakane 2007), and none is compared beyond the end of its document. By
NumPy alone: libdivsufsort (the package pydivsufsort) sorts bytes, and so the middle of each token too.
"""

import numpy as np


def suffix_array(tokens: np.ndarray, separator: int) -> np.ndarray:
    """uint32 (n,): all positions, sorted by the tokens from there up to the next separator; equal ones in any order.

    tokens: unsigned (n,), of which the last is the separator. It takes some 36 bytes a token while it works.
    """
    assert len(tokens) and tokens[-1] == separator and len(tokens) < 2**31
    width = max(1, int(tokens.max()).bit_length())
    depth = 64 // width
    positions, ranks, open_places = sorted_by_first(tokens, width, depth)
    separators = np.cumsum(tokens == separator, dtype=np.uint32)
    while True:
        here = positions[open_places]
        # Of equal passages that hold a separator all has been compared.
        before = separators[here] - (tokens[here] == separator)
        last = np.minimum(here + np.uint32(depth - 1), np.uint32(len(tokens) - 1))
        going_on = separators[last] == before
        open_places, here = open_places[going_on], here[going_on]
        if not len(here):
            return positions
        pairs = ranks[here].astype(np.uint64)
        pairs <<= np.uint64(32)
        pairs |= ranks[here + np.uint32(depth)]
        order = np.argsort(pairs)
        pairs, here = pairs[order], here[order]
        positions[open_places] = here
        firsts, counts = runs_of(pairs)
        ranks[here] = np.repeat(open_places[firsts], counts)
        open_places = open_places[np.repeat(counts > 1, counts)]
        depth *= 2


def sorted_by_first(tokens: np.ndarray, width: int, depth: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(positions sorted by the first `depth` tokens of `width` bits, the rank of each position, the places in the
    order whose rank is not theirs alone), each uint32. A rank is the first place of its equals."""
    keys = np.zeros(len(tokens), np.uint64)
    for offset in range(depth):
        keys <<= np.uint64(width)
        behind = tokens[offset:]
        keys[: len(behind)] |= behind
    order = np.argsort(keys)
    positions = order.astype(np.uint32)
    keys = keys[order]
    del order
    firsts, counts = runs_of(keys)
    del keys
    ranks = np.empty(len(tokens), np.uint32)
    ranks[positions] = np.repeat(firsts.astype(np.uint32), counts)
    return positions, ranks, np.flatnonzero(np.repeat(counts > 1, counts)).astype(np.uint32)


def runs_of(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(first place, length) of each run of equal values, in order."""
    new = np.ones(len(values), bool)
    np.not_equal(values[1:], values[:-1], out=new[1:])
    firsts = np.flatnonzero(new)
    return firsts, np.diff(firsts, append=len(values))
