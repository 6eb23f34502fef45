"""Main text by other people's libraries: trafilatura (Barbaresi 2021, ACL demos) and resiliparse (Bevendorff et al.
2018, ECIR), each called so that its result depends on the page alone."""

import functools
import logging
from collections.abc import Callable

from data_prep.config import ExtractConfig
from data_prep.extract.blocks import Limits, PageLimitError, parse

# The depths of all elements together; a page of 10,000 elements has some 150,000.
MAX_LEVELS = 5_000_000
# End tags times the greatest depth: for each one the parser may look through all levels.
MAX_CLOSING_LEVELS = 20_000_000
# What of these is left open is repeated in each paragraph that follows, with the same attributes at most three times
# (HTML standard, "reconstruct the active formatting elements"). So different ones times all elements bounds the copies.
FORMATTING = frozenset(("b", "big", "code", "em", "font", "i", "nobr", "s", "small", "strike", "strong", "tt", "u"))
MAX_COPIES = 1_000_000


@functools.cache
def trafilatura_calls() -> tuple[Callable, Callable]:
    """trafilatura's (load_html, extract), silenced: what it cannot read is counted as a reason, not logged."""
    from trafilatura import extract, load_html

    logging.getLogger("trafilatura").setLevel(logging.CRITICAL)
    return load_html, extract


class TreeLimits(Limits):
    """The limits of a page for parsers that keep it as a tree, and look up in it from elements and end tags."""

    def __init__(self, config: ExtractConfig):
        super().__init__(config)
        self.levels = self.deepest = 0
        self.formats: set[tuple] = set()

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        super().start(tag, attributes)
        self.levels += self.depth
        self.deepest = max(self.deepest, self.depth)
        if tag in FORMATTING:
            self.formats.add((tag, *attributes.items()))
        if self.levels > MAX_LEVELS:
            raise PageLimitError("html_too_many_elements")


def check_limits(html: str, config: ExtractConfig) -> None:
    """Raises PageLimitError, at a cost linear in the page, before a parser sees it whose cost is not."""
    limits = TreeLimits(config)
    parse(html, limits)
    closing, copies = html.count("</") * limits.deepest, len(limits.formats) * limits.elements
    if closing > MAX_CLOSING_LEVELS or copies > MAX_COPIES:
        raise PageLimitError("html_too_many_elements")


def trafilatura_text(html: str, config: ExtractConfig) -> str:
    """trafilatura's duplicate filter, which remembers earlier pages, stays off."""
    check_limits(html, config)
    load_html, extract = trafilatura_calls()
    tree = load_html(html)
    if tree is None:
        raise ValueError("trafilatura sees no HTML")
    text = extract(
        tree,
        favor_precision=config.favor_precision,
        include_comments=False,
        include_tables=config.include_tables,
        deduplicate=False,
    )
    return text or ""


def resiliparse_text(html: str, config: ExtractConfig) -> str:
    check_limits(html, config)
    from resiliparse.extract.html2text import extract_plain_text

    text = extract_plain_text(
        html,
        preserve_formatting=True,
        main_content=True,
        alt_texts=False,
        comments=False,
        skip_elements=None if config.include_tables else ["table"],
    )
    return "\n".join(filter(None, (line.strip() for line in text.split("\n"))))
