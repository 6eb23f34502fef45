"""How good the trees are on sites that they were not fitted to, kind of page by kind of page.

The measure is WCXB's: F1 of the words, as often as each is there, the mean over the pages.
"""

import collections
import zlib
from collections.abc import Iterator

import numpy as np

from data_prep.config import ExtractConfig
from data_prep.extract.blocks import read_blocks
from data_prep.extract.fit.boosting import Boosting
from data_prep.extract.fit.corpora import MarkedPage, site_of
from data_prep.extract.fit.model import fit_model
from data_prep.extract.fit.rows import training_rows, words_of
from data_prep.extract.main_text import text_by
from data_prep.extract.page import Page
from data_prep.extract.trees import Model

KINDS = ("article", "documentation", "service", "forum", "product", "collection", "listing")


def word_f1(got: str, wanted: str) -> float:
    """0 to 1; of two texts without a word 1."""
    got_words, wanted_words = collections.Counter(words_of(got)), collections.Counter(words_of(wanted))
    if not got_words.total() or not wanted_words.total():
        return float(got_words.total() == wanted_words.total())
    return 2 * (got_words & wanted_words).total() / (got_words.total() + wanted_words.total())


def held_out_text(model: Model, html: str, config: ExtractConfig) -> str:
    """The main text of a page by a model that is not the shipped one."""
    blocks = read_blocks(html, config)
    return text_by(model, Page(blocks), config) if blocks.texts else ""


def fold_of(page: MarkedPage, folds: int) -> int:
    """All pages of a site are in one fold."""
    return zlib.crc32(site_of(page.url).encode()) % folds


def held_out_f1(
    pages: list[MarkedPage], folds: int, settings: dict[str, Boosting], config: ExtractConfig, workers: int = 1
) -> Iterator[tuple[str, float]]:
    """(kind, F1) of each page of a kind in KINDS, by trees fitted to the other folds."""
    rows, kinds = training_rows(pages, workers), [page.kind for page in pages]
    fold = np.array([fold_of(page, folds) for page in pages])
    for held_out in range(folds):
        model = fit_model(rows.without(fold == held_out), kinds, settings)
        for n in np.flatnonzero(fold == held_out):
            if pages[n].kind in KINDS:
                yield pages[n].kind, word_f1(held_out_text(model, pages[n].html, config), pages[n].text)


def table(scores: list[tuple[str, float]]) -> str:
    """A line a kind, and one of all pages."""
    lines = []
    for kind in (*KINDS, "all"):
        some = [f1 for one, f1 in scores if kind in (one, "all")]
        if some:
            lines.append(f"{kind:14} {len(some):5} pages  F1 {np.mean(some):.3f}")
    return "\n".join(lines)
