"""How fast texts that are extracted already become Documents, from each format of table; CPU time of one process.

    python -m tests.bench.sources [TABLE ...]

Prints one JSON line: {"<format>": {"documents", "documents_per_cpu_second", "megabytes_per_cpu_second"}}, megabytes of
text. Without arguments the tables are made of ../shared/data/text/tinyshakespeare.txt, 20,000 texts of 2 kB.
"""

import gzip
import json
import random
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from data_prep.documents import DOCUMENT_SCHEMA
from data_prep.sources.tables import read_table

TEXT = Path(__file__).parents[2] / "../shared/data/text/tinyshakespeare.txt"


def write_tables(folder: Path, text: str) -> list[Path]:
    rng = random.Random(0)
    starts = [rng.randrange(len(text) - 4000) for _ in range(20_000)]
    rows = [
        {
            "text": text[start : start + rng.randrange(500, 3500)], "id": f"<urn:uuid:{n}>", "dump": "CC-MAIN-2024-10",
            "url": f"https://{n}.example/", "date": "2024-02-20T21:10:55Z", "file_path": "s3://a/b.warc.gz",
            "language": "en", "language_score": 0.9, "token_count": 500,
        }
        for n, start in enumerate(starts)
    ]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows, DOCUMENT_SCHEMA), folder / "t.parquet", row_group_size=1000)
    lines = "\n".join(map(json.dumps, rows)).encode()
    packed = {"t.jsonl": lines, "t.jsonl.gz": gzip.compress(lines, 6), "t.jsonl.zst": zstandard.compress(lines)}
    for name, data in packed.items():
        (folder / name).write_bytes(data)
    return [folder / "t.parquet", *(folder / name for name in packed)]


def measure(path: Path) -> dict[str, float]:
    begin, documents, characters = time.process_time(), 0, 0
    for document in read_table(path):
        documents += 1
        characters += len(document.text)
    seconds = time.process_time() - begin
    return {
        "documents": documents,
        "documents_per_cpu_second": round(documents / seconds),
        "megabytes_per_cpu_second": round(characters / 1e6 / seconds, 1),
    }


def main() -> None:
    given = [Path(argument) for argument in sys.argv[1:]]
    if not given and not TEXT.is_file():
        print(f"there is no {TEXT}: give tables to read")
        return
    with tempfile.TemporaryDirectory() as folder:
        paths = given or write_tables(Path(folder), TEXT.read_text(encoding="utf-8"))
        measure(paths[0])  # imports, and what is done once
        print(json.dumps({path.name: measure(path) for path in paths}))


if __name__ == "__main__":
    main()
