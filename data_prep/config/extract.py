"""Knobs of text extraction."""

from dataclasses import dataclass
from typing import Literal

from lm.errors import UsageError
from lm.fields import Config


@dataclass(frozen=True)
class ExtractConfig(Config):
    """Main text out of HTML."""

    engine: Literal["trafilatura"]
    """Library that finds the main text."""
    favor_precision: bool
    """Prefer less text and less boilerplate over all of the text."""
    include_tables: bool
    """Keep the text of tables."""
    max_bytes: int
    """Bytes of HTML; a larger page is not parsed."""
    max_depth: int
    """Levels of nested elements (at most 255: beyond that the parser silently leaves out the rest of the page)."""

    def __post_init__(self):
        super().__post_init__()
        if not 1 <= self.max_depth <= 255:
            raise UsageError(
                f"documents.extract.max_depth is {self.max_depth}; the HTML parser reads 1 to 255 levels. "
                "Choose among those."
            )
        if self.max_bytes < 1:
            raise UsageError(f"documents.extract.max_bytes is {self.max_bytes}; give at least 1 byte.")
