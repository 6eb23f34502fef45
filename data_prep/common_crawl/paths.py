"""The lists of a crawl: crawl-data/<crawl>/warc.paths.gz and the like, one path a line, below the same server."""

import difflib
import gzip
import re
import zlib
from pathlib import Path

from data_prep.config.pages import CommonCrawlPages
from lm.errors import InputError, UsageError
from lm.storage import appearing, stores

PATH = re.compile(r"crawl-data/(?:[\w.=-]+/)+[\w=-][\w.=-]*\.gz")
LISTS = "parts/crawl-lists"
"""Folder of the run, kept while the pages are incomplete."""
MAX_LIST_BYTES = 100_000_000  # unpacked; the longest lists have 100,000 paths of 140 bytes


def address_of(config: CommonCrawlPages, path: str) -> str:
    return f"{config.address.rstrip('/')}/{path}"


def listed(config: CommonCrawlPages, out: Path, kind: str = "", paths: re.Pattern[str] = PATH) -> list[str]:
    """The paths of all files of a kind of the crawl. Raises UsageError, which names crawls that there are, for an
    unknown one."""
    kind = kind or config.kind
    path = out / LISTS / f"{config.crawl}-{kind}.paths.gz"
    url = address_of(config, f"crawl-data/{config.crawl}/{kind}.paths.gz")
    try:
        if not path.is_file():
            with appearing(path) as partial:
                stores.download(url, partial)
    except FileNotFoundError as error:
        raise UsageError(
            f"There is no crawl {config.crawl} with {kind.upper()} files: {url} is not there.{known_crawls(config)} "
            "Mend pages.common_crawl.crawl."
        ) from error
    try:
        with gzip.open(path) as file:
            lines = file.read(MAX_LIST_BYTES).decode("ascii").split()
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        path.unlink(missing_ok=True)
        raise InputError(f"{url} is damaged: {error}. Try again, or mend pages.common_crawl.address.") from error
    strange = [line for line in lines if not paths.fullmatch(line) or ".." in line.split("/")]
    if strange or not lines:
        path.unlink(missing_ok=True)
        raise InputError(
            f"{url} is no list of a crawl's files: it has {strange[0][:200]!r} in it."
            if strange
            else f"{url} lists no file."
        )
    return lines


def known_crawls(config: CommonCrawlPages) -> str:
    """A sentence that names the crawls most like the one asked for, "" when the list of crawls cannot be had."""
    import requests

    try:
        answer = requests.get(config.crawls_address, timeout=30)
        answer.raise_for_status()
        ids = [entry["id"] for entry in answer.json()]
        near = difflib.get_close_matches(config.crawl, ids, n=4, cutoff=0.0)
    except (requests.RequestException, ValueError, KeyError, TypeError):
        return ""
    return f" Most like it are: {', '.join(near)}." if near else ""
