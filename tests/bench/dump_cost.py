"""Cost of processing a crawl's dump from WARC to tokens, in core-hours and dollars: computed from measured rates.

    python -m tests.bench.dump_cost [--dumps 1 100] [--texts-rate 109] [--keys-rate 5111] [--shards-rate 4.5] ...

Measure the rates on your machine; --help names the benchmarks. Prints a Markdown table. No whole dump was processed.

Prices are dollars of November 2026; rounded assumptions, not quotes: edit the constants. On demand, a core is one
hardware thread of a general-purpose machine with 4 GB per core; spot capacity often costs a third. Common Crawl is in
AWS's us-east-1, where reading it is free; elsewhere it is downloaded over HTTPS, free of charge too.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import tyro

from data_prep.dedup.lines import ROWS_AT_ONCE
from data_prep.dedup.partitions import BLOCKS_IN_PARTITION, FILES_AT_ONCE, GATHERED_PARTITIONS
from data_prep.dedup.sorted_runs import ROW_BYTES

FILES, PAGES = 90_000, 3.0e9
"""WARC files of a dump and pages in them, rounded: the dump of December 2024 has 2.64 billion pages
(commoncrawl.org/blog/december-2024-crawl-archive-now-available), that of February 2024 has 90,000 files."""
KEPT = 0.06
"""Approximate share of the pages of a dump that FineWeb keeps: 15 T tokens of 96 dumps (arXiv:2406.17557) are about 0.2
billion documents per dump."""
COMPARED = 0.15
"""Share of documents with keys, which pass the rules. An assumption: 2.5 times the kept ones, because FineWeb had 36 T
tokens before deduplication and its last rules, and 15 T at the end."""
BYTES_A_DOCUMENT, BYTES_A_TOKEN, BYTES_A_STORED_TOKEN = 3_300, 4.4, 2
BYTES_A_PAGE_OF_TEXTS = 900
"""Compressed bytes of texts/ and dropped/ for each page with a row."""
KEYS_A_DOCUMENT, BYTES_A_KEY = 15, 32
MONTHS = 1.0
"""Duration of storing texts, documents and tokens."""
MAPPED_STEPS, JOINS = 7, 4
"""Steps with a unit for each file (texts, keys, duplicates, filtering, held-out keys, encoding, shards), and joins of
MinHash keys; later joins have fewer keys than assumed here."""
REQUESTS_A_UNIT = 3
"""Reads per unit, and as many writes, of a step with one input and one output per unit: 3 U + 5 and 3 U + 1 at U = 40
and 400 and W = 1, 4 and 16 (tests.bench.cluster --count)."""
BYTES_A_READ = 8e6
"""Per read of a streamed input."""
DOLLARS_PER_CORE_HOUR = 0.04
DOLLARS_PER_GB_MONTH = 0.023
"""Object storage."""
DOLLARS_PER_GB_OUT = 0.09
"""Egress to the internet, of the finished corpus."""
DOLLARS_PER_MILLION_WRITES = 5.0
DOLLARS_PER_MILLION_READS = 0.4


@dataclass(frozen=True)
class Rates:
    """Rates of one core."""

    texts: float
    """Pages per second from WARC to documents/, without keys."""
    keys: float
    """Documents per second for MinHash keys."""
    join: float
    """Rows of keys per second through all steps of the join."""
    shards: float
    """MB of text per second into shards."""


@dataclass(frozen=True)
class Row:
    """A stage of one dump."""

    stage: str
    amount: str
    formula: str
    core_hours: float


def stages(rates: Rates) -> list[Row]:
    """Return the core-hours of each stage of one dump."""
    kept, compared = PAGES * KEPT, PAGES * COMPARED
    rows, megabytes = compared * KEYS_A_DOCUMENT, kept * BYTES_A_DOCUMENT / 1e6
    hours = lambda amount, rate: amount / rate / 3600
    return [
        Row("texts, rules", f"{PAGES / 1e9:.1f} G pages", f"pages / {rates.texts:g}", hours(PAGES, rates.texts)),
        Row("keys", f"{compared / 1e9:.2f} G documents", f"documents / {rates.keys:g}", hours(compared, rates.keys)),
        Row("joins", f"{rows / 1e9:.1f} G rows", f"rows / {rates.join:,.0f}", hours(rows, rates.join)),
        Row("shards", f"{megabytes / 1e6:.2f} TB of text", f"MB / {rates.shards:g}", hours(megabytes, rates.shards)),
    ]  # fmt: skip


def stored_gigabytes() -> float:
    """Largest size of one dump in the store: texts/ and dropped/, documents/, keys (three copies during merges) and
    tokens."""
    kept, compared = PAGES * KEPT, PAGES * COMPARED
    tokens = kept * BYTES_A_DOCUMENT / BYTES_A_TOKEN * BYTES_A_STORED_TOKEN
    keys = 3 * compared * KEYS_A_DOCUMENT * BYTES_A_KEY
    return (2 * PAGES * BYTES_A_PAGE_OF_TEXTS + kept * BYTES_A_DOCUMENT * 0.4 + keys + 2 * tokens) / 1e9


def requests() -> tuple[float, float]:
    """(reads, writes) of the run's objects in the store for one dump, without reads of Common Crawl's files."""
    keys = PAGES * COMPARED * KEYS_A_DOCUMENT * BYTES_A_KEY
    partition = BLOCKS_IN_PARTITION * ROWS_AT_ONCE * ROW_BYTES
    partitions = 2 ** math.ceil(math.log2(keys / partition))
    gathers = max(FILES / FILES_AT_ONCE, keys / (GATHERED_PARTITIONS * partition))
    reads = MAPPED_STEPS * REQUESTS_A_UNIT * FILES + 2 * stored_gigabytes() * 1e9 / BYTES_A_READ
    writes = MAPPED_STEPS * REQUESTS_A_UNIT * FILES
    reads += JOINS * (2 * FILES + partitions * gathers)
    writes += JOINS * REQUESTS_A_UNIT * (gathers + partitions)
    return reads, writes


def print_table(rows: list[Row], dumps: Sequence[int]) -> None:
    """Print the stages, then other costs, then sums."""
    print(
        "| stage | of one dump | core-seconds | "
        + " | ".join(f"{n:,} dumps" if n > 1 else "1 dump" for n in dumps)
        + " |"
    )
    print("|---|---|---|" + "---|" * len(dumps))
    total = sum(row.core_hours for row in rows)
    for row in rows:
        print(f"| {row.stage} | {row.amount} | {row.formula} | {columns(row.core_hours, dumps, ' core-hours')} |")
    print(f"| **all cores** | | | {columns(total, dumps, ' core-hours')} |")
    reads, writes = (number / 1e6 for number in requests())
    corpus = PAGES * KEPT * BYTES_A_DOCUMENT / BYTES_A_TOKEN * BYTES_A_STORED_TOKEN / 1e9
    dollars = {
        f"cores, ${DOLLARS_PER_CORE_HOUR} an hour": total * DOLLARS_PER_CORE_HOUR,
        f"{stored_gigabytes() / 1e3:.1f} TB stored, ${DOLLARS_PER_GB_MONTH} a GB and month, {MONTHS:g} month":
            stored_gigabytes() * DOLLARS_PER_GB_MONTH * MONTHS,
        f"{reads:.1f} M reads and {writes:.1f} M writes of objects":
            reads * DOLLARS_PER_MILLION_READS + writes * DOLLARS_PER_MILLION_WRITES,
        f"{corpus / 1e3:.2f} TB of tokens out, ${DOLLARS_PER_GB_OUT} a GB": corpus * DOLLARS_PER_GB_OUT,
    }  # fmt: skip
    for name, amount in dollars.items():
        print(f"| {name} | | | {columns(amount, dumps, before='$')} |")
    print(f"| **all** | | | {columns(sum(dollars.values()), dumps, before='$')} |")
    cores = 1000
    print(f"\nOn {cores:,} cores: {columns(total / cores / 24, dumps, ' days')}.")


def columns(amount: float, dumps: Sequence[int], unit: str = "", before: str = "") -> str:
    """`amount` for one dump times each number of dumps, to three significant digits."""
    return " | ".join(f"{before}{three_figures(amount * n)}{unit}" for n in dumps)


def three_figures(value: float) -> str:
    return f"{float(f'{value:.3g}'):,.0f}" if value >= 100 else f"{value:.3g}"


def main(
    dumps: tuple[int, ...] = (1, 100),
    texts_rate: float = 109.0,
    keys_rate: float = 5111.0,
    join_rate: float = 1_033_000.0,
    shards_rate: float = 4.5,
) -> None:
    """Args:
    dumps: Columns of the table.
    texts_rate: Pages per second of a core, WARC to documents/ without keys (tests.bench.documents without its start).
    keys_rate: Documents per second of a core (tests.bench.minhash).
    join_rate: Rows per second of a core through all steps of a join (tests.bench.join).
    shards_rate: MB per second of a core, with the keys for the held-out split (write_shards).
    """
    print_table(stages(Rates(texts_rate, keys_rate, join_rate, shards_rate)), dumps)


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
