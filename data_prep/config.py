"""Every knob of data_prep on one page, as frozen dataclasses: light to import, so that --help is quick.

Fields marked `incidental` change how fast a result is made, never the result.
"""

import functools
from dataclasses import dataclass
from typing import Literal

import tyro

from lm.errors import UsageError
from lm.fields import Config, incidental


@dataclass(frozen=True)
class PackagePages(Config):
    """Pages inside one file of the package index, pinned so that nothing else can be taken for it."""

    name: str
    """Project on the package index."""
    version: str
    """Release of the project."""
    file_name: str
    """The wheel (.whl) or source distribution (.tar.gz) that holds the pages."""
    sha256: str
    """Its SHA-256, 64 hexadecimal digits."""
    format: Literal["html", "plain_text", "mediawiki_xml_bz2", "title_summaries_json"]
    """How the pages are written in the archive (data_prep/page_formats.py)."""
    pattern: str
    """Shell pattern of the pages' paths inside the archive; `*` matches `/` too."""
    address: str
    """Address under which the pages are filed: the path inside the archive, or the article's title, is appended."""
    entries_per_page: int
    """Short entries gathered into one page (title_summaries_json); 1 where the archive already holds whole pages."""
    licence: str
    """Licence of the text."""
    credit: str
    """Whom to thank, and what it is."""

    def __post_init__(self):
        super().__post_init__()
        if len(self.sha256) != 64 or set(self.sha256) - set("0123456789abcdef"):
            raise UsageError(
                f"pages.packages: sha256 of {self.name} is {self.sha256!r}; give 64 hexadecimal digits in lower case."
            )
        if "/" in self.file_name or not self.file_name.endswith((".whl", ".tar.gz")):
            raise UsageError(
                f"pages.packages: file_name of {self.name} is {self.file_name!r}; give the name of a .whl or .tar.gz."
            )
        if self.entries_per_page < 1:
            raise UsageError(
                f"pages.packages: entries_per_page of {self.name} is {self.entries_per_page}; it must be at least 1."
            )


@dataclass(frozen=True)
class PagesConfig(Config):
    """Where the web pages come from: WARC files of one's own, or pages inside pinned packages."""

    warc: tuple[str, ...]
    """One's own WARC files, as shell patterns; when any is given, the packages are not used."""
    packages: tyro.conf.Suppress[tuple[PackagePages, ...]]
    """Pages inside pinned packages, in this order."""
    pages_per_file: int
    """Pages in one WARC file written from packages; one file is the unit of work later."""
    unpacked_limit: int
    """Bytes an archive may unpack to, in all; one that holds more is refused."""

    def __post_init__(self):
        super().__post_init__()
        for name in ("pages_per_file", "unpacked_limit"):
            if getattr(self, name) < 1:
                raise UsageError(f"pages.{name} is {getattr(self, name)}; it must be at least 1.")


@dataclass(frozen=True)
class UrlFilterConfig(Config):
    """Addresses that are not read at all."""

    banned_domains: tuple[str, ...]
    """Registered domains or hosts; their subdomains are banned too."""
    banned_words: tuple[str, ...]
    """Words that must not stand as a token of the lower-cased address."""

    @functools.cached_property
    def domain_set(self) -> frozenset[str]:
        """The banned domains, lower-cased, to look up in."""
        return frozenset(domain.lower() for domain in self.banned_domains)

    @functools.cached_property
    def word_set(self) -> frozenset[str]:
        """The banned words, lower-cased, to look up in."""
        return frozenset(word.lower() for word in self.banned_words)


@dataclass(frozen=True)
class ExtractConfig(Config):
    """Main text out of HTML."""

    engine: Literal["trafilatura"]
    """Library that finds the main text."""
    favor_precision: bool
    """Prefer less text and less boilerplate over all of the text."""
    include_tables: bool
    """Keep the text of tables."""
    max_bytes: int
    """Bytes of HTML; a larger page is not parsed."""
    max_depth: int
    """Levels of nested elements (at most 255: beyond that the parser silently leaves out the rest of the page)."""

    def __post_init__(self):
        super().__post_init__()
        if not 1 <= self.max_depth <= 255:
            raise UsageError(
                f"documents.extract.max_depth is {self.max_depth}; the HTML parser reads 1 to 255 levels. "
                "Choose among those."
            )
        if self.max_bytes < 1:
            raise UsageError(f"documents.extract.max_bytes is {self.max_bytes}; give at least 1 byte.")


