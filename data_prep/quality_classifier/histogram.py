"""Histograms of scores: they give exact percentiles without all scores in memory.

A score has six decimals; a histogram counts each value that occurs. Histograms can be added in any order and grouping.
"""

import math
from collections.abc import Iterable
from fractions import Fraction

import numpy as np
from numpy.typing import ArrayLike

from lm.errors import UsageError

DECIMALS = 6
STEPS = 10**DECIMALS
"""Steps of a score from 0 to 1."""


def histogram(scores: ArrayLike) -> np.ndarray:
    """int64 [distinct scores, 2]: each score that occurs, in millionths and ascending, and how often. Raises UsageError
    if a score is not a number from 0 to 1."""
    values = np.asarray(scores, np.float64).reshape(-1)
    wrong = values[~((values >= 0) & (values <= 1))]  # includes NaN, of documents without a score
    if len(wrong):
        raise UsageError(f"A score is {wrong[0]}; it must be from 0 to 1. Count only documents that have a score.")
    millionths, counts = np.unique(np.rint(values * STEPS).astype(np.int64), return_counts=True)
    return np.stack([millionths, counts], axis=1)


def merge(histograms: Iterable[np.ndarray]) -> np.ndarray:
    """int64 [distinct scores, 2]: the sum of the histograms. Memory does not grow with their number."""
    counts = np.zeros(STEPS + 1, np.int64)
    for one in histograms:
        millionths, times = np.asarray(one, np.int64).reshape(-1, 2).T  # an empty one may have the shape [0]
        counts[millionths] += times
    (found,) = np.nonzero(counts)
    return np.stack([found, counts[found]], axis=1)


def threshold(scores: np.ndarray, keep_share: float) -> float:
    """Return the highest score that at least `keep_share` of the documents reach, by the histogram `scores`.

    Documents with equal scores are kept or dropped together, so slightly more than the share may be kept. 0.0 if there
    are no documents.
    """
    millionths, counts = np.asarray(scores, np.int64).reshape(-1, 2).T
    wanted = math.ceil(Fraction(str(keep_share)) * int(counts.sum()))  # 0.07 of 100 is 7; with floats it would be 8
    from_above = np.cumsum(counts[::-1])
    if not len(counts):
        return 0.0
    return int(millionths[::-1][np.searchsorted(from_above, wanted)]) / STEPS
