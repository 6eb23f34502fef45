"""The three sets of trees of a model: the kind of page, main text of articles, and main text of other pages.

Articles have separate trees because they are most of the prose on the web, and because the main text of a shop or a
forum would be boilerplate in an article. No set is fitted to only one kind of page, since kinds may be confused.

CatBoost (Prokhorenkova et al. 2018) fits them: it is the only library with oblivious trees like ours. It is not in
requirements.lock, because with its dependencies it takes 430 MB (make add PACKAGE=catboost). Equal rows give equal
trees.
"""

import dataclasses
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.extract.trees import SCALE, Model, Trees
from lm.errors import InputError
from tests.bench.extract_fit.rows import Rows, TrainingRows

THRESHOLDS = 31
"""Maximum number of thresholds of a feature."""


@dataclass(frozen=True)
class Boosting:
    """Settings for fitting trees."""

    count: int
    depth: int
    """Number of questions of a tree."""
    rate: float
    """Learning rate: the step of each tree is multiplied by this factor."""
    ridge: float
    """L2 regularization, added to the curvature of each leaf."""
    sample: float
    """Share of the features sampled for each question."""
    seed: int


ARTICLES = frozenset(("article", "readability", "trafilatura"))
KIND_WEIGHT = {"trafilatura": 0.3}
ARTICLE_WEIGHTS = {
    "article": {"service": 0.7, "product": 0.5, "listing": 0.3, "collection": 0.3, "trafilatura": 0.6},
    "article_again": {
        "service": 0.5, "product": 0.35, "listing": 0.2, "collection": 0.2, "forum": 0.7, "trafilatura": 0.6,
    },
}  # fmt: skip
OTHER_WEIGHT = {"article": 0.5, "readability": 0.5, "trafilatura": 0.2}
"""Weights of a page by its kind (default 1) for each set of trees. The trees of articles are fitted twice with other
weights and settings and joined, because the mean of two sets has smaller errors."""
OF_OTHERS = (
    "page_at_", "page_body_", "page_title_", "page_under_", "told", "alike_own", "alike_deep", "record_", "largest_",
)  # fmt: skip
"""Prefixes of features that the trees of articles do not use: they concern other kinds of pages."""

KIND_FEATURES = 60
"""Number of page features for detecting the kind: the most frequent ones in trees fitted to all features."""


def fit_model(rows: TrainingRows, kinds: Sequence[str], settings: dict[str, Boosting]) -> Model:
    """Fit a model. The kind of a page is kinds[its number]; `settings` has "kind", "article", "article_again" and
    "other". Raises InputError without catboost."""
    kinds_B = np.array(kinds)[rows.number]
    of_articles = {name: row for name, row in rows.features.items() if not name.startswith(OF_OTHERS)}
    article = mean_of(
        [
            fit_trees(of_articles, rows.target, rows.weight * weights(kinds_B, of_kinds), settings[name])
            for name, of_kinds in ARTICLE_WEIGHTS.items()
        ]
    )
    return Model(
        fit_kind(rows.of_pages, np.array(kinds)[rows.page_number], settings["kind"]),
        article,
        fit_trees(rows.features, rows.target, rows.weight * weights(kinds_B, OTHER_WEIGHT), settings["other"]),
    )


def fit_kind(rows: Rows, kinds_P: np.ndarray, settings: Boosting) -> Trees:
    """Fit the trees that detect articles to KIND_FEATURES features; measuring more of each page would take longer."""
    is_article_P, weight_P = np.isin(kinds_P, list(ARTICLES)).astype(float), weights(kinds_P, KIND_WEIGHT)
    trees = fit_trees(rows, is_article_P, weight_P, settings)
    asked = np.bincount(trees.feature.ravel(), minlength=len(trees.features))
    chosen = {trees.features[n] for n in np.argsort(-asked, kind="stable")[:KIND_FEATURES]}
    return fit_trees({name: row for name, row in rows.items() if name in chosen}, is_article_P, weight_P, settings)


def weights(kinds: np.ndarray, of_kinds: dict[str, float]) -> np.ndarray:
    return np.array([of_kinds.get(kind, 1.0) for kind in kinds.tolist()])


def import_catboost() -> Any:
    """Import catboost. Raises InputError if it is not installed."""
    try:
        import catboost  # ty: ignore[import-not-found]
    except ImportError as error:
        raise InputError(
            "Trees are fitted by catboost, which is not installed. Install it first: make add PACKAGE=catboost"
        ) from error
    return catboost


def fit_trees(rows: dict[str, np.ndarray], target_N: np.ndarray, weight_N: np.ndarray, settings: Boosting) -> Trees:
    """Fit trees whose score is the log-odds of `target_N` (0 to 1) given `rows` of features. Raises InputError without
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
    """All trees of the sets as one set, whose score is the mean of their scores up to the rounding of leaves."""
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
    """Repeat the first question of each tree `missing` times."""
    return np.concatenate([of_question_TD, *[of_question_TD[:, :1]] * missing], 1)


def trees_of(model: dict[str, Any], names: tuple[str, ...]) -> Trees:
    """The trees in a model that CatBoost saved as JSON; `names` are the columns it was fitted to.

    A tree with fewer questions than others gets its first question again, with its leaves doubled.
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


def trees_json(trees: Trees) -> str:
    """One line per tree: numbers of its features, thresholds and leaves, as Trees.from_content reads them."""
    lines = [
        json.dumps([feature.tolist(), threshold.tolist(), leaves.tolist()])
        for feature, threshold, leaves in zip(trees.feature, trees.threshold, trees.leaves, strict=True)
    ]
    head = f'{{"features": {json.dumps(trees.features)},\n"bias": {trees.bias},\n"trees": [\n'
    return head + ",\n".join(lines) + "\n]}"


def model_json(model: Model) -> str:
    """Return the contents of model.json."""
    fields = dataclasses.fields(model)
    parts = ",\n".join(f'"{one.name}": {trees_json(getattr(model, one.name))}' for one in fields)
    return f"{{{parts}}}\n"
