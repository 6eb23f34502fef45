"""Select files of one crawl of Common Crawl by number; workers stream them.

A crawl lists its files in crawl-data/<crawl>/warc.paths.gz (wet.paths.gz), one path per line, relative to the root of
the server.
"""

import gzip
import hashlib
import re
import zlib
from collections.abc import Callable
from pathlib import Path

from data_prep.common_crawl.index import chosen_records
from data_prep.config.pages import CommonCrawlPages, PagesConfig
from data_prep.sources.listing import Listed, with_estimated_sizes, with_known_sizes
from data_prep.sources.manifest import InputFile
from lm.errors import InputError, UsageError
from lm.storage import Url, appearing, stores

PATH = re.compile(r"crawl-data/(?:[\w.=-]+/)+[\w=-][\w.=-]*\.gz")
CRAWLS = "https://index.commoncrawl.org/collinfo.json"
LISTS = "parts/crawl-lists"
"""Folder in the run folder, kept while the pages are incomplete."""
MAX_LIST_BYTES = 100_000_000  # decompressed; the longest lists have 100,000 paths of 140 bytes
INDEX_PATH = re.compile(r"cc-index/table/(?:[\w.=-]+/)+[\w=-][\w.=-]*\.parquet")


def fetch(config: PagesConfig, out: Path, progress: Callable[[str], None]) -> tuple[list[InputFile], list[dict]]:
    """Return (input files, []), as a crawl has no packages. `out` is the run folder. The input files are groups of
    selected records if config.common_crawl.index is enabled (`chosen_records`), or else the selected files of the
    crawl, in the order of its list. Workers stream these from their URLs; documents record a file's path on the server
    as file_path.

    A crawl's files do not change, so size and ETag are not part of their identity. Raises UsageError if the crawl does
    not exist or has fewer files than config.files, InputError if its list is damaged or the server cannot be reached.
    """
    crawl = config.common_crawl
    if crawl.index.enabled:
        tables = [Url(address_of(crawl, path)) for path in listed(crawl, out, "cc-index-table", INDEX_PATH)]
        return chosen_records(crawl, tables, progress), []
    paths = chosen(listed(crawl, out), crawl)
    places = [Listed(Url(address_of(crawl, path)), path) for path in paths]
    files = [
        InputFile(one.place, one.name, crawl.kind, one.bytes, estimated=True)
        for one in with_estimated_sizes(with_known_sizes("pages.common_crawl", places))
    ]
    size = sum(file.bytes for file in files)
    progress(f"{len(files)} {crawl.kind.upper()} files of {crawl.crawl}, about {size / 1e9:,.2f} GB, will be streamed")
    return files, []


def inputs(config: PagesConfig) -> list[Listed]:
    """Return [], because a crawl has no local files of the user."""
    return []


def chosen(paths: list[str], config: CommonCrawlPages) -> list[str]:
    """Return config.files (a number) of the `paths`, selected by config.choice, in their order. Raises UsageError if
    there are fewer."""
    places = range(config.first_file, len(paths))
    if config.files > len(places):
        raise UsageError(
            f"pages.common_crawl.files is {config.files}, but {config.crawl} has {len(paths)} {config.kind.upper()} "
            f"files, {len(places)} of them from first_file = {config.first_file}. Choose fewer."
        )
    if config.choice == "first":
        picked = list(places[: config.files])
    elif config.choice == "spread":
        picked = [places[number * len(places) // config.files] for number in range(config.files)]
    else:  # by hash: the same on every machine; a larger number only adds files
        order = lambda place: hashlib.sha256(f"{config.seed}/{place}".encode()).digest()
        picked = sorted(sorted(places, key=order)[: config.files])
    return [paths[place] for place in picked]


def address_of(config: CommonCrawlPages, path: str) -> str:
    return f"{config.address.rstrip('/')}/{path}"


def listed(config: CommonCrawlPages, out: Path, kind: str = "", paths: re.Pattern[str] = PATH) -> list[str]:
    """Return the paths in the crawl's list of files of a `kind` (default: config.kind), which is downloaded to the run
    folder `out`. Raises UsageError if the crawl does not exist, InputError if the list is damaged or a path does not
    match the pattern `paths`."""
    kind = kind or config.kind
    path = out / LISTS / f"{config.crawl}-{kind}.paths.gz"
    url = address_of(config, f"crawl-data/{config.crawl}/{kind}.paths.gz")
    try:
        if not path.is_file():
            with appearing(path) as partial:
                stores.download(url, partial)
    except FileNotFoundError as error:
        raise UsageError(
            f"There is no crawl {config.crawl} with {kind.upper()} files: {url} does not exist. Correct "
            f"pages.common_crawl.crawl; {CRAWLS} lists all crawls."
        ) from error
    try:
        with gzip.open(path) as file:
            lines = file.read(MAX_LIST_BYTES).decode("ascii").split()
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        path.unlink(missing_ok=True)
        raise InputError(f"{url} is damaged: {error}. Try again, or correct pages.common_crawl.address.") from error
    strange = [line for line in lines if not paths.fullmatch(line) or ".." in line.split("/")]
    if strange or not lines:
        path.unlink(missing_ok=True)
        found = f"has the line {strange[0][:200]!r}" if strange else "is empty"
        raise InputError(f"{url} is not a list of a crawl's files: it {found}. Check pages.common_crawl.address.")
    return lines
