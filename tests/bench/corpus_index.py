"""Time, memory and lookups of a corpus index.

    python -m tests.bench.corpus_index [--tokens 1e8] [--lookups 2000]

The corpus is synthetic: Zipf-distributed words with preferred followers, documents of 200 to 2,000 tokens, one in 20 a
copy, and 1,000 planted passages of 8 tokens. A separate process builds the index; another looks up planted, absent and
random passages, through the page cache that the build has filled.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.bench.runner import ask_peer, run_benchmark

VOCABULARY, RECORD, PLANTED = 32_000, 4096, 1000
FOLLOWERS = 64
PASSAGE = 8
BUILD = """
import json, resource, sys, time
from pathlib import Path
from lm.corpus_index.build import build_index
run, start = Path(sys.argv[1]), time.perf_counter()
build_index(run / "tokens", run / "corpus_index")
seconds, used = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
row = {"seconds": round(seconds, 1), "cpu_seconds": round(used.ru_utime + used.ru_stime, 1)}
print(json.dumps(row | {"peak_mb": round(used.ru_maxrss / 1024)}))  # kilobytes on Linux
"""


def documents(tokens: int, generator: np.random.Generator) -> Iterator[np.ndarray]:
    """Yield uint16 documents with their heads, at least `tokens` tokens in total."""
    weights = 1 / np.arange(1, VOCABULARY)
    weights /= weights.sum()
    shares = np.cumsum(weights)[:-1]
    followers = generator.choice(np.arange(1, VOCABULARY), (VOCABULARY, FOLLOWERS), p=weights).astype(np.uint16)
    made, kept = 0, []
    while made < tokens:
        size = int(generator.integers(200, 2000))
        if kept and generator.random() < 0.05:
            document = kept[int(generator.integers(len(kept)))]
        else:
            fresh = np.searchsorted(shares, generator.random(size)).astype(np.uint16) + np.uint16(1)
            follower = followers[fresh[:-1], generator.integers(0, FOLLOWERS, size - 1)]
            document = np.append(np.uint16(0), np.where(generator.random(size - 1) < 0.5, follower, fresh[1:]))
            kept = [*kept[-199:], document]
        made += len(document)
        yield document


def write_run(run: Path, tokens: int) -> list[list[int]]:
    """Write the shards of a run folder; return the planted passages."""
    from data_prep.shards.tokenize import cut_records
    from lm.data.records import MANIFEST, DocumentTable, Manifest, Shard, Split, to_bytes
    from lm.storage import digest

    generator = np.random.default_rng(0)
    every = max(1, tokens // 1100 // PLANTED)
    planted: list[list[int]] = []
    count = 0

    def numbered() -> Iterator[tuple[int, np.ndarray]]:
        nonlocal count
        for number, document in enumerate(documents(tokens, generator)):
            if number % every == 0 and len(planted) < PLANTED:
                passage = generator.integers(1, VOCABULARY, PASSAGE)
                planted.append(passage.tolist())
                document = np.concatenate([document[:100], passage.astype(np.uint16), document[100:]])
            count = number + 1
            yield number, document

    from array_record.python.array_record_module import ArrayRecordWriter  # ty: ignore[import-not-found]

    (run / "tokens").mkdir(parents=True)
    path = run / "tokens/train-00000-of-00001.array_record"
    writer = ArrayRecordWriter(str(path), "group_size:1")
    records = total = 0
    for record in cut_records(numbered(), RECORD, "uint16"):
        writer.write(to_bytes(record))
        records, total = records + 1, total + record.valid - 1
    writer.close()
    size, sha256 = digest(path)
    shard = Shard(path.name, records, size, sha256, count, total + 1, 4 * total)
    split = Split(count, total + 1, 4 * total, records, (shard,))
    table = DocumentTable("documents.parquet", count, 0, "")
    manifest = Manifest("none", VOCABULARY, RECORD, "uint16", {"train": split}, (table,))
    (run / "tokens" / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
    names = pa.table(
        {"id": [f"<urn:{n}>" for n in range(count)], "url": [f"https://a.example/{n}" for n in range(count)]}
    )
    pq.write_table(names, run / "tokens/documents.parquet", row_group_size=10_000)
    return planted


def look_up(run: Path, planted: list[list[int]], lookups: int) -> dict[str, object]:
    from lm.corpus_index.index import CorpusIndex

    index, generator = CorpusIndex(run), np.random.default_rng(1)
    found = sum(index.find(passage).count == 1 for passage in planted)
    absent = sum(index.find(generator.integers(1, VOCABULARY, PASSAGE)).count > 0 for _ in range(PLANTED))
    times: dict[str, list[float]] = {"find": [], "with_document": []}
    part = index.parts[0]
    for number in range(lookups):
        at, length = int(generator.integers(0, len(part.tokens) - 64)), int(generator.integers(1, 33))
        passage = planted[number % len(planted)] if number % 2 else part.tokens[at : at + length].astype(np.int64)
        if np.max(passage) >= VOCABULARY:  # across the end of a document
            continue
        start = time.perf_counter()
        matches = index.find(passage)
        times["find"].append(time.perf_counter() - start)
        for spot in matches.spots(1):
            index.document_at(spot)
        times["with_document"].append(time.perf_counter() - start)
    row: dict[str, object] = {"parts": len(index.parts), "planted_found": found, "absent_found": absent}
    for name, seconds in times.items():
        row[f"{name}_median_ms"] = round(1e3 * statistics.median(seconds), 3)
        row[f"{name}_p99_ms"] = round(1e3 * float(np.quantile(seconds, 0.99)), 3)
    row["lookups_per_second"] = round(len(times["find"]) / sum(times["find"]))
    return row


def main(tokens: float = 1e8, lookups: int = 2000) -> Iterator[dict[str, object]]:
    with tempfile.TemporaryDirectory() as name:
        run = Path(name) / "run"
        planted = write_run(run, int(tokens))
        built = ask_peer(sys.executable, BUILD, run)
        bytes_written = sum(path.stat().st_size for path in (run / "corpus_index").iterdir())
        size = {"tokens": int(tokens), "bytes_per_token": round(bytes_written / tokens, 2)}
        yield built | size | look_up(run, planted, lookups)


if __name__ == "__main__":
    run_benchmark(main)
