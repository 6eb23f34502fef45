"""Configs of page sources."""

import math
import operator
import re
from dataclasses import dataclass
from typing import Literal

import tyro

from data_prep.package_index import PackageFile
from lm.errors import UsageError, shown
from lm.fields import Config, not_hashed, within

DOMAIN = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)+")


@dataclass(frozen=True)
class PackagePages(Config):
    """Pages in one file of the package index (configs/packages)."""

    file: PackageFile
    """The file to download."""
    format: Literal["html", "plain_text", "mediawiki_xml_bz2", "title_summaries_json"]
    """Format of pages in the archive (configs/packages/page_formats.py)."""
    pattern: str
    """Shell pattern of the pages' paths in the archive; `*` also matches `/`."""
    address: str
    """URL prefix of the pages; the path in the archive, or the title of the article, is appended."""
    licence: str
    """License of the text."""
    credit: str
    """Attribution: authors and title."""
    entries_per_page: int = 1
    """Short entries to combine into one page (title_summaries_json)."""

    def check_values(self):
        within(self, "pages.packages", 1, 1000, "entries_per_page")


@dataclass(frozen=True)
class CrawlIndex(Config):
    """Select pages by Common Crawl's columnar index; enabled by languages, domains or max_pages. Only the selected
    records are read from the WARC files, by range requests."""

    languages: tuple[str, ...] = ()
    """Main languages that the crawl detected, as ISO 639-3 codes, e.g. eng and deu; empty: any."""
    domains: tuple[str, ...] = ()
    """Registered domains, e.g. example.com, including all their hosts; empty: any."""
    mime: tuple[str, ...] = ("text/html", "application/xhtml+xml")
    """Media types that the crawl detected; empty: any."""
    status: tuple[int, ...] = (200,)
    """HTTP status codes; empty: any."""
    max_pages: int = 0
    """Maximum pages, the first in the order of the index, which is by URL; 0: all."""
    parts: int = 0
    """Files of the index to read, evenly spaced among its about 300; 0: all."""
    pages_per_unit: int = 1000
    """Pages per unit of work; pages of the same WARC file stay together if possible."""

    @property
    def enabled(self) -> bool:
        return bool(self.languages or self.domains or self.max_pages)

    def check_values(self):
        within(self, "pages.common_crawl.index", 0, math.inf, "max_pages", "parts", "status")
        within(self, "pages.common_crawl.index", 1, math.inf, "pages_per_unit")
        if wrong := [code for code in self.languages if not re.fullmatch("[a-z]{3}", code)]:
            raise UsageError(
                f"pages.common_crawl.index.languages has {wrong[0]!r}; give codes of three letters (ISO 639-3), for "
                "example eng."
            )
        if wrong := [name for name in self.domains if not DOMAIN.fullmatch(name)]:
            raise UsageError(
                f"pages.common_crawl.index.domains has {wrong[0]!r}; give registered domains in lower case, for "
                "example example.com, without https:// and path."
            )


@dataclass(frozen=True)
class CommonCrawlPages(Config):
    """Files of one crawl of Common Crawl (commoncrawl.org), about 1 GB each as WARC and 0.1 GB as WET; or pages
    selected from all of them by its index."""

    crawl: str
    """Name of the crawl, e.g. CC-MAIN-2024-10; empty: none."""
    kind: Literal["warc", "wet"]
    """Pages as fetched (warc), or the plain text that the crawl extracted (wet), which is not extracted again."""
    files: int
    """Number of files."""
    choice: Literal["first", "spread", "random"]
    """Which files of the crawl's list: consecutive, evenly spaced, or random by `seed`. Raising `files` only adds
    files, except with `spread`."""
    first_file: int
    """Index of the first file in the list, from 0; earlier ones are never chosen."""
    seed: int
    """Seed of the choice `random`."""
    address: str = not_hashed(default="https://data.commoncrawl.org/")
    """Server or mirror with the folder crawl-data/: https://, http://, or s3://commoncrawl with AWS keys."""
    index: CrawlIndex = CrawlIndex()

    def check_values(self):
        if self.crawl and not CRAWL.fullmatch(self.crawl):
            raise UsageError(f"pages.common_crawl.crawl is {self.crawl!r}; names of crawls look like CC-MAIN-2024-10.")
        if self.crawl and self.index.enabled and self.kind != "warc":
            raise UsageError(
                f"pages.common_crawl.index selects records of WARC files, but kind is {self.kind}. Set kind to warc, "
                "or remove the index."
            )
        if self.crawl and self.files < 1 and not self.index.enabled:
            raise UsageError(
                f"pages.common_crawl.files is {self.files}, but crawl is {self.crawl}: say how many files to fetch, "
                "each about 1 GB (warc) or 0.1 GB (wet)."
            )
        within(self, "pages.common_crawl", 0, math.inf, "first_file", "files")
        if not self.address.startswith(("https://", "http://", "s3://")):
            raise UsageError(
                f"pages.common_crawl.address is {self.address!r}; give a URL that begins with https://, http:// or "
                "s3://."
            )


@dataclass(frozen=True)
class TfdsPages(Config):
    """Text dataset of tensorflow-datasets, stored as ArrayRecord and read without TensorFlow."""

    dataset: str
    """name:version or name/config:version, which is prepared in `data_dir` if missing; or the folder of a prepared
    dataset with its dataset_info.json; empty: none."""
    split: str
    """Rows to read, in the notation of tensorflow-datasets, e.g. train or train[:10%]."""
    rows_per_file: int
    """Rows per unit of work."""
    data_dir: str = not_hashed(default="")
    """Folder of prepared datasets; empty: TFDS_DATA_DIR or ~/tensorflow_datasets, as in tensorflow-datasets."""

    def check_values(self):
        within(self, "pages.tfds", 1, math.inf, "rows_per_file")
        if self.dataset and not self.split:
            raise UsageError("pages.tfds.split is empty; give a split, for example train.")