@dataclass(frozen=True)
class LanguageConfig(Config):
    """Language by fastText's lid.176 (arXiv:1607.01759)."""

    languages: tuple[str, ...]
    """ISO 639 codes that are kept."""
    min_score: float
    """The best language's probability must be above this (0 to 1)."""


@dataclass(frozen=True)
class GopherQualityConfig(Config):
    """Quality rules of Gopher (arXiv:2112.11446, appendix A.1.1). A token is a word or a punctuation mark."""

    min_words: int
    """Words, punctuation not counted."""
    max_words: int
    """Words, punctuation not counted."""
    min_mean_word_length: float
    """Characters, punctuation not counted."""
    max_mean_word_length: float
    """Characters, punctuation not counted."""
    max_symbols_per_word: float
    """Hash signs, and apart from them ellipses, per token."""
    max_bullet_lines: float
    """Share of lines that begin with a bullet (0 to 1)."""
    max_ellipsis_lines: float
    """Share of lines that end with an ellipsis (0 to 1)."""
    min_words_with_letter: float
    """Share of tokens with at least one letter (0 to 1)."""
    stop_words: tuple[str, ...]
    """Words that prose can hardly do without; the case counts."""
    min_stop_words: int
    """How many different stop words must occur."""

    def __post_init__(self):
        super().__post_init__()
        for low, high in (("min_words", "max_words"), ("min_mean_word_length", "max_mean_word_length")):
            if getattr(self, low) > getattr(self, high):
                raise UsageError(
                    f"documents.gopher_quality.{low} = {getattr(self, low)} is above {high} = {getattr(self, high)}: "
                    "nothing could pass. Lower the first or raise the second."
                )
        if self.min_stop_words > len(set(self.stop_words)):
            raise UsageError(
                f"documents.gopher_quality.min_stop_words = {self.min_stop_words}, but there are only "
                f"{len(set(self.stop_words))} stop words: nothing could pass. Lower it or add to stop_words."
            )


@dataclass(frozen=True)
class PersonalDataConfig(Config):
    """Personal data that is replaced in kept documents."""

    replace_emails: bool
    """Replace e-mail addresses."""
    email_placeholder: str
    """Text that stands where an e-mail address stood."""


@dataclass(frozen=True)
class DocumentsConfig(Config):
    """From WARC files to clean, deduplicated documents."""

    dump: str
    """Name of the crawl, a column of every document."""
    url_filter: UrlFilterConfig
    extract: ExtractConfig
    language: LanguageConfig
    gopher_quality: GopherQualityConfig
    personal_data: PersonalDataConfig
    workers: int = incidental()
    """Beam worker processes on this machine."""

    def __post_init__(self):
        super().__post_init__()
        if self.workers < 1:
            raise UsageError(f"documents.workers is {self.workers}; it must be at least 1.")
        if not 0 <= self.language.min_score <= 1:
            raise UsageError(
                f"documents.language.min_score is {self.language.min_score}; a probability is from 0 to 1."
            )


@dataclass(frozen=True)
class ShardsConfig(Config):
    """From documents to fixed-length token records."""

    record_length: int
    """Tokens in a record; a multiple of every context length to be trained on."""
    token_dtype: Literal["uint16", "uint32"]
    """Type of a stored token id: uint16 holds vocabularies up to 65,536 symbols."""
    train_shards: int
    """Files of the training split (fewer where there are fewer document files)."""
    validation_fraction: float
    """Share of documents held out, chosen by a hash of their id (0 to 1, both excluded)."""
    workers: int = incidental()
    """Beam worker processes on this machine."""

    def __post_init__(self):
        super().__post_init__()
        if not 0 < self.validation_fraction < 1:
            raise UsageError(
                f"shards.validation_fraction is {self.validation_fraction}; it must lie between 0 and 1, both excluded."
            )
        for name in ("record_length", "train_shards", "workers"):
            if getattr(self, name) < 1:
                raise UsageError(f"shards.{name} is {getattr(self, name)}; it must be at least 1.")
