"""Training rows of the trees: for each block its share of main text and its weight.

All pages have the same total weight, whatever their kind and length (model.py weights the kinds).
"""

import contextlib
import multiprocessing
import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from data_prep.extract.blocks import read_blocks
from data_prep.extract.features import COMMON, Page, measure
from data_prep.extract.main_text import whole_page
from tests.bench.extract_fit.corpora import UNLIMITED, MarkedPage

WORDS = re.compile(r"\w+")
SURE_WORDS = 8  # shorter blocks are labeled by their neighbors, since their words may occur anywhere
SMALL_SHARE = 0.35
"""Share of the low-weight blocks that is sampled; their weight is increased accordingly."""
OF_PAGES = ("page_", "under_")
"""Prefixes of features with one value per page."""

Rows = dict[str, np.ndarray]


@dataclass(frozen=True)
class TrainingRows:
    """B blocks of P pages."""

    features: Rows
    """Features of each block."""
    target: np.ndarray
    weight: np.ndarray
    number: np.ndarray
    """Page number of each block."""
    of_pages: Rows
    """Features of each page."""
    page_number: np.ndarray

    def without(self, left_out: np.ndarray) -> "TrainingRows":
        """The rows without the pages whose number is True in `left_out`."""
        kept_B, kept_P = ~left_out[self.number], ~left_out[self.page_number]
        return TrainingRows(
            {name: row[kept_B] for name, row in self.features.items()},
            self.target[kept_B],
            self.weight[kept_B],
            self.number[kept_B],
            {name: row[kept_P] for name, row in self.of_pages.items()},
            self.page_number[kept_P],
        )


def words_of(text: str) -> list[str]:
    return WORDS.findall(text.lower())


def targets(texts: list[str], page: MarkedPage) -> tuple[np.ndarray, np.ndarray]:
    """Return (share of each block that is main text, its weight), by runs of four words as the benchmark counts
    them."""
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
    return share, weight * (length > 0)


def rows_of_page(page: MarkedPage) -> tuple[Rows, np.ndarray, np.ndarray, Rows] | None:
    """Return (features, targets, weights) of the page's blocks, with only a sample of the low-weight ones, and the
    features of the page with length 1; None without a block."""
    blocks = read_blocks(page.html, UNLIMITED)
    if not blocks.texts:
        return None
    share, weight = targets(blocks.texts, page)
    drawn, matters = np.random.default_rng(len(weight)).random(len(weight)) < SMALL_SHARE, weight > 1
    keep = (weight > 0) & (matters | drawn)
    measured_page = Page(blocks)
    measured = measure(measured_page)
    rows = {name: np.broadcast_to(row, len(keep))[keep].astype(np.float32) for name, row in measured.items()}
    return rows, share[keep], np.where(matters, weight, weight / SMALL_SHARE)[keep], page_rows(measured_page)


def page_rows(page: Page) -> Rows:
    """Features for the kind of the page: those with one value per page, and main_text.py's summaries of the others."""
    common = measure(page, COMMON)
    of_page = {name: row for name, row in common.items() if name.startswith(OF_PAGES)}
    names = [f"{how}:{name}" for how in ("mean", "prose", "headline") for name in common if name not in of_page]
    return {name: row.astype(np.float32) for name, row in (of_page | whole_page(page, common, names)).items()}


def joined(parts: Iterable[Rows]) -> Rows:
    parts = list(parts)
    return {name: np.concatenate([one[name] for one in parts]) for name in parts[0]}


def training_rows(pages: Iterable[MarkedPage], workers: int = 1) -> TrainingRows:
    """Return the rows of all pages, the same for any number of workers; one worker runs in this process."""
    with contextlib.ExitStack() as stack:
        if workers > 1:  # never by fork, which is unsafe in a process with threads
            pool = stack.enter_context(multiprocessing.get_context("spawn").Pool(workers))
            measured: Iterable = pool.imap(rows_of_page, pages, chunksize=8)
        else:
            measured = map(rows_of_page, pages)
        numbers, parts = zip(*((number, part) for number, part in enumerate(measured) if part), strict=True)
    rows, targets_, weights, of_pages = zip(*parts, strict=True)
    return TrainingRows(
        joined(rows),
        np.concatenate(targets_),
        np.concatenate(weights),
        np.repeat(numbers, [len(one) for one in weights]),
        joined(of_pages),
        np.array(numbers),
    )
