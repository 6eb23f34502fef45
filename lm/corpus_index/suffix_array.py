"""Sort the positions of a token stream by the text that follows them, so that passages can be found by bisection.

Ranks of passages of 2k tokens follow from those of k, as pairs (Manber and Myers 1993); positions with a unique rank
are skipped (Larsson and Sadakane 2007), and none is compared beyond the end of its document. Uses only NumPy:
libdivsufsort (the package pydivsufsort) sorts bytes, and so also positions in the middle of a token.
"""

import numpy as np


def suffix_array(tokens: np.ndarray, separator: int) -> np.ndarray:
    """Return uint32 (n,): all positions, sorted by the tokens from there to the next separator; ties in any order.

    tokens: unsigned (n,), ending with the separator. Takes about 36 bytes of memory per token.
    """
    assert len(tokens) and tokens[-1] == separator and len(tokens) < 2**31
    width = max(1, int(tokens.max()).bit_length())
    depth = 64 // width
    positions, ranks, open_places = sorted_by_first(tokens, width, depth)
    separators = np.cumsum(tokens == separator, dtype=np.uint32)
    while True:
        here = positions[open_places]
        # Equal passages that contain a separator have been compared completely.
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
    """Return three uint32 arrays: the positions sorted by their first `depth` tokens, of `width` bits each; the rank of
    each position; and the indices in the sorted order at which the rank is not unique. Positions with the same first
    tokens have the same rank: the first index in the sorted order of any of them."""
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
    """Return (first index, length) of each run of equal values, in order."""
    new = np.ones(len(values), bool)
    np.not_equal(values[1:], values[:-1], out=new[1:])
    firsts = np.flatnonzero(new)
    return firsts, np.diff(firsts, append=len(values))
