"""The funnel as plain data: how many pages went in, what was dropped, where, why, and what that looked like.

Reads documents/*.parquet and dropped/*.parquet batch by batch: memory does not grow with the corpus.
"""

import hashlib
import heapq
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from data_prep.documents import stage_order
from data_prep.parquet import read_rows
from lm.errors import InputError

COLUMNS = ["text", "id", "url", "language", "language_score"]
"""What is read of a document."""
EXAMPLES = 3
"""Examples of each reason, and twice as many of kept documents."""
EXCERPT_CHARACTERS = 900
TOP_DOMAINS = 12
TOP_LANGUAGES = 12


@dataclass(frozen=True)
class Example:
    """One document, shortened to its beginning."""

    url: str
    excerpt: str
    """At most EXCERPT_CHARACTERS characters; empty when it was dropped before there was any text."""
    text_bytes: int
    """UTF-8 bytes of the whole text."""
    language: str
    language_score: float


@dataclass(frozen=True)
class Reason:
    """All that was dropped under one name."""

    stage: str
    reason: str
    documents: int
    text_bytes: int
    examples: tuple[Example, ...]


@dataclass(frozen=True)
class FunnelStage:
    """One narrowing of the funnel."""

    stage: str
    entered: int
    """Documents that came to the stage."""
    dropped: int


@dataclass(frozen=True)
class Tally:
    """Documents and their UTF-8 bytes under one name (a domain, a language)."""

    name: str
    documents: int
    text_bytes: int


@dataclass(frozen=True)
class LengthBin:
    """Kept documents of `low` <= bytes < `high`."""

    low: int
    high: int
    documents: int


@dataclass(frozen=True)
class Funnel:
    """From pages read to documents kept."""

    pages_read: int
    documents_kept: int
    clean_text_bytes: int
    """UTF-8 bytes of the kept documents."""
    stages: tuple[FunnelStage, ...]
    """In the order of the pipeline; a stage that dropped nothing is not listed."""
    reasons: tuple[Reason, ...]
    """In the order of the stages, then the most frequent first."""
    kept: tuple[Example, ...]
    languages: tuple[Tally, ...]
    """Of all documents whose language was detected, dropped ones included; the most frequent first."""
    domains: tuple[Tally, ...]
    """Hosts of kept documents, the largest by bytes first; at most TOP_DOMAINS."""
    domains_in_all: int
    lengths: tuple[LengthBin, ...]
    """Bins that double; from the shortest kept document's to the longest's, without gaps."""


@dataclass
class ExampleKeeper:
    """The `size` documents with the smallest hashes of their ids: a fair sample, whatever the order of the files."""

    size: int
    heap: list[tuple[int, int, Example]] = field(default_factory=list)

    def offer(self, row: dict, text_bytes: int) -> None:
        order = int.from_bytes(hashlib.blake2b(row["id"].encode(), digest_size=8).digest())
        if len(self.heap) == self.size and -order <= self.heap[0][0]:
            return
        tie = int.from_bytes(hashlib.blake2b(repr((row["url"], row["text"])).encode(), digest_size=8).digest())
        example = Example(
            url=row["url"] or "",
            excerpt=(row["text"] or "")[:EXCERPT_CHARACTERS],
            text_bytes=text_bytes,
            language=row["language"] or "",
            language_score=row["language_score"] or 0.0,
        )
        item = (-order, -tie, example)
        if len(self.heap) < self.size:
            heapq.heappush(self.heap, item)
        elif item[:2] > self.heap[0][:2]:
            heapq.heapreplace(self.heap, item)

    def chosen(self) -> tuple[Example, ...]:
        return tuple(example for _, _, example in sorted(self.heap, key=lambda item: (-item[0], -item[1])))


@dataclass
class Collected:
    """Running counts of one group of documents."""

    keeper: ExampleKeeper
    documents: int = 0
    text_bytes: int = 0

    def add(self, row: dict, text_bytes: int) -> None:
        self.documents += 1
        self.text_bytes += text_bytes
        self.keeper.offer(row, text_bytes)


