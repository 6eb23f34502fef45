"""Fits oblivious trees by gradient boosting on the logistic loss (Friedman 2001; one question a level as in CatBoost,
Prokhorenkova et al. 2018), with Newton steps and a ridge on the leaves."""

from dataclasses import dataclass

import numpy as np

from data_prep.extract.trees import SCALE, Trees

BINS = 32


def thresholds_of(values: np.ndarray) -> np.ndarray:
    """At most BINS - 1 thresholds between different values of a feature, at its quantiles; six significant digits."""
    different = np.unique(np.quantile(values, np.linspace(0, 1, BINS), method="nearest"))
    middles = (different[1:] + different[:-1]) / 2
    return np.unique([float(f"{middle:.6g}") for middle in middles])


def best_question(bins_FN, leaf_N, gradient_N, hessian_N, leaves: int, ridge: float) -> tuple[int, int]:
    """(feature, bin) of the question that lowers the loss most when every leaf is split by it."""
    best = (-1.0, 0, 0)
    for feature, bins_N in enumerate(bins_FN):
        key_N = leaf_N * BINS + bins_N
        gradient = np.bincount(key_N, gradient_N, leaves * BINS).reshape(leaves, BINS).cumsum(1)
        hessian = np.bincount(key_N, hessian_N, leaves * BINS).reshape(leaves, BINS).cumsum(1)
        gain = gradient**2 / (hessian + ridge)
        gain += (gradient[:, -1:] - gradient) ** 2 / (hessian[:, -1:] - hessian + ridge)
        total = gain[:, :-1].sum(0)
        at = int(np.argmax(total))
        if total[at] > best[0]:
            best = (float(total[at]), feature, at)
    return best[1:]


@dataclass(frozen=True)
class Boosting:
    """How trees are fitted."""

    count: int
    depth: int
    """Questions of a tree."""
    rate: float
    """Each tree's step is shortened by this factor."""
    ridge: float
    """Added to the curvature of each leaf."""
    sample: float
    """Share of the features that a tree may use, drawn anew for each."""
    seed: int


def fit_trees(rows: dict[str, np.ndarray], target_N: np.ndarray, weight_N: np.ndarray, settings: Boosting) -> Trees:
    """Trees whose score is the log-odds of `target_N` (0 to 1), given `rows` of features."""
    count, depth, rate, ridge = settings.count, settings.depth, settings.rate, settings.ridge
    names = list(rows)
    limits = [thresholds_of(rows[name]) for name in names]
    # bin b holds thresholds[b - 1] < value <= thresholds[b]
    bins_FN = np.stack([np.searchsorted(limit, rows[name], "left") for name, limit in zip(names, limits, strict=True)])
    bins_FN = bins_FN.astype(np.int64)
    usable = np.flatnonzero([len(limit) > 0 for limit in limits])
    random = np.random.default_rng(settings.seed)
    mean = np.average(target_N, weights=weight_N)
    bias = round(SCALE * np.log(mean / (1 - mean)))
    score_N = np.full(len(target_N), bias / SCALE)
    features, thresholds, leaves = [], [], []
    for _ in range(count):
        probability_N = 1 / (1 + np.exp(-score_N))
        gradient_N = weight_N * (target_N - probability_N)
        hessian_N = weight_N * probability_N * (1 - probability_N)
        seen = np.sort(random.choice(usable, max(1, round(settings.sample * len(usable))), replace=False))
        leaf_N = np.zeros(len(target_N), np.int64)
        questions = []
        for level in range(depth):
            feature, at = best_question(bins_FN[seen], leaf_N, gradient_N, hessian_N, 1 << level, ridge)
            feature = int(seen[feature])
            at = min(at, len(limits[feature]) - 1)
            leaf_N += (bins_FN[feature] > at).astype(np.int64) << level
            questions.append((feature, float(limits[feature][at])))
        step = np.bincount(leaf_N, gradient_N, 1 << depth) / (np.bincount(leaf_N, hessian_N, 1 << depth) + ridge)
        values = np.round(SCALE * rate * step).astype(np.int64)
        score_N += values[leaf_N] / SCALE
        features.append([feature for feature, _ in questions])
        thresholds.append([threshold for _, threshold in questions])
        leaves.append(values)
    used = sorted({feature for tree in features for feature in tree})
    number = {feature: n for n, feature in enumerate(used)}
    return Trees(
        tuple(names[feature] for feature in used),
        np.array([[number[feature] for feature in tree] for tree in features]),
        np.array(thresholds),
        np.array(leaves),
        bias,
    )
