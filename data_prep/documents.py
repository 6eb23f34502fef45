"""The domain types of data_prep: what is read (WebPage), what is kept (Document), what cannot be read (Damage)."""

from dataclasses import dataclass
from typing import Any

import pyarrow as pa


@dataclass(frozen=True, slots=True)
class WebPage:
    """One HTTP response as a WARC holds it."""

    url: str
    """The address that was asked for."""
    id: str
    """WARC-Record-ID, for example "<urn:uuid:…>"; of a record without one, its file and place: "a.warc.gz/1047"."""
    date: str
    """WARC-Date: when it was fetched, ISO 8601 in UTC."""
    content_type: str
    """The HTTP Content-Type header as it came, or ""; text/html if the page is HTML under another type; text/plain in a
    WET file."""
    body: bytes
    """The payload, transfer and content encodings removed."""
    file_path: str
    """The WARC file that holds it, by its name in pages/manifest.json; of a package's page, archive and member."""
    xhtml: bool = False
    """Whether the crawler, or else the server, calls it XHTML."""


@dataclass(frozen=True, slots=True)
class Document:
    """One text with FineWeb's columns (huggingface/datatrove; arXiv:2406.17557)."""

    text: str
    id: str
    dump: str
    """Which crawl it is from, for example "CC-MAIN-2024-10"."""
    url: str
    date: str
    file_path: str
    """The file that it is from, by its name in pages/manifest.json; of a table's row what the row tells, if it does."""
    language: str
    """ISO 639 code, "" until it was detected."""
    language_score: float
    """Probability of that language, 0 until it was detected."""
    token_count: int | None = None
    """Tokens as its table has them, by its maker's tokenizer; else None. tokens/documents/ has the run's own counts."""
    language_script: str = ""
    """ISO 15924 code, if languages are told with their scripts ("deu_Latn"), and `language` is of ISO 639-3; else
    ""."""
    kept: tuple[tuple[str, pa.DataType, Any], ...] = ()
    """(name, type, value) of the columns of its table that are kept (pages.keep_columns; data_prep/kept_columns.py)."""

    @property
    def label(self) -> str:
        """Language and script, as "deu_Latn"; "" where the script is not told."""
        return f"{self.language}_{self.language_script}" if self.language_script else ""


@dataclass(frozen=True, slots=True)
class Damage:
    """A place in an input file where a record could not be read, or could not be believed: a quarantined record."""

    offset: int
    """Bytes from the file's beginning to the record's, or to where the search for one began."""
    reason: str
    """A stable name, for example "wrong_block_digest"."""
    detail: str
    """What was found there, for people."""


@dataclass(frozen=True, slots=True)
class PlacedDamage(Damage):
    """One in an archive from which records were chosen: several may lie in one input file."""

    path: str
    """What documents call the archive."""


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
    """Of documents; with the script behind the language, where languages are `labelled` (LanguageConfig)."""
    if not labelled:
        return DOCUMENT_SCHEMA
    place = DOCUMENT_SCHEMA.get_field_index("language") + 1
    return DOCUMENT_SCHEMA.insert(place, pa.field("language_script", pa.string()))
