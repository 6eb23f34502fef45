"""The amount of text that is estimated before reading is the amount that is read."""

import codecs
import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from data_prep.config import PagesConfig
from data_prep.sources.sizes import InputSizes, input_sizes
from data_prep.sources.tables import read_table

ROWS = [{"id": n, "text": f'Text "{n}" of é, 文 and \\ {"x" * (n * 37 % 500)}.\n'} for n in range(60)]
LINES = "\n".join(json.dumps(row, ensure_ascii=n % 2 == 0) for n, row in enumerate(ROWS))
TEXT = "".join(str(row["text"]) for row in ROWS)
FORMS = {
    "some_bad.jsonl": (LINES + '\n{"text": 7}\nno json\n{"text": "last"}').encode(),
    "play.txt": TEXT.encode(),
    "play_bom.txt": codecs.BOM_UTF8 + TEXT.encode(),
    "play_utf16.md": TEXT.encode("utf-16"),
}
"""Forms of JSON without bad rows are in test_tables.py."""


def counted_and_read(path: Path) -> tuple[InputSizes, InputSizes]:
    texts = [document.text.encode() for document in read_table(path)]
    return input_sizes(PagesConfig(tables=(str(path),))), InputSizes(sum(map(len, texts)), len(texts))


@pytest.mark.parametrize("name", FORMS)
def test_the_bytes_counted_are_the_bytes_of_the_documents_read(tmp_path, name):
    (tmp_path / name).write_bytes(FORMS[name])
    counted, read = counted_and_read(tmp_path / name)
    assert counted == read and read.bytes > 10_000


@pytest.mark.parametrize("texts", [[row["text"] for row in ROWS], ["the same text"] * 2000, ["a", "b" * 99_999]])
def test_also_of_parquet(tmp_path, texts):
    pq.write_table(pa.table({"text": texts, "other": ["x" * 100] * len(texts)}), tmp_path / "a.parquet")
    counted, read = counted_and_read(tmp_path / "a.parquet")
    assert counted == read


@pytest.mark.fast_rows
@pytest.mark.parametrize(
    "name",
    ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst", "a.json", "utf16.jsonl", "a.txt", "utf16.txt", "a.parquet"],
)
def test_large_files_are_estimated_from_their_beginning(tmp_path, name):
    rows = [{"id": n, "text": f"{n} {n * 7919 % 1009} " * 40} for n in range(10_000)]
    if name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / name)
    else:
        lines = "\n".join(map(json.dumps, rows))
        text = json.dumps(rows) if name.endswith(".json") else "".join(str(row["text"]) for row in rows)
        data = (lines if "jsonl" in name else text).encode("utf-16" if name.startswith("utf16") else "utf-8")
        pack = {"gz": gzip.compress, "zst": zstandard.compress}.get(name.rpartition(".")[2], bytes)
        (tmp_path / name).write_bytes(pack(data))
    counted, read = counted_and_read(tmp_path / name)
    assert counted.bytes == pytest.approx(read.bytes, rel=0.2)
    assert counted.documents == pytest.approx(read.documents, rel=0.2)
