"""Count the hosts of kept documents in bounded memory.

Each file of texts/ gets a sorted file of host counts. These are merged in groups until few are left, from which the
largest hosts are selected, one range of hosts at a time.
"""

import heapq
import itertools
import operator
import secrets
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa

from data_prep.engine import Step, Unit, Workspace, identity_of, run_step
from data_prep.engine.tasks import File, FileRunner, merge_in_groups, whole
from data_prep.parquet import opened, read_batches, rows_in, write_rows
from lm.storage import Place

TOP_DOMAINS = 12
HOSTS_AT_ONCE = 100_000
"""Maximum distinct hosts counted in memory, about 30 MB."""
FILES_AT_ONCE = 64
"""Maximum counts files open at once, each with a thousand rows in memory."""
HOSTS_IN_RANGE = 2_000_000
"""Approximate number of rows, over all counts files, in one range of hosts."""
SCHEMA = pa.schema([("host", pa.string()), ("documents", pa.int64()), ("text_bytes", pa.int64())])

HostCount = tuple[str, int, int]
"""(host, its documents, UTF-8 bytes of their texts as extracted)."""


@dataclass(frozen=True)
class Domains:
    largest: tuple[HostCount, ...]
    """At most TOP_DOMAINS, sorted by bytes, descending, then by name."""
    in_all: int
    """Number of distinct hosts, including the empty host of documents without a URL."""


class HostCounter:
    """Counts the hosts of one file's kept documents; `write` writes its counts file. Raises InputError like
    `write_rows`."""

    def __init__(self, counts_file: Path, hosts_at_once: int = HOSTS_AT_ONCE):
        self.counts_file, self.hosts_at_once = counts_file, hosts_at_once
        self.pairs: dict[str, list[int]] = {}
        self.runs: list[Path] = []  # temporary counts files, named so that a restart deletes leftovers
        self.token, self.spilled = secrets.token_hex(8), 0

    def add(self, url: str | None, text_bytes: int) -> None:
        pair = self.pairs.setdefault(host(url), [0, 0])
        pair[0] += 1
        pair[1] += text_bytes
        if len(self.pairs) >= self.hosts_at_once:
            self.spill()

    def spill(self) -> None:
        """Write the counts in memory to a temporary file. If FILES_AT_ONCE temporary files exist, merge them into
        it."""
        joined = self.runs if len(self.runs) >= FILES_AT_ONCE else []
        run = self.counts_file.with_name(f"{self.counts_file.name}.{self.token}-{self.spilled}.partial")
        self.write_merged(run, joined)
        self.runs = [*([] if joined else self.runs), run]
        self.spilled += 1

    def write(self) -> None:
        self.write_merged(self.counts_file, self.runs)
        self.runs = []

    def write_merged(self, path: Path, runs: list[Path]) -> None:
        """Write the sum of the counts in memory and in `runs`, and delete `runs`."""
        in_memory = [(name, documents, size) for name, (documents, size) in sorted(self.pairs.items())]
        write_host_counts(path, merged([*map(read_host_counts, runs), in_memory]))
        for run in runs:
            run.unlink()
        self.pairs.clear()


def host(url: str | None) -> str:
    """Return the host of a URL without "www."; empty if there is none."""
    try:
        return (urlsplit(url or "").hostname or "").removeprefix("www.")
    except ValueError:
        return ""


def write_host_counts(path: Path, counts: Iterable[HostCount], scratch: Path | None = None) -> None:
    """Write counts, sorted by host and without duplicates, to a file atomically."""
    rows = (dict(zip(SCHEMA.names, count, strict=True)) for count in counts)
    write_rows(((path, row) for row in rows), {path: SCHEMA}, scratch=scratch or path.parent)


def read_host_counts(path: Place) -> Iterator[HostCount]:
    """Yield the counts of a counts file in order. Raises InputError like `read_batches`."""
    for batch in read_batches(path, SCHEMA.names):
        yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)


