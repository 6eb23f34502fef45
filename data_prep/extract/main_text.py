"""Our own extraction: the blocks of a page, each judged by fitted trees, the main ones kept in their order.

The trees look at a block, its neighbours, the containers around it and the page as a whole (features.py). They were
fitted on pages whose main text people had marked (fit.py), none of them from a site of the benchmark that
docs/benchmarks.md reports. Each paragraph comes out as one line, a list item begins with "- ", cells of a row are
parted by " | ", <pre> keeps its lines.
"""

import math
import re

import numpy as np

from data_prep.config import ExtractConfig
from data_prep.extract.blocks import HEADINGS, KIND, KINDS, Blocks, read_blocks
from data_prep.extract.features import FAR, PROSE_SIZE, measure
from data_prep.extract.hints import BIT
from data_prep.extract.trees import SCALE, load_model

LETTER = re.compile(r"[^\W_]")
LEAST = -3 * SCALE  # log-odds; one in twenty
GAP = 4
MUCH = 2000
"""Characters of paragraphs without a link that one container may lose."""
PLAIN = 0.01
"""Share of a page's characters inside links, below which all of the page is text."""
CELLS = frozenset((KIND["td"], KIND["th"], KIND["tr"]))
FURNITURE = BIT["<nav>"] | BIT["<footer>"]
"""Hints of the elements that hold no main text: the tags, and the roles and item types of the same meaning."""


def main_blocks(blocks: Blocks, score_N: np.ndarray, min_probability: float) -> list[int]:
    """Indices of the blocks that are main text.

    Those above the bar are; so is a block between two of them, not far from either, that is more likely main text than
    not, and a heading whose text is. Where all of them together are no longer than a line, the bar is lowered for this
    page: a page of one paragraph gives that paragraph, though it looks like little. A page with hardly a link is a text
    and not a site's page: all of it is main, though its lines may be verse, a play or a speech, which the fitted trees
    have hardly seen. Navigation and footers are main text nowhere.
    """
    furniture_N = furniture(blocks)
    if sum(blocks.link) < PLAIN * sum(map(len, blocks.texts)):
        return np.flatnonzero(~furniture_N).tolist()
    bar = SCALE * math.log(min_probability / (1 - min_probability))
    length_N = np.array([len(text) for text in blocks.texts])
    score_N = np.where(furniture_N, LEAST, score_N)
    sure_N = score_N > bar
    if length_N[sure_N].sum() < PROSE_SIZE:
        long_N = length_N >= PROSE_SIZE
        best = score_N[long_N].max(initial=LEAST)
        if best > LEAST:
            sure_N = score_N >= min(bar, best - SCALE / 2)
    keep_N = spread(blocks, sure_N, score_N, bar) if sure_N.any() else sure_N
    keep_siblings(blocks, keep_N, length_N)
    return np.flatnonzero(keep_N & ~furniture_N).tolist()


def furniture(blocks: Blocks) -> np.ndarray:
    """Which blocks are below a <nav> or <footer>, bool.

    The footer of a quotation names its author and is none. Where such elements hold most of the page's text, one was
    left open or is used for something else, and the hint means nothing.
    """
    own_M, mask_M = np.array(blocks.own, np.int64), np.array(blocks.mask, np.int64)
    quoted_M = mask_M[np.maximum(blocks.parent, 0)] & BIT["<blockquote>"] > 0
    element = np.flatnonzero((own_M & FURNITURE > 0) & ~quoted_M)
    blocks_N = np.zeros(len(blocks.texts) + 1, np.int64)  # +1 where such an element begins, -1 after its end
    np.add.at(blocks_N, np.array(blocks.first)[element], 1)
    np.add.at(blocks_N, np.array(blocks.last)[element], -1)
    inside_N = np.cumsum(blocks_N)[:-1] > 0
    length_N = np.array([len(text) for text in blocks.texts])
    return inside_N & (2 * length_N[inside_N].sum() <= length_N.sum())


def spread(blocks: Blocks, sure_N: np.ndarray, score_N: np.ndarray, bar: float) -> np.ndarray:
    """`sure_N` with what lies between two such blocks, and with the headings of what is kept."""
    index_N = np.arange(len(blocks.texts))
    before_N = np.maximum.accumulate(np.where(sure_N, index_N, -FAR))
    after_N = np.minimum.accumulate(np.where(sure_N, index_N, len(index_N) + FAR)[::-1])[::-1]
    keep_N = sure_N | ((score_N > min(bar, 0)) & (index_N - before_N <= GAP) & (after_N - index_N <= GAP))
    kind_N = np.array(blocks.kind)[blocks.owner]
    heading_N = np.isin(kind_N, list(HEADINGS)) & (score_N > -SCALE) & (before_N >= 0)
    for n in np.flatnonzero(heading_N[:-1])[::-1]:
        keep_N[n] |= keep_N[n + 1]
    return keep_N


def keep_siblings(blocks: Blocks, keep_N: np.ndarray, length_N: np.ndarray) -> None:
    """Sets `keep_N` for paragraphs of the container that holds half of the page's text, if some of them are main, or
    three quarters of it.

    Only where very much would be lost, more than boilerplate ever is: speeches, plays, novels, whose paragraphs are
    unlike those of articles. Paragraphs with links are left to the trees.
    """
    owner_N = np.array(blocks.owner)
    group_N = np.array(blocks.parent)[owner_N] * len(KINDS) + np.array(blocks.kind)[owner_N]
    groups, group_N = np.unique(group_N, return_inverse=True)
    free_N = np.array(blocks.link) == 0
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


def main_text(html: str, config: ExtractConfig) -> str:
    """The main text of a page, "" where there is none. Raises PageLimitError and UnreadablePageError."""
    blocks = read_blocks(html, config)
    if not blocks.texts:
        return ""
    score_N = load_model().score(measure(blocks))
    lines, seen = [], set()
    for n in main_blocks(blocks, score_N, config.min_probability):
        text = blocks.texts[n]
        if not config.include_tables and blocks.kind[blocks.owner[n]] in CELLS:
            continue
        if LETTER.search(text) and text not in seen:
            lines.append(bullet(blocks, n) + text)
            if len(text) >= PROSE_SIZE:  # what a page says twice, as under each picture of a gallery, is told once
                seen.add(text)
    return "\n".join(lines)
