"""The extraction engine gristmill: classify the blocks of a page by fitted trees, and join the main ones in their
order.

The trees use a block, its neighbors, the containers around it and the whole page (features.py). They were fitted to
pages with labeled main text (docs/extraction.md), none from a site of the benchmark in docs/benchmarks.md. A
paragraph becomes one line, a list item begins with "- ", " | " separates the cells of a row, <pre> keeps its lines.
"""

import functools
import math
import re
from collections.abc import Iterable

import numpy as np

from data_prep.config import ExtractConfig
from data_prep.extract.blocks import CELLS, HEADINGS, KIND, KINDS, Blocks, read_blocks
from data_prep.extract.features import COMMON, FAR, OF_OTHERS, PROSE_SIZE, Page, among, measure
from data_prep.extract.hints import BIT
from data_prep.extract.trees import SCALE, Model, load_model

LETTER = re.compile(r"[^\W_]")
MIN_SCORE = -3 * SCALE  # log-odds: a probability of 1/20
LOG_ODDS_QUARTERS = 3
"""Calibration on pages that are not articles: 3/4 of the trees' log-odds, because trees are overconfident on sites that
they were not fitted to."""
LIMIT = 8 * SCALE  # range of scores with distinct probabilities
PROBABILITY_UNITS = 1 << 20
ARTICLE, MAYBE_ARTICLE = SCALE // 2, -SCALE
"""Log-odds of being an article above which a page is read as an article (1.6 to 1), and above which it may be one (1 to
2.7)."""
OTHER_PAGES_FACTOR = 5 / 7
"""Factor on min_probability for pages that are not articles: at 0.7, a block is kept from half of the expected F1."""
MAX_GAP = 4
MAX_LOST_CHARACTERS = 2000
"""Maximum characters of paragraphs without links that one container may lose."""
MAX_LINK_SHARE = 0.01
"""Share of characters in links below which the whole page is main text."""
BOILERPLATE = BIT["<nav>"] | BIT["<footer>"]
"""Hints of elements without main text: tags, and roles and item types of the same meaning."""


@functools.cache
def probabilities() -> np.ndarray:
    """Return the probability of each score from -LIMIT to LIMIT, as an integer in units of 1/PROBABILITY_UNITS."""
    odds = [math.exp(score / SCALE) for score in range(-LIMIT, LIMIT + 1)]
    return np.array([round(PROBABILITY_UNITS * one / (1 + one)) for one in odds])


def main_blocks(page: Page, score_N: np.ndarray, min_probability: float, is_article: bool = True) -> list[int]:
    """Return the indices of the blocks that are main text, by their scores (log-odds).

    These are the blocks above the threshold for `min_probability`. Blocks that are close to two of these and between
    them are added if they are more likely main text than not; then the headings before all of them. If the result is
    shorter than a line, the threshold is lowered for this page, so a page of one paragraph returns that paragraph even
    at a low score. A page with hardly any links is main text as a whole: verse, plays or speeches, which the fitted
    trees hardly know. Navigation and footers are never main text.
    """
    boilerplate_N = in_boilerplate(page)
    if page.link_length.sum() < MAX_LINK_SHARE * page.length.sum():
        return np.flatnonzero(~boilerplate_N).tolist()
    score_N = np.where(boilerplate_N, MIN_SCORE, score_N)
    bar = (
        log_odds(min_probability)
        if is_article
        else expected_bar(score_N, page.length, OTHER_PAGES_FACTOR * min_probability)
    )
    sure_N = score_N > bar
    if page.length[sure_N].sum() < PROSE_SIZE:
        best = score_N[page.length >= PROSE_SIZE].max(initial=MIN_SCORE)
        if best > MIN_SCORE:
            sure_N = score_N >= min(bar, best - SCALE / 2)
    keep_N = spread(page, sure_N, score_N, bar) if sure_N.any() else sure_N
    keep_siblings(page, keep_N)
    return np.flatnonzero(keep_N & ~boilerplate_N).tolist()


def log_odds(probability: float) -> float:
    return SCALE * math.log(probability / (1 - probability))


