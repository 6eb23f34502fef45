"""Knobs of the sources: where web pages come from."""

from dataclasses import dataclass
from typing import Literal

import tyro

from lm.errors import UsageError
from lm.fields import Config


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
