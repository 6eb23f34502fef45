"""Features of each block of a page, from which decision trees classify it as main text, and the arrays they share.

Length, link density and neighbors (boilerpipe, Kohlschütter et al. 2010), the container with the most prose
(Readability), names of classes and tags, position after the headline; repetition (blocks with equal paths of names, and
records, which are similar elements with one parent, such as the cards of a shop: Liu, Grossman and Zhai 2003, MDR); the
page's metadata and kind (a shop, a forum, a list). Sums are of integers: exact, and the same on every machine.

Array axes: N blocks, M elements, G groups. A feature is a row of length N, or of length 1 if it describes the page.
"""

import collections
import functools
import re
from collections.abc import Iterator
from urllib.parse import urlsplit

import numpy as np

from data_prep.extract.blocks import CELLS, KIND, KINDS, Blocks
from data_prep.extract.hints import BIT, HINTS, hints_of_name

# Character classes, by code points of the Basic Multilingual Plane; higher ones are OTHER.
OTHER, UPPER, WIDE, TERMINAL, SPACE, DIGIT, CURRENCY = range(7)
CLASS_RANGES = {
    UPPER: ((0x41, 0x5A), (0xC0, 0xDE), (0x391, 0x3A9), (0x410, 0x42F)),
    WIDE: ((0x3040, 0x30FF), (0x3400, 0x9FFF), (0xAC00, 0xD7AF)),  # one of these carries as much text as three letters
    TERMINAL: tuple((ord(mark), ord(mark)) for mark in ".!?…。！？؟।"),
    SPACE: ((0x0A, 0x0A), (0x20, 0x20)),
    DIGIT: ((0x30, 0x39),),
    CURRENCY: ((0x24, 0x24), (0xA3, 0xA3), (0xA5, 0xA5), (0x20A0, 0x20BF)),
}
PROSE_SIZE, PROSE_LINKS = 80, 0.4  # blocks with a sentence from this size and below this link density are prose
FAR = 999


CLASS_TABLE = np.zeros(0x10000, np.uint8)
for name, ranges in CLASS_RANGES.items():
    for low, high in ranges:
        CLASS_TABLE[low : high + 1] = name


@functools.cache
def places(hints: tuple[str, ...]) -> np.ndarray:
    return np.array([[HINTS.index(hint)] for hint in hints])


def bits_of(masks: np.ndarray, hints: tuple[str, ...]) -> np.ndarray:
    """Return (hints, elements) of 0 and 1: whether each of `hints`, names in HINTS, is set in the bit mask of each
    element."""
    return masks >> places(hints) & 1


@functools.cache
def among(kinds: frozenset[int]) -> np.ndarray:
    """Return (len(KINDS),) bool, whether each kind of element is in `kinds`. Indexing it is faster than np.isin."""
    return np.array([kind in kinds for kind in range(len(KINDS))])


HEADING_LEVELS = np.array([int(tag[1]) if tag in ("h1", "h2", "h3", "h4", "h5", "h6") else 9 for tag in KINDS])
"""(len(KINDS),) the heading level of each kind of element: 1 for h1 to 6 for h6, 9 for others."""


def running(values: np.ndarray) -> np.ndarray:
    """Return the N + 1 cumulative sums, from 0: the sum of values[a:b] is sums[b] - sums[a]."""
    return np.concatenate([[0], np.cumsum(values)])


def ratio(part, whole):
    return part / np.maximum(whole, 1)


def outside(index_N: np.ndarray, first: int, last: int) -> np.ndarray:
    """Return (N,) the distance of each block to the blocks first <= i < last: negative before, 0 in, positive after."""
    return np.minimum(index_N - first, 0) + np.maximum(index_N - last + 1, 0)


def nearest(chosen_M: np.ndarray, parent_M: np.ndarray) -> np.ndarray:
    """Return (M,) the innermost among each element and its ancestors for which `chosen_M` is true; or 0, the root."""
    found_M = np.where(chosen_M, np.arange(len(parent_M)), parent_M)
    found_M[0] = 0
    while True:
        wider_M = found_M[found_M]
        if (wider_M == found_M).all():
            return found_M
        found_M = wider_M


