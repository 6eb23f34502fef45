"""Knobs of text extraction."""

from dataclasses import dataclass
from typing import Literal

from lm.errors import UsageError
from lm.fields import Config

# trafilatura's time grows with the square of the elements: 10,000 in the worst order take it 2 s.
MAX_DEPTH = {"gristmill": 10_000, "trafilatura": 255, "resiliparse": 255}
MAX_ELEMENTS = {"gristmill": 1_000_000, "trafilatura": 10_000, "resiliparse": 200_000}


@dataclass(frozen=True)
class ExtractConfig(Config):
    """Main text out of HTML."""

    engine: Literal["gristmill", "trafilatura", "resiliparse"]
    """What finds the main text: our own fitted trees, or a library."""
    min_probability: float
    """A block is main text from this probability on (0 to 1, exclusive; gristmill only). Higher: less text, cleaner."""
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

    def __post_init__(self):
        super().__post_init__()
        for name, most in (("max_depth", MAX_DEPTH[self.engine]), ("max_elements", MAX_ELEMENTS[self.engine])):
            if not 1 <= getattr(self, name) <= most:
                raise UsageError(
                    f"documents.extract.{name} is {getattr(self, name)}; with the engine {self.engine} choose "
                    f"1 to {most}."
                )
        if not 0 < self.min_probability < 1:
            raise UsageError(
                f"documents.extract.min_probability is {self.min_probability}; choose between 0 and 1, both excluded."
            )
        for name in ("max_bytes", "max_attributes"):
            if getattr(self, name) < 1:
                raise UsageError(f"documents.extract.{name} is {getattr(self, name)}; give at least 1.")
