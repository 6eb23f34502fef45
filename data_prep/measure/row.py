"""Convert one page to its row in texts/: its text, language and all signals, or the reason why it has no text.

No thresholds are applied, so that they can change without reading the page again (verdict.py).
"""

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Callable, Iterator

import pyarrow as pa

from data_prep import extract, language
from data_prep.by_language.splitters import splitter_of
from data_prep.config import DocumentsConfig
from data_prep.documents import Damage, Document, WebPage, document_schema
from data_prep.sources import InputFile
from data_prep.sources.columns import MAX_TEXT_BYTES
from data_prep.sources.inputs import read_input
from data_prep.text.passage import Passage
from data_prep.url_filter import filter as url_filter
from lm.errors import UsageError, shown

KEPT = "kept of its table"
"""Key, in a row in memory, of the kept columns of its table (Document.kept). Not a column of texts/."""
DOCUMENT_COLUMNS = tuple(document_schema(labelled=True).names)
NOT_SAMPLED = "not_sampled"
"""Reason, in the counts of skipped records, for pages excluded by documents.sample_rate."""
RECORD_BYTES = 500
"""Approximate bytes of the headers and delimiters of a record."""


def value_columns(config: DocumentsConfig) -> tuple[str, ...]:
    return tuple(signal.name for one in config.filters for signal in one.signals)


def text_schema(config: DocumentsConfig) -> pa.Schema:
    """Return the schema of texts/, the extracted texts with their measured values. In rows with a text, stage and
    reason are null. Values are null in rows without a text, or if they are not measured."""
    values = ((name, pa.float64()) for name in value_columns(config))
    own = (("stage", pa.string()), ("reason", pa.string()), ("text_bytes", pa.int64()))
    return pa.schema([*document_schema(config.language.labelled), *own, *values])


def rows_of_input(
    file: InputFile,
    config: DocumentsConfig,
    skipped: Counter[str] | None = None,
    on_read: Callable[[int], None] = lambda size: None,
) -> Iterator[dict]:
    """Yield one row of `text_schema` for each page, document and damaged place in the file, in order. `skipped` counts
    records without a row by reason: those of `read_input`, and pages excluded by documents.sample_rate. `on_read` is
    called with the bytes of each page or text. Exceptions get a note that names the page and the file."""
    not_sampled = 0
    extract.begin_file(config.extract)
    for found in read_input(file, skipped):
        on_read(len(found.body if isinstance(found, WebPage) else getattr(found, "text", "")) + RECORD_BYTES)
        if config.sample_rate < 1 and not isinstance(found, Damage):
            # Every run samples the same documents, and a larger rate includes all documents of a smaller one.
            key = b"sample" + config.sample_seed.to_bytes(8, "little")
            drawn = hashlib.blake2b(found.id.encode("utf-8", "surrogatepass"), digest_size=8, key=key).digest()
            if int.from_bytes(drawn, "big") >= config.sample_rate * 2**64:
                not_sampled += 1
                continue
        try:
            row = row_of(found, file, config)
        except Exception as error:
            name = f"offset {found.offset}" if isinstance(found, Damage) else found.url or found.id
            error.add_note(f"This happened on {name} of {file.path}.")
            raise
        yield row
    if skipped is not None and not_sampled:
        skipped[NOT_SAMPLED] += not_sampled


