"""One page from its bytes to its row in texts/: its text, its language and every value that a rule may ask for; or why
it has no text. No threshold is applied, so that they can change without reading a page again (verdict.py)."""

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Callable, Iterator

import pyarrow as pa

from data_prep import extract, language
from data_prep.by_language.splitters import splitter_of
from data_prep.config import DocumentsConfig
from data_prep.documents import Damage, Document, PlacedDamage, WebPage, document_schema
from data_prep.sources import InputFile
from data_prep.sources.columns import MAX_TEXT_BYTES
from data_prep.sources.inputs import read_input
from data_prep.text.passage import Passage
from data_prep.url_filter import filter as url_filter
from lm.errors import UsageError, shown

QUALITY_SCORE = "quality_score"
"""The quality classifier's score (0 to 1); null where the step quality_classifier is not used."""
KEPT = "kept of its table"
"""Key of a row that is read, of the columns of its table that are kept: Document.kept. No column of a file."""
DOCUMENT_COLUMNS = tuple(document_schema(labelled=True).names)
NOT_SAMPLED = "not_sampled"
"""Among what was skipped: pages that documents.sample_rate left out."""
RECORD_BYTES = 500
"""Of the headers and marks of a record, about."""


def value_columns(config: DocumentsConfig) -> tuple[str, ...]:
    return (*(signal.name for one in config.filters for signal in one.signals), QUALITY_SCORE)


def text_schema(config: DocumentsConfig) -> pa.Schema:
    """Of texts/: stage and reason are null for what has a text, the values for what has none or was not measured."""
    values = ((name, pa.float64()) for name in value_columns(config))
    own = (("stage", pa.string()), ("reason", pa.string()), ("text_bytes", pa.int64()))
    return pa.schema([*document_schema(config.language.labelled), *own, *values])


def rows_of_input(
    file: InputFile,
    config: DocumentsConfig,
    skipped: Counter[str] | None = None,
    on_read: Callable[[int], None] = lambda size: None,
) -> Iterator[dict]:
    """One row of `text_schema` for everything in the file, in order: pages, documents, and damaged places. `skipped` is
    as of `read_input`, with what documents.sample_rate leaves out. `on_read` gets the bytes of each page or text. An
    error says on which page it happened."""
    not_sampled = 0
    extract.begin_file(config.extract)
    for found in read_input(file, skipped):
        on_read(len(found.body if isinstance(found, WebPage) else getattr(found, "text", "")) + RECORD_BYTES)
        if not is_sampled(found, config):
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


def is_sampled(found: WebPage | Document | Damage, config: DocumentsConfig) -> bool:
    """Whether documents.sample_rate takes it, by its id: the same in every run, and in those of larger rates. Damage is
    always taken."""
    if config.sample_rate == 1 or isinstance(found, Damage):
        return True
    seed = config.sample_seed.to_bytes(8, "little")
    drawn = hashlib.blake2b(found.id.encode("utf-8", "surrogatepass"), digest_size=8, key=b"sample" + seed).digest()
    return int.from_bytes(drawn, "big") < config.sample_rate * 2**64


def row_of(found: WebPage | Document | Damage, file: InputFile, config: DocumentsConfig) -> dict:
    """The row of one page, document or damaged record, a pure function of them and the config. A document of a table
    keeps its own columns; its language is detected unless the table has it with a score."""
    if isinstance(found, Damage):
        name = found.path if isinstance(found, PlacedDamage) else file.name
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
        return columns_of(document) | passed | values_of(text, config, document.label)
    return columns_of(document) | passed | dict.fromkeys(value_columns(config))


def text_of(found: WebPage | Document, config: DocumentsConfig) -> tuple[str, str | None]:
    """(text, None), or ("", the reason why there is none); text that comes as text is only normalised."""
    if isinstance(found, WebPage) and found.content_type != "text/plain":
        return extract.extract_text(found, config.extract)
    if isinstance(found, WebPage) and len(found.body) > MAX_TEXT_BYTES:
        return "", "text_too_large"
    text = found.body.decode("utf-8", "replace") if isinstance(found, WebPage) else found.text
    text = extract.normalise(text)
    return (text, None) if text else ("", "no_text")


def values_of(text: str, config: DocumentsConfig, label: str = "") -> dict[str, float | None]:
    """{column: value} of a text that is not empty, in the order of `value_columns`; `label` is as of `measure`."""
    values: dict[str, float | None] = dict(measure(text, config, label))
    values[QUALITY_SCORE] = None
    if "quality_classifier" in config.steps:
        from data_prep.quality_classifier import load_model

        values[QUALITY_SCORE] = load_model(config.quality_classifier.model).score(text)
    return values


def measure(text: str, config: DocumentsConfig, label: str = "") -> dict[str, float]:
    """{signal: value} of every filter of the recipe, used or not, on a text that is not empty. A filter sees what those
    before it leave, as far as they are used; of an emptied text all is 0. Of the config only fields that are marked
    `measured` count. With thresholds by language, a text of the language `label` ("deu_Latn") is split into words as
    that is, with its stop words; others as English."""
    values: dict[str, float] = {}
    filters = config.filters_by_language.get(label)
    passage = Passage(text, words_of=splitter_of(label) if filters else None)
    for one in filters or config.filters:
        found = one.measure(passage) if passage.text and one.signals else [0.0] * len(one.signals)
        if len(found) != len(one.signals):
            raise UsageError(
                f"The filter {one.name} measured {len(found)} values, {shown(list(found))}, but has {len(one.signals)} "
                f"signals: {', '.join(signal.name for signal in one.signals)}. Let its measure() return one value a "
                "signal, in their order."
            )
        values |= {signal.name: float(value) for signal, value in zip(one.signals, found, strict=True)}
        if one.rewrites and one.name in config.steps:
            passage = one.left_of(passage)
    return values


def rejected(document: Document, stage: str, reason: str, config: DocumentsConfig) -> dict:
    fallen = {"stage": stage, "reason": reason, "text_bytes": 0}
    return columns_of(document) | fallen | dict.fromkeys(value_columns(config))


def columns_of(document: Document) -> dict:
    """{column: value} of a document; what is kept of its table under KEPT, as it is there."""
    return {name: getattr(document, name) for name in DOCUMENT_COLUMNS} | {KEPT: document.kept}


def warm_up(config: DocumentsConfig) -> None:
    """Loads all that a worker needs once: libraries, the language model, the lists, the fitted trees."""
    for label in config.thresholds_by_language:
        splitter_of(label)
    words = "<p>The quick brown fox jumps over the lazy dog, and so on and so forth.</p>" * 3
    page = WebPage("http://a.example/", "", "", "text/html", f"<html><body>{words}</body></html>".encode(), "")
    text, _ = text_of(page, config)
    language.detect_language(Document(text, "", "", "", "", "", "", 0.0), config.language)
    url_filter.reject_reason(page.url, config.url_filter)
    values_of(text or "a", config)