class Page:
    """Arrays computed once from the blocks of a page, for several groups of features; most have a value per block. A
    block is a piece of text: a paragraph, a heading, a table cell."""

    def __init__(self, blocks: Blocks):
        self.blocks = blocks
        self.N = len(blocks.texts)
        self.index = np.arange(self.N)
        self.owner = np.array(blocks.owner)
        self.parent = np.maximum(blocks.parent, 0)  # the root is its own parent
        self.own, self.mask = np.array(blocks.own, np.int64), np.array(blocks.mask, np.int64)
        self.first, self.last = np.array(blocks.first), np.array(blocks.last)
        self.kind_M, self.name_M = np.array(blocks.kind), np.array(blocks.name)
        self.kind = self.kind_M[self.owner]
        self.length = np.fromiter(map(len, blocks.texts), np.int64, self.N)
        codes = np.frombuffer("".join(blocks.texts).encode("utf-32-le", "replace"), np.uint32)
        self.classes = CLASS_TABLE.take(codes, mode="clip")  # code points above the table get its last value
        self.ends = running(self.length)
        self.starts = self.ends[:-1]
        self.counts: dict[int, np.ndarray] = {}
        self.size = self.length + 2 * self.count(WIDE)
        self.link_length = np.array(blocks.link)
        self.link = self.link_length * self.size // self.length
        self.link_density = self.link / self.size
        prose = (self.size >= PROSE_SIZE) & (self.link_density < PROSE_LINKS) & (self.count(TERMINAL) > 0)
        self.prose = np.where(prose, self.size - self.link, 0)
        self.totals = np.zeros((3, self.N + 1), np.int64)
        np.stack((self.size, self.link, self.prose)).cumsum(1, out=self.totals[:, 1:])
        self.sums = dict(zip(("size", "link", "prose"), self.totals, strict=True))
        self.heading_level = HEADING_LEVELS[self.kind]
        self.all_size = int(self.sums["size"][-1])
        self.all_prose = max(int(self.sums["prose"][-1]), 1)

    def count(self, character_class: int) -> np.ndarray:
        """Return (N,) the number of characters of a class, such as DIGIT, in each block."""
        found_N = self.counts.get(character_class)
        if found_N is None:
            before = (self.classes == character_class).nonzero()[0].searchsorted(self.ends)
            found_N = self.counts[character_class] = before[1:] - before[:-1]
        return found_N

    def all_between(self, first: np.ndarray, last: np.ndarray) -> np.ndarray:
        """Return (3, *first.shape): size, link size and prose size of the blocks first <= i < last, for each pair of
        `first` and `last`."""
        return self.totals.take(last, 1) - self.totals.take(first, 1)

    def between(self, what: str, first, last):
        return self.sums[what][last] - self.sums[what][first]


# "\\s*+" does not backtrack: two adjacent "\\s*" would try every split of a run of blanks between them.
TYPE = re.compile(r'"@type"\s*+:\s*+(?:\[\s*+)?"(\w++)"')
DECLARED_TEXT = re.compile(r'"(description|articleBody|text|name|headline)"\s*+:\s*+"((?:[^"\\]|\\.)*+)"')
TYPES = {
    "article": ("Article", "NewsArticle", "BlogPosting", "ReportageNewsArticle", "article"),
    "forum": ("QAPage", "DiscussionForumPosting", "Question"),
    "product": ("Product", "ProductGroup", "Offer", "product", "og:product"),
    "list": ("ItemList", "CollectionPage", "OfferCatalog", "SearchResultsPage"),
    "business": ("LocalBusiness", "Service", "Organization", "ProfessionalService", "Corporation"),
    "faq": ("FAQPage",),
    "website": ("WebSite", "website"),
    "crumbs": ("BreadcrumbList",),
    "manual": ("TechArticle", "APIReference", "HowTo"),
    "review": ("Review", "AggregateRating"),
}
ADDRESS = {
    "shop": ("product", "shop", "item", "/dp/", "store"),
    "list": ("collection", "categor", "/c/", "browse", "tag", "list", "search", "topic"),
    "manual": ("doc", "manual", "guide", "reference", "api", "wiki", "help", "learn", "developer"),
    "forum": ("forum", "thread", "/t/", "discuss", "question", "communit", "comments", "board", "answers"),
    "blog": ("blog", "news", "article", "post", "story"),
    "service": ("service", "solution", "about", "contact", "location"),
}
PAGE_BODY = ("article_name", "list", "product", "forum", "meta", "body_name", "navigation")
PAGE_UNDER = ("comment", "product", "forum", "list", "article_name", "meta")
TOP_ELEMENTS = 4  # the first elements: <html>, <body> and outer containers
MAX_LINKED_DATA = 400_000  # characters of JSON-LD to read
MAX_START = 100  # characters of a block to look up