def row_of(found: WebPage | Document | Damage, file: InputFile, config: DocumentsConfig) -> dict:
    """Return the row of texts/ for one page, document or damaged record. Equal inputs and configs give equal rows. Kept
    columns of a table are included. The language is detected unless a table gives it with a score."""
    if isinstance(found, Damage):
        name = found.path or file.name
        document = Document("", f"{name}#{found.offset}", config.dump, "", "", name, "", 0.0)
        return rejected(document, "read", found.reason, config)
    if isinstance(found, WebPage):
        document = Document("", found.id, config.dump, found.url, found.date, found.file_path, "", 0.0)
    else:
        document = dataclasses.replace(found, dump=found.dump or config.dump)
    if document.url and (reason := url_filter.reject_reason(document.url, config.url_filter)):
        return rejected(dataclasses.replace(document, text=""), "url_filter", reason, config)
    text, reason = text_of(found, config)
    document = dataclasses.replace(document, text=text)
    if reason:
        return rejected(document, "extract", reason, config)
    if not document.language:
        document = language.detect_language(document, config.language)
    elif config.language.labelled:
        document = language.with_script(document)
    passed = {"stage": None, "reason": None, "text_bytes": len(text.encode())}
    name = document.label if config.language.labelled else document.language
    if config.measure_other_languages or name in (config.language.languages or (name,)):
        return columns_of(document) | passed | measure(text, config, document.label)
    return columns_of(document) | passed | dict.fromkeys(value_columns(config))


def text_of(found: WebPage | Document, config: DocumentsConfig) -> tuple[str, str | None]:
    """Return (text, None), or ("", reason) if there is no text. Plain text is only normalized, not extracted."""
    if isinstance(found, WebPage) and found.content_type != "text/plain":
        return extract.extract_text(found, config.extract)
    if isinstance(found, WebPage) and len(found.body) > MAX_TEXT_BYTES:
        return "", "text_too_large"
    text = found.body.decode("utf-8", "replace") if isinstance(found, WebPage) else found.text
    text = extract.normalise(text)
    return (text, None) if text else ("", "no_text")


def measure(text: str, config: DocumentsConfig, label: str = "") -> dict[str, float]:
    """Return {signal: value} of a nonempty text, for every filter of the recipe, whether used or not. A filter measures
    the text that remains after all used filters before it; if nothing remains, its signals are 0. Only config fields
    marked `measured` affect the values. If thresholds depend on the language, a text of the language `label`
    ("deu_Latn") uses that language's word splitter and stop words; other texts use those of English. Raises UsageError
    if a filter does not return one value per signal."""
    values: dict[str, float] = {}
    filters = config.filters_by_language.get(label)
    passage = Passage(text, words_of=splitter_of(label) if filters else None)
    for one in filters or config.filters:
        found = one.measure(passage) if passage.text and one.signals else [0.0] * len(one.signals)
        if len(found) != len(one.signals):
            raise UsageError(
                f"The filter {one.name} measured {len(found)} values, {shown(list(found))}, but has "
                f"{len(one.signals)} signals: {', '.join(signal.name for signal in one.signals)}. Its measure() must "
                "return one value per signal, in their order."
            )
        values |= {signal.name: float(value) for signal, value in zip(one.signals, found, strict=True)}
        if one.rewrites and one.name in config.steps:
            passage = one.left_of(passage)
    return values


def rejected(document: Document, stage: str, reason: str, config: DocumentsConfig) -> dict:
    fallen = {"stage": stage, "reason": reason, "text_bytes": 0}
    return columns_of(document) | fallen | dict.fromkeys(value_columns(config))


def columns_of(document: Document) -> dict:
    """Return {column: value} of a document. The kept columns of its table are under KEPT."""
    return {name: getattr(document, name) for name in DOCUMENT_COLUMNS} | {KEPT: document.kept}


def warm_up(config: DocumentsConfig) -> None:
    """Load everything that a worker loads once: libraries, language model, lists and classifiers."""
    for label in config.thresholds_by_language:
        splitter_of(label)
    words = "<p>The quick brown fox jumps over the lazy dog, and so on and so forth.</p>" * 3
    page = WebPage("http://a.example/", "", "", "text/html", f"<html><body>{words}</body></html>".encode(), "")
    text, _ = text_of(page, config)
    language.detect_language(Document(text, "", "", "", "", "", "", 0.0), config.language)
    url_filter.reject_reason(page.url, config.url_filter)
    measure(text or "a", config)
