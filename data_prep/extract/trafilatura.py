"""Main text by trafilatura (Barbaresi 2021, ACL demos), called so that the result depends only on the page.

With `deduplicate`, as FineWeb used it, the result also depends on earlier pages: a paragraph of over 100 characters
that occurred three times is left out. trafilatura remembers the last 4,096 of the process; here the memory is per file,
so a file gives the same texts in any process and after any other file.
"""

import functools
import logging
from typing import Any

from data_prep.config import ExtractConfig
from data_prep.extract.blocks import UnreadablePageError
from data_prep.extract.libraries import TextOf, checked, library_text

SEEN: list[Any] = []
"""The LRUCache of paragraphs that trafilatura has seen in the pages of one file; empty without `deduplicate`."""


@functools.cache
def load() -> TextOf:
    """Import trafilatura and return its function for main text. Its logging is disabled, since unreadable pages are
    counted. Raises ImportError, and InputError like `checked`."""
    from trafilatura import extract, load_html

    logging.getLogger("trafilatura").setLevel(logging.CRITICAL)

    def text_of(html: str, favor_precision: bool, include_tables: bool) -> str:
        tree = load_html(html)
        if tree is None:
            raise UnreadablePageError("trafilatura sees no HTML")
        text = extract(
            tree,
            favor_precision=favor_precision,
            include_comments=False,
            include_tables=include_tables,
            deduplicate=SEEN[0] if SEEN else False,
        )
        return text or ""

    return checked("trafilatura", text_of)


def main_text(html: str, config: ExtractConfig) -> str:
    if not config.deduplicate:
        SEEN.clear()
    elif not SEEN:
        begin_file()
    return library_text("trafilatura", load(), html, config)


def begin_file() -> None:
    """Forget the paragraphs of earlier files. Call this before the first page of each file."""
    from trafilatura.deduplication import LRUCache
    from trafilatura.settings import LRU_SIZE

    SEEN[:] = [LRUCache(maxsize=LRU_SIZE)]