def of_page(page: Page) -> dict[str, np.ndarray]:
    blocks, prose = page.blocks, int(page.sums["prose"][-1])
    types = {value.rpartition("/")[2] for value in blocks.types} | set(TYPE.findall(blocks.linked_data))
    parts = urlsplit_safely(blocks.address)
    top = 0
    for hints in blocks.own[:TOP_ELEMENTS]:
        top |= hints
    ordered = np.sort(page.size).tolist()
    size_of = np.bincount(page.kind, page.size, len(KIND)).tolist()
    under = (bits_of(page.mask[page.owner], PAGE_UNDER) @ page.size / page.all_size).tolist()
    blocks_of = np.bincount(page.kind, minlength=len(KIND)).tolist()
    prices = np.count_nonzero(page.count(CURRENCY))
    values = {
        "page_size": page.all_size,
        "page_prose": prose,
        "page_prose_share": prose / page.all_size,
        "page_links": int(page.sums["link"][-1]) / page.all_size,
        "page_linked_blocks": np.count_nonzero(page.link_density > 0.5) / page.N,
        "page_blocks": page.N,
        "page_longest": ordered[-1],
        "page_longest_prose": int(page.prose.max()),
        "page_prose_blocks": np.count_nonzero(page.prose),
        "page_median": (ordered[(page.N - 1) // 2] + ordered[page.N // 2]) / 2,
        "page_articles": blocks.kind.count(KIND["article"]),
        "page_images": blocks.images[-1],
        "page_forms": blocks.forms,
        "page_prices": prices,
        "page_price_share": prices / page.N,
        "page_depth": len(parts.split("/")),
    }
    values |= {f"page_{tag}": blocks_of[KIND[tag]] for tag in ("h1", "h2", "h3")}
    values |= {f"page_in_{tag}": size_of[KIND[tag]] / page.all_size for tag in ("p", "li")}
    values["page_in_td"] = (size_of[KIND["td"]] + size_of[KIND["tr"]]) / page.all_size
    values |= {f"page_is_{name}": not types.isdisjoint(known) for name, known in TYPES.items()}
    values |= {f"page_at_{name}": any(word in parts for word in words) for name, words in ADDRESS.items()}
    values |= {f"page_body_{hint}": top & BIT[hint] > 0 for hint in PAGE_BODY}
    values |= {f"page_under_{hint}": share for hint, share in zip(PAGE_UNDER, under, strict=True)}
    title = hints_of_name(blocks.title)
    values |= {f"page_title_{hint}": title & BIT[hint] > 0 for hint in ("product", "forum", "list")}
    row = np.array(list(values.values()), np.float64)
    return {name: row[n : n + 1] for n, name in enumerate(values)}


def urlsplit_safely(address: str) -> str:
    """Return host and path of a URL as one text in lower case; "" if the URL is invalid."""
    try:
        parts = urlsplit(address)
    except ValueError:  # "http://[": an unclosed bracket
        return ""
    return f"{parts.netloc}{parts.path}".rstrip("/").lower()


def runs_of(text: str) -> Iterator[tuple[str, str, str]]:
    words = text.split()
    return zip(words, words[1:], words[2:], strict=False)


def of_metadata(page: Page) -> dict[str, np.ndarray]:
    """Features "told…": share of three-word sequences at a block's start that are in the page's description or
    JSON-LD."""
    description, body, names = set(runs_of(page.blocks.description.lower())), set(), set()
    for key, value in DECLARED_TEXT.findall(page.blocks.linked_data[:MAX_LINKED_DATA]):
        if key in ("name", "headline"):
            names.add(value[:MAX_START].lower())
        else:
            body.update(runs_of(value.lower().replace("\\n", " ").replace(">", "> ").replace("<", " <")))
    told_N, described_N, named_N = np.zeros((3, page.N))
    if description or body or names:
        for n, text in enumerate(page.blocks.texts):
            start = text[:MAX_START].lower()
            if runs := list(runs_of(start)):
                told_N[n] = sum(map(body.__contains__, runs)) / len(runs)
                described_N[n] = sum(map(description.__contains__, runs)) / len(runs)
            named_N[n] = start in names
    told = np.cumsum(np.round(told_N * page.size))
    named = np.flatnonzero(named_N)
    return {
        "told": told_N,
        "told_described": described_N,
        "told_name": named_N,
        "told_seen": np.maximum.accumulate(np.maximum(described_N, told_N)),
        "told_before": ratio(told, told[-1]),
        "told_share": np.full(page.N, told[-1] / page.all_size),
        "told_since_name": page.index - named[0] if len(named) else np.full(page.N, -1),
    }


FEWEST = 3
"""Minimum number of similar elements that count as records."""
NO_RECORDS = CELLS | {KIND["p"]}


def numbered(key: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (index of each value among the sorted distinct values, number of occurrences of each distinct value)."""
    return np.unique(key, return_inverse=True, return_counts=True)[1:]


def paths(page: Page) -> tuple[np.ndarray, np.ndarray]:
    """Return two (M,) arrays of group numbers. Elements of one group have the same name (tag and class) and parents of
    the same name; in the second array, also grandparents of the same name."""
    many = len(page.name_M) + 1
    own_M, _ = numbered(page.name_M * many + page.name_M[page.parent])
    deep_M, _ = numbered(own_M * many + page.name_M[page.parent[page.parent]])
    return own_M, deep_M


def of_alike(page: Page) -> dict[str, np.ndarray]:
    """Features "alike_…": sums over all blocks whose elements have the same names (`paths`) as the block's element."""
    number: dict[str, int] = {}
    first_N = np.zeros(page.N, bool)
    for n, text in enumerate(page.blocks.texts):
        first_N[n] = number.setdefault(text, n) == n
    rows = {}
    for label, path_M in zip(("own", "deep"), paths(page), strict=True):
        group_N, count_G = numbered(path_M[page.owner])
        size_G, link_G, prose_G, different_G = (
            np.bincount(group_N, values_N) for values_N in (page.size, page.link, page.prose, first_N)
        )
        rows[f"alike_{label}_blocks"] = count_G[group_N]
        rows[f"alike_{label}_share"] = (size_G / page.all_size)[group_N]
        rows[f"alike_{label}_mean"] = (size_G / count_G)[group_N]
        rows[f"alike_{label}_links"] = (link_G / size_G)[group_N]
        rows[f"alike_{label}_prose"] = (prose_G / page.all_prose)[group_N]
        rows[f"alike_{label}_different"] = (different_G / count_G)[group_N]
    return rows


def of_records(page: Page) -> dict[str, np.ndarray]:
    """Features of records (similar elements with one parent): number, size, share of the page, position of the block in
    it. "record_…" is the innermost record around each block, "largest_…" the one in the group with the most text."""
    many = len(page.parent) + 1
    group_M, count_G = numbered(page.parent * many + page.name_M)
    size_M = page.between("size", page.first, page.last)
    link_M, prose_M = (page.between(what, page.first, page.last) for what in ("link", "prose"))
    size_G, link_G, prose_G, blocks_G = (
        np.bincount(group_M, values_M) for values_M in (size_M, link_M, prose_M, page.last - page.first)
    )
    record_M = (count_G[group_M] >= FEWEST) & (size_G[group_M] > 0) & ~among(NO_RECORDS)[page.kind_M]
    record_M[0] = False
    text_M, largest_M = np.where(record_M, size_G[group_M], 0), np.arange(len(page.parent))
    jump_M = page.parent
    while jump_M.any():  # the ancestor 1, 2, 4, 8, ... levels above each element
        above_M = largest_M[jump_M]
        largest_M = np.where(text_M[above_M] >= text_M[largest_M], above_M, largest_M)
        jump_M = jump_M[jump_M]
    largest_M = np.where(text_M[largest_M] > 0, largest_M, 0)
    images, rows = np.append(0, page.blocks.images), {}
    for label, found_M in (("record", nearest(record_M, page.parent)), ("largest", largest_M)):
        record_N = found_M[page.owner]
        group_N, within_N = group_M[record_N], record_N > 0
        first_N, last_N = page.first[record_N], page.last[record_N]
        values = {
            "count": count_G[group_N],
            "share": size_G[group_N] / page.all_size,
            "mean": size_G[group_N] / count_G[group_N],
            "links": ratio(link_G[group_N], size_G[group_N]),
            "prose": prose_G[group_N] / page.all_prose,
            "blocks": blocks_G[group_N] / count_G[group_N],
            "place": page.index - first_N,
            "images": images[last_N] - images[first_N],
        }
        rows |= {f"{label}_{name}": np.where(within_N, row, -1) for name, row in values.items()}
    return rows


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
    """Features of hints (words in tags and attributes, hints.py). "near_…": whether the block's element or one of the
    next two ancestors has the hint; "above_…": whether any ancestor has it; "under_…": share of the page's prose in
    elements with the hint (if it is all prose, the hint says little about a block)."""
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
    """Features "in0_…" to "in4_…": sums over the element that contains the block, and the next four larger ones."""
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
    """Features "outside_…": distance in blocks to the smallest element with 40 % of the prose, to that with 70 %, and
    to the container that the Readability algorithm would choose."""
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


def of_neighbors(page: Page) -> dict[str, np.ndarray]:
    prices, images = running(page.count(CURRENCY) > 0), np.append(0, page.blocks.images)
    low, high = np.maximum(page.index - 10, 0), np.minimum(page.index + 11, page.N)
    reach = np.array([[3], [20]])
    first, last = np.maximum(page.index - reach, 0), np.minimum(page.index + reach + 1, page.N)
    size, link, prose = page.all_between(first, last)
    links, prose = ratio(link, size), prose / (last - first)
    is_heading = page.heading_level < 9
    heading = np.maximum.accumulate(np.where(is_heading, page.index, 0))
    until = np.minimum.accumulate(np.where(is_heading, page.index, page.N)[::-1])[::-1]
    until = np.append(until[1:], page.N)
    size = page.between("size", heading, until)
    hints = np.zeros(page.N, np.int64)
    for n in np.flatnonzero(is_heading & (page.length < HEADING_TEXT)):
        hints[n] = hints_of_name(page.blocks.texts[n])
    comment, related = bits_of(hints[heading], ("comment", "related"))
    return {
        "size_before": np.append(0, page.size[:-1]),
        "size_after": np.append(page.size[1:], 0),
        "links_after": np.append(page.link_density[1:], 0),
        "around10_prices": prices[high] - prices[low],
        "around10_images": images[high] - images[low],
        "around3_links": links[0],
        "around3_prose": prose[0],
        "around20_links": links[1],
        "around20_prose": prose[1],
        "section_size": size,
        "section_links": ratio(page.between("link", heading, until), size),
        "since_heading": np.where(np.cumsum(is_heading) > 0, page.index - heading, FAR),
        "section_level": page.heading_level[heading],
        "section_heading_links": page.link_density[heading],
        "heading_comment": comment,
        "heading_related": related,
    }


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


COMMON = (of_block, of_names, of_containers, of_main_container, of_neighbors, of_position, of_page)
OF_OTHERS = (of_alike, of_records, of_metadata)
"""Features that the trees of articles do not use."""
ALL = (*COMMON[:-1], *OF_OTHERS, of_page)
"""The order in which the trees were fitted. With another order, other features would be sampled for each split."""


def measure(page: Page, groups: tuple = ALL) -> dict[str, np.ndarray]:
    """Return {feature: row} for the `groups`, functions such as `of_block`. The page must have at least one block."""
    rows: dict[str, np.ndarray] = {}
    for group in groups:
        rows |= group(page)
    return rows
