"""Fits the trees of model.json to pages whose main text is known.

    python -m data_prep.extract.fit CHECKOUTS [--exclude URLS] [--out model.json]
        [--cross-validate FOLDS [--min-probability P]]

CHECKOUTS is a folder for the repositories of checkouts.py: those that are not in it are cloned, some 600 MB, and each
must be at its commit. URLS lists addresses, one a line; no page of their sites is used, so that they can serve as a
test. Needs catboost (boosting.py). Takes some minutes and 4 GB; the same pages give the same trees.

--cross-validate fits to all sites but a share, in turn, tells the F1 on the pages of those, kind by kind, and writes no
model.
"""

import argparse
import dataclasses
from collections.abc import Iterable, Iterator
from pathlib import Path

from data_prep.extract.fit.boosting import Boosting, import_catboost
from data_prep.extract.fit.checkouts import SOURCES, pages_at
from data_prep.extract.fit.corpora import READERS, UNLIMITED, MarkedPage, site_of
from data_prep.extract.fit.cross_validation import held_out_f1, table
from data_prep.extract.fit.model import fit_model
from data_prep.extract.fit.rows import training_rows
from data_prep.extract.trees import MODEL

SETTINGS = {
    "kind": Boosting(count=300, depth=4, rate=0.07, ridge=10.0, sample=0.2, seed=0),
    "article": Boosting(count=300, depth=5, rate=0.1, ridge=10.0, sample=0.5, seed=0),
    "article_again": Boosting(count=300, depth=5, rate=0.09, ridge=10.0, sample=0.3, seed=0),
    "other": Boosting(count=200, depth=6, rate=0.15, ridge=10.0, sample=0.3, seed=0),
}


def pages_of(folders: dict[str, Path], excluded: Iterable[str]) -> Iterator[MarkedPage]:
    """The pages of the collections, {name in READERS: folder}, but none of a site that `excluded` has an address of."""
    sites = {site_of(url) for url in excluded}
    return (
        page for name, folder in folders.items() for page in READERS[name](folder) if site_of(page.url) not in sites
    )


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
    import_catboost()  # before the minutes of reading
    pages = list(pages_of({name: pages_at(arguments.checkouts, name) for name in SOURCES}, excluded))
    if arguments.cross_validate:
        config = dataclasses.replace(UNLIMITED, min_probability=arguments.min_probability)
        print(table(list(held_out_f1(pages, arguments.cross_validate, SETTINGS, config, arguments.workers))))
        return
    rows = training_rows(pages, arguments.workers)
    print(f"{len(rows.target)} blocks, {len(rows.features)} features", flush=True)
    model = fit_model(rows, [page.kind for page in pages], SETTINGS)
    arguments.out.write_text(model.to_json(), encoding="utf-8")
