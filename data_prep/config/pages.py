"""Knobs of the sources: where web pages come from."""

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
    """Pages inside one file of the package index (configs/packages)."""

    file: PackageFile
    """The file."""
    format: Literal["html", "plain_text", "mediawiki_xml_bz2", "title_summaries_json"]
    """How the pages are written in the archive (configs/packages/page_formats.py)."""
    pattern: str
    """Shell pattern of the pages' paths inside the archive; `*` matches `/` too."""
    address: str
    """Address under which the pages are filed: the path inside the archive, or the article's title, is appended."""
    licence: str
    """Licence of the text."""
    credit: str
    """Whom to thank, and what it is."""
    entries_per_page: int = 1
    """Short entries gathered into one page (title_summaries_json)."""

    def __post_init__(self):
        super().__post_init__()
        within(self, "pages.packages", 1, 1000, "entries_per_page")


@dataclass(frozen=True)
class CrawlIndex(Config):
    """Pages chosen by Common Crawl's columnar index; asked for by languages, domains or max_pages. Only their records
    are read from the crawl's WARC files, by ranges."""

    languages: tuple[str, ...] = ()
    """Main languages of pages, as the crawl detected them: ISO 639-3 codes, for example eng and deu; empty: any."""
    domains: tuple[str, ...] = ()
    """Registered domains, for example example.com, whose hosts are all meant; empty: any."""
    mime: tuple[str, ...] = ("text/html", "application/xhtml+xml")
    """Types of pages, as the crawl detected them; empty: any."""
    status: tuple[int, ...] = (200,)
    """HTTP status of the answer; empty: any."""
    max_pages: int = 0
    """The first so many pages in the order of the index, which is by address; 0: all."""
    parts: int = 0
    """How many of the index's some 300 files are read, spread evenly; 0: all."""
    pages_per_unit: int = 1000
    """Pages that are one unit of work later; those of one WARC file stay together as far as that goes."""

    @property
    def asked(self) -> bool:
        return bool(self.languages or self.domains or self.max_pages)

    def __post_init__(self):
        super().__post_init__()
        within(self, "pages.common_crawl.index", 0, math.inf, "max_pages", "parts")
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
    """Files of one crawl of Common Crawl (commoncrawl.org), about 1 GB each as WARC and 0.1 GB as WET; or pages chosen
    from all of them by its index."""

    crawl: str
    """Which crawl, for example CC-MAIN-2024-10; empty: none."""
    kind: Literal["warc", "wet"]
    """Pages as they came (warc), or the crawl's own plain text of them (wet), which is not extracted again."""
    files: int
    """How many files."""
    choice: Literal["first", "spread", "random"]
    """Which files of the crawl's list: consecutive ones, evenly spread ones, or ones chosen by `seed`. More files by
    `first` or `random` are the same ones and others."""
    first_file: int
    """Place of the first file in the list, from 0; those before it are never chosen."""
    seed: int
    """Chooses the files when `choice` is random."""
    address: str = not_hashed(default="https://data.commoncrawl.org/")
    """Server or mirror under which crawl-data/ lies: https://, http://, or s3://commoncrawl with keys of an account."""
    crawls_address: str = not_hashed(default="https://index.commoncrawl.org/collinfo.json")
    """The list of all crawls, asked only when there is no such crawl."""
    downloads: int = not_hashed(default=4)
    """Files fetched at once."""
    download: bool = not_hashed(default=False)
    """Download the files to the run folder before they are read; by default, workers stream them. The variables
    GRISTMILL_STORAGE_* set timeouts and retries."""
    index: CrawlIndex = CrawlIndex()

    def __post_init__(self):
        super().__post_init__()
        if self.crawl and not CRAWL.fullmatch(self.crawl):
            raise UsageError(f"pages.common_crawl.crawl is {self.crawl!r}; crawls are named as CC-MAIN-2024-10 is.")
        if self.crawl and self.index.asked and (self.download or self.kind != "warc"):
            raise UsageError(
                f"pages.common_crawl.index chooses records of WARC files, which are read where they lie, but kind is "
                f"{self.kind} and download is {self.download}. Leave those out, or the index."
            )
        if self.crawl and self.files < 1 and not self.index.asked:
            raise UsageError(
                f"pages.common_crawl.files is {self.files}, but crawl is {self.crawl}: say how many files to fetch, "
                "each about 1 GB (warc) or 0.1 GB (wet)."
            )
        within(self, "pages.common_crawl", 0, math.inf, "first_file")
        within(self, "pages.common_crawl", 1, 1000, "downloads")
        web = self.address.startswith(("https://", "http://"))
        if not web and (self.download or not self.address.startswith("s3://")):
            raise UsageError(
                f"pages.common_crawl.address is {self.address!r}; give an address that begins with https:// or "
                "http://, or, where files are not brought first (download), with s3://."
            )


@dataclass(frozen=True)
class TfdsPages(Config):
    """A text dataset of tensorflow-datasets, read without TensorFlow, so stored as ArrayRecord."""

    dataset: str
    """name:version or name/config:version, prepared in `data_dir` first if it is not there; or the folder of a prepared
    dataset, which holds its dataset_info.json; empty: none."""
    split: str
    """Which of its rows, as tensorflow-datasets writes it, for example train or train[:10%]."""
    rows_per_file: int
    """Rows that are one unit of work later."""
    data_dir: str = not_hashed(default="")
    """Folder of prepared datasets; empty: that of tensorflow-datasets, TFDS_DATA_DIR or ~/tensorflow_datasets."""

    def __post_init__(self):
        super().__post_init__()
        within(self, "pages.tfds", 1, math.inf, "rows_per_file")
        if self.dataset and not self.split:
            raise UsageError("pages.tfds.split is empty; name one, for example train.")


