"""External files of examples are read in bounded memory, whatever they unpack to; valid ones as Arrow reads them."""

import gzip
import tracemalloc

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_prep.decontamination.examples import rows_of
from lm.errors import InputError
from lm.evaluation.tasks.sources import read_rows
from lm.storage import example_rows, parquet

READERS = (rows_of, read_rows)
ROWS = [
    {"question": f"Why {n}?", "number": n, "choices": {"text": ["a", "b", None], "label": ["A", str(n)]}, "none": None,
     "turns": [{"who": "Ann", "said": "x" * n}, {"who": "Bea", "said": None}] if n % 3 else None, "raw": b"\0"}
    for n in range(250)
]  # fmt: skip


@pytest.mark.parametrize("read", READERS)
def test_nested_rows_are_read_like_arrow_reads_them(tmp_path, read):
    for number, options in enumerate(
        ({}, {"use_dictionary": False}, {"row_group_size": 70, "data_page_version": "2.0"})
    ):
        pq.write_table(pa.Table.from_pylist(ROWS), path := tmp_path / f"{number}.parquet", **options)
        assert list(read(path)) == pq.read_table(path).to_pylist() == ROWS


def hostile(kind: str) -> tuple[str, pa.Table | bytes]:
    one = ["x" * 2_000_000]
    return {
        "a word in all rows": ("a.parquet", pa.table({"text": one * 100})),
        "a word in a list": ("b.parquet", pa.table({"text": [one * 100]})),
        "a long list": ("c.parquet", pa.table({"text": pa.ListArray.from_arrays([0, 3_000_000], np.ones(3_000_000))})),
        "a line without an end": ("d.jsonl.gz", gzip.compress(b'{"text": "' + b"a" * 20_000_000)),
        "blank lines": ("e.jsonl.gz", gzip.compress(b"\n" * 2_000_000)),
        "a line of lists": ("f.jsonl", b'{"text": [' + b"[]," * 3_000_000 + b"1]}"),
    }[kind]


@pytest.mark.fast_rows
@pytest.mark.parametrize("kind", ["a word in all rows", "a word in a list", "a long list", "a line without an end",
                                  "blank lines", "a line of lists"])  # fmt: skip
def test_hostile_files_are_rejected_or_read_in_little_memory(tmp_path, monkeypatch, kind):
    """A file of 1 kB once took 10 GB."""
    monkeypatch.setattr(example_rows, "RATIO_FROM_BYTES", 1_000_000 if kind == "blank lines" else 1 << 29)
    monkeypatch.setattr(parquet, "MAX_BATCH_BYTES", 10_000_000)
    name, content = hostile(kind)
    path = tmp_path / name
    path.write_bytes(content) if isinstance(content, bytes) else pq.write_table(content, path, compression="zstd")
    del content
    for read in READERS:
        tracemalloc.start()
        before, rows = pa.total_allocated_bytes(), 0
        try:
            for _ in read(path):
                rows += 1
        except InputError as error:
            assert str(path) in str(error)
        else:
            assert rows == 100 and kind == "a word in all rows"
        assert tracemalloc.get_traced_memory()[1] < 60_000_000 and pa.total_allocated_bytes() - before < 60_000_000
        tracemalloc.stop()
