"""Find token sequences that occur twice in a text, with a suffix array that is sorted only to the length of the
sequences.

The ranks of sequences of 2^k tokens follow from those of 2^(k-1) (Karp, Miller and Rosenberg 1972; Manber and Myers
1993): six sorts for sequences of 50 tokens. A sequence occurs twice only if both halves do, so little is left after the
first sorts. No step compares hashes. The full suffix array of Lee et al. (arXiv:2107.06499) finds the same sequences.
"""

import numpy as np


def ranks_of_runs(tokens: np.ndarray, length: int) -> np.ndarray:
    """Return, for each position, the number of the sequence of `length` tokens that begins there, uint32 (n,); 0 if it
    occurs only once. Equal sequences have equal numbers. tokens: uint32 (n,), 0 for a token that occurs only once."""
    ranks, depth = tokens, 1
    while depth < length and len(ranks):
        step = min(depth, length - depth)
        places = np.flatnonzero(ranks)
        places = places[places < len(ranks) - step]
        places = places[ranks[places + step] > 0]
        pairs = ranks[places].astype(np.uint64)
        pairs <<= np.uint64(32)
        pairs |= ranks[places + step]
        ranks = np.zeros(len(ranks), np.uint32)
        ranks[places] = ranks_of_repeated(pairs)
        del pairs, places
        depth += step
    return ranks


def ranks_of_repeated(values: np.ndarray) -> np.ndarray:
    """Return a number from 1 for each value that occurs more than once, in the order of the values, and 0 for others;
    uint32 (n,). Sorts `values` in place."""
    order = np.argsort(values)
    values[:] = values[order]
    same = values[1:] == values[:-1]
    begins = np.ones(len(values), bool)
    begins[1:] = ~same
    alone = begins.copy()
    alone[:-1] &= ~same
    numbers = np.cumsum(begins & ~alone, dtype=np.uint32)
    numbers[alone] = 0
    ranks = np.empty(len(values), np.uint32)
    ranks[order] = numbers
    return ranks


def in_later_runs(tokens: np.ndarray, length: int) -> np.ndarray:
    """Return which tokens are in a sequence of `length` that also occurs earlier without overlap; bool (n,). tokens are
    as for `ranks_of_runs`; a 0 between two documents keeps sequences from crossing."""
    ranks = ranks_of_runs(tokens, length)
    places = np.flatnonzero(ranks)
    numbers = ranks[places]
    first = np.zeros(int(numbers.max(initial=0)) + 1, np.int64)
    first[numbers[::-1]] = places[::-1]  # for equal numbers the last write wins: the earliest place
    later = places[places >= first[numbers] + length]
    inside = np.zeros(len(tokens) + 1, np.int8)
    covered = np.zeros(len(tokens), bool)
    if len(later):
        new = np.ones(len(later), bool)
        new[1:] = np.diff(later) > length  # merge adjacent or overlapping sequences
        starts = later[new]
        ends = later[np.append(np.flatnonzero(new)[1:] - 1, len(later) - 1)] + length
        inside[starts], inside[ends] = 1, -1
        covered = np.cumsum(inside[:-1], dtype=np.int8) > 0
    return covered
