"""Histograms of scores, by which a percentile of all of them is exact and no step holds them all.

A score has six decimal places; a histogram counts the values that occur. Histograms add up in any order and grouping.
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
    """int64 [values, 2]: each score that occurs, in millionths and ascending, and how often.

    Raises UsageError when one is not a number from 0 to 1.
    """
    values = np.asarray(scores, np.float64).reshape(-1)
    wrong = values[~((values >= 0) & (values <= 1))]  # NaN too, of a document that has no score
    if len(wrong):
        raise UsageError(f"A score is {wrong[0]}, but must be from 0 to 1. Count only documents that have one.")
    millionths, counts = np.unique(np.rint(values * STEPS).astype(np.int64), return_counts=True)
    return np.stack([millionths, counts], axis=1)


def merge(histograms: Iterable[np.ndarray]) -> np.ndarray:
    """The histogram of all scores of `histograms`: int64 [values, 2]. Its memory does not grow with their number."""
    counts = np.zeros(STEPS + 1, np.int64)
    for one in histograms:
        millionths, times = np.asarray(one, np.int64).reshape(-1, 2).T  # one without rows may come as [0]
        counts[millionths] += times
    (found,) = np.nonzero(counts)
    return np.stack([found, counts[found]], axis=1)


def threshold(scores: np.ndarray, keep_share: float) -> float:
    """The highest score such that at least `keep_share` of the documents in the histogram have it or more.

    Documents of equal score are kept or dropped together, so a few more than the share may be kept. 0.0 if there are no
    documents. Raises UsageError unless 0 < keep_share <= 1.
    """
    if not 0 < keep_share <= 1:
        raise UsageError(f"keep_share is {keep_share}; give a share above 0, at most 1.")
    millionths, counts = np.asarray(scores, np.int64).reshape(-1, 2).T
    wanted = math.ceil(Fraction(str(keep_share)) * int(counts.sum()))  # 0.07 of 100 is 7, which floats make 8
    from_above = np.cumsum(counts[::-1])
    if not len(counts):
        return 0.0
    return int(millionths[::-1][np.searchsorted(from_above, wanted)]) / STEPS