def merged(counts_files: Iterable[Iterable[HostCount]]) -> Iterator[HostCount]:
    """Merge sorted counts files and add the counts of each host; yield each host once, in order."""
    for name, counts in itertools.groupby(heapq.merge(*counts_files), operator.itemgetter(0)):
        documents = text_bytes = 0
        for _, more_documents, more_bytes in counts:
            documents += more_documents
            text_bytes += more_bytes
        yield name, documents, text_bytes


def merge_files(paths: Sequence[Path], path: Path, scratch: Path) -> int:
    write_host_counts(path, merged(map(read_host_counts, paths)), scratch)
    return rows_in(path) or 0


def count_domains(
    counts_files: Sequence[File],
    run: FileRunner,
    files_at_once: int = FILES_AT_ONCE,
    hosts_in_range: int = HOSTS_IN_RANGE,
) -> Domains:
    """Return the domains of all counts files, merged in groups until few are left and then counted one range of hosts
    at a time.

    Raises like `run_step` and `read_batches`.
    """
    folder, engine = run.folder, run.engine
    few = merge_in_groups("domains", counts_files, merge_files, folder, engine, run.on_progress, files_at_once)
    names, identity = tuple(name for name, _ in few), [sha256 for _, sha256 in few]
    units = [
        Unit(f"{number:06d}", identity_of("domains", identity, low, high), 1, (low, high, names))
        for number, (low, high) in enumerate(host_ranges([folder / name for name in names], hosts_in_range))
    ]
    step = Step("largest-domains", tuple(units), largest_of_range, "domains", "ranges", "largest domains")
    made = run_step(step, whole(engine, len(units)), folder, run.on_progress)
    largest = [(name, documents, size) for one in made.values() for name, documents, size in one.counts["largest"]]
    return Domains(tuple(sorted(largest, key=by_size)[:TOP_DOMAINS]), sum(one.counts["rows"] for one in made.values()))


def host_ranges(counts_files: Sequence[Place], hosts: int) -> list[tuple[str, str | None]]:
    """Split the hosts into ranges (first host, first of the next range) of about `hosts` rows, by the minimum host of
    each row group."""
    groups = []
    for place in counts_files:
        with opened(place) as file:
            for number in range(file.num_row_groups):
                group = file.metadata.row_group(number)
                groups.append((group.column(0).statistics.min if group.column(0).statistics else "", group.num_rows))
    lows, rows = [""], 0
    for least, count in sorted(groups):
        if rows >= hosts and least > lows[-1]:
            lows.append(least)
            rows = 0
        rows += count
    return list(zip(lows, [*lows[1:], None], strict=True))


def largest_of_range(unit: Unit[tuple[str, str | None, Sequence[str]]], space: Workspace) -> dict[str, Any]:
    """Return the largest domains of a range of hosts, and the number of hosts. The unit's input is (first host, first
    of the next range, counts files)."""
    low, high, names = unit.input
    found = largest_domains(merged([read_range(space.place(name), low, high) for name in names]))
    return {"rows": found.in_all, "largest": found.largest}


def read_range(place: Place, low: str, high: str | None) -> Iterator[HostCount]:
    """Yield the counts of hosts h with `low` <= h < `high`. Row groups outside the range are not read."""
    with opened(place) as file:
        for number in range(file.num_row_groups):
            about = file.metadata.row_group(number).column(0).statistics
            if about and about.has_min_max and (about.max < low or (high is not None and about.min >= high)):
                continue
            for batch in file.iter_batches(row_groups=[number]):
                for count in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                    if low <= count[0] and (high is None or count[0] < high):
                        yield count


def by_size(count: HostCount) -> tuple[int, str]:
    return -count[2], count[0]


def largest_domains(counts: Iterator[HostCount]) -> Domains:
    """Return the domains of counts that have each host once, in bounded memory."""
    largest, in_all = [], 0
    for some in itertools.batched(counts, 1000):
        in_all += len(some)
        largest = heapq.nsmallest(TOP_DOMAINS, [*largest, *some], key=by_size)
    return Domains(tuple(largest), in_all)
