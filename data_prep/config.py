"""Every knob of data_prep on one page, as frozen dataclasses: light to import, so that --help is quick.

Fields marked `speed_only` change how fast a result is made, never the result.
"""

import dataclasses
import functools
from dataclasses import dataclass
from typing import Literal

import tyro

from lm.errors import UsageError

speed_only = functools.partial(dataclasses.field, metadata={"speed_only": True})


@dataclass(frozen=True)
class PackagePages:
    """Pages inside one file of the package index, pinned so that nothing else can be taken for it."""

    name: str
    version: str
    file_name: str
    sha256: str
    format: Literal["html"]
    """How the pages are written in the archive."""
    pattern: str
    """Shell pattern of the pages' paths inside the archive."""
    address: str
    """Address under which the pages are filed: the path inside the archive is appended."""
    licence: str
    """Licence of the text."""
    credit: str
    """Whom to thank, and what it is."""


@dataclass(frozen=True)
class PagesConfig:
    """Where the web pages come from: WARC files of one's own, or pages inside pinned packages."""

    warc: tuple[str, ...]
    """One's own WARC files, as shell patterns; when any is given, the packages are not used."""
    packages: tyro.conf.Suppress[tuple[PackagePages, ...]]
    pages_per_file: int
    """Pages in one WARC file written from packages; one file is the unit of work later."""
    unpacked_limit: int
    """Bytes an archive may unpack to, in all; one that holds more is refused."""


@dataclass(frozen=True)
class UrlFilterConfig:
    """Addresses that are not read at all."""

    banned_domains: tuple[str, ...]
    """Registered domains or hosts; their subdomains are banned too."""
    banned_words: tuple[str, ...]
    """Words that must not stand as a token of the lower-cased address."""


@dataclass(frozen=True)
class ExtractConfig:
    """Main text out of HTML."""

    engine: Literal["trafilatura"]
    """Library that finds the main text."""
    favor_precision: bool
    """Prefer less text and less boilerplate over all of the text."""


@dataclass(frozen=True)
class LanguageConfig:
    """Language by fastText's lid.176 (arXiv:1607.01759)."""

    languages: tuple[str, ...]
    """ISO 639 codes that are kept."""
    min_score: float
    """The best language's probability must be above this (0 to 1)."""


@dataclass(frozen=True)
class GopherQualityConfig:
    """Quality rules of Gopher (arXiv:2112.11446, table A1)."""

    min_words: int
    max_words: int
    min_mean_word_length: float
    """Characters."""
    max_mean_word_length: float
    """Characters."""
    max_symbols_per_word: float
    """Hash signs, and apart from them ellipses, per word."""
    max_bullet_lines: float
    """Share of lines that begin with a bullet."""
    max_ellipsis_lines: float
    """Share of lines that end with an ellipsis."""
    min_words_with_letter: float
    """Share of words with at least one letter."""
    stop_words: tuple[str, ...]
    min_stop_words: int
    """How many of the stop words must occur."""


@dataclass(frozen=True)
class PersonalDataConfig:
    """Personal data that is replaced in kept documents."""

    replace_emails: bool
    email_placeholder: str
    """Text that stands where an e-mail address stood."""


@dataclass(frozen=True)
class DocumentsConfig:
    """From WARC files to clean, deduplicated documents."""

    dump: str
    """Name of the crawl, a column of every document."""
    url_filter: UrlFilterConfig
    extract: ExtractConfig
    language: LanguageConfig
    gopher_quality: GopherQualityConfig
    personal_data: PersonalDataConfig
    workers: int = speed_only()
    """Beam worker processes on this machine."""

    def __post_init__(self):
        if self.workers < 1:
            raise UsageError(f"documents.workers is {self.workers}; it must be at least 1.")
        if not 0 <= self.language.min_score <= 1:
            raise UsageError(
                f"documents.language.min_score is {self.language.min_score}; a probability is from 0 to 1."
            )


@dataclass(frozen=True)
class ShardsConfig:
    """From documents to fixed-length token records."""

    record_length: int
    """Tokens in a record; a multiple of every context length to be trained on."""
    token_dtype: Literal["uint16", "uint32"]
    """Type of a stored token id: uint16 holds vocabularies up to 65,536 symbols."""
    train_shards: int
    """Files of the training split (fewer where there are fewer document files)."""
    validation_fraction: float
    """Share of documents held out, chosen by a hash of their id (0 to 1, both excluded)."""
    workers: int = speed_only()
    """Beam worker processes on this machine."""

    def __post_init__(self):
        if not 0 < self.validation_fraction < 1:
            raise UsageError(
                f"shards.validation_fraction is {self.validation_fraction}; it must lie between 0 and 1, both excluded."
            )
        for name in ("record_length", "train_shards", "workers"):
            if getattr(self, name) < 1:
                raise UsageError(f"shards.{name} is {getattr(self, name)}; it must be at least 1.")
