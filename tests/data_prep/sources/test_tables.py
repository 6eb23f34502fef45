"""Published tables become documents row by row; invalid rows are named by position."""

import codecs
import dataclasses
import gzip
import json
import tracemalloc
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from data_prep.config import PagesConfig
from data_prep.documents import DOCUMENT_SCHEMA, Damage, Document
from data_prep.measure import row as row_module
from data_prep.sources import columns as columns_module
from data_prep.sources import fetch_pages, input_files, json_rows, text_rows
from data_prep.sources.local import own_files
from data_prep.sources.sizes import input_sizes
from data_prep.sources.tables import read_table
from lm.errors import InputError, UsageError
from tests.data_prep.pages import demo_config, documents_in, page

WHOLE = Document(
    text="A text.\nOf two lines.",
    id="<urn:uuid:4f43c0de-0e5f-4a3c-8f2c-6d1e1c0a0001>",
    dump="CC-MAIN-2024-10",
    url="https://a.example/",
    date="2024-02-20T21:10:55Z",
    file_path="s3://commoncrawl/crawl-data/CC-MAIN-2024-10/a.warc.gz",
    language="en",
    language_score=0.93,
    token_count=7,
)
BARE = Document("Only text.", "t.jsonl/0", "", "", "", "t.jsonl", "", 0.0, None)


def read(path: Path, **changes) -> tuple[list[Document], list[Damage]]:
    quarantined: list[Damage] = []
    documents = list(read_table(path, on_quarantine=quarantined.append, **changes))
    return documents, quarantined


def texts_of(documents: Iterable[Document]) -> list[str]:
    return [document.text for document in documents]


def reasons_of(quarantined: list[Damage]) -> list[tuple[str, str]]:
    return [(row.place, row.reason) for row in quarantined]


def lines(tmp_path: Path, *rows: object) -> Path:
    """A JSONL file of these rows; bytes and str are raw lines."""
    path = tmp_path / "t.jsonl"
    raw = [
        row if isinstance(row, bytes) else (row if isinstance(row, str) else json.dumps(row)).encode() for row in rows
    ]
    path.write_bytes(b"\n".join(raw))
    return path


def parquet(path: Path, columns: dict[str, list], **options) -> Path:
    pq.write_table(pa.table(columns), path, **options)
    return path


def many(number: int) -> list[dict]:
    return [dataclasses.asdict(dataclasses.replace(WHOLE, text=f"Text {n}.", id=str(n))) for n in range(number)]


def test_finewebs_columns_are_kept(tmp_path):
    rows = many(2500)
    pq.write_table(pa.Table.from_pylist(rows, DOCUMENT_SCHEMA), tmp_path / "f.parquet", row_group_size=300)
    documents, quarantined = read(tmp_path / "f.parquet")
    assert [dataclasses.asdict(document) for document in documents] == rows
    assert quarantined == []


@pytest.mark.parametrize(
    "pack",
    [
        bytes,
        gzip.compress,
        lambda data: gzip.compress(data[:9000]) + gzip.compress(data[9000:]),
        zstandard.compress,
        lambda data: zstandard.compress(data[:9000]) + zstandard.compress(data[9000:]),
        lambda data: b"\xef\xbb\xbf" + data,
        lambda data: data.replace(b"\n", b"\r\n"),
        lambda data: data.replace(b"\n", b"\r"),
        lambda data: data.replace(b"\n", b"\n\n") + b"\n \n",
        lambda data: data.decode().encode("utf-16"),
        lambda data: gzip.compress(codecs.BOM_UTF16_BE + data.decode().encode("utf-16-be")),
        lambda data: b"[" + data.replace(b"\n", b",") + b"]",
        lambda data: zstandard.compress(json.dumps(list(map(json.loads, data.split(b"\n"))), indent=2).encode()),
        lambda data: b"\xef\xbb\xbf\r\n [\r\n" + data.replace(b"\n", b"\r\n,") + b"\r\n]\r\n",
        lambda data: ("[" + data.decode().replace("\n", ", ") + "]").encode("utf-16"),
    ],
    ids=[
        "plain", "gzip", "two gzip members", "zstd", "two zstd frames", "BOM", "CRLF", "CR", "empty lines", "UTF-16",
        "UTF-16 BE", "array", "indented array", "array with BOM and CRLF", "array in UTF-16",
    ],
)  # fmt: skip
def test_json_lines_are_read_in_any_compression(tmp_path, pack):
    rows = [row | {"text": f'{row["text"]} "a\\\\" [{{,\n\r é\U0001f33e}}]'} for row in many(500)]
    path = tmp_path / "whatever.json"
    path.write_bytes(pack("\n".join(map(json.dumps, rows)).encode()))
    documents, quarantined = read(path)
    assert [dataclasses.asdict(document) for document in documents] == rows
    assert quarantined == []
    assert input_sizes(config(str(path))) == (sum(len(row["text"].encode()) for row in rows), len(rows))


