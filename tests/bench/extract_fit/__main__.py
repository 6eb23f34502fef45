"""Fit the trees of model.json to pages with labeled main text.

    python -m tests.bench.extract_fit CHECKOUTS [--exclude URLS] [--out model.json]
        [--cross-validate FOLDS [--min-probability P]]

CHECKOUTS is a folder for the repositories in corpora.py: missing ones are cloned (about 600 MB), and each must be at
its commit. URLS is a file with one address per line; pages of their sites are excluded, so that they can serve as a
test set. Needs catboost. Takes some minutes and 4 GB; the same pages give the same trees.

--cross-validate fits to all sites except one fold, for each fold, and prints the F1 on the pages of that fold by kind.
It writes no model.
"""

import argparse
import collections
import dataclasses
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from data_prep.config import ExtractConfig
from data_prep.extract.blocks import read_blocks
from data_prep.extract.features import Page
from data_prep.extract.main_text import text_by
from data_prep.extract.trees import MODEL, Model
from tests.bench.extract_fit.corpora import READERS, SOURCES, UNLIMITED, MarkedPage, pages_at, site_of
from tests.bench.extract_fit.model import Boosting, fit_model, import_catboost, model_json
from tests.bench.extract_fit.rows import training_rows, words_of

SETTINGS = {
    "kind": Boosting(count=300, depth=4, rate=0.07, ridge=10.0, sample=0.2, seed=0),
    "article": Boosting(count=300, depth=5, rate=0.1, ridge=10.0, sample=0.5, seed=0),
    "article_again": Boosting(count=300, depth=5, rate=0.09, ridge=10.0, sample=0.3, seed=0),
    "other": Boosting(count=200, depth=6, rate=0.15, ridge=10.0, sample=0.3, seed=0),
}


def pages_of(folders: dict[str, Path], excluded: Iterable[str]) -> Iterator[MarkedPage]:
    """The pages of the collections, {name in READERS: folder}, except those of sites in `excluded`."""
    sites = {site_of(url) for url in excluded}
    return (
        page for name, folder in folders.items() for page in READERS[name](folder) if site_of(page.url) not in sites
    )


KINDS = ("article", "documentation", "service", "forum", "product", "collection", "listing")


def word_f1(got: str, wanted: str) -> float:
    """F1 of words from 0 to 1; 1 for two texts without words."""
    got_words, wanted_words = collections.Counter(words_of(got)), collections.Counter(words_of(wanted))
    if not got_words.total() or not wanted_words.total():
        return float(got_words.total() == wanted_words.total())
    return 2 * (got_words & wanted_words).total() / (got_words.total() + wanted_words.total())


def held_out_text(model: Model, html: str, config: ExtractConfig) -> str:
    """Main text of a page by a model other than the shipped one."""
    blocks = read_blocks(html, config)
    return text_by(model, Page(blocks), config) if blocks.texts else ""


def fold_of(page: MarkedPage, folds: int) -> int:
    """The fold of a page; all pages of a site are in one fold."""
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
    """One line per kind, and one for all pages."""
    lines = []
    for kind in (*KINDS, "all"):
        some = [f1 for one, f1 in scores if kind in (one, "all")]
        if some:
            lines.append(f"{kind:14} {len(some):5} pages  F1 {np.mean(some):.3f}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkouts", type=Path, help="folder of the repositories, or for them")
    parser.add_argument("--exclude", type=Path, help="addresses whose sites are left out, one a line")
    parser.add_argument("--out", type=Path, default=MODEL)
    parser.add_argument("--cross-validate", type=int, metavar="FOLDS", help="tell F1 on held-out sites instead")
    parser.add_argument("--workers", type=int, default=2, help="processes that measure pages (default: 2)")
    parser.add_argument("--min-probability", type=float, default=0.7, help="of the engine, when it is cross-validated")
    arguments = parser.parse_args()
    excluded = arguments.exclude.read_text().split() if arguments.exclude else ()
    import_catboost()  # before reading, which takes minutes
    pages = list(pages_of({name: pages_at(arguments.checkouts, name) for name in SOURCES}, excluded))
    if arguments.cross_validate:
        config = dataclasses.replace(UNLIMITED, min_probability=arguments.min_probability)
        print(table(list(held_out_f1(pages, arguments.cross_validate, SETTINGS, config, arguments.workers))))
        return
    rows = training_rows(pages, arguments.workers)
    print(f"{len(rows.target)} blocks, {len(rows.features)} features", flush=True)
    model = fit_model(rows, [page.kind for page in pages], SETTINGS)
    arguments.out.write_text(model_json(model), encoding="utf-8")


if __name__ == "__main__":
    main()
