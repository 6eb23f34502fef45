"""Every reader of Parquet is bounded: small files that unpack to gigabytes are refused or read in little memory."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lm.corpus_index.format import read_header
from lm.errors import InputError

ROOT = Path(__file__).parents[2]
SMALL = {"compression": "zstd", "store_schema": False, "write_statistics": False}
MEGABYTES = 800
READ = """
import json, resource, sys
from pathlib import Path
import pyarrow, pyarrow.parquet
from data_prep.conversations import read_conversations
from data_prep.parquet import opened, read_rows
from lm.data.document_rows import DocumentRows
from lm.errors import InputError
path, reader = Path(sys.argv[1]), sys.argv[2]
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
error, rows = "", 0
try:
    if reader == "conversations":
        for one in read_conversations(path, lambda *_: None):
            rows += 1
    elif reader == "documents":
        found = [DocumentRows([path], ["id", "url"], "Build it again.").at(number) for number in (0, 5)]
        rows = max(len(value) for one in found for value in one.values())
    else:
        for one in read_rows(path):
            rows += 1
except InputError as found:
    error = str(found)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"error": error, "rows": rows, "megabytes": (peak - before) >> 10}))
"""


def repeated(word: str, rows: int) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), pa.array([word]))


def talks(rows: int, messages: int, characters: int) -> pa.Table:
    """Conversations of messages with the same content, which is in the file once."""
    total = rows * messages
    contents = repeated("x" * characters, total)
    roles = pa.array(["user", "assistant"] * (total // 2))
    structs = pa.StructArray.from_arrays([roles, contents], ["role", "content"])
    return pa.table({"messages": pa.ListArray.from_arrays(list(range(0, total + 1, messages)), structs)})


def empty_messages(number: int) -> pa.Table:
    structs = pa.StructArray.from_arrays([pa.nulls(number, pa.string())] * 2, ["role", "content"])
    return pa.table({"messages": pa.ListArray.from_arrays([0, number], structs)})


def documents(rows: int) -> pa.Table:
    """A table of documents whose rows have one URL of 30 MB."""
    return pa.table({"id": pa.array([str(n) for n in range(rows)]), "url": repeated("u" * 30_000_000, rows)})


ATTACKS = {
    "a conversation of 3 million messages": (lambda: empty_messages(3_000_000), "conversations"),
    "5 documents with one URL of 30 MB": (lambda: documents(6), "documents"),
    "64 conversations of one word of 30 MB": (lambda: talks(64, 2, 30_000_000), "conversations"),
    "20,000 conversations of 3 MB": (lambda: talks(20_000, 10, 300_000), "conversations"),
    "883 documents with one URL of 30 MB": (lambda: documents(883), "documents"),
    "rows of a run": (lambda: documents(60), "rows"),
}


@pytest.mark.fast_rows(2)
@pytest.mark.parametrize("name", ATTACKS)
def test_a_small_file_takes_little_memory(tmp_path, name):
    make, reader = ATTACKS[name]
    path = tmp_path / "a.parquet"
    pq.write_table(make(), path, **SMALL)
    assert path.stat().st_size < 100_000
    command = [sys.executable, "-c", READ, str(path), reader]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["megabytes"] < MEGABYTES, found
    if name.startswith("5 documents"):
        assert found["rows"] == 1 << 16  # the URL is cut off
    elif reader != "rows":
        assert "a.parquet" in found["error"], found


@pytest.mark.parametrize("field", ["bytes", "crc32", "tokens", "name", "source"])
@pytest.mark.parametrize("value", [None, -1, [], "x", {"tokens": None}])
def test_an_index_with_a_wrong_value_is_damaged(tmp_path, field, value):
    part = {"name": "train-0", "split": "train", "tokens": 1, "documents": 1, "bytes": {}, "crc32": {}, "source": 0}
    header = {"format": 1, "tokenizer_fingerprint": "", "vocab_size": 9, "shards": "", "sources": []}
    (tmp_path / "index.json").write_text(json.dumps(header | {"parts": [part | {field: value}]}))
    if (field, value) == ("name", "x"):
        assert read_header(tmp_path, tmp_path).parts[0].name == "x"
        return
    with pytest.raises(InputError, match=r"index\.json"):
        read_header(tmp_path, tmp_path)


OPENS = {"ParquetFile", "ParquetDataset", "read_table", "read_pandas", "dataset", "read_schema"}
ALLOWED = {
    "lm/storage/parquet.py": "the bounded reader",
    "data_prep/sources/parquet_rows.py": "the reader of pages, which checks the same pages and quarantines row groups",
    "data_prep/common_crawl/index.py": "the index of a crawl, whose row groups are larger than the limit",
}


def test_no_other_code_opens_parquet():
    """Footers (read_metadata) hold no pages."""
    found = set()
    for path in [
        one for room in ("configs", "data_prep", "launch", "lm", "viewer") for one in (ROOT / room).rglob("*.py")
    ]:
        text = path.read_text()
        if "pyarrow" not in text:
            continue
        for node in ast.walk(ast.parse(text)):
            called = node.func if isinstance(node, ast.Call) else None
            name = getattr(called, "attr", getattr(called, "id", ""))
            if (
                called
                and name in OPENS
                and ast.unparse(called).split(".")[0] in ("pq", "pyarrow", "pa", "parquet", "ds", name)
            ):
                found.add(path.relative_to(ROOT).as_posix())
    assert found == ALLOWED.keys()
