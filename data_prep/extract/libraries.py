"""Shared code of the engines that are third-party libraries: limits on the page, and attribution of errors."""

from collections.abc import Callable

from data_prep.config import ExtractConfig
from data_prep.extract.blocks import Limits, PageLimitError, UnreadablePageError, parse
from lm.errors import InputError

# Sum of the depths of all elements; about 150,000 for a page of 10,000 elements.
MAX_LEVELS = 5_000_000
# End tags times maximum depth: the parser may search all levels for each end tag.
MAX_CLOSING_LEVELS = 20_000_000
# Unclosed elements of these tags are repeated in every following paragraph, at most three with the same attributes
# (HTML standard, "reconstruct the active formatting elements"). So distinct ones times all elements bounds the copies.
FORMATTING = frozenset(("b", "big", "code", "em", "font", "i", "nobr", "s", "small", "strike", "strong", "tt", "u"))
MAX_COPIES = 1_000_000

# The libraries have no error class for unusual pages; these are the errors of code that did not expect its input.
LIBRARY_ERRORS = (ArithmeticError, AssertionError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
PLAIN_SENTENCE = "The miller carried two sacks of grain to the village, and the baker paid him on the same day."
PLAIN_PAGE = f"<html><body><article>{f'<p>{PLAIN_SENTENCE}</p>' * 3}</article></body></html>"


class TreeLimits(Limits):
    """Limits, with additional ones for parsers that build a tree and may search all of its levels at each tag."""

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
    """Return `text_of`, after a test on a plain page. Raises InputError if the library fails on it, for example in
    another version, because then every page would be counted as unreadable."""
    try:
        text = text_of(PLAIN_PAGE, True, True)
    except (*LIBRARY_ERRORS, UnreadablePageError) as error:
        text = repr(error)
    if PLAIN_SENTENCE not in text:
        raise InputError(
            f"The extraction engine {library} (documents.extract.engine) extracts {text!r} from a plain "
            "page. Install the packages of requirements.lock (make setup)."
        )
    return text_of


def library_text(library: str, text_of: TextOf, html: str, config: ExtractConfig) -> str:
    """Return the main text that `text_of` extracts from a page within the limits. `library` names it in messages.
    Raises PageLimitError and UnreadablePageError."""
    from lxml import etree  # ty: ignore[missing-module-member]

    limits = TreeLimits(config)
    parse(html, limits)  # linear in the page; run it before a parser that is not
    closing, copies = html.count("</") * limits.deepest, len(limits.formats) * limits.elements
    if closing > MAX_CLOSING_LEVELS or copies > MAX_COPIES:
        raise PageLimitError("html_too_many_elements")
    try:
        return text_of(html, config.favor_precision, config.include_tables)
    except (*LIBRARY_ERRORS, etree.LxmlError) as error:
        raise UnreadablePageError(f"{library}: {error!r}") from error
