"""HTML -> the main text of the page, without menus, footers and comments, by the engine that the config names.

The result depends only on the page (except with ExtractConfig.deduplicate). Limits are counts of bytes, levels and
elements, not seconds, which would depend on the load of the machine.
"""

import functools
import importlib
import re
from types import ModuleType

from data_prep.config import ExtractConfig
from data_prep.config.extract import ENGINES
from data_prep.documents import WebPage
from data_prep.extract.blocks import PageLimitError, UnreadablePageError
from data_prep.extract.charset import text_and_codec
from data_prep.warc import MAX_PAGE_BYTES
from lm.errors import InputError

# All of C0, DEL and C1 but tab and line feed, and lone surrogates, which no UTF-8 file can hold.
UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def normalise(text: str) -> str:
    """`text` with "\\n" for every line break that Unicode knows, and without control characters, trailing blanks and
    blank lines at both ends; otherwise as it was."""
    lines = text.splitlines()  # before control characters go: a form feed that went would glue words
    lines = [line if line.isprintable() else UNPRINTABLE.sub("", line) for line in lines]  # the regex is slower
    return "\n".join([line.rstrip() for line in lines]).strip()  # a regex would try each blank of a run anew


@functools.cache
def load_engine(engine: str) -> ModuleType:
    """The engine's module. Imports and loads all that extraction needs, once a process: what fails on a page after it
    is of that page.

    Raises InputError where a package or the model is missing or damaged.
    """
    try:
        for package in ("lxml.etree", "chardet"):
            importlib.import_module(package)
        module = importlib.import_module(ENGINES[engine].module)
        module.load()
    except ImportError as error:
        raise InputError(
            f"The extraction engine {engine} (documents.extract.engine) cannot be loaded: {error}. Bring the "
            "environment back to requirements.lock: make setup"
        ) from error
    return module


def begin_file(config: ExtractConfig) -> None:
    """To be called before the first page of a file is extracted: the engine forgets the pages of others."""
    if config.deduplicate:
        load_engine(config.engine).begin_file()


def extract_text(page: WebPage, config: ExtractConfig) -> tuple[str, str | None]:
    """(text, None), or ("", the reason why there is none).

    "html_too_large", "html_too_deep", "html_too_many_elements": beyond the limits of `config`, or of what is read of a
    page. "unreadable_html": the parser fails on the page, or the engine, or nobody reads its character set. "no_text":
    nothing but navigation. "xhtml": it is that, and `config` leaves it out.

    Raises InputError as `load_engine`, MemoryError, and whatever a bug of ours raises: those are no fault of the page.
    """
    engine = load_engine(config.engine)
    if len(page.body) > min(config.max_bytes, MAX_PAGE_BYTES):  # the reader cuts what is above the latter
        return "", "html_too_large"
    if not page.body.strip():
        return "", "no_text"
    if page.xhtml and not config.xhtml:
        return "", "xhtml"
    try:
        html, codec = text_and_codec(page.body, page.content_type)
    except UnicodeError:
        return "", "unreadable_html"
    try:
        text = engine.main_text(page.body if codec == "utf-8" and ENGINES[config.engine].reads_utf8 else html, config)
    except PageLimitError as limit:
        return "", str(limit)
    except UnreadablePageError:
        return "", "unreadable_html"
    text = normalise(text)
    return (text, None) if text else ("", "no_text")
