"""Fits trees by CatBoost (Prokhorenkova et al. 2018), the one library whose trees are oblivious as ours are, and writes
them down as trees.py reads them.

    make add PACKAGE=catboost

CatBoost is not in requirements.lock: it and what it needs take 430 MB, and trees are fitted once in a long while. The
same rows give the same trees. For 255,100 blocks it took 28 CPU seconds (our own code before it, 146), and F1 on the
held-out articles was .9646 (.9607).
"""

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.extract.trees import SCALE, Trees
from lm.errors import InputError

THRESHOLDS = 31
"""Different thresholds of a feature, at most."""


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
    """Share of the features that a question may be about, drawn anew for each."""
    seed: int


def import_catboost() -> Any:
    """The library. Raises InputError where it is not installed."""
    try:
        import catboost  # ty: ignore[import-not-found]
    except ImportError as error:
        raise InputError(
            "Trees are fitted by catboost, which is not installed. Install it first: make add PACKAGE=catboost"
        ) from error
    return catboost


def fit_trees(rows: dict[str, np.ndarray], target_N: np.ndarray, weight_N: np.ndarray, settings: Boosting) -> Trees:
    """Trees whose score is the log-odds of `target_N` (0 to 1), given `rows` of features. Raises InputError without
    catboost."""
    catboost = import_catboost()
    model = catboost.CatBoost({
        "loss_function": "CrossEntropy", "iterations": settings.count, "depth": settings.depth,
        "learning_rate": settings.rate, "l2_leaf_reg": settings.ridge, "rsm": settings.sample,
        "random_seed": settings.seed, "border_count": THRESHOLDS, "bootstrap_type": "No", "random_strength": 0,
        "leaf_estimation_method": "Newton", "leaf_estimation_iterations": 1, "boost_from_average": True,
        "thread_count": 1, "allow_writing_files": False, "logging_level": "Silent",
    })  # fmt: skip
    values_NF = np.stack([row.astype(np.float32) for row in rows.values()], 1)
    model.fit(catboost.Pool(values_NF, label=target_N, weight=weight_N))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.json"
        model.save_model(str(path), format="json")
        return trees_of(json.loads(path.read_text(encoding="utf-8")), tuple(rows))


def mean_of(sets: Sequence[Trees]) -> Trees:
    """All trees of the sets as one set, which scores what they score in the mean, but for the rounding of leaves."""
    depth = max(one.feature.shape[1] for one in sets)
    names = tuple(dict.fromkeys(name for one in sets for name in one.features))
    feature, threshold, leaves = [], [], []
    for one in sets:
        missing = depth - one.feature.shape[1]
        place = np.array([names.index(name) for name in one.features])
        feature.append(widened(place[one.feature], missing))
        threshold.append(widened(one.threshold, missing))
        leaves.append(np.tile(one.leaves, 2**missing))
    return Trees(
        names,
        np.concatenate(feature),
        np.concatenate(threshold),
        np.round(np.concatenate(leaves) / len(sets)).astype(np.int64),
        round(sum(one.bias for one in sets) / len(sets)),
    )


def widened(of_question_TD: np.ndarray, missing: int) -> np.ndarray:
    """The first question of each tree so many times more."""
    return np.concatenate([of_question_TD, *[of_question_TD[:, :1]] * missing], 1)


def trees_of(model: dict[str, Any], names: tuple[str, ...]) -> Trees:
    """The trees in a model that CatBoost saved as JSON; `names` are those of the columns it was fitted to.

    A tree with fewer questions than another gets its first once more, and its leaves twice.
    """
    column = {one["feature_index"]: one["flat_feature_index"] for one in model["features_info"]["float_features"]}
    scale, (bias,) = model["scale_and_bias"]
    depth = max(len(tree["splits"] or ()) for tree in model["oblivious_trees"])
    asked, leaves = [], []
    for tree in model["oblivious_trees"]:
        questions = [(column[split["float_feature_index"]], split["border"]) for split in tree["splits"] or ()]
        missing = depth - len(questions)
        asked.append(questions + (questions or [(0, 0.0)])[:1] * missing)
        leaves.append(tree["leaf_values"] * 2**missing)
    used = sorted({feature for questions in asked for feature, _ in questions})
    return Trees(
        tuple(names[feature] for feature in used),
        np.array([[used.index(feature) for feature, _ in questions] for questions in asked]),
        np.array([[threshold for _, threshold in questions] for questions in asked]),
        np.round(SCALE * scale * np.array(leaves)).astype(np.int64),
        round(SCALE * bias),
    )