def expected_bar(score_N: np.ndarray, length_N: np.ndarray, share: float) -> float:
    """Return the score threshold for a page that is not an article: the score at which the probability of main text is
    `share` times the best expected F1.

    Among the selections of the most likely blocks, the one with the highest expected F1 contains the blocks whose
    probability is above half of that F1 (Lipton, Elkan and Narayanaswamy 2014, Optimal thresholding of classifiers to
    maximize F1 measure). So the less certain a page is, the lower the threshold. LOG_ODDS_QUARTERS scales the scores.
    """
    part_N = probabilities()[np.clip(score_N * LOG_ODDS_QUARTERS // 4, -LIMIT, LIMIT) + LIMIT]
    order_N = np.argsort(-part_N, kind="stable")
    length_N, part_N = length_N[order_N], part_N[order_N]
    found_N = np.cumsum(length_N * part_N)
    best = float((2 * found_N / (PROBABILITY_UNITS * np.cumsum(length_N) + found_N[-1])).max())
    return max(4 / LOG_ODDS_QUARTERS * log_odds(share * best), MIN_SCORE)


def whole_page(page: Page, rows: dict[str, np.ndarray], names: Iterable[str]) -> dict[str, np.ndarray]:
    """Return {name: row of length 1} for the `names` of the form "HOW:FEATURE", which describe the whole page; `rows`
    has the features of its blocks.

    HOW is the mean of the feature over the page's text ("mean") or over its prose ("prose"), or its value at the first
    headline ("headline", -1 if there is none). Values are rounded to thousandths before they are summed: sums of
    integers are the same on every machine.
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
    """Parse names "HOW:FEATURE" (mean:size). Return (distinct features, [(name, HOW, index of its feature)])."""
    parted = [(name, *name.partition(":")[::2]) for name in names if ":" in name]
    asked = sorted({feature for _, _, feature in parted})
    return asked, [(name, how, asked.index(feature)) for name, how, feature in parted]


def in_boilerplate(page: Page) -> np.ndarray:
    """Return (N,) bool: which blocks are in a <nav> or <footer>.

    The footer of a quotation names its author and does not count. If such elements contain most of the page's text, one
    was not closed or is used for something else, so no block counts.
    """
    quoted_M = page.mask[page.parent] & BIT["<blockquote>"] > 0
    element = np.flatnonzero((page.own & BOILERPLATE > 0) & ~quoted_M)
    blocks_N = np.zeros(page.N + 1, np.int64)  # +1 at the start of such an element, -1 after its end
    np.add.at(blocks_N, page.first[element], 1)
    np.add.at(blocks_N, page.last[element], -1)
    inside_N = np.cumsum(blocks_N)[:-1] > 0
    return inside_N & (2 * page.length[inside_N].sum() <= page.length.sum())


def spread(page: Page, sure_N: np.ndarray, score_N: np.ndarray, bar: float) -> np.ndarray:
    """Return `sure_N`, the blocks above the threshold `bar`, extended by likely blocks between two of them and by the
    headings before all of these."""
    index_N = page.index
    before_N = np.maximum.accumulate(np.where(sure_N, index_N, -FAR))
    after_N = np.minimum.accumulate(np.where(sure_N, index_N, len(index_N) + FAR)[::-1])[::-1]
    keep_N = sure_N | ((score_N > min(bar, 0)) & (index_N - before_N <= MAX_GAP) & (after_N - index_N <= MAX_GAP))
    heading_N = among(HEADINGS)[page.kind] & (score_N > -SCALE) & (before_N >= 0)
    for n in np.flatnonzero(heading_N[:-1])[::-1]:
        keep_N[n] |= keep_N[n + 1]
    return keep_N


def keep_siblings(page: Page, keep_N: np.ndarray) -> None:
    """Mark blocks without links as main text, in `keep_N`, if their group (the blocks with the same tag and parent) has
    three quarters of the page's text, or half of it and a block that is already marked.

    This applies to groups of which more than MAX_LOST_CHARACTERS would be lost, as in speeches, plays and novels, whose
    paragraphs differ from those of articles. Paragraphs with links are left to the trees.
    """
    if page.length[(page.link == 0) & ~keep_N].sum() <= MAX_LOST_CHARACTERS:
        return
    groups, group_N = np.unique(page.parent[page.owner] * len(KINDS) + page.kind, return_inverse=True)
    length_N, free_N = page.length, page.link == 0
    total_G, kept_G, lost_G = (
        np.bincount(group_N, length_N * chosen_N, len(groups)) for chosen_N in (True, keep_N, free_N & ~keep_N)
    )
    half_G, most_G = (share * total_G >= length_N.sum() for share in (2, 4 / 3))
    whole_G = (lost_G > MAX_LOST_CHARACTERS) & (half_G & (kept_G > 0) | most_G)
    keep_N |= whole_G[group_N] & free_N


def bullet(blocks: Blocks, n: int) -> str:
    """Return "- " if block n is the start of a list item, else ""."""
    element = blocks.owner[n]
    for _ in range(2):
        if blocks.kind[element] == KIND["li"]:
            return "- " if blocks.first[element] == n else ""
        element = max(blocks.parent[element], 0)
    return ""


def load() -> None:
    """Load the fitted trees. Raises InputError if they are missing or damaged."""
    load_model()


def main_text(html: str | bytes, config: ExtractConfig) -> str:
    """Return the main text of a page (text or UTF-8), or "". Raises PageLimitError and UnreadablePageError."""
    blocks = read_blocks(html, config)
    return text_by(load_model(), Page(blocks), config) if blocks.texts else ""


def scores(model: Model, page: Page) -> tuple[np.ndarray, bool]:
    """Return ((N,) log-odds that each block is main text, in thousandths; whether the page counts as an article).

    The model has one ensemble of decision trees for articles and one for other pages. If the kind of the page is
    uncertain, the scores are the mean of both ensembles, and the page does not count as an article.
    """
    rows = measure(page, COMMON)
    kind = model.kind.score(rows | whole_page(page, rows, model.kind.features))[0]
    if kind > ARTICLE:
        return model.article.score(rows), True
    score_N = model.other.score(rows | measure(page, OF_OTHERS))
    return ((score_N + model.article.score(rows)) // 2 if kind > MAYBE_ARTICLE else score_N), False


def text_by(model: Model, page: Page, config: ExtractConfig) -> str:
    """Return the main text that the `model` selects on a page of at least one block."""
    blocks = page.blocks
    score_N, is_article = scores(model, page)
    lines, seen = [], set()
    for n in main_blocks(page, score_N, config.min_probability, is_article):
        text = blocks.texts[n]
        if not config.include_tables and blocks.kind[blocks.owner[n]] in CELLS:
            continue
        if LETTER.search(text) and text not in seen:
            lines.append(bullet(blocks, n) + text)
            if len(text) >= PROSE_SIZE:  # drop repeated texts, e.g. under each image of a gallery
                seen.add(text)
    return "\n".join(lines)
