"""Main text by trafilatura (Barbaresi 2021, ACL demos), called so that its result depends on the page alone."""

import functools
import logging

from data_prep.config import ExtractConfig
from data_prep.extract.blocks import UnreadablePageError
from data_prep.extract.libraries import TextOf, checked, library_text


@functools.cache
def load() -> TextOf:
    """trafilatura, silenced: what it cannot read is counted as a reason, not logged. Its duplicate filter, which
    remembers earlier pages, stays off. Raises ImportError and as `checked`."""
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
            deduplicate=False,
        )
        return text or ""

    return checked("trafilatura", text_of)


def main_text(html: str, config: ExtractConfig) -> str:
    return library_text("trafilatura", load(), html, config)
