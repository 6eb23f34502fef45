"""What engines that are other people's libraries have in common: limits on the page, and whose fault an error is."""

from collections.abc import Callable

from data_prep.config import ExtractConfig
from data_prep.extract.blocks import Limits, PageLimitError, UnreadablePageError, parse
from lm.errors import InputError

# The depths of all elements together; a page of 10,000 elements has some 150,000.
MAX_LEVELS = 5_000_000
# End tags times the greatest depth: for each one the parser may look through all levels.
MAX_CLOSING_LEVELS = 20_000_000
# What of these is left open is repeated in each paragraph that follows, with the same attributes at most three times
# (HTML standard, "reconstruct the active formatting elements"). So different ones times all elements bounds the copies.
FORMATTING = frozenset(("b", "big", "code", "em", "font", "i", "nobr", "s", "small", "strike", "strong", "tt", "u"))
MAX_COPIES = 1_000_000

# The libraries have no error of their own for odd pages; these are what code raises that did not expect what it found.
LIBRARY_ERRORS = (ArithmeticError, AssertionError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
PLAIN_SENTENCE = "The miller carried two sacks of grain to the village, and the baker paid him on the same day."
PLAIN_PAGE = f"<html><body><article>{f'<p>{PLAIN_SENTENCE}</p>' * 3}</article></body></html>"


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


TextOf = Callable[[str, bool, bool], str]
"""(HTML, favor precision, include tables) -> main text."""


def checked(library: str, text_of: TextOf) -> TextOf:
    """`text_of`, which has read a plain page.

    Raises InputError where the library, perhaps of another version, fails on that page: else it would fail on every
    page, and every page would be called unreadable.
    """
    try:
        text = text_of(PLAIN_PAGE, True, True)
    except (*LIBRARY_ERRORS, UnreadablePageError) as error:
        text = repr(error)
    if PLAIN_SENTENCE not in text:
        raise InputError(
            f"The extraction engine {library} (documents.extract.engine) makes of a plain page {text!r}. Bring the "
            "environment back to requirements.lock (make setup)."
        )
    return text_of


def library_text(library: str, text_of: TextOf, html: str, config: ExtractConfig) -> str:
    """The main text by a library. Raises PageLimitError and UnreadablePageError."""
    from lxml import etree  # ty: ignore[missing-module-member]

    limits = TreeLimits(config)
    parse(html, limits)  # at a cost linear in the page, before a parser sees it whose cost is not
    closing, copies = html.count("</") * limits.deepest, len(limits.formats) * limits.elements
    if closing > MAX_CLOSING_LEVELS or copies > MAX_COPIES:
        raise PageLimitError("html_too_many_elements")
    try:
        return text_of(html, config.favor_precision, config.include_tables)
    except (*LIBRARY_ERRORS, etree.LxmlError) as error:
        raise UnreadablePageError(f"{library}: {error!r}") from error
