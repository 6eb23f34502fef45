"""Knobs of text extraction."""

import math
from dataclasses import dataclass
from typing import Literal

from lm.errors import UsageError
from lm.fields import Config, within


@dataclass(frozen=True, slots=True)
class Engine:
    """What finds the main text of a page, and the largest pages that it can be given."""

    module: str
    """Has load(), which brings all that the engine needs or raises ImportError or InputError, and main_text(html,
    config), which raises PageLimitError and UnreadablePageError (data_prep/extract/blocks.py)."""
    max_depth: int
    """Levels of nested elements."""
    max_elements: int
    reads_utf8: bool = False
    """Whether main_text takes UTF-8 too: to make that of a text anew would be 1.5 % of our own extraction."""


ENGINES = {
    "gristmill": Engine("data_prep.extract.main_text", 10_000, 1_000_000, reads_utf8=True),
    # Its time grows with the square of the elements: 10,000 in the worst order take it 2 s.
    "trafilatura": Engine("data_prep.extract.trafilatura", 255, 10_000),
    "resiliparse": Engine("data_prep.extract.resiliparse", 255, 200_000),
}
"""By the names of documents.extract.engine."""


@dataclass(frozen=True)
class ExtractConfig(Config):
    """Main text out of HTML."""

    engine: Literal[*ENGINES]  # ty: ignore[invalid-type-form] - its keys
    """What finds the main text: our own fitted trees, or a library."""
    min_probability: float
    """A block of an article is main text from this probability on, of another page from five sevenths of it on, times
    the F1 to be expected (0 to 1, exclusive; gristmill only). Higher: less text, cleaner."""
    favor_precision: bool
    """Prefer less text and less boilerplate over all of the text (trafilatura only)."""
    include_tables: bool
    """Keep the text of tables."""
    max_bytes: int
    """Bytes of HTML; a larger page is not parsed."""
    max_depth: int
    """Levels of nested elements (at most 10,000 for gristmill; 255 for the others: beyond that their parser silently
    leaves out the rest of the page)."""
    max_elements: int
    """Elements of a page (at most 1,000,000 for gristmill, 200,000 for resiliparse, 10,000 for trafilatura: so many it
    may take 2 s to read)."""
    max_attributes: int
    """Attributes of one element."""
    deduplicate: bool = False
    """Leave out what stood three times before, on the page or on pages before it in the same file, as trafilatura's
    own option does (trafilatura only)."""
    xhtml: bool = True
    """Whether XHTML is read; else it is dropped under the reason "xhtml"."""

    def __post_init__(self):
        super().__post_init__()
        engine = ENGINES[self.engine]
        for name, most in (("max_depth", engine.max_depth), ("max_elements", engine.max_elements)):
            if not 1 <= getattr(self, name) <= most:
                raise UsageError(
                    f"documents.extract.{name} is {getattr(self, name)}; with the engine {self.engine} choose "
                    f"1 to {most}."
                )
        if self.deduplicate and self.engine != "trafilatura":
            raise UsageError(
                f"documents.extract.deduplicate is an option of trafilatura, but the engine is {self.engine}. Leave it "
                "out, or choose documents.extract.engine trafilatura."
            )
        if not 0 < self.min_probability < 1:
            raise UsageError(
                f"documents.extract.min_probability is {self.min_probability}; choose between 0 and 1, both excluded."
            )
        within(self, "documents.extract", 1, math.inf, "max_bytes", "max_attributes")