def test_chunks_of_any_size_give_the_same_lines(tmp_path, monkeypatch):
    path = lines(tmp_path, *many(50))
    whole, _ = read(path)
    content = path.read_bytes().replace(b"Text", b'[\\"{\\\\')
    for how in (
        bytes,
        lambda data: b"\n\n" + data.replace(b"\n", b"\r\n"),
        lambda data: b"[" + data.replace(b"\n", b",") + b"]",
    ):
        path.write_bytes(how(content))
        whole, _ = read(path)
        assert len(whole) == 50
        for size in (1, 7, 300):
            monkeypatch.setattr(json_rows, "PIECE", size)
            monkeypatch.setattr(json_rows, "FIRST", 3)
            assert read(path)[0] == whole


def test_bad_elements_of_an_array_are_named_and_the_others_kept(tmp_path):
    path = tmp_path / "t.json"
    path.write_text('[{"text": "a"}, 7, , {"text": "b" "c"}, [{"text": "x"}], "]", {"text": "d"}]')
    documents, quarantined = read(path)
    assert [(document.text, document.id) for document in documents] == [("a", "t.json/0"), ("d", "t.json/6")]
    assert reasons_of(quarantined) == [
        ("element 2", "not_an_object"), ("element 4", "not_json"), ("element 5", "not_an_object"),
        ("element 6", "not_an_object"),
    ]  # fmt: skip
    path.write_text('[{"text": "a"}, {"text": "b"}, {"text": "cut')
    documents, (row,) = read(path)
    assert (len(documents), row.place, row.reason) == (2, "after element 2", "damaged")
    path.write_text("[]")
    assert read(path) == ([], [])


def test_missing_values_are_filled_by_the_documented_rules(tmp_path):
    assert read(lines(tmp_path, {"text": "Only text."})) == ([BARE], [])
    (document,), _ = read(lines(tmp_path, {"text": "Only text."}), name="part/x.jsonl")
    assert (document.id, document.file_path) == ("part/x.jsonl/0", "part/x.jsonl")
    parquet(tmp_path / "t.jsonl", {"text": ["Only text."], "loss": [0.5]})
    assert read(tmp_path / "t.jsonl") == ([BARE], [])


@pytest.mark.parametrize(
    ("row", "columns"),
    [
        ({"id": 12, "metadata": {"url": "u", "date": "d", "language": "de"}}, {"id": "12", "url": "u", "date": "d"}),
        ({"url": "u", "timestamp": "2019-04-25T12:57:54Z"}, {"url": "u", "date": "2019-04-25T12:57:54Z"}),
        ({"id": "x", "created": "2020", "added": "2023", "source": "s2"}, {"id": "x", "date": "2020"}),
        (
            {"metadata": {"WARC-Record-ID": "<urn:1>", "WARC-Date": "d", "WARC-Target-URI": "u"}},
            {"id": "<urn:1>", "date": "d", "url": "u"},
        ),
        (
            {"metadata": {"language": "de", "language_score": 0.7, "token_count": 3}},
            {"language": "de", "language_score": 0.7, "token_count": 3},
        ),
        ({"metadata": '{"url": "no object"}', "url": None}, {"url": ""}),
        ({"url": 1.5, "language_score": 7, "token_count": 2.5, "language": ["en"]}, {"url": "", "language": ""}),
        ({"token_count": 10**30, "language_score": float("nan")}, {"token_count": None, "language_score": 0.0}),
        ({"token_count": True, "language_score": True, "id": False}, {"token_count": None, "id": "t.jsonl/0"}),
        ({"url": "\udc80"}, {"url": "\ufffd"}),
    ],
    ids=[
        "datatrove",
        "C4",
        "dolma",
        "DCLM",
        "numbers",
        "a string",
        "wrong types",
        "too large",
        "switches",
        "surrogate",
    ],
)
def test_keys_of_other_tools(tmp_path, row, columns):
    (document,), quarantined = read(lines(tmp_path, {"text": "Only text.", **row}))
    assert {name: getattr(document, name) for name in columns} == columns
    assert quarantined == []


