"""Features of the whole page: its own metadata, and the kind of page it looks like, such as a shop, a forum or a list.

A feature of `of_page` has one value for all blocks, a row of length 1.
"""

import re
from collections.abc import Iterator
from urllib.parse import urlsplit

import numpy as np

from data_prep.extract.blocks import KIND
from data_prep.extract.hints import BIT, hints_of_name
from data_prep.extract.page import CURRENCY, Page, bits_of, ratio

# "\\s*+" does not backtrack: two adjacent "\\s*" would try every split of a run of blanks between them.
TYPE = re.compile(r'"@type"\s*+:\s*+(?:\[\s*+)?"(\w++)"')
TOLD = re.compile(r'"(description|articleBody|text|name|headline)"\s*+:\s*+"((?:[^"\\]|\\.)*+)"')
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
BODY = ("article_name", "list", "product", "forum", "meta", "body_name", "navigation")
UNDER = ("comment", "product", "forum", "list", "article_name", "meta")
TOP = 4  # the first elements: <html>, <body> and outer containers
MOST_TOLD = 400_000  # characters of JSON-LD to read
MOST_WORDS = 100  # characters of a block to look up


def of_page(page: Page) -> dict[str, np.ndarray]:
    blocks, prose = page.blocks, int(page.sums["prose"][-1])
    types = {value.rpartition("/")[2] for value in blocks.types} | set(TYPE.findall(blocks.linked_data))
    parts = urlsplit_safely(blocks.address)
    top = 0
    for hints in blocks.own[:TOP]:
        top |= hints
    ordered = np.sort(page.size).tolist()
    size_of = np.bincount(page.kind, page.size, len(KIND)).tolist()
    under = (bits_of(page.mask[page.owner], UNDER) @ page.size / page.all_size).tolist()
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
    values |= {f"page_body_{hint}": top & BIT[hint] > 0 for hint in BODY}
    values |= {f"page_under_{hint}": share for hint, share in zip(UNDER, under, strict=True)}
    title = hints_of_name(blocks.title)
    values |= {f"page_title_{hint}": title & BIT[hint] > 0 for hint in ("product", "forum", "list")}
    row = np.array(list(values.values()), np.float64)
    return {name: row[n : n + 1] for n, name in enumerate(values)}


def urlsplit_safely(address: str) -> str:
    """Return host and path in lower case; "" for an invalid URL."""
    try:
        parts = urlsplit(address)
    except ValueError:  # "http://[": an unclosed bracket
        return ""
    return f"{parts.netloc}{parts.path}".rstrip("/").lower()


def runs_of(text: str) -> Iterator[tuple[str, str, str]]:
    words = text.split()
    return zip(words, words[1:], words[2:], strict=False)


def of_told(page: Page) -> dict[str, np.ndarray]:
    """Share of each block that the page repeats in its description or in its JSON-LD, by sequences of three words at
    the start of the block."""
    description, body, names = set(runs_of(page.blocks.description.lower())), set(), set()
    for key, value in TOLD.findall(page.blocks.linked_data[:MOST_TOLD]):
        if key in ("name", "headline"):
            names.add(value[:MOST_WORDS].lower())
        else:
            body.update(runs_of(value.lower().replace("\\n", " ").replace(">", "> ").replace("<", " <")))
    told_N, described_N, named_N = np.zeros((3, page.N))
    if description or body or names:
        for n, text in enumerate(page.blocks.texts):
            start = text[:MOST_WORDS].lower()
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
