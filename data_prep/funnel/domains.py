"""The hosts of kept documents, counted in the same memory however many there are.

Each file of texts/ gets a file of host counts: Parquet, each host once, in the order of their code points. They are
merged in groups, which are files too, until few are left; of these the largest hosts are picked as they pass by.
"""

import heapq
import itertools
import operator
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pyarrow as pa

from data_prep.config import EngineConfig
from data_prep.engine.over_files import run_over_files
from data_prep.engine.progress import FileProgress, Progress, ProgressReporter
from data_prep.parquet import read_batches, rows_in, write_rows

TOP_DOMAINS = 12
HOSTS_AT_ONCE = 100_000
"""Different hosts that are counted in memory, 30 MB."""
FILES_AT_ONCE = 64
"""Counts files that are open at a time: a thousand rows of each are in memory."""
SCHEMA = pa.schema([("host", pa.string()), ("documents", pa.int64()), ("text_bytes", pa.int64())])

HostCount = tuple[str, int, int]
"""A host, its documents, and the UTF-8 bytes of their texts as extracted."""


@dataclass(frozen=True)
class Domains:
    """Of many hosts, what a funnel tells."""

    largest: tuple[HostCount, ...]
    """By bytes, the largest first, of equal ones by name; at most TOP_DOMAINS."""
    in_all: int
    """Different hosts, "" for documents without an address among them."""


class HostCounter:
    """Counts the hosts of one file's kept documents; `write` makes the file. Raises InputError as `write_rows`."""

    def __init__(self, counts_file: Path, hosts_at_once: int = HOSTS_AT_ONCE):
        self.counts_file, self.hosts_at_once = counts_file, hosts_at_once
        self.pairs: dict[str, list[int]] = {}
        self.runs: list[Path] = []  # counts files of what was counted before, named as leftovers that a restart deletes
        self.token, self.spilled = secrets.token_hex(8), 0

    def add(self, url: str | None, text_bytes: int) -> None:
        pair = self.pairs.setdefault(host(url), [0, 0])
        pair[0] += 1
        pair[1] += text_bytes
        if len(self.pairs) >= self.hosts_at_once:
            self.spill()

    def spill(self) -> None:
        """Moves what is in memory to the disk; runs that are as many as may be open at a time become one with it."""
        joined = self.runs if len(self.runs) >= FILES_AT_ONCE else []
        run = self.counts_file.with_name(f"{self.counts_file.name}.{self.token}-{self.spilled}.partial")
        self.write_merged(run, joined)
        self.runs = [*([] if joined else self.runs), run]
        self.spilled += 1

    def write(self) -> None:
        """Writes the counts file of all that was added."""
        self.write_merged(self.counts_file, self.runs)
        self.runs = []

    def write_merged(self, path: Path, runs: list[Path]) -> None:
        """Writes what is in memory, and in `runs`, which are deleted."""
        in_memory = [(name, documents, size) for name, (documents, size) in sorted(self.pairs.items())]
        write_host_counts(path, merged([*map(read_host_counts, runs), in_memory]))
        for run in runs:
            run.unlink()
        self.pairs.clear()


def host(url: str | None) -> str:
    """The host of an address, without "www."; "" where there is none."""
    try:
        return (urlsplit(url or "").hostname or "").removeprefix("www.")
    except ValueError:
        return ""


def write_host_counts(path: Path, counts: Iterable[HostCount]) -> None:
    """Writes counts, whose hosts are in order and different, to a file that appears whole at the end."""
    rows = (dict(zip(SCHEMA.names, count, strict=True)) for count in counts)
    write_rows(((path, row) for row in rows), {path: SCHEMA}, scratch=path.parent)


def read_host_counts(path: Path) -> Iterator[HostCount]:
    """The counts of a counts file, in order. Raises InputError as `read_batches`."""
    for batch in read_batches(path, SCHEMA.names):
        yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)


def merged(counts_files: Iterable[Iterable[HostCount]]) -> Iterator[HostCount]:
    """The sums of all counts files, which are read side by side: each host once, in order."""
    for name, counts in itertools.groupby(heapq.merge(*counts_files), operator.itemgetter(0)):
        documents = text_bytes = 0
        for _, more_documents, more_bytes in counts:
            documents += more_documents
            text_bytes += more_bytes
        yield name, documents, text_bytes


@dataclass(frozen=True)
class Group:
    """Counts files that become one."""

    index: int
    counts_files: tuple[Path, ...]
    part: Path
    """The counts file that they become."""

    @property
    def note(self) -> Path:
        """Nothing is noted while the part is made."""
        return self.part.with_suffix(".note")

    @property
    def bytes(self) -> int:
        return sum(counts_file.stat().st_size for counts_file in self.counts_files)


def merge_group(group: Group) -> None:
    """Writes the group's part, unless it is there."""
    if rows_in(group.part) is None:
        write_host_counts(group.part, merged(map(read_host_counts, group.counts_files)))


def count_domains(
    counts_files: Sequence[Path],
    folder: Path,
    engine: EngineConfig,
    on_progress: Callable[[Progress], None],
    files_at_once: int = FILES_AT_ONCE,
) -> Domains:
    """The domains of all counts files. Merged ones are written to `folder`; those that are there are taken as they are,
    so it must be empty when the counts files are others. Raises InputError as `read_batches` and `write_rows`."""
    for level in itertools.count(1):
        if len(counts_files) <= files_at_once:
            break
        folder.mkdir(parents=True, exist_ok=True)
        groups = [
            Group(index, tuple(some), folder / f"{level}-{index:06d}.parquet")
            for index, some in enumerate(itertools.batched(counts_files, files_at_once))
        ]
        with ProgressReporter(FileProgress(groups, step="counting domains", unit="domains"), on_progress):
            run_over_files(merge_group, groups, engine)
        counts_files = [group.part for group in groups]
    return largest_domains(merged(map(read_host_counts, counts_files)))


def largest_domains(counts: Iterator[HostCount]) -> Domains:
    """The domains of counts of different hosts, of which few are in memory at a time."""
    largest, in_all = [], 0
    for some in itertools.batched(counts, 1000):
        in_all += len(some)
        largest = heapq.nsmallest(TOP_DOMAINS, [*largest, *some], key=lambda count: (-count[2], count[0]))
    return Domains(tuple(largest), in_all)