@pytest.mark.parametrize(
    ("row", "language", "score"),
    [
        ({"language": "EN", "language_score": 0.9}, "en", 0.9),
        ({"language": "en-US", "language_score": 0.9}, "en", 0.9),
        ({"language": "zh_Hans", "metadata": {"language_score": 0.9}}, "zh", 0.9),
        ({"language": "en", "language_score": 1.0000001}, "en", 1.0),  # a sum of float32
        ({"language": "en", "language_score": 0}, "en", 0.0),
        ({"language": "en", "language_score": 97.3}, "", 0.0),
        ({"language": "eng_Latn", "language_score": 0.9}, "", 0.0),  # FineWeb-2
        ({"language": "eng", "language_score": 0.9}, "", 0.0),
        ({"language": "English", "language_score": 0.9}, "", 0.0),
        ({"language": "en"}, "", 0.0),
        ({"language_score": 0.9}, "", 0.0),
    ],
)
def test_a_language_is_kept_only_with_its_score_and_as_iso_639_1(tmp_path, row, language, score):
    (document,), _ = read(lines(tmp_path, {"text": "Only text.", **row}))
    assert (document.language, document.language_score) == (language, score)


def test_nested_columns_and_times_of_parquet(tmp_path):
    moment = datetime(2024, 2, 20, 22, 10, 55, tzinfo=timezone(timedelta(hours=1)))
    table = {"body": [{"plain": "A text."}], "metadata": [{"url": "u", "junk": 3}], "date": [moment]}
    (document,), _ = read(parquet(tmp_path / "n.parquet", table), text_field="body.plain")
    assert (document.text, document.url, document.date) == ("A text.", "u", "2024-02-20T21:10:55Z")
    (document,), _ = read(parquet(tmp_path / "n.parquet", {"text": ["x"], "date": [datetime(2024, 2, 20)]}))
    assert document.date == datetime(2024, 2, 20, tzinfo=UTC).isoformat().replace("+00:00", "Z")


def test_a_key_with_a_dot_takes_precedence_over_a_nested_one(tmp_path):
    (document,), _ = read(lines(tmp_path, {"a.b": "whole", "a": {"b": "nested"}}), text_field="a.b")
    assert document.text == "whole"


def test_bad_lines_are_named_and_the_others_kept(tmp_path):
    path = lines(
        tmp_path,
        {"text": "first"},
        b'{"text": "\xff"}',
        '{"text": "cut',
        "[1, 2]",
        {"content": "x"},
        {"text": None},
        {"text": ["a", "b"]},
        {"text": " \n\t"},
        "[" * 100_000,
        '{"text": "x", "n": ' + "9" * 5000 + "}",
        {"text": "half \ud83d of a pair"},
        '{"text": "last"}',
    )
    documents, quarantined = read(path)
    assert texts_of(documents) == ["first", "half \ufffd of a pair", "last"]
    assert documents[-1].id == "t.jsonl/11"
    assert reasons_of(quarantined) == [
        ("line 2", "not_utf8"),
        ("line 3", "not_json"),
        ("line 4", "not_an_object"),
        ("line 5", "no_text"),
        ("line 6", "no_text"),
        ("line 7", "text_not_a_string"),
        ("line 8", "empty_text"),
        ("line 9", "not_an_object"),
        ("line 10", "not_json"),
    ]
    assert [row.offset for row in quarantined] == list(range(1, 10))
    assert quarantined[3] == Damage(4, "no_text", "'text' is not among 'content'", "t.jsonl", "line 5")


