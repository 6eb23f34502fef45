"""Data types of data_prep: web pages (WebPage), texts (Document), and damaged places in input files (Damage)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa


@dataclass(frozen=True, slots=True)
class WebPage:
    """One HTTP response from a WARC file."""

    url: str
    """The requested URL."""
    id: str
    """WARC-Record-ID, for example "<urn:uuid:…>"; if the record has none, its file and offset: "a.warc.gz/1047"."""
    date: str
    """WARC-Date: time of the request, ISO 8601 in UTC."""
    content_type: str
    """HTTP Content-Type as received, or empty; text/html for HTML that is declared otherwise; text/plain in a WET
    file."""
    body: bytes
    """Payload after decoding the transfer and content encodings."""
    file_path: str
    """Name of its WARC file in pages/manifest.json; for a page in an archive, archive and member."""
    xhtml: bool = False
    """Whether the crawler, or else the server, declares it to be XHTML."""


@dataclass(frozen=True, slots=True)
class Document:
    """One text, with FineWeb's columns (huggingface/datatrove; arXiv:2406.17557)."""

    text: str
    id: str
    dump: str
    """The crawl, for example "CC-MAIN-2024-10"."""
    url: str
    date: str
    file_path: str
    """Name of its input file in pages/manifest.json; for a table, the value in the row, if it has one."""
    language: str
    """ISO 639 code; empty until detected."""
    language_score: float
    """Probability of that language; 0 until detected."""
    token_count: int | None = None
    """Number of tokens according to its table, by its author's tokenizer, or None. The run's are in
    tokens/documents/."""
    language_script: str = ""
    """ISO 15924 code if languages have scripts ("deu_Latn", where `language` is an ISO 639-3 code); otherwise empty."""
    kept: tuple[tuple[str, pa.DataType, Any], ...] = ()
    """(name, type, value) of the kept columns of its table (pages.keep_columns; data_prep/kept_columns.py)."""

    @property
    def label(self) -> str:
        """Language and script, such as "deu_Latn"; empty if there is no script."""
        return f"{self.language}_{self.language_script}" if self.language_script else ""


@dataclass(frozen=True, slots=True)
class Damage:
    """A place in an input file where a record cannot be read or is invalid, or a row of a table without a usable
    text."""

    offset: int
    """Byte offset of the record, or of the start of the search for one; of a table, the number of the row or line."""
    reason: str
    """A stable name, for example "wrong_block_digest"; for tables one of not_utf8, not_json, not_an_object, too_long,
    no_text, text_not_a_string, empty_text, damaged, ratio_too_high."""
    detail: str
    """Description of the damage, for messages."""
    path: str = ""
    """Name of its file, as in Document.file_path; "": that of the input file."""
    place: str = ""
    """Position in a table, for messages: "line 17" or "row 3"."""


OnDamage = Callable[[Damage], None]


DOCUMENT_SCHEMA = pa.schema(
    [
        ("text", pa.string()),
        ("id", pa.string()),
        ("dump", pa.string()),
        ("url", pa.string()),
        ("date", pa.string()),
        ("file_path", pa.string()),
        ("language", pa.string()),
        ("language_score", pa.float64()),
        ("token_count", pa.int64()),
    ]
)


def document_schema(labelled: bool) -> pa.Schema:
    """Return the Arrow schema of documents, with the column language_script if `labelled` (LanguageConfig.labelled)."""
    if not labelled:
        return DOCUMENT_SCHEMA
    place = DOCUMENT_SCHEMA.get_field_index("language") + 1
    return DOCUMENT_SCHEMA.insert(place, pa.field("language_script", pa.string()))
