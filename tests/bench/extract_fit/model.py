"""The three sets of trees that make a model: what kind of page, and which of its blocks, of an article and of another.

Articles have trees of their own because they are most of the web's prose, and because what is main text of a shop or
a forum is none beside an article. Neither trees are fitted to pages of one kind only: a page may be taken for
another.

CatBoost (Prokhorenkova et al. 2018) fits them: it is the one library whose trees are oblivious, as ours are. It is not
in requirements.lock, as it and what it needs take 430 MB (make add PACKAGE=catboost). Equal rows give equal trees.
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


ARTICLES = frozenset(("article", "readability", "trafilatura"))
KIND_WEIGHT = {"trafilatura": 0.3}
ARTICLE_WEIGHTS = {
    "article": {"service": 0.7, "product": 0.5, "listing": 0.3, "collection": 0.3, "trafilatura": 0.6},
    "article_again": {
        "service": 0.5, "product": 0.35, "listing": 0.2, "collection": 0.2, "forum": 0.7, "trafilatura": 0.6,
    },
}  # fmt: skip
OTHER_WEIGHT = {"article": 0.5, "readability": 0.5, "trafilatura": 0.2}
"""What a page counts by its kind, where it is not 1, to each of the trees. Those of articles are fitted twice, with
other weights and other settings, and joined: what two sets err in differs, and their mean is nearer the truth."""
OF_OTHERS = (
    "page_at_", "page_body_", "page_title_", "page_under_", "told", "alike_own", "alike_deep", "record_", "largest_",
)  # fmt: skip
"""How those begin that the trees of articles do not see: they are about pages of other kinds."""

KIND_FEATURES = 60
"""So many of the features of a page tell what kind it is: those that trees which see all ask most often."""


def fit_model(rows: TrainingRows, kinds: Sequence[str], settings: dict[str, Boosting]) -> Model:
    """The kind of a page is kinds[its number]; `settings` has "kind", "article", "article_again" and "other". Raises
    InputError without catboost."""
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
    """Trees that tell articles, by KIND_FEATURES features: to measure more of each page would take longer."""
    is_article_P, weight_P = np.isin(kinds_P, list(ARTICLES)).astype(float), weights(kinds_P, KIND_WEIGHT)
    trees = fit_trees(rows, is_article_P, weight_P, settings)
    asked = np.bincount(trees.feature.ravel(), minlength=len(trees.features))
    chosen = {trees.features[n] for n in np.argsort(-asked, kind="stable")[:KIND_FEATURES]}
    return fit_trees({name: row for name, row in rows.items() if name in chosen}, is_article_P, weight_P, settings)


def weights(kinds: np.ndarray, of_kinds: dict[str, float]) -> np.ndarray:
    return np.array([of_kinds.get(kind, 1.0) for kind in kinds.tolist()])


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


def trees_json(trees: Trees) -> str:
    """One tree a line: its features' numbers, thresholds and leaves, as Trees.from_content reads them."""
    lines = [
        json.dumps([feature.tolist(), threshold.tolist(), leaves.tolist()])
        for feature, threshold, leaves in zip(trees.feature, trees.threshold, trees.leaves, strict=True)
    ]
    head = f'{{"features": {json.dumps(trees.features)},\n"bias": {trees.bias},\n"trees": [\n'
    return head + ",\n".join(lines) + "\n]}"


def model_json(model: Model) -> str:
    """The contents of model.json."""
    fields = dataclasses.fields(model)
    parts = ",\n".join(f'"{one.name}": {trees_json(getattr(model, one.name))}' for one in fields)
    return f"{{{parts}}}\n"
