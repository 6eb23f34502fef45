"""Which runs of tokens stand in a text twice: a suffix array that is sorted as deep as the runs are long, no deeper.

The ranks of runs of 2^k tokens follow from those of 2^(k-1): the pair of the ranks of both halves (Karp, Miller and
Rosenberg 1972; Manber and Myers 1993). For runs of 50 tokens that takes six sorts. Only runs that stand twice have a
rank, and a run stands twice only if both its halves do: so after the first sorts little is left of a corpus without
copies, and no step compares hashes. A suffix array by libdivsufsort and the lengths of common prefixes, as Lee et al.
have it (arXiv:2107.06499), give the same runs and sort every suffix to its end.
"""

import numpy as np


def ranks_of_runs(tokens: np.ndarray, length: int) -> np.ndarray:
    """For each position the number of the run of `length` tokens that begins there, 0 where it stands nowhere else.

    tokens: uint32 (n,), where 0 is a token that stands nowhere else. uint32 (n,): equal runs have equal numbers.
    """
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
    """uint32 (n,): from 1, a number for each value that is there twice, in the order of the values; 0 for others.
    `values` is sorted in place."""
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
    """Which tokens lie in a run of `length` that stands earlier too, without overlapping itself there; bool (n,).

    tokens as of `ranks_of_runs`; a 0 between two documents keeps runs from crossing.
    """
    ranks = ranks_of_runs(tokens, length)
    places = np.flatnonzero(ranks)
    numbers = ranks[places]
    first = np.zeros(int(numbers.max(initial=0)) + 1, np.int64)
    first[numbers[::-1]] = places[::-1]  # of equal numbers the last one written stays: the earliest
    later = places[places >= first[numbers] + length]
    inside = np.zeros(len(tokens) + 1, np.int8)
    covered = np.zeros(len(tokens), bool)
    if len(later):
        new = np.ones(len(later), bool)
        new[1:] = np.diff(later) > length  # runs that touch or overlap are one stretch
        starts = later[new]
        ends = later[np.append(np.flatnonzero(new)[1:] - 1, len(later) - 1)] + length
        inside[starts], inside[ends] = 1, -1
        covered = np.cumsum(inside[:-1], dtype=np.int8) > 0
    return covered