CRAWL = re.compile(r"CC-[A-Z]+-\d{4}(-\d{2})?(-[A-Za-z0-9]+)*")
NO_CRAWL = CommonCrawlPages(crawl="", kind="warc", files=0, choice="first", first_file=0, seed=0)
NO_DATASET = TfdsPages(dataset="", split="train", rows_per_file=10_000)


@dataclass(frozen=True, slots=True)
class Source:
    """Where pages come from."""

    module: str
    """Has fetch(config, out, progress), which brings the input files, and inputs(config), the files of yours that it
    reads."""
    option: str
    """What asks for it, where it is not empty."""
    fields: tuple[str, ...]
    """Those of PagesConfig that decide the pages."""
    own: bool = False
    """Whether it is your own files: they take the place of what a config fetches."""

    def asked(self, config: "PagesConfig") -> object:
        return operator.attrgetter(self.option.removeprefix("pages."))(config)


SOURCES = {
    "warc": Source("data_prep.sources.local", "pages.warc", ("warc",), own=True),
    "tables": Source("data_prep.sources.local", "pages.tables", ("tables", "text_field", "keep_columns"), own=True),
    "common_crawl": Source("data_prep.common_crawl.files", "pages.common_crawl.crawl", ("common_crawl",)),
    "tfds": Source("data_prep.sources.tfds", "pages.tfds.dataset", ("tfds", "text_field")),
}
"""A run has one of them, or else PACKAGES."""
PACKAGES = "packages"
"""The source without a module here: launch.fetch_pages has configs.packages write its pages."""


@dataclass(frozen=True)
class PagesConfig(Config):
    """Where the web pages come from: files of your own, Common Crawl, a dataset, or pages inside pinned packages."""

    warc: tuple[str, ...] = ()
    """Your own WARC and WET files, as shell patterns, folders or addresses (s3://, gs://, hf://, https://), or as @FILE
    that lists some, one a line; they, or tables, take the place of every other source."""
    packages: tyro.conf.Suppress[tuple[PackagePages, ...]] = ()
    """Pages inside pinned packages, in this order; used if no other source is given."""
    tables: tuple[str, ...] = ()
    """Your own texts, already extracted, as shell patterns, folders, addresses or @FILE of Parquet or JSONL files (.gz,
    .zst), such as a published FineWeb, or of .txt files, each of them one document."""
    text_field: str = "text"
    """Which column, key or feature of tables and datasets holds the text; a dot goes into a nested one."""
    keep_columns: tuple[str, ...] = ()
    """Columns or keys of tables that stay with their documents, besides those that every document has, for example
    author score; a dot goes into a nested one. Every table must have them."""
    common_crawl: CommonCrawlPages = NO_CRAWL
    tfds: TfdsPages = NO_DATASET

    def __post_init__(self):
        super().__post_init__()
        if not all(self.text_field.split(".")):
            raise UsageError(f"pages.text_field is {self.text_field!r}; give a name, or names joined by single dots.")
        for name in self.keep_columns:
            if not all(name.split(".")) or not name.isprintable():
                raise UsageError(
                    f"pages.keep_columns names {shown(name)}; give printable names, or names joined by single dots."
                )
            if name == self.text_field:
                raise UsageError(
                    f"pages.keep_columns names {shown(name)}, but it is the text (pages.text_field), which every "
                    "document has. Leave it out."
                )
            others = [one for one in self.keep_columns if one == name or one.startswith(f"{name}.")]
            if others[1:]:
                raise UsageError(
                    f"pages.keep_columns names {shown(others[0])} and {shown(others[1])}, which are the same column or "
                    "a part of it. Leave one out."
                )
        for own in (True, False):
            given = self.given(own)
            if len(given) > 1:
                told = " and ".join(f"{SOURCES[source].option} = {value!r}" for source, value in given.items())
                raise UsageError(
                    f"{told} are both given, but a run has one source. Empty the one that is not meant "
                    f"({', '.join(SOURCES[source].option for source in given)})."
                )

        if self.keep_columns and self.source != "tables":
            raise UsageError(
                f"pages.keep_columns names {shown(self.keep_columns[0])}, but the pages are of {self.source}, and only "
                "tables (pages.tables) have columns that can be kept. Leave it out, or give tables."
            )

    def given(self, own: bool) -> dict[str, object]:
        """{source: what was asked of it}, of your own files or of what is fetched; packages aside."""
        asked = {name: one.asked(self) for name, one in SOURCES.items() if one.own == own}
        return {name: value for name, value in asked.items() if value}

    @property
    def source(self) -> str:
        """The one that is used: your own files, given beside a config's crawl or dataset, take its place."""
        return next(iter([*self.given(own=True), *self.given(own=False)]), PACKAGES)

    def used(self) -> dict[str, object]:
        """The fields that decide the pages of this source; the others do not matter to the run."""
        fields = SOURCES[self.source].fields if self.source in SOURCES else ("packages",)
        return {name: value for name in fields if (value := getattr(self, name)) or name != "keep_columns"}
