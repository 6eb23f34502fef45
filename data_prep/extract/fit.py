"""Fits the trees of model.json to pages whose main text is known.

    python -m data_prep.extract.fit --wcxb DIR --readability DIR --trafilatura DIR --exclude URLS [--out model.json]

Needs catboost (boosting.py). corpora.py says where the pages come from. URLS lists addresses, one a line; no page of
their sites is used, so that they can serve as a test. Takes about two minutes and 3 GB; the same pages give the same
trees.
"""

import argparse
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from data_prep.extract.blocks import read_blocks
from data_prep.extract.boosting import Boosting, fit_trees, import_catboost
from data_prep.extract.corpora import READERS, UNLIMITED, MarkedPage, site_of
from data_prep.extract.features import measure
from data_prep.extract.trees import MODEL

WORDS = re.compile(r"\w+")
SURE_WORDS = 8  # a shorter block is told by its neighbours, as its words may be anywhere
PAGE_WEIGHT = {"service": 0.7, "product": 0.5, "listing": 0.3, "collection": 0.3, "trafilatura": 0.6}
"""Weight of a page by its kind, where it is not 1: of what is less plain, or less surely right."""
SETTINGS = Boosting(count=300, depth=5, rate=0.1, ridge=10.0, sample=0.5, seed=0)
SMALL_SHARE = 0.35  # of blocks that hardly matter


def words_of(text: str) -> list[str]:
    return WORDS.findall(text.lower())


def targets(texts: list[str], page: MarkedPage) -> tuple[np.ndarray, np.ndarray]:
    """(share of each block that is main text, its weight): by runs of four words, as the benchmark counts them."""
    truth = words_of(page.text)
    runs = {n: set(zip(*[truth[i:] for i in range(n)], strict=False)) for n in (1, 2, 3, 4)}
    lines = {" ".join(words_of(line)) for line in page.text.split("\n")}
    share, sure, length = np.zeros(len(texts)), np.zeros(len(texts), bool), np.zeros(len(texts), np.int64)
    phrases = []
    for n, text in enumerate(texts):
        words = words_of(text)
        phrases.append(f" {' '.join(words)} ")
        length[n] = len(words)
        if not words:
            continue
        size = min(4, len(words))
        found = [run in runs[size] for run in zip(*[words[i:] for i in range(size)], strict=False)]
        share[n] = np.mean(found)
        if len(words) >= SURE_WORDS:
            sure[n] = share[n] > 0.5
        elif " ".join(words) in lines:
            sure[n] = len(words) >= 4
        elif len(words) < 3:
            share[n] = 0
    before = np.concatenate([[0], np.cumsum(sure)])
    index = np.arange(len(texts))
    near = before[np.minimum(index + 4, len(texts))] > before[np.maximum(index - 3, 0)]
    share[(length < SURE_WORDS) & ~near & ~sure] = 0
    for value, marked in ((0, page.unwanted), (1, page.wanted)):
        for words in filter(None, (" ".join(words_of(phrase)) for phrase in marked)):
            for n, phrase in enumerate(phrases):
                if f" {words} " in phrase and (value or len(words) > 0.3 * len(phrase)):
                    share[n] = value
    weight = np.minimum(length / max(len(truth), 150), 0.25) * 100 + 0.03
    return share, weight * (length > 0) * PAGE_WEIGHT.get(page.kind, 1.0)


def training_rows(pages: Iterable[MarkedPage]) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """(features, targets, weights) of the blocks of all pages; of blocks that hardly matter only a share."""
    random = np.random.default_rng(0)
    parts, targets_, weights = [], [], []
    for page in pages:
        blocks = read_blocks(page.html, UNLIMITED)
        if not blocks.texts:
            continue
        share, weight = targets(blocks.texts, page)
        keep = (weight > 0) & ((weight > 1) | (random.random(len(weight)) < SMALL_SHARE))
        parts.append({name: row[keep].astype(np.float32) for name, row in measure(blocks).items()})
        targets_.append(share[keep])
        weights.append(weight[keep])
    rows = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return rows, np.concatenate(targets_), np.concatenate(weights)


def pages_of(folders: dict[str, Path], excluded: Iterable[str]) -> Iterator[MarkedPage]:
    """The pages of the collections, {name in READERS: folder}, but none of a site that `excluded` has an address of."""
    sites = {site_of(url) for url in excluded}
    return (
        page for name, folder in folders.items() for page in READERS[name](folder) if site_of(page.url) not in sites
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for layout in READERS:
        parser.add_argument(f"--{layout}", type=Path, help=f"folder of the {layout} pages")
    parser.add_argument("--exclude", type=Path, help="addresses whose sites are left out, one a line")
    parser.add_argument("--out", type=Path, default=MODEL)
    arguments = parser.parse_args()
    excluded = arguments.exclude.read_text().split() if arguments.exclude else ()
    folders = {name: getattr(arguments, name) for name in READERS if getattr(arguments, name)}
    if not folders:
        parser.error("give at least one folder of pages")
    import_catboost()  # before the minutes of reading
    rows, target, weight = training_rows(pages_of(folders, excluded))
    print(f"{len(target)} blocks, {len(rows)} features", flush=True)
    arguments.out.write_text(fit_trees(rows, target, weight, SETTINGS).to_json(), encoding="utf-8")


if __name__ == "__main__":
    main()
