"""Select pages by Common Crawl's columnar index (cc-index/table/cc-main/warc/, Parquet, sorted by URL): by language,
domain, type and status.

The index has the WARC file, offset and length of the record of each page. Of each index file, only these parts are
read: the footer; the filtered columns of row groups that may contain a matching page; three more columns of row groups
that do.
"""

import functools
import itertools
import operator
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from data_prep.config.pages import CommonCrawlPages, CrawlIndex
from data_prep.grouping import grouped
from data_prep.sources.manifest import InputFile, Ranges
from lm.errors import InputError, UsageError
from lm.storage import Url

if TYPE_CHECKING:
    import pyarrow.parquet as pq

SUBSET = "/subset=warc/"
"""Part of the index with successful responses; other parts have redirects, errors and robots.txt."""
LANGUAGE, DOMAIN, MIME, STATUS = (
    "content_languages", "url_host_registered_domain", "content_mime_detected", "fetch_status",
)  # fmt: skip
ADDRESS = "url_surtkey"
WHERE = ("warc_filename", "warc_record_offset", "warc_record_length")
FILES_AT_ONCE = 4
"""Number of index files read in parallel."""
MOST_PAGES = 5_000_000
"""Maximum number of pages that a run may select, because their positions are stored in its manifest."""

Selected = dict[str, list[tuple[int, int]]]
"""{WARC file: [(offset, length) of each selected record]}."""


