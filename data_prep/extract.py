"""HTML -> the main text of the page, without menus, footers and comments, by trafilatura (Barbaresi 2021, ACL demos).

The result for a page depends on the page alone: trafilatura's duplicate filter, which remembers earlier pages, stays
off, and limits are counts of bytes and levels, not seconds, whose outcome would depend on the load of the machine.
"""

import functools
import logging
import re
from collections.abc import Callable

from data_prep.charset import decode
from data_prep.config import ExtractConfig
from data_prep.documents import WebPage
from data_prep.warc import MAX_PAGE_BYTES

# All of C0, DEL and C1 but tab and line feed, and lone surrogates, which no UTF-8 file can hold.
UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


@functools.cache
def engine() -> tuple[Callable, Callable]:
    """trafilatura's (load_html, extract), silenced: what it cannot read is counted as a reason, not logged."""
    from trafilatura import extract, load_html

    logging.getLogger("trafilatura").setLevel(logging.CRITICAL)
    return load_html, extract


def depth_of(tree) -> int:
    """Levels of nested elements in an lxml tree, without recursion."""
    from lxml.etree import iterwalk  # ty: ignore[import-not-found]

    depth = deepest = 0
    for event, _ in iterwalk(tree, events=("start", "end")):
        depth += 1 if event == "start" else -1
        deepest = max(deepest, depth)
    return deepest


def normalise(text: str) -> str:
    """`text` without control characters, trailing blanks and blank lines at both ends; otherwise as it was."""
    text = UNPRINTABLE.sub("", text.replace("\r\n", "\n"))
    return "\n".join(line.rstrip() for line in text.split("\n")).strip()  # a regex would try each blank of a run anew


def extract_text(page: WebPage, config: ExtractConfig) -> tuple[str, str | None]:
    """(text, None), or ("", the reason why there is none).

    "html_too_large", "html_too_deep": beyond the limits of `config`, or of what is read of a page.
    "unreadable_html": the parser or the engine fails. "no_text": nothing but navigation. Raises MemoryError.
    """
    if len(page.body) > min(config.max_bytes, MAX_PAGE_BYTES):  # the reader cuts what is above the latter
        return "", "html_too_large"
    load_html, extract = engine()
    try:
        tree = load_html(decode(page.body, page.content_type)) if page.body else None
        if tree is None:
            return "", "unreadable_html" if page.body.strip() else "no_text"
        if depth_of(tree) > config.max_depth:
            return "", "html_too_deep"
        text = extract(
            tree,
            favor_precision=config.favor_precision,
            include_comments=False,
            include_tables=config.include_tables,
            deduplicate=False,
        )
    except MemoryError:  # the machine's trouble, not the page's
        raise
    except Exception:  # whatever strange HTML makes of a library, one page must not stop millions
        return "", "unreadable_html"
    text = normalise(text or "")
    return (text, None) if text else ("", "no_text")
