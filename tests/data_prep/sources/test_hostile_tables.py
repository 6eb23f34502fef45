"""Hostile tables are read in bounded memory and time; each is rejected or quarantined by name."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_prep.sources import columns, json_rows, parquet_rows, tables
from data_prep.sources.formats import FORMATS, format_of
from lm.errors import InputError
from lm.storage import parquet_pages
from tests.data_prep.sources.hostile_tables import MAKERS
from tests.data_prep.sources.test_tables import parquet, read, texts_of

MEGABYTES = 1500


def run(*given: object) -> dict:
    command = [sys.executable, "-m", "tests.data_prep.sources.hostile_tables", *map(str, given)]
    done = subprocess.run(command, cwd=Path(__file__).parents[3], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout or "{}")


@pytest.mark.slow
@pytest.mark.parametrize("name", MAKERS)
def test_a_small_file_that_unpacks_to_gigabytes_is_bounded(tmp_path, name):
    path = tmp_path / f"t.{MAKERS[name][0]}"
    run("make", name, path)
    found = run("read", path)
    assert found["megabytes"] <= MEGABYTES, found
    harmless = "dictionary word" in name or "empty" in name or "blank" in name
    assert found["quarantined"] or found["error"] or harmless, found


@pytest.mark.slow
def test_1500_damaged_parquet_files_are_read_or_rejected(tmp_path):
    found = run("damage", tmp_path, 1500)
    assert found["read"] + found["refused"] == 1500 and found["megabytes"] <= MEGABYTES


def test_a_page_beyond_the_limit_is_quarantined_and_adjacent_pages_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet_pages, "MAX_PAGE_BYTES", 100_000)
    texts = [f"Text {n}." for n in range(10)] + ["x" * 200_000] + ["last"]
    path = parquet(tmp_path / "p.parquet", {"text": texts}, row_group_size=5, use_dictionary=False)
    documents, (row,) = read(path)
    assert texts_of(documents) == texts[:10]
    assert (row.place, row.reason) == ("row group 2, from row 10 on", "too_long")
    with pytest.raises(InputError, match=r"no row group can be read: pages of 2\d\d,\d\d\d bytes in memory"):
        read(parquet(tmp_path / "q.parquet", {"text": ["x" * 200_000]}, use_dictionary=False))


@pytest.mark.parametrize("use_dictionary", [True, False])
def test_rows_of_many_pages_are_read_one_by_one_if_a_batch_would_be_too_large(tmp_path, monkeypatch, use_dictionary):
    monkeypatch.setattr(parquet_pages, "MAX_PAGE_BYTES", 100_000)
    monkeypatch.setattr(parquet_rows, "BATCH_BYTES", 30_000)
    texts = [f"{n} " * (3000 if n > 120 else 3) for n in range(150)]
    sizes = {"write_batch_size": 1, "data_page_size": 1, "dictionary_pagesize_limit": 1000}
    path = parquet(tmp_path / "m.parquet", {"text": texts}, use_dictionary=use_dictionary, **sizes)
    documents, quarantined = read(path)
    assert texts_of(documents) == texts and not quarantined


@pytest.mark.parametrize("encoding", ["PLAIN", "DELTA_BYTE_ARRAY", "DELTA_LENGTH_BYTE_ARRAY", "RLE_DICTIONARY"])
@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.binary()], ids=str)
@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_every_encoding_of_strings_gives_the_same_rows(tmp_path, encoding, kind, version):
    texts = [f"Text {n} of a hundred" * (n % 7 + 1) if n % 5 else None for n in range(500)]
    strings = pa.array(texts, pa.string()).cast(kind)
    nested = pa.StructArray.from_arrays([strings], ["url"])
    names = ["text", "id", "metadata.url"]
    how: dict[str, Any] = {"use_dictionary": names} if encoding == "RLE_DICTIONARY" else {"use_dictionary": False}
    if encoding.startswith("DELTA"):
        how["column_encoding"] = dict.fromkeys(names, encoding)
    table = pa.table({"text": strings, "id": strings, "metadata": nested, "loss": [0.5] * 500})
    pq.write_table(
        table, tmp_path / "e.parquet", data_page_version=version, data_page_size=999, row_group_size=300, **how
    )
    documents, quarantined = read(tmp_path / "e.parquet")
    assert [(d.text, d.id, d.url) for d in documents] == [(text, text, text) for text in texts if text]
    assert [row.offset for row in quarantined] == [n for n, text in enumerate(texts) if not text]


def test_other_columns_are_bounded_too(tmp_path):
    long = "u" * (columns.MAX_FIELD_BYTES + 1)
    table = {"text": ["a", "b"], "url": [long, "u"], "id": [long, "i"], "date": [long[1:], "d"]}
    for path in (
        parquet(tmp_path / "w.parquet", table),
        parquet(tmp_path / "v.parquet", table, use_dictionary=False, column_encoding={"url": "DELTA_BYTE_ARRAY"}),
    ):
        documents, quarantined = read(path)
        assert not quarantined
        assert [(d.url, d.id) for d in documents] == [("", f"{path.name}/0"), ("u", "i")]
        assert [d.date for d in documents] == [long[1:], "d"]


def test_lists_are_rejected_as_texts(tmp_path):
    for value in ([["a", "b"]], [{"a": ["b"]}]):
        with pytest.raises(InputError, match="has no text in any of its 1 rows: 'text' is not a string"):
            read(parquet(tmp_path / "l.parquet", {"text": value}))


def test_rows_after_a_hundred_times_the_file_size_are_quarantined(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "RATIO_FROM_BYTES", 100_000)
    texts = ["word " * 1000] * 300
    packed = pa.compress(b"".join(json.dumps({"text": text}).encode() + b"\n" for text in texts), "zstd", asbytes=True)
    (tmp_path / "r.jsonl.zst").write_bytes(packed)
    # Pieces are counted as they are unpacked, rows of Parquet as they are made.
    monkeypatch.setattr(json_rows, "PIECE", 5000)
    monkeypatch.setattr(parquet_rows, "BATCH_BYTES", 5000)
    for path in (tmp_path / "r.jsonl.zst", parquet(tmp_path / "r.parquet", {"text": texts}, compression="zstd")):
        documents, (row,) = read(path)
        assert 10 < len(documents) < 300 and row.reason == "ratio_too_high"
        assert row.place in (f"after line {len(documents)}", f"after row {len(documents) - 1}", "after the beginning")
    monkeypatch.undo()
    assert len(read(tmp_path / "r.parquet")[0]) == 300


def test_consecutive_bad_rows_are_listed_as_one(tmp_path):
    path = tmp_path / "b.jsonl"
    path.write_text('{"text": "a"}\n' + "x\n" * 5000 + '{"text": "b"}\n' + "x\n" * 50)
    documents, quarantined = read(path)
    assert texts_of(documents) == ["a", "b"]
    assert len(quarantined) == tables.LISTED + 1 + 50
    rest = quarantined[tables.LISTED]
    assert (rest.place, rest.reason) == ("line 102", "not_json")
    assert rest.detail.endswith("4,900 consecutive rows, up to line 5001")


def test_an_object_with_too_many_values_is_not_parsed(tmp_path, monkeypatch):
    monkeypatch.setattr(json_rows, "MAX_STRUCTURE_BYTES", 1000)
    path = tmp_path / "o.jsonl"
    many = '{"text": "many", "a": [' + "[]," * 500 + "[]]}"
    path.write_text(many + "\n" + json.dumps({"text": "[],{}" * 500 + '\\"' * 300}) + "\n")
    documents, (row,) = read(path)
    assert (len(documents), row.place, row.reason) == (1, "line 1", "too_long")


def test_each_ending_belongs_to_a_recognized_format(tmp_path):
    contents = {".txt": b"Text.", ".parquet": parquet(tmp_path / "x", {"text": ["a"]}).read_bytes()}
    for one in FORMATS:
        for ending in one.endings:
            path = tmp_path / f"NAME{ending.upper()}"
            path.write_bytes(contents.get(ending, b'{"text": "Text."}'))
            assert format_of(path) is one and len(read(path)[0]) == 1
            if one.begins:
                path.rename(tmp_path / "without")
                assert format_of(tmp_path / "without", by_name=False) is one