def rows_of(folder: Path, columns: list[str]) -> Iterator[dict]:
    """Rows of all Parquet files in `folder`, in the order of their names. Raises InputError as `read_batches`."""
    for path in sorted(folder.glob("*.parquet")):
        yield from read_rows(path, columns)


def host(url: str) -> str:
    """The host of an address, without "www."; "" where there is none."""
    try:
        return (urlsplit(url).hostname or "").removeprefix("www.")
    except ValueError:
        return ""


def tallies(documents: Counter, text_bytes: Counter, by: Counter, limit: int) -> tuple[Tally, ...]:
    """The `limit` largest names by `by`, ties in alphabetical order."""
    names = sorted(by, key=lambda name: (-by[name], name))[:limit]
    return tuple(Tally(name, documents[name], text_bytes[name]) for name in names)


def length_bins(exponents: Counter) -> tuple[LengthBin, ...]:
    """Bins [2^e, 2^(e+1)) over the range of `exponents`, empty ones included."""
    if not exponents:
        return ()
    return tuple(LengthBin(2**e, 2 ** (e + 1), exponents[e]) for e in range(min(exponents), max(exponents) + 1))


def read_funnel(documents: Path, dropped: Path) -> Funnel:
    """The funnel of a run, from its folders of kept and of dropped documents (the second may be missing or empty).

    Raises InputError when a file cannot be read, or when nothing at all was kept.
    """
    kept = Collected(ExampleKeeper(2 * EXAMPLES))
    reasons: dict[tuple[str, str], Collected] = defaultdict(lambda: Collected(ExampleKeeper(EXAMPLES)))
    language_documents, language_bytes = Counter(), Counter()
    domain_documents, domain_bytes, exponents = Counter(), Counter(), Counter()

    for row in rows_of(documents, COLUMNS):
        size = len((row["text"] or "").encode())
        kept.add(row, size)
        domain_documents[host(row["url"] or "")] += 1
        domain_bytes[host(row["url"] or "")] += size
        exponents[max(size, 1).bit_length() - 1] += 1
        if row["language"]:
            language_documents[row["language"]] += 1
            language_bytes[row["language"]] += size
    if not kept.documents:
        raise InputError(
            f"{documents} holds no document. Run launch.prepare_documents, and see dropped/ for the reasons."
        )
    for row in rows_of(dropped, [*COLUMNS, "stage", "reason"]):
        size = len((row["text"] or "").encode())
        reasons[row["stage"], row["reason"]].add(row, size)
        if row["language"]:
            language_documents[row["language"]] += 1
            language_bytes[row["language"]] += size

    ordered = tuple(
        Reason(stage, reason, found.documents, found.text_bytes, found.keeper.chosen())
        for (stage, reason), found in sorted(
            reasons.items(), key=lambda item: (stage_order(item[0][0]), -item[1].documents, item[0][1])
        )
    )
    pages_read = kept.documents + sum(reason.documents for reason in ordered)
    return Funnel(
        pages_read=pages_read,
        documents_kept=kept.documents,
        clean_text_bytes=kept.text_bytes,
        stages=funnel_stages(ordered, pages_read),
        reasons=ordered,
        kept=kept.keeper.chosen(),
        languages=tallies(language_documents, language_bytes, language_documents, TOP_LANGUAGES),
        domains=tallies(domain_documents, domain_bytes, domain_bytes, TOP_DOMAINS),
        domains_in_all=len(domain_documents),
        lengths=length_bins(exponents),
    )


def funnel_stages(reasons: tuple[Reason, ...], pages_read: int) -> tuple[FunnelStage, ...]:
    """What came to each stage and what it dropped, from reasons in the order of the stages."""
    dropped: dict[str, int] = {}
    for reason in reasons:
        dropped[reason.stage] = dropped.get(reason.stage, 0) + reason.documents
    stages, entered = [], pages_read
    for stage, count in dropped.items():
        stages.append(FunnelStage(stage, entered, count))
        entered -= count
    return tuple(stages)
