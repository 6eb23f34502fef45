"""The three sets of trees that make a model: what kind of page, and which of its blocks, of an article and of another.

Articles have trees of their own because they are most of the web's prose, and because what is main text of a shop or
a forum is none beside an article. Neither trees are fitted to pages of one kind only: a page may be taken for
another.
"""

from collections.abc import Sequence

import numpy as np

from data_prep.extract.fit.boosting import Boosting, fit_trees, mean_of
from data_prep.extract.fit.rows import Rows, TrainingRows
from data_prep.extract.trees import Model, Trees

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
