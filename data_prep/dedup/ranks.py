"""Which runs of tokens stand in a text twice: a suffix array that is sorted only as deep as the runs are long.

The ranks of runs of 2^k tokens follow from those of 2^(k-1) (Karp, Miller and Rosenberg 1972; Manber and Myers 1993):
six sorts for runs of 50 tokens. A run stands twice only if both halves do, so little is left after the first sorts, and
no step compares hashes. The full suffix array of Lee et al. (arXiv:2107.06499) gives the same runs.
"""

import numpy as np


def ranks_of_runs(tokens: np.ndarray, length: int) -> np.ndarray:
    """For each position the number of the run of `length` tokens that begins there, 0 if it stands nowhere else; uint32
    (n,). Equal runs have equal numbers. tokens: uint32 (n,), 0 for a token that stands nowhere else."""
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
    """uint32 (n,): a number from 1 for each value that is there twice, in their order; 0 for others. Sorts `values` in
    place."""
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
    """bool (n,): which tokens are in a run of `length` that stands earlier too, without overlap. tokens as of
    `ranks_of_runs`; a 0 between two documents keeps runs from crossing."""
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
