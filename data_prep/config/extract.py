"""Config of text extraction."""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from lm.errors import UsageError
from lm.fields import NAMES_CODE, Config, check_names, within


@dataclass(frozen=True, slots=True)
class Engine:
    """An extractor of main text, and its limits on pages."""

    module: str
    """Module with load(), which imports and loads the engine or raises ImportError or InputError, and main_text(html,
    config), which raises PageLimitError and UnreadablePageError (data_prep/extract/blocks.py)."""
    max_depth: int
    """Maximum nesting depth of elements."""
    max_elements: int
    """Maximum number of elements of a page."""
    reads_utf8: bool = False
    """Whether main_text also accepts UTF-8 bytes; encoding text again would take 1.5 % of gristmill's time."""


ENGINES = {
    "gristmill": Engine("data_prep.extract.main_text", 10_000, 1_000_000, reads_utf8=True),
    # Its time is quadratic in the number of elements: 2 s for 10,000 in the worst order.
    "trafilatura": Engine("data_prep.extract.trafilatura", 255, 10_000),
    "resiliparse": Engine("data_prep.extract.resiliparse", 255, 200_000),
}
"""{documents.extract.engine: engine}."""
OWN_ENGINE = Engine("", 10_000, 1_000_000)
"""Limits of the user's own extractors."""


@dataclass(frozen=True)
class ExtractConfig(Config):
    """Extraction of the main text from HTML."""

    engine: Annotated[Literal[*ENGINES] | str, NAMES_CODE]  # ty: ignore[invalid-type-form] - its keys
    """Extractor: gristmill (our fitted trees), a library, or my_module.my_extractor: your function (html, config) ->
    text."""
    min_probability: float
    """Minimum probability that a block is main text (0 to 1, exclusive; gristmill only). Higher values give less but
    cleaner text. On pages other than articles, the minimum is 5/7 of this, times the highest F1 that a selection of the
    page's blocks is expected to have."""
    favor_precision: bool
    """Prefer less boilerplate to complete text (trafilatura only)."""
    include_tables: bool
    """Keep the text of tables."""
    max_bytes: int
    """Maximum size of HTML in bytes; larger pages are not parsed."""
    max_depth: int
    """Maximum nesting depth of elements (up to 10,000 for gristmill; up to 255 for the others, whose parser silently
    ignores the rest of a deeper page)."""
    max_elements: int
    """Maximum elements per page (up to 1,000,000 for gristmill, 200,000 for resiliparse, 10,000 for trafilatura, which
    may take 2 s for so large a page)."""
    max_attributes: int
    """Maximum attributes per element."""
    deduplicate: bool = False
    """Skip text that occurred three times before, on this page or on earlier pages of the same file, by trafilatura's
    own option (trafilatura only)."""
    xhtml: bool = True
    """Read XHTML pages; if disabled, they are dropped with the reason "xhtml"."""

    def check_values(self):
        check_names(self, "documents.extract", "engine")
        engine = ENGINES.get(self.engine, OWN_ENGINE)
        for name, most in (("max_depth", engine.max_depth), ("max_elements", engine.max_elements)):
            if not 1 <= getattr(self, name) <= most:
                raise UsageError(
                    f"documents.extract.{name} is {getattr(self, name)}; with the engine {self.engine} it must be "
                    f"from 1 to {most}."
                )
        if self.deduplicate and self.engine != "trafilatura":
            raise UsageError(
                f"documents.extract.deduplicate is an option of trafilatura, but the engine is {self.engine}. Remove "
                "the option, or set documents.extract.engine trafilatura."
            )
        within(self, "documents.extract", 0, 1, "min_probability", above=True, below=True)
        within(self, "documents.extract", 1, math.inf, "max_bytes", "max_attributes")
