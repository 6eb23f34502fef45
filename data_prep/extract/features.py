"""Features of each block of a page, from which decision trees classify it as main text.

Length, link density and neighbours (boilerpipe, Kohlschütter et al. 2010), the container with the most prose
(Readability), names of classes and tags, position after the headline.

Array axes: N blocks, M elements. A feature is a row of length N, or of length 1 if it describes the page.
"""

import collections

import numpy as np

from data_prep.extract.blocks import CELLS, KIND
from data_prep.extract.hints import BIT, HINTS, hints_of_name
from data_prep.extract.page import (
    CURRENCY,
    DIGIT,
    FAR,
    SPACE,
    TERMINAL,
    UPPER,
    Page,
    among,
    bits_of,
    nearest,
    outside,
    ratio,
    running,
    shifted,
)  # fmt: skip
from data_prep.extract.page_features import of_page, of_told
from data_prep.extract.structure import of_alike, of_records

HEADING_TEXT = 60  # longer headings are not searched for hints

NEAR = ("comment", "related", "foot", "meta", "popup", "article_name", "body_name", "<li>", "<figure>", "article_body")
ABOVE = (
    "popup", "hidden", "<form>", "<header>", "<footer>", "<aside>", "<main>", "<article>", "<li>", "<figure>",
    "article_body", "<nav>", "<table>",
)  # fmt: skip
UNDER = (
    "comment", "related", "side", "popup", "foot", "hidden", "list", "meta", "article_name", "body_name", "forum",
    "product", "<article>", "<main>", "<nav>", "caption",
)  # fmt: skip


def of_block(page: Page) -> dict[str, np.ndarray]:
    words = page.count(SPACE) + 1
    seen = collections.Counter(page.blocks.texts)
    return {
        "size": page.size,
        "words": words,
        "upper": page.count(UPPER) / page.length,
        "digits": page.count(DIGIT) / page.length,
        "price": page.count(CURRENCY) > 0,
        "terminal": page.count(TERMINAL) / words,
        "ends_sentence": page.classes[page.starts + page.length - 1] == TERMINAL,
        "link_density": page.link_density,
        "is_p": page.kind == KIND["p"],
        "is_div": page.kind == KIND["div"],
        "is_pre": page.kind == KIND["pre"],
        "is_li": page.kind == KIND["li"],
        "is_cell": among(CELLS)[page.kind],
        "heading_level": page.heading_level,
        "repeated": np.fromiter(map(seen.__getitem__, page.blocks.texts), np.int64, page.N),
    }


def of_names(page: Page) -> dict[str, np.ndarray]:
    """Hints of the element and its next two ancestors ("near"), of all ancestors ("above"), and the share of the page's
    prose under such a hint ("under": a hint on all prose is uninformative)."""
    near = page.own | page.own[page.parent] | page.own[page.parent[page.parent]]
    rows = {f"near_{hint}": row for hint, row in zip(NEAR, bits_of(near[page.owner], NEAR), strict=True)}
    mask = page.mask[page.owner]
    rows |= {f"above_{hint}": row for hint, row in zip(ABOVE, bits_of(mask, ABOVE), strict=True)}
    shares = bits_of(mask, UNDER) @ page.prose / page.all_prose
    rows |= {f"under_{hint}": shares[n : n + 1] for n, hint in enumerate(UNDER)}
    comments = np.flatnonzero(mask & BIT["comment"])
    before = page.sums["prose"][comments[0]] / page.all_prose if len(comments) else 1.0
    return rows | {"prose_before_comments": np.full(page.N, before)}


def of_containers(page: Page) -> dict[str, np.ndarray]:
    """Sums over the element that contains the block, and over the next four larger elements around it."""
    count_M = page.last - page.first
    ends_M = count_M[page.parent] > count_M
    wider_M = page.parent[nearest(ends_M, page.parent)]
    container_5N = np.empty((5, page.N), np.int64)  # all levels at once: the overhead of a NumPy call dominates
    container_5N[0] = page.owner
    for level in range(1, 5):
        container_5N[level] = wider_M[container_5N[level - 1]]
    first, last = page.first[container_5N], page.last[container_5N]
    size, link, prose = page.all_between(first, last)
    measures = {
        "blocks": last - first,
        "links": ratio(link, size),
        "mean": ratio(size, last - first),
        "prose": ratio(prose, size),
        "share": prose / page.all_prose,
    }
    return {f"in{level}_{name}": row_5N[level] for level in range(5) for name, row_5N in measures.items()}


