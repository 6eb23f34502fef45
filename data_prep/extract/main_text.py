"""Our own extraction: the blocks of a page, each judged by fitted trees, the main ones kept in their order.

The trees see a block, its neighbours, the containers around it and the whole page (features.py). They were fitted to
pages with marked main text (tests/bench/extract_fit), none from a site of the benchmark in docs/benchmarks.md. A
paragraph becomes one line, a list item begins with "- ", " | " separates the cells of a row, <pre> keeps its lines.
"""

import functools
import math
import re
from collections.abc import Iterable

import numpy as np

from data_prep.config import ExtractConfig
from data_prep.extract.blocks import CELLS, HEADINGS, KIND, KINDS, Blocks, read_blocks
from data_prep.extract.features import COMMON, OF_OTHERS, measure
from data_prep.extract.hints import BIT
from data_prep.extract.page import FAR, PROSE_SIZE, Page, among
from data_prep.extract.trees import SCALE, Model, load_model

LETTER = re.compile(r"[^\W_]")
LEAST = -3 * SCALE  # log-odds; one in twenty
QUARTERS = 3
"""Of their log-odds that blocks have in truth on pages that are no articles: trees are too sure of sites that they were
not fitted to."""
LIMIT, WHOLE = 8 * SCALE, 1 << 20  # the probabilities of scores that are told apart, and in how many parts
ARTICLE, PERHAPS = SCALE // 2, -SCALE
"""Log-odds of being an article above which a page is read as one, and above which as what it may be too: 1.6 to 1, 1 to
2.7."""
OTHERS = 5 / 7
"""Of min_probability, on pages that are no articles: at .7 a block is kept from half of the expected F1 on."""
GAP = 4
MUCH = 2000
"""Characters of paragraphs without a link that one container may lose."""
PLAIN = 0.01
"""Share of a page's characters inside links, below which all of the page is text."""
FURNITURE = BIT["<nav>"] | BIT["<footer>"]
"""Hints of the elements that hold no main text: the tags, and the roles and item types of the same meaning."""


@functools.cache
def probabilities() -> np.ndarray:
    """Of each score from -LIMIT to LIMIT, in parts of WHOLE."""
    odds = [math.exp(score / SCALE) for score in range(-LIMIT, LIMIT + 1)]
    return np.array([round(WHOLE * one / (1 + one)) for one in odds])


def main_blocks(page: Page, score_N: np.ndarray, min_probability: float, is_article: bool = True) -> list[int]:
    """Indices of the blocks that are main text.

    Those above the bar are; so is a block between two of them, not far from either, that is more likely main text than
    not, and a heading whose text is. Where all of them together are no longer than a line, the bar is lowered for this
    page: a page of one paragraph gives that paragraph, though it looks like little. A page with hardly a link is a text
    and not a site's page: all of it is main, though its lines may be verse, a play or a speech, which the fitted trees
    have hardly seen. Navigation and footers are main text nowhere.
    """
    furniture_N = furniture(page)
    if page.link_length.sum() < PLAIN * page.length.sum():
        return np.flatnonzero(~furniture_N).tolist()
    score_N = np.where(furniture_N, LEAST, score_N)
    bar = log_odds(min_probability) if is_article else expected_bar(score_N, page.length, OTHERS * min_probability)
    sure_N = score_N > bar
    if page.length[sure_N].sum() < PROSE_SIZE:
        best = score_N[page.length >= PROSE_SIZE].max(initial=LEAST)
        if best > LEAST:
            sure_N = score_N >= min(bar, best - SCALE / 2)
    keep_N = spread(page, sure_N, score_N, bar) if sure_N.any() else sure_N
    keep_siblings(page, keep_N)
    return np.flatnonzero(keep_N & ~furniture_N).tolist()


def log_odds(probability: float) -> float:
    return SCALE * math.log(probability / (1 - probability))