@pytest.mark.parametrize("rows", [[{"body": "a"}] * 3, [{"text": 7}, {"text": 8}], [{"text": ["a"]}, {"body": "b"}]])
def test_a_table_without_the_text_in_any_row_is_rejected(tmp_path, rows):
    with pytest.raises(
        InputError, match=rf"t\.jsonl has no text in any of its {len(rows)} rows: .*Set pages\.text_field"
    ):
        read(lines(tmp_path, *rows))
    assert len(read(lines(tmp_path, *rows, {"text": "one"}))[0]) == 1
    assert len(read(lines(tmp_path, {"text": None}))[1]) == 1  # the column exists


@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl", "a.jsonl.gz"])
def test_an_empty_file_is_rejected(tmp_path, name):
    (tmp_path / name).touch()
    with pytest.raises(InputError, match=rf"{name} is empty, 0 bytes"):
        own_files((), (str(tmp_path / name),), "text")


def test_an_endless_line_is_not_collected_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(json_rows, "MAX_LINE_BYTES", 1000)
    monkeypatch.setattr(json_rows, "PIECE", 1 << 12)
    long = b'{"text": "' + b"x" * 10_000_000 + b'"}'
    path = lines(tmp_path, {"text": "first"}, long, {"text": "last"}, {"text": "y" * 2000})
    tracemalloc.start()
    documents, quarantined = read(path)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert texts_of(documents) == ["first", "last"] and most < 2_000_000
    assert reasons_of(quarantined) == [("line 2", "too_long"), ("line 4", "too_long")]


