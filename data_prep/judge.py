"""One web page from its bytes to the verdict: a Document, or the Rejection that says which stage dropped it and why.

Here stand the filters that look at one page alone, one line each, the cheapest first. What needs the other pages
(deduplication) is in pipeline.py.
"""

import dataclasses

from data_prep import extract, language, url_filter
from data_prep.config import DocumentsConfig
from data_prep.documents import Document, Rejection, WebPage
from data_prep.quality import gopher


def judge(page: WebPage, config: DocumentsConfig) -> Document | Rejection:
    """The document in `page`, or why there is none. A pure function of both."""
    document = Document(
        text="",
        id=page.id,
        dump=config.dump,
        url=page.url,
        date=page.date,
        file_path=page.file_path,
        language="",
        language_score=0.0,
    )
    if reason := url_filter.reject_reason(page.url, config.url_filter):
        return Rejection(document, "url_filter", reason)
    text, reason = extract.extract_text(page, config.extract)
    if reason:
        return Rejection(document, "extract", reason)
    document = language.detect_language(dataclasses.replace(document, text=text))
    if reason := language.reject_reason(document, config.language):
        return Rejection(document, "language", reason)
    if reason := gopher.reject_reason(document, config.gopher_quality):
        return Rejection(document, "gopher_quality", reason)
    return document