def expected_bar(score_N: np.ndarray, length_N: np.ndarray, share: float) -> float:
    """The score from which on a block is main text, on a page that is no article: at the probability `share` of the
    best F1 that can be expected.

    Of the choices of the likeliest blocks one has the highest expected F1, and its blocks are those with a probability
    above half of that F1 (Lipton, Elkan and Narayanaswamy 2014, Optimal thresholding of classifiers to maximize F1
    measure): the less can be told of a page, the lower. Scores count QUARTERS.
    """
    part_N = probabilities()[np.clip(score_N * QUARTERS // 4, -LIMIT, LIMIT) + LIMIT]
    order_N = np.argsort(-part_N, kind="stable")
    length_N, part_N = length_N[order_N], part_N[order_N]
    found_N = np.cumsum(length_N * part_N)
    best = float((2 * found_N / (WHOLE * np.cumsum(length_N) + found_N[-1])).max())
    return max(4 / QUARTERS * log_odds(share * best), LEAST)


def whole_page(page: Page, rows: dict[str, np.ndarray], names: Iterable[str]) -> dict[str, np.ndarray]:
    """What the trees that tell articles ask of all blocks at once: those of `names` that are "HOW:FEATURE", rows of
    length 1.

    HOW: the feature's mean over the page's text or over its prose, or its value at the first headline (-1 where there
    is none). In whole thousandths, rounded before they are summed: sums of integers are the same on every machine.
    """
    asked, places = features_of(tuple(names))
    values_FN = np.empty((len(asked), page.N), np.float32)
    for n, name in enumerate(asked):
        values_FN[n] = rows[name]
    whole_FN = np.round(values_FN * 1000).astype(np.int64)
    headline = np.flatnonzero(page.heading_level == 1)[:1]
    of_F = {
        "mean": whole_FN @ page.size // page.all_size,
        "prose": whole_FN @ page.prose // page.all_prose,
        "headline": whole_FN[:, headline[0]] if len(headline) else np.full(len(asked), -1),
    }
    return {name: of_F[how][place, None] for name, how, place in places}


@functools.lru_cache(16)
def features_of(names: tuple[str, ...]) -> tuple[list[str], list[tuple[str, str, int]]]:
    """The different features in names "HOW:FEATURE", and of each such name what it is, HOW, and the feature's place."""
    parted = [(name, *name.partition(":")[::2]) for name in names if ":" in name]
    asked = sorted({feature for _, _, feature in parted})
    return asked, [(name, how, asked.index(feature)) for name, how, feature in parted]


def furniture(page: Page) -> np.ndarray:
    """Which blocks are below a <nav> or <footer>, bool.

    The footer of a quotation names its author and is none. Where such elements hold most of the page's text, one was
    left open or is used for something else, and the hint means nothing.
    """
    quoted_M = page.mask[page.parent] & BIT["<blockquote>"] > 0
    element = np.flatnonzero((page.own & FURNITURE > 0) & ~quoted_M)
    blocks_N = np.zeros(page.N + 1, np.int64)  # +1 where such an element begins, -1 after its end
    np.add.at(blocks_N, page.first[element], 1)
    np.add.at(blocks_N, page.last[element], -1)
    inside_N = np.cumsum(blocks_N)[:-1] > 0
    return inside_N & (2 * page.length[inside_N].sum() <= page.length.sum())


def spread(page: Page, sure_N: np.ndarray, score_N: np.ndarray, bar: float) -> np.ndarray:
    """`sure_N` with what lies between two such blocks, and with the headings of what is kept."""
    index_N = page.index
    before_N = np.maximum.accumulate(np.where(sure_N, index_N, -FAR))
    after_N = np.minimum.accumulate(np.where(sure_N, index_N, len(index_N) + FAR)[::-1])[::-1]
    keep_N = sure_N | ((score_N > min(bar, 0)) & (index_N - before_N <= GAP) & (after_N - index_N <= GAP))
    heading_N = among(HEADINGS)[page.kind] & (score_N > -SCALE) & (before_N >= 0)
    for n in np.flatnonzero(heading_N[:-1])[::-1]:
        keep_N[n] |= keep_N[n + 1]
    return keep_N


def keep_siblings(page: Page, keep_N: np.ndarray) -> None:
    """Sets `keep_N` for paragraphs of the container that holds half of the page's text, if some of them are main, or
    three quarters of it.

    Only where very much would be lost, more than boilerplate ever is: speeches, plays, novels, whose paragraphs are
    unlike those of articles. Paragraphs with links are left to the trees.
    """
    if page.length[(page.link == 0) & ~keep_N].sum() <= MUCH:
        return
    groups, group_N = np.unique(page.parent[page.owner] * len(KINDS) + page.kind, return_inverse=True)
    length_N, free_N = page.length, page.link == 0
    total_G, kept_G, lost_G = (
        np.bincount(group_N, length_N * chosen_N, len(groups)) for chosen_N in (True, keep_N, free_N & ~keep_N)
    )
    half_G, most_G = (share * total_G >= length_N.sum() for share in (2, 4 / 3))
    whole_G = (lost_G > MUCH) & (half_G & (kept_G > 0) | most_G)
    keep_N |= whole_G[group_N] & free_N


def bullet(blocks: Blocks, n: int) -> str:
    """ "- " where block n is what a list item begins with."""
    element = blocks.owner[n]
    for _ in range(2):
        if blocks.kind[element] == KIND["li"]:
            return "- " if blocks.first[element] == n else ""
        element = max(blocks.parent[element], 0)
    return ""


def load() -> None:
    """Raises InputError where the fitted trees are missing or damaged."""
    load_model()


def main_text(html: str | bytes, config: ExtractConfig) -> str:
    """The main text of a page, which is text or its UTF-8, "" where there is none. Raises PageLimitError and
    UnreadablePageError."""
    blocks = read_blocks(html, config)
    return text_by(load_model(), Page(blocks), config) if blocks.texts else ""


def scores(model: Model, page: Page) -> tuple[np.ndarray, bool]:
    """(log-odds that each block is main text, whether the page is read as an article).

    By the trees of articles or those of other pages; where the kind is in doubt the mean of both, read as another page.
    """
    rows = measure(page, COMMON)
    kind = model.kind.score(rows | whole_page(page, rows, model.kind.features))[0]
    if kind > ARTICLE:
        return model.article.score(rows), True
    score_N = model.other.score(rows | measure(page, OF_OTHERS))
    return ((score_N + model.article.score(rows)) // 2 if kind > PERHAPS else score_N), False


def text_by(model: Model, page: Page, config: ExtractConfig) -> str:
    """The text of the blocks that are main by these trees; of a page with at least one block."""
    blocks = page.blocks
    score_N, is_article = scores(model, page)
    lines, seen = [], set()
    for n in main_blocks(page, score_N, config.min_probability, is_article):
        text = blocks.texts[n]
        if not config.include_tables and blocks.kind[blocks.owner[n]] in CELLS:
            continue
        if LETTER.search(text) and text not in seen:
            lines.append(bullet(blocks, n) + text)
            if len(text) >= PROSE_SIZE:  # what a page says twice, as under each picture of a gallery, is told once
                seen.add(text)
    return "\n".join(lines)
