"""What is measured of each block of a page, before it is decided whether it is main text.

The measures are those of thirty years of the craft: length, link density and neighbours (boilerpipe, Kohlschütter et
al. 2010), the container that holds the most prose (Readability), names of classes and tags, position after the
headline. All sums are of integers, so that they are exact, the same on every machine and in every order.

Array axes: N blocks, M elements. Every feature is one row of length N.
"""

import functools
import re

import numpy as np

from data_prep.extract.blocks import KIND, Blocks
from data_prep.extract.hints import BIT, HINTS, hints_of_name

# Character classes, by code points of the Basic Multilingual Plane; what is above counts as OTHER.
OTHER, UPPER, WIDE, TERMINAL, SPACE = range(5)
CLASS_RANGES = {
    UPPER: ((0x41, 0x5A), (0xC0, 0xDE), (0x391, 0x3A9), (0x410, 0x42F)),
    WIDE: ((0x3040, 0x30FF), (0x3400, 0x9FFF), (0xAC00, 0xD7AF)),  # one of these says as much as three letters
    TERMINAL: tuple((ord(mark), ord(mark)) for mark in ".!?…。！？؟।"),
    SPACE: ((0x0A, 0x0A), (0x20, 0x20)),
}
PROSE_SIZE, PROSE_LINKS = 80, 0.4  # from this size on, and below this link density, a block with a sentence is prose
FAR = 999
HEADING_TEXT = 60  # longer headings are not read for hints

NEAR = ("comment", "related", "foot", "meta", "popup", "article_name", "body_name", "<li>", "<figure>", "article_body")
ABOVE = (
    "popup", "hidden", "<form>", "<header>", "<footer>", "<aside>", "<main>", "<article>", "<li>", "<figure>",
    "article_body", "<nav>", "<table>",
)  # fmt: skip
UNDER = (
    "comment", "related", "side", "popup", "foot", "hidden", "list", "meta", "article_name", "body_name", "forum",
    "product", "<article>", "<main>", "<nav>", "caption",
)  # fmt: skip
# "\s*+" gives no blank back: two "\s*" that may meet would try every way to share a run of blanks between them.
TYPES = {
    "article": re.compile(r'"@type"\s*+:\s*+(?:\[\s*+)?"\w*(Article|BlogPosting)"'),
    "forum": re.compile(r'"@type"\s*+:\s*+(?:\[\s*+)?"(QAPage|DiscussionForumPosting|Question)"'),
}
ITEM_TYPES = {"article": ("article",), "forum": ("QAPage", "DiscussionForumPosting", "Question")}


@functools.cache
def class_table() -> np.ndarray:
    table = np.zeros(0x10000, np.uint8)
    for name, ranges in CLASS_RANGES.items():
        for low, high in ranges:
            table[low : high + 1] = name
    return table


def bits_of(masks: np.ndarray, hints: tuple[str, ...]) -> np.ndarray:
    """(hints, len(masks)) of 0 and 1."""
    return masks >> np.array([[HINTS.index(hint)] for hint in hints]) & 1


def running(values: np.ndarray) -> np.ndarray:
    """Sums before each block, and after the last: N + 1 values; [end] - [start] is the sum of a range."""
    return np.concatenate([[0], np.cumsum(values)])


def ratio(part, whole):
    return part / np.maximum(whole, 1)


def shifted(values: np.ndarray, fill: float) -> np.ndarray:
    """Each block's predecessor's value."""
    return np.concatenate([[fill], values[:-1]])


def outside(index_N: np.ndarray, first: int, last: int) -> np.ndarray:
    """Blocks from each block to the range: negative before it, 0 within."""
    return np.minimum(index_N - first, 0) + np.maximum(index_N - last + 1, 0)


class Page:
    """The arrays that several groups of features share."""

    def __init__(self, blocks: Blocks):
        self.blocks = blocks
        self.N = len(blocks.texts)
        self.index = np.arange(self.N)
        self.owner = np.array(blocks.owner)
        self.parent = np.maximum(blocks.parent, 0)  # whoever has none is its own
        self.own, self.mask = np.array(blocks.own, np.int64), np.array(blocks.mask, np.int64)
        self.first, self.last = np.array(blocks.first), np.array(blocks.last)
        self.kind = np.array(blocks.kind)[self.owner]
        self.length = np.array([len(text) for text in blocks.texts])
        codes = np.frombuffer("".join(blocks.texts).encode("utf-32-le", "replace"), np.uint32)
        self.classes = class_table()[np.minimum(codes, 0xFFFF)]
        self.starts = running(self.length)[:-1]
        self.size = self.length + 2 * self.count(WIDE)
        self.link = np.array(blocks.link) * self.size // self.length
        self.link_density = self.link / self.size
        prose = (self.size >= PROSE_SIZE) & (self.link_density < PROSE_LINKS) & (self.count(TERMINAL) > 0)
        self.prose = np.where(prose, self.size - self.link, 0)
        self.sums = {"size": running(self.size), "link": running(self.link), "prose": running(self.prose)}
        self.heading_level = np.select([self.kind == KIND[f"h{level}"] for level in range(1, 7)], range(1, 7), 9)
        self.all_prose = max(int(self.sums["prose"][-1]), 1)

    def count(self, character_class: int) -> np.ndarray:
        return np.add.reduceat((self.classes == character_class).astype(np.int64), self.starts)

    def between(self, what: str, first, last):
        return self.sums[what][last] - self.sums[what][first]


