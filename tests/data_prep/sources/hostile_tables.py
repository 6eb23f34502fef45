"""Small tables that unpack to gigabytes, and damaged tables, each read in a separate process to detect crashes.

python -m tests.data_prep.sources.hostile_tables make NAME FILE     writes the table of MAKERS
python -m tests.data_prep.sources.hostile_tables read FILE          {"documents", "quarantined": {reason: count},
                                                                     "error", "megabytes"}
python -m tests.data_prep.sources.hostile_tables damage FOLDER N    {"read", "refused", "megabytes"} of N tables
"""

import json
import random
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from data_prep.sources.tables import read_table
from lm.errors import InputError

WORD = "x" * 30_000_000
type Maker = tuple[str, Callable[[Path], object]]
"""(ending of a file, function that writes it)."""
ZSTD = {"compression": "zstd", "store_schema": False, "write_statistics": False}


def dictionary(rows: int, *names: str) -> pa.Table:
    """Every named column repeats one word for all rows."""
    column = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), pa.array([WORD]))
    others = {} if "text" in names else {"text": pa.array([f"Text {n}." for n in range(rows)])}
    return pa.table({**others, **dict.fromkeys(names, column)})


def parquet(table: pa.Table, path: Path, **options) -> None:
    pq.write_table(table, path, **{**ZSTD, **options})


def packed(path: Path, pieces: Iterator[bytes], size: int) -> None:
    with path.open("wb") as file, zstandard.ZstdCompressor(level=3).stream_writer(file, size=size) as writer:
        for piece in pieces:
            writer.write(piece)


def lines(line: bytes, number: int, ending: str = "jsonl.zst") -> Maker:
    """A compressed file of one repeated line."""
    many = line * (1 << 16)
    return ending, lambda path: packed(path, (many for _ in range(number >> 16)), len(line) * number)


PLAIN = {"use_dictionary": False}
MAKERS: dict[str, Maker] = {
    "columns of one dictionary word": (
        "parquet", lambda path: parquet(dictionary(100, "url", "id", "file_path"), path),
    ),
    "a string of 1 GB": ("parquet", lambda path: parquet(pa.table({"text": ["x" * 1_000_000_000]}), path, **PLAIN)),
    "a page of 60 strings": ("parquet", lambda path: parquet(pa.table({"text": [WORD] * 60}), path, **PLAIN)),
    "60 pages of a string": (
        "parquet",
        lambda path: parquet(pa.table({"text": [WORD] * 60}), path, write_batch_size=1, data_page_size=1, **PLAIN),
    ),
    "60 strings by their common beginning": (
        "parquet",
        lambda path: parquet(
            pa.table({"text": [WORD] * 60}), path, column_encoding={"text": "DELTA_BYTE_ARRAY"}, **PLAIN
        ),
    ),
    "100,000 texts of one dictionary word": ("parquet", lambda path: parquet(dictionary(100_000, "text"), path)),
    "4 million rows without a text": (
        "parquet", lambda path: parquet(pa.table({"text": pa.array([None] * 4_194_304, pa.string())}), path),
    ),
    "268 million empty lines": lines(b"\n", 1 << 28),
    "134 million blank lines": lines(b" \n", 1 << 27),
    "4 million lines that are not JSON": lines(b"x\n", 1 << 22),
    "4 million lines that begin as JSON": lines(b"{\n", 1 << 22),
    "4 million objects without a text": lines(b"{}\n", 1 << 22),
    "a line of many lists": ("jsonl", lambda path: path.write_bytes(b"[" + b"[]," * 13_000_000 + b"[]]\n")),
    "an object of many lists": ("jsonl", lambda path: path.write_bytes(b'{"a":[' + b"[]," * 13_000_000 + b"[]]}\n")),
    "an array of 268 million brackets": lines(b"[{", 1 << 27, "json.zst"),
    "an array of backslashes": lines(b'[{"' + b"\\\\" * 1000, 1 << 17, "json.zst"),
    "an array of 134 million numbers": ("json.zst", lambda path: packed(path, iter([b"[{}," + b"1," * (1 << 27)]), -1)),
}  # fmt: skip
"""{description: a table}; the first, second, third, sixth, eighth, tenth and thirteenth are those of the review
of December 2026."""


def read(path: Path) -> dict:
    found: Counter[str] = Counter()
    documents, told = 0, ""
    try:
        for _ in read_table(path, on_quarantine=lambda row: found.update([row.reason])):
            documents += 1
    except InputError as error:
        told = str(error)
    return {"documents": documents, "quarantined": dict(found), "error": told}


def used() -> dict:
    # Not ru_maxrss, which starts at the value of the parent.
    (peak,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return {"megabytes": int(peak) >> 10}


def damaged(folder: Path, number: int) -> bytes:
    """A Parquet file with some bytes changed, removed or doubled, determined by the number."""
    generator = random.Random(number)
    path = folder / "sound.parquet"
    texts = [f"Text {n}. " + "word " * generator.randrange(80) for n in range(300)]
    table = pa.table({
        "text": texts,
        "url": ["https://a.example/", None, "https://b.example/"] * 100,
        "metadata": [{"date": "2024-02-20", "language": "en"}] * 300,
        "language_score": [0.5] * 300,
    })  # fmt: skip
    pq.write_table(
        table, path, row_group_size=generator.choice((50, 300)), data_page_size=generator.choice((200, 1 << 20)),
        compression=generator.choice(("none", "zstd", "snappy", "gzip")), use_dictionary=generator.random() < 0.5,
        data_page_version=generator.choice(("1.0", "2.0")), write_batch_size=generator.choice((10, 1024)),
    )  # fmt: skip
    data = bytearray(path.read_bytes())
    for _ in range(generator.choice((1, 1, 4, 30))):
        # Half of the changes are in the footer, which has the offsets and sizes of all data.
        low = len(data) - 2000 if generator.random() < 0.5 and len(data) > 2000 else 0
        place = generator.randrange(low, len(data))
        kind = generator.randrange(5)
        if kind == 0:
            data[place] ^= 1 << generator.randrange(8)
        elif kind == 1:
            data[place : place + 4] = generator.randbytes(4)
        elif kind == 2:
            data[place : place + 9] = b"\xff" * 8 + b"\x7f"
        elif kind == 3:
            del data[place : place + generator.randrange(1, 50)]
        else:
            data[place:place] = data[place : place + 50]
    return bytes(data)


def damage(folder: Path, number: int) -> dict:
    found: Counter[str] = Counter()
    for one in range(number):
        path = folder / "damaged.parquet"
        path.write_bytes(damaged(folder, one))
        told = read(path)
        found["refused" if told["error"] else "read"] += 1
    return dict(found)


def main(command: str, *given: str) -> None:
    if command == "make":
        MAKERS[given[0]][1](Path(given[1]))
    elif command == "read":
        print(json.dumps({**read(Path(given[0])), **used()}))
    else:
        print(json.dumps({**damage(Path(given[0]), int(given[1])), **used()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