def of_main_container(page: Page) -> dict[str, np.ndarray]:
    """Position of the block relative to the smallest element with most of the prose, and to Readability's top
    candidate."""
    rows = {}
    prose_M, blocks_M = page.between("prose", page.first, page.last), page.last - page.first
    for percent in (40, 70):
        holds = np.flatnonzero(100 * prose_M >= percent * page.all_prose)
        best = holds[-1 - np.argmin(blocks_M[holds][::-1])] if len(holds) else 0  # the last is the innermost
        rows[f"outside_{percent}"] = outside(page.index, page.first[best], page.last[best])
    above = page.parent[page.owner]
    score = 2 * np.bincount(above, page.prose, len(page.parent))
    score += np.bincount(page.parent[above], page.prose, len(page.parent))
    top = int(np.argmax(score))
    rows["outside_top"] = outside(page.index, page.first[top], page.last[top])
    return rows | {"near_top": ratio(np.maximum(score[above], score[page.parent[above]]), score[top])}


def of_neighbours(page: Page) -> dict[str, np.ndarray]:
    rows = {"size_before": shifted(page.size, 0), "size_after": np.append(page.size[1:], 0)}
    rows["links_after"] = np.append(page.link_density[1:], 0)
    prices, images = running(page.count(CURRENCY) > 0), np.append(0, page.blocks.images)
    first, last = np.maximum(page.index - 10, 0), np.minimum(page.index + 11, page.N)
    rows["around10_prices"], rows["around10_images"] = prices[last] - prices[first], images[last] - images[first]
    reach = np.array([[3], [20]])
    first, last = np.maximum(page.index - reach, 0), np.minimum(page.index + reach + 1, page.N)
    size, link, prose = page.all_between(first, last)
    links, prose = ratio(link, size), prose / (last - first)
    rows["around3_links"], rows["around3_prose"] = links[0], prose[0]
    rows["around20_links"], rows["around20_prose"] = links[1], prose[1]
    is_heading = page.heading_level < 9
    heading = np.maximum.accumulate(np.where(is_heading, page.index, 0))
    until = np.minimum.accumulate(np.where(is_heading, page.index, page.N)[::-1])[::-1]
    until = np.append(until[1:], page.N)
    size = page.between("size", heading, until)
    hints = np.zeros(page.N, np.int64)
    for n in np.flatnonzero(is_heading & (page.length < HEADING_TEXT)):
        hints[n] = hints_of_name(page.blocks.texts[n])
    rows["section_size"], rows["section_links"] = size, ratio(page.between("link", heading, until), size)
    rows["since_heading"] = np.where(np.cumsum(is_heading) > 0, page.index - heading, FAR)
    rows["section_level"], rows["section_heading_links"] = page.heading_level[heading], page.link_density[heading]
    rows["heading_comment"], rows["heading_related"] = bits_of(hints[heading], ("comment", "related"))
    return rows


def of_position(page: Page) -> dict[str, np.ndarray]:
    title = page.blocks.title
    texts = enumerate(page.blocks.texts) if title else ()
    named = [n for n, text in texts if 8 < len(text) < 300 and (text in title or title in text)]
    headline = (page.heading_level == 1).nonzero()[0]
    alike_N, counts = np.unique(
        page.kind << len(HINTS) | page.own[page.owner], return_inverse=True, return_counts=True
    )[1:]
    since = np.maximum.accumulate(np.where(page.heading_level == 1, page.index, -1))
    size_since = page.between("size", np.maximum(since, 0), page.index)
    return {
        "position": page.index / page.N,
        "to_end": page.N - page.index,
        "since_headline": np.where(since >= 0, page.index - since, -1),
        "since_headline_share": np.where(since >= 0, size_since / page.all_size, -1),
        "prose_before": page.sums["prose"][:-1] / page.all_prose,
        "from_headline": page.index - headline[0] if len(headline) else np.full(page.N, -FAR),
        "from_title": page.index - named[-1] if named else np.full(page.N, -FAR),
        "alike": counts[alike_N],
        "alike_mean": (np.bincount(alike_N, page.size) / counts)[alike_N],
    }


COMMON = (of_block, of_names, of_containers, of_main_container, of_neighbours, of_position, of_page)
OF_OTHERS = (of_alike, of_records, of_told)
"""Features that the trees of articles do not use."""
ALL = (*COMMON[:-1], *OF_OTHERS, of_page)
"""The order in which the trees were fitted. With another order, other features would be sampled for each split."""


def measure(page: Page, groups: tuple = ALL) -> dict[str, np.ndarray]:
    """Return {name: row} of all features of these groups. The page must have at least one block."""
    rows: dict[str, np.ndarray] = {}
    for group in groups:
        rows |= group(page)
    return rows
