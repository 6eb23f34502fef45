"""Extract the main text of an HTML page, without menus, footers and comments, by the configured engine.

The result depends only on the page (except with ExtractConfig.deduplicate). Limits count bytes, levels and elements,
not seconds, which depend on the load of the machine.
"""

import functools
import importlib
import re
from types import SimpleNamespace
from typing import Any

from data_prep.config import ExtractConfig
from data_prep.config.extract import ENGINES, OWN_ENGINE
from data_prep.documents import WebPage
from data_prep.extract.blocks import PageLimitError, UnreadablePageError
from data_prep.extract.charset import text_and_codec
from data_prep.warc import MAX_PAGE_BYTES
from lm.errors import InputError
from lm.trusted_code import load_named

# C0, DEL and C1 except tab and line feed, and lone surrogates, which UTF-8 cannot encode.
UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def normalise(text: str) -> str:
    """Return `text` with "\\n" for every Unicode line break, and without control characters, white space at the end of
    lines, and white space at both ends."""
    lines = text.splitlines()  # before removing control characters: a removed form feed would join words
    lines = [line if line.isprintable() else UNPRINTABLE.sub("", line) for line in lines]  # the regex is slower
    return "\n".join([line.rstrip() for line in lines]).strip()  # a regex is quadratic in runs of blanks


@functools.cache
def load_engine(engine: str) -> Any:
    """Return the engine's module, or an object with the user's own function `main_text`. Imports and loads everything
    that extraction needs, once per process, so that later errors are caused by pages.

    Raises InputError if a package or the model is missing or damaged, and UsageError like `load_named`.
    """
    try:
        for package in ("lxml.etree", "chardet"):
            importlib.import_module(package)
        if engine not in ENGINES:
            return SimpleNamespace(main_text=load_named(engine, "documents.extract.engine"))
        module = importlib.import_module(ENGINES[engine].module)
        module.load()
    except ImportError as error:
        raise InputError(
            f"The extraction engine {engine} (documents.extract.engine) cannot be loaded: {error}. Install "
            "the packages of requirements.lock: make setup"
        ) from error
    return module


def begin_file(config: ExtractConfig) -> None:
    """Forget earlier pages, which affect the text if ExtractConfig.deduplicate is set. Call this at the start of a
    file."""
    if config.deduplicate:
        load_engine(config.engine).begin_file()


def extract_text(page: WebPage, config: ExtractConfig) -> tuple[str, str | None]:
    """Return (main text of the page, None), or ("", reason) if there is none.

    Reasons: "html_too_large", "html_too_deep", "html_too_many_elements", "html_too_many_attributes": above a limit of
    `config` or the size limit of the WARC reader. "unreadable_html": the parser or the engine fails, or the page
    declares an encoding that browsers no longer support. "no_text": no main text, only navigation for example. "xhtml":
    the page is XHTML and `config` excludes it.

    Raises InputError like `load_engine`, and MemoryError. Other errors are bugs in this code, not faults of the page.
    """
    engine = load_engine(config.engine)
    if len(page.body) > min(config.max_bytes, MAX_PAGE_BYTES):  # the reader truncates pages at the latter
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
        reads_utf8 = ENGINES.get(config.engine, OWN_ENGINE).reads_utf8
        text = engine.main_text(page.body if codec == "utf-8" and reads_utf8 else html, config)
    except PageLimitError as limit:
        return "", str(limit)
    except UnreadablePageError:
        return "", "unreadable_html"
    text = normalise(text)
    return (text, None) if text else ("", "no_text")
