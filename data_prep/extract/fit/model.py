"""The three sets of trees that make a model: what kind of page, and which of its blocks, of an article and of another.

Articles have trees of their own because they are most of the web's prose, and because what is main text of a shop or
a forum is none beside an article. Neither trees are fitted to pages of one kind only: a page may be taken for
another.
"""

from collections.abc import Sequence

import numpy as np

from data_prep.extract.fit.boosting import Boosting, fit_trees
from data_prep.extract.trees import Model

ARTICLES = frozenset(("article", "readability", "trafilatura"))
KIND_WEIGHT = {"trafilatura": 0.3}
ARTICLE_WEIGHT = {"service": 0.7, "product": 0.5, "listing": 0.3, "collection": 0.3, "trafilatura": 0.6}
OTHER_WEIGHT = {"article": 0.5, "readability": 0.5, "trafilatura": 0.2}
"""What a page counts by its kind, where it is not 1, to each of the trees."""
OF_PAGES = ("page_", "under_")
"""How the features begin that have one value for a page."""
OF_OTHERS = (
    "page_at_", "page_body_", "page_title_", "page_under_", "told", "alike_own", "alike_deep", "record_", "largest_",
)  # fmt: skip
"""How those begin that the trees of articles do not see: they are about pages of other kinds."""

Rows = dict[str, np.ndarray]


def fit_model(
    rows: Rows, target_N: np.ndarray, weight_N: np.ndarray, number_N: np.ndarray, kinds: Sequence[str],
    settings: dict[str, Boosting],
) -> Model:  # fmt: skip
    """`number_N` is the number of each block's page, whose kind is kinds[number]; `settings` has "kind", "article" and
    "other". Raises InputError without catboost."""
    pages, first = np.unique(number_N, return_index=True)
    kinds_P, kinds_N = np.array(kinds)[pages], np.array(kinds)[number_N]
    page_rows = {name: row[first] for name, row in rows.items() if name.startswith(OF_PAGES)}
    article_rows = {name: row for name, row in rows.items() if not name.startswith(OF_OTHERS)}
    is_article_P = np.isin(kinds_P, list(ARTICLES)).astype(float)
    return Model(
        fit_trees(page_rows, is_article_P, weights(kinds_P, KIND_WEIGHT), settings["kind"]),
        fit_trees(article_rows, target_N, weight_N * weights(kinds_N, ARTICLE_WEIGHT), settings["article"]),
        fit_trees(rows, target_N, weight_N * weights(kinds_N, OTHER_WEIGHT), settings["other"]),
    )


def weights(kinds: np.ndarray, of_kinds: dict[str, float]) -> np.ndarray:
    return np.array([of_kinds.get(kind, 1.0) for kind in kinds.tolist()])