def of_block(page: Page) -> dict[str, np.ndarray]:
    words = page.count(SPACE) + 1
    seen: dict[str, int] = {}
    for text in page.blocks.texts:
        seen[text] = seen.get(text, 0) + 1
    return {
        "size": page.size,
        "words": words,
        "upper": page.count(UPPER) / page.length,
        "terminal": page.count(TERMINAL) / words,
        "ends_sentence": page.classes[page.starts + page.length - 1] == TERMINAL,
        "link_density": page.link_density,
        "is_p": page.kind == KIND["p"],
        "is_div": page.kind == KIND["div"],
        "is_pre": page.kind == KIND["pre"],
        "heading_level": page.heading_level,
        "repeated": np.array([seen[text] for text in page.blocks.texts]),
    }


def of_names(page: Page) -> dict[str, np.ndarray]:
    """Hints of the element and the two above it ("near"), of all above ("above"), and how much of the page's prose
    stands under such a hint ("under": a hint that covers all of it says nothing)."""
    near = page.own | page.own[page.parent] | page.own[page.parent[page.parent]]
    rows = {f"near_{hint}": row for hint, row in zip(NEAR, bits_of(near[page.owner], NEAR), strict=True)}
    mask = page.mask[page.owner]
    rows |= {f"above_{hint}": row for hint, row in zip(ABOVE, bits_of(mask, ABOVE), strict=True)}
    shares = bits_of(mask, UNDER) @ page.prose / page.all_prose
    rows |= {f"under_{hint}": np.full(page.N, share) for hint, share in zip(UNDER, shares, strict=True)}
    comments = np.flatnonzero(mask & BIT["comment"])
    before = page.sums["prose"][comments[0]] / page.all_prose if len(comments) else 1.0
    return rows | {"prose_before_comments": np.full(page.N, before)}


def of_containers(page: Page) -> dict[str, np.ndarray]:
    """Sums over the element that holds the block, and over the next four around it that hold more."""
    parent, count = page.blocks.parent, (page.last - page.first).tolist()
    wider = [0] * len(parent)
    for element in range(1, len(parent)):
        above = parent[element]
        wider[element] = above if count[above] > count[element] else wider[above]
    wider_M, container_N = np.array(wider), page.owner
    rows = {}
    for level in range(5):
        if level:
            container_N = wider_M[container_N]
        first, last = page.first[container_N], page.last[container_N]
        size = page.between("size", first, last)
        rows[f"in{level}_blocks"] = last - first
        rows[f"in{level}_links"] = ratio(page.between("link", first, last), size)
        rows[f"in{level}_mean"] = ratio(size, last - first)
        rows[f"in{level}_prose"] = ratio(page.between("prose", first, last), size)
        rows[f"in{level}_share"] = page.between("prose", first, last) / page.all_prose
    return rows


def of_main_container(page: Page) -> dict[str, np.ndarray]:
    """Where the block stands to the smallest element with most of the prose, and to Readability's top candidate."""
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
    rows = {"size_before": shifted(page.size, 0)}
    for reach in (3, 20):
        first, last = np.maximum(page.index - reach, 0), np.minimum(page.index + reach + 1, page.N)
        rows[f"around{reach}_links"] = ratio(page.between("link", first, last), page.between("size", first, last))
        rows[f"around{reach}_prose"] = page.between("prose", first, last) / (last - first)
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
    rows["heading_comment"], rows["heading_related"] = bits_of(hints[heading], ("comment", "related"))
    return rows


def of_position(page: Page) -> dict[str, np.ndarray]:
    title = page.blocks.title
    named = [8 < len(text) < 300 and bool(title) and (text in title or title in text) for text in page.blocks.texts]
    headline, named = np.flatnonzero(page.heading_level == 1), np.flatnonzero(named)
    alike_N, counts = np.unique(
        page.kind << len(HINTS) | page.own[page.owner], return_inverse=True, return_counts=True
    )[1:]
    return {
        "position": page.index / page.N,
        "prose_before": page.sums["prose"][:-1] / page.all_prose,
        "from_headline": page.index - headline[0] if len(headline) else np.full(page.N, -FAR),
        "from_title": page.index - named[-1] if len(named) else np.full(page.N, -FAR),
        "alike": counts[alike_N],
        "alike_mean": (np.bincount(alike_N, page.size) / counts)[alike_N],
    }


def of_page(page: Page) -> dict[str, np.ndarray]:
    size, prose = int(page.sums["size"][-1]), int(page.sums["prose"][-1])
    values = {
        "page_size": size,
        "page_prose": prose,
        "page_prose_share": ratio(prose, size),
        "page_links": ratio(page.sums["link"][-1], size),
        "page_blocks": page.N,
        "page_longest": page.size.max(),
        "page_articles": page.blocks.kind.count(KIND["article"]),
    }
    types = {value.rpartition("/")[2] for value in page.blocks.types}
    for name, pattern in TYPES.items():
        values[f"page_is_{name}"] = bool(pattern.search(page.blocks.linked_data)) or not types.isdisjoint(
            ITEM_TYPES[name]
        )
    return {name: np.full(page.N, value) for name, value in values.items()}


GROUPS = (of_block, of_names, of_containers, of_main_container, of_neighbours, of_position, of_page)


def measure(blocks: Blocks) -> dict[str, np.ndarray]:
    """Every feature of every block, by name; of a page with at least one block."""
    page = Page(blocks)
    rows: dict[str, np.ndarray] = {}
    for group in GROUPS:
        rows |= group(page)
    return rows
