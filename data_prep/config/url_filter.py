"""Knobs of the URL filter."""

import math
from dataclasses import dataclass
from typing import Literal

import tyro

from data_prep.package_index import PackageFile
from lm.errors import UsageError
from lm.fields import Config, within


@dataclass(frozen=True)
class PackageLists(Config):
    """Blocklists inside one wheel of the package index."""

    file: PackageFile
    """The wheel."""
    folder: str
    """Folder inside the wheel with the lists, as files or in a .tar.gz; called as in UrlFilterConfig.folders."""
    licence: str
    """Licence of the lists."""
    credit: str
    """Whom to thank, and what it is."""


@dataclass(frozen=True)
class UrlFilterConfig(Config):
    """URLs that are not read at all: named here, in lists of your own, or in lists that a package brings.

    FineWeb's lists are those of the Université Toulouse Capitole (UT1, dsi.ut-capitole.fr/blacklists), CC BY-SA:
    whoever passes the lists on must name it and keep the licence. They are fetched, never a part of this code.
    """

    banned_domains: tuple[str, ...]
    """Domains or hosts; their subdomains are banned too."""
    banned_words: tuple[str, ...]
    """Words, letters and digits alone, one of which as a token of the URL bans it, in any case."""
    soft_banned_words: tuple[str, ...] = ()
    """Words of which `soft_word_threshold` different ones ban a URL."""
    soft_word_threshold: int | None = None
    """How many soft words ban a URL; to be given where there are soft words or lists."""
    banned_substrings: tuple[str, ...] = ()
    """What bans a URL when it stands anywhere in it, all but letters and digits removed from both."""
    folders: tuple[str, ...] = ()
    """Your lists, used as well as those in packages: shell patterns of paths, or addresses (https://, s3://, gs://,
    hf://datasets/...). Each names a folder, one of its files, or a .tar.gz of such files.

    A folder holds some of the files `domains` (one domain or host a line) and `urls` (host and path, without scheme),
    as a category of UT1's archive does, and `banned_words.txt`, `soft_banned_words.txt` and `banned_subwords.txt` (the
    substrings). Empty lines and lines that begin with "#" are skipped.
    """
    packaged_lists: bool = True
    """Use the lists inside packages as well as `folders`; False for only `folders`."""
    packages: tyro.conf.Suppress[tuple[PackageLists, ...]] = ()
    """Lists inside pinned packages."""
    matching: Literal["browser", "datatrove"] = "browser"
    """How a URL is read. "browser": as a browser does, and a domain bans all below it. "datatrove": as it is written,
    words in their case and letters of ASCII alone; the host or the registered domain must be listed, and no single page
    is looked up, for datatrove looks for it with its scheme, and the lists have none."""

    def __post_init__(self):
        super().__post_init__()
        for domain in self.banned_domains:
            if "/" in domain:
                raise UsageError(
                    f"documents.url_filter.banned_domains holds {domain!r}; give the domain alone, as in example.com. "
                    "Single pages go into the file `urls` of a folder of lists."
                )
        if self.soft_word_threshold is None and (self.soft_banned_words or self.folders or self.packages):
            raise UsageError(
                "documents.url_filter has soft words or lists that may hold some, but soft_word_threshold is None. "
                "Say how many of them ban a URL (FineWeb: 2)."
            )
        if self.soft_word_threshold is not None:
            within(self, "documents.url_filter", 1, math.inf, "soft_word_threshold")