CRAWL = re.compile(r"CC-[A-Z]+-\d{4}(-\d{2})?(-[A-Za-z0-9]+)*")
NO_CRAWL = CommonCrawlPages(crawl="", kind="warc", files=0, choice="first", first_file=0, seed=0)
NO_DATASET = TfdsPages(dataset="", split="train", rows_per_file=10_000)


@dataclass(frozen=True, slots=True)
class PageSource:
    """A source of pages."""

    module: str
    """Module with fetch(config, out, progress), which provides the input files, and inputs(config), the user's own
    files."""
    option: str
    """Option that selects the source if it is not empty."""
    fields: tuple[str, ...]
    """Fields of PagesConfig that determine the pages."""
    own: bool = False
    """Whether the source is the user's own files, which replace everything that a config fetches."""

    def value(self, config: "PagesConfig") -> object:
        return operator.attrgetter(self.option.removeprefix("pages."))(config)


SOURCES = {
    "warc": PageSource("data_prep.sources.local", "pages.warc", ("warc",), own=True),
    "tables": PageSource("data_prep.sources.local", "pages.tables", ("tables", "text_field", "keep_columns"), own=True),
    "common_crawl": PageSource("data_prep.common_crawl.files", "pages.common_crawl.crawl", ("common_crawl",)),
    "tfds": PageSource("data_prep.sources.tfds", "pages.tfds.dataset", ("tfds", "text_field")),
}
"""{name: source}. A run uses one of them, otherwise PACKAGES."""
PACKAGES = "packages"
"""The source without a module in data_prep: configs.packages writes its pages for launch.fetch_pages."""


@dataclass(frozen=True)
class PagesConfig(Config):
    """Source of web pages: your files, Common Crawl, a dataset, or pages in pinned packages."""

    warc: tuple[str, ...] = ()
    """Your WARC and WET files: shell patterns, folders or URLs (s3://, gs://, hf://, https://), or @FILE with a list of
    these, one per line. They, or `tables`, replace all other sources."""
    packages: tyro.conf.Suppress[tuple[PackagePages, ...]] = ()
    """Pages in pinned packages, in this order; used if no other source is set."""
    tables: tuple[str, ...] = ()
    """Your already extracted texts: shell patterns, folders, URLs or @FILE of Parquet or JSONL files (.gz, .zst), e.g.
    a published FineWeb, or of .txt files, each one document."""
    text_field: str = "text"
    """Column, key or feature of tables and datasets that holds the text; dots separate nested names."""
    keep_columns: tuple[str, ...] = ()
    """Columns or keys of tables to keep with their documents in addition to the standard ones, e.g. author score; dots
    separate nested names. Every table must have them."""
    follow_links: bool = not_hashed(default=False)
    """Read links in your folders that lead out of them, as in a snapshot of Hugging Face; otherwise they are an
    error."""
    common_crawl: CommonCrawlPages = NO_CRAWL
    tfds: TfdsPages = NO_DATASET

    def check_values(self):
        if not all(self.text_field.split(".")):
            raise UsageError(f"pages.text_field is {self.text_field!r}, a name with an empty part. Correct it.")
        for name in self.keep_columns:
            if not all(name.split(".")) or not name.isprintable():
                raise UsageError(
                    f"pages.keep_columns has {shown(name)}, a name with an empty part or unprintable. Correct it."
                )
            if name == self.text_field:
                raise UsageError(
                    f"pages.keep_columns has {shown(name)}, which is the text (pages.text_field) that every document "
                    "has. Remove it."
                )
            others = [one for one in self.keep_columns if one == name or one.startswith(f"{name}.")]
            if others[1:]:
                raise UsageError(
                    f"pages.keep_columns has {shown(others[0])} and {shown(others[1])}, which overlap. Remove one."
                )
        for own in (True, False):
            given = self.given(own)
            if len(given) > 1:
                options = " and ".join(f"{SOURCES[source].option} = {value!r}" for source, value in given.items())
                raise UsageError(
                    f"{options} are both given, but a run has one source. Clear one of them "
                    f"({', '.join(SOURCES[source].option for source in given)})."
                )

        if self.keep_columns and self.source != "tables":
            raise UsageError(
                f"pages.keep_columns has {shown(self.keep_columns[0])}, but the pages come from {self.source}; only "
                "tables (pages.tables) have columns. Remove the columns, or give tables."
            )

    def given(self, own: bool) -> dict[str, object]:
        """Return {source: value of its option} of the sources that are set: the user's own files if `own`, otherwise
        sources to fetch, except packages."""
        return {name: value for name, one in SOURCES.items() if one.own == own and (value := one.value(self))}

    @property
    def source(self) -> str:
        """Name of the source in use: the user's own files take precedence over a config's crawl or dataset."""
        return next(iter([*self.given(own=True), *self.given(own=False)]), PACKAGES)

    def used(self) -> dict[str, object]:
        """Return {field: value} of the settings that determine the pages of the source in use; others have no
        effect."""
        fields = SOURCES[self.source].fields if self.source in SOURCES else ("packages",)
        return {name: value for name in fields if (value := getattr(self, name)) or name != "keep_columns"}