def test_a_text_above_the_limit_is_skipped(tmp_path, monkeypatch):
    monkeypatch.setattr(columns_module, "MAX_TEXT_BYTES", 1000)
    documents, quarantined = read(
        parquet(tmp_path / "l.parquet", {"text": ["x" * 1001, "é" * 500, "é" * 501, "short"]})
    )
    assert texts_of(documents) == ["é" * 500, "short"]
    assert reasons_of(quarantined) == [("row 0", "too_long"), ("row 2", "too_long")]


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress], ids=["gzip", "zstd"])
def test_a_truncated_file_gives_the_rows_before(tmp_path, pack, monkeypatch):
    monkeypatch.setattr(json_rows, "PIECE", 1 << 12)
    rows = [{"text": f"Text {n} {n * 7919 % 1009}."} for n in range(20_000)]
    packed = pack("\n".join(map(json.dumps, rows)).encode())
    (tmp_path / "b.jsonl").write_bytes(packed[: len(packed) // 2])
    documents, (row,) = read(tmp_path / "b.jsonl")
    assert 2000 < len(documents) < 18_000
    assert texts_of(documents) == [row["text"] for row in rows[: len(documents)]]
    assert (row.place, row.reason) == (f"after line {len(documents)}", "damaged")
    (tmp_path / "b.jsonl").write_bytes(packed[:20])
    with pytest.raises(InputError, match=r"b\.jsonl cannot be read"):
        read(tmp_path / "b.jsonl")


def test_a_damaged_row_group_is_skipped_and_unused_columns_are_not_read(tmp_path):
    rows = [row | {"unused": n} for n, row in enumerate(many(900))]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "d.parquet", row_group_size=300, compression="zstd")
    data = bytearray((tmp_path / "d.parquet").read_bytes())
    footer = pq.read_metadata(tmp_path / "d.parquet")
    for group, name in ((1, "text"), (2, "unused")):
        column = footer.row_group(group).column(footer.schema.names.index(name))
        begin = column.dictionary_page_offset or column.data_page_offset
        data[begin : begin + column.total_compressed_size] = bytes(column.total_compressed_size)
    (tmp_path / "d.parquet").write_bytes(data)
    documents, (row,) = read(tmp_path / "d.parquet")
    assert [document.id for document in documents] == [str(n) for n in (*range(300), *range(600, 900))]
    assert (row.place, row.reason) == ("row group 1, from row 300 on", "damaged")


@pytest.mark.parametrize(
    "text", ["To be,\n\n  or not\tto be.\n", '{"text": "no table"}\n{"text": "by its name"}', "PAR1"]
)
def test_a_txt_file_is_one_document_byte_for_byte(tmp_path, text):
    path = tmp_path / "play.txt"
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    (document,) = read_table(path, text_field="content")
    assert (document.text, document.id, document.dump, document.file_path) == (text, "play.txt/0", "", "play.txt")
    (listed,) = own_files((), (str(path),), "text")
    assert (listed.kind, listed.pages) == ("table", 1)


def test_a_text_that_is_not_utf_8_is_rejected_with_the_fix_and_a_blank_one_is_no_document(tmp_path):
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    with pytest.raises(InputError, match=r"latin\.txt is not UTF-8: .* iconv"):
        list(read_table(tmp_path / "latin.txt"))
    (tmp_path / "windows.txt").write_bytes("é\r\n🌾".encode("utf-16"))
    assert texts_of(read_table(tmp_path / "windows.txt")) == ["é\r\n🌾"]
    quarantined = []
    (tmp_path / "blank.txt").write_bytes(b" \n")
    assert not list(read_table(tmp_path / "blank.txt", on_quarantine=quarantined.append))
    assert [row.reason for row in quarantined] == ["empty_text"]


@pytest.mark.parametrize(
    "text",
    ["One.\n\nTwo and three.\n\nFour.\n" * 9, "word " * 90, "é" * 100, "x" * 61 + "\n" + "y" * 200, "a\nb" * 99],
    ids=["paragraphs", "words", "letters", "long lines", "short lines"],
)  # fmt: skip
def test_a_text_too_long_for_one_document_becomes_several_without_loss(tmp_path, monkeypatch, text):
    monkeypatch.setattr(text_rows, "MAX_TEXT_BYTES", 80)
    monkeypatch.setattr(text_rows, "PART_BYTES", 40)
    (tmp_path / "long.md").write_text(text)
    parts = texts_of(read_table(tmp_path / "long.md"))
    assert "".join(parts) == text and len(parts) > 1
    assert max(len(part.encode()) for part in parts) <= 40
    if "\n\n" in text:
        assert all(part.endswith("\n\n") for part in parts[:-1])
    (tmp_path / "short.md").write_text(text[:40])
    assert texts_of(read_table(tmp_path / "short.md")) == [text[:40]]


def test_a_table_without_the_text_is_rejected_with_its_columns(tmp_path):
    path = parquet(tmp_path / "c.parquet", {"content": ["x"], "url": ["u"]})
    with pytest.raises(InputError, match=r"no column 'text', but: content, url\. .*pages\.text_field"):
        read(path)
    assert read(path, text_field="content")[0][0].text == "x"


def config(*patterns: str, **changes) -> PagesConfig:
    return PagesConfig(tables=patterns, **changes)


def test_the_manifest_lists_tables_and_their_rows(tmp_path):
    own, run = tmp_path / "own", tmp_path / "run"
    own.mkdir()
    parquet(own / "b.parquet", {"body": ["x", "y"]})
    lines(own, {"body": "z"})
    manifest = fetch_pages(config(f"{own}/*", text_field="body"), run)
    assert manifest["files"] == [
        {
            "path": str(own / name), "name": name, "kind": "table", "bytes": (own / name).stat().st_size,
            "pages": pages, "text_field": "body",
        }
        for name, pages in (("b.parquet", 2), ("t.jsonl", None))
    ]  # fmt: skip
    texts = [document.text for document in documents_in(input_files(run))]
    assert texts == ["x", "y", "z"]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"%PDF-1.4", r"is not a table of texts: it begins with b'%PDF-'"),
        (b"[1, 2]", "is not a table of texts"),
        (b"WARC/1.0\r\n", r"Give it by pages\.warc"),
        pytest.param(gzip.compress(b"WARC/1.0\r\n"), r"Give it by pages\.warc", id="compressed WARC"),
        (b"PAR1 and then it breaks off", "is not a complete Parquet file"),
    ],
)
def test_files_that_are_not_tables_are_rejected_before_any_work(tmp_path, content, told):
    (tmp_path / "x.jsonl").write_bytes(content)
    with pytest.raises(InputError, match=told):
        fetch_pages(config(str(tmp_path / "x.*")), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["", ".", "a.", ".a", "a..b"])
def test_an_invalid_field_is_rejected(name):
    with pytest.raises(UsageError, match=r"pages\.text_field is "):
        config("x", text_field=name)


def test_a_crawled_text_above_the_limit_is_dropped_by_name(monkeypatch):
    monkeypatch.setattr(row_module, "MAX_TEXT_BYTES", 100)
    texts = [page(b"x" * size, content_type="text/plain") for size in (100, 101)]
    assert [row_module.text_of(one, demo_config())[1] for one in texts] == [None, "text_too_large"]