def chosen_records(config: CommonCrawlPages, tables: list[Url], progress: Callable[[str], None]) -> list[InputFile]:
    """Return the selected records as input files of at most index.pages_per_unit records each, sorted by WARC file and
    offset. `tables` are the URLs of the index files.

    Raises UsageError if no page matches or too many do, InputError if an index file cannot be read.
    """
    index = config.index
    tables = [url for url in tables if SUBSET in str(url)]
    if index.parts:
        tables = [tables[number] for number in sorted({n * len(tables) // index.parts for n in range(index.parts)})]
    found: Selected = {}
    count = read = 0
    with ThreadPoolExecutor(FILES_AT_ONCE) as pool:
        for some in itertools.batched(tables, FILES_AT_ONCE):
            parts = list(pool.map(lambda url: records_in(url, index), some))
            read += len(some)
            for name, start, length in itertools.chain.from_iterable(parts):
                if index.max_pages and count == index.max_pages:
                    break
                found.setdefault(name, []).append((start, length))
                count += 1
            progress(f"{read} of {len(tables)} files of the index of {config.crawl}: {count:,} pages chosen")
            if count > MOST_PAGES:
                raise UsageError(
                    f"pages.common_crawl.index chooses more than {MOST_PAGES:,} pages. Choose fewer (max_pages, "
                    "domains, parts), or whole WARC files (files)."
                )
            if index.max_pages and count == index.max_pages:
                break
    if not count:
        raise UsageError(
            f"The index of {config.crawl} has no page of languages = {index.languages}, domains = {index.domains}, "
            f"mime = {index.mime}, status = {index.status} in the {len(tables)} files read. Choose other conditions."
        )
    base = Url(config.address.rstrip("/"))
    return [
        InputFile(
            base, f"{config.crawl}/index-{number:06d}", "ranges",
            sum(length for _, some in unit for _, length in some), sum(len(some) for _, some in unit), ranges=unit,
        )
        for number, unit in enumerate(units(found, index.pages_per_unit))
    ]  # fmt: skip


def units(found: Selected, size: int) -> Iterator[Ranges]:
    """Return groups of at most `size` records, each as ((WARC file, its records), ...). The records of one WARC file
    are in one group unless they are more than `size`."""
    parts = ((name, part) for name in sorted(found) for part in itertools.batched(sorted(set(found[name])), size))
    return map(tuple, grouped(parts, lambda one: len(one[1]), size))


def records_in(url: Url, index: CrawlIndex) -> list[tuple[str, int, int]]:
    """Return (WARC file, offset, length) of the selected pages in one index file, at most `max_pages` if set.

    Raises InputError if it cannot be read or is not an index file.
    """
    import pyarrow.parquet as pq

    found: list[tuple[str, int, int]] = []
    try:
        with url.open("rb", buffering=0) as raw, pq.ParquetFile(raw, pre_buffer=True) as file:
            wanted = [column for column, values in conditions(index) if values]
            missing = {*wanted, *WHERE} - {*file.schema_arrow.names}
            if missing:
                name = sorted(missing)[0]
                condition = "remove its condition from pages.common_crawl.index"
                raise InputError(
                    f"{url}, a file of the crawl's columnar index, has no column {name!r}. Choose a newer crawl, or "
                    f"{condition if name in wanted else 'fetch whole WARC files (pages.common_crawl.files)'}."
                )
            for group in range(file.num_row_groups):
                if may_hold(file.metadata.row_group(group), index):
                    found += records_of(file, group, wanted, index)
                if index.max_pages and len(found) >= index.max_pages:
                    break
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{url} of the columnar index cannot be read: {error}. Run the command again.") from error
    return found[: index.max_pages or None]


def conditions(index: CrawlIndex) -> list[tuple[str, tuple[Any, ...]]]:
    """Return (column, accepted values) of each condition; () accepts all values."""
    return [(LANGUAGE, index.languages), (DOMAIN, index.domains), (MIME, index.mime), (STATUS, index.status)]


def may_hold(group: "pq.RowGroupMetaData", index: CrawlIndex) -> bool:
    """Whether a row group may contain a matching page, by its column statistics.

    Domains are also compared with the group's range of URL keys, such as com,example)/path and com,example,www)/path,
    by which the index is sorted.
    """
    bounds: dict[str, tuple[Any, Any]] = {}
    for number in range(group.num_columns):
        column = group.column(number)
        statistics = column.statistics if column.path_in_schema in (DOMAIN, MIME, STATUS, ADDRESS) else None
        if statistics is not None and statistics.has_min_max:
            bounds[column.path_in_schema] = statistics.min, statistics.max
    for name, values in conditions(index):
        if name in bounds and values and not any(bounds[name][0] <= value <= bounds[name][1] for value in values):
            return False
    if index.domains and ADDRESS in bounds:
        low, high = bounds[ADDRESS]
        begins = [",".join(reversed(domain.split("."))) for domain in index.domains]
        return any(low <= begin + "-" and begin <= high for begin in begins)  # "-" comes after "," and ")"
    return True


def records_of(
    file: "pq.ParquetFile", group: int, wanted: list[str], index: CrawlIndex
) -> Iterator[tuple[str, int, int]]:
    """Yield (WARC file, offset, length) of the selected pages in one row group. `wanted` are the filtered columns."""
    rows: Any = None
    if wanted:
        filtered = file.read_row_group(group, columns=wanted)
        holds = [pc.field(name).isin(values_of(filtered[name], values)) for name, values in conditions(index) if values]
        numbered = filtered.append_column("row", pa.array(range(len(filtered))))
        rows = numbered.filter(functools.reduce(operator.and_, holds))["row"]
        if not len(rows):
            return
    where = file.read_row_group(group, columns=list(WHERE))
    where = where if rows is None else where.take(rows)
    for name, start, length in zip(*(where[column].to_pylist() for column in WHERE), strict=True):
        yield str(name), int(start), int(length)


def values_of(column: pa.ChunkedArray, wanted: tuple[Any, ...]) -> list[Any]:
    """Return the values that select rows of `column`. Integers: `wanted` itself. Texts: each value of the column whose
    part before the first comma is wanted, so "eng" selects "eng,deu", a page that is mainly in English."""
    if isinstance(wanted[0], int):
        return list(wanted)
    return [value for value in column.unique().to_pylist() if value and value.split(",")[0] in wanted]
