"""The token stream has every token once, in order, with its document; samples are drawn by id."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.documents import DOCUMENT_SCHEMA
from data_prep.shards.sample import sample_texts
from data_prep.shards.tokenize import cut_records, document_files, read_texts, tokenize_file
from lm.config import TokenizerConfig
from lm.data.records import to_bytes
from lm.errors import InputError, UsageError
from lm.tokenizer import train_bpe
from lm.tokenizer.hugging_face.library import LibraryTokenizer
from tests.lm.tokenizer.test_hugging_face_library import lacking_bytes

NO_KEYS = np.empty(0, np.uint64)
TOKENIZER = train_bpe(["the theme of the thesis"], TokenizerConfig(260, "cl100k", 1000))


def write_documents(path: Path, rows: list[tuple[str, str]], **options) -> None:
    """Write a documents file of (id, text) rows."""
    fixed = {"dump": "test", "date": "", "file_path": "", "language": "en", "language_score": 1.0, "token_count": None}
    table = [{"id": id, "text": text, "url": f"http://example.com/{id}", **fixed} for id, text in rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(table, DOCUMENT_SCHEMA), path, **options)


@given(
    lengths=st.lists(st.integers(1, 12), max_size=12),
    length=st.integers(1, 10),
    dtype=st.sampled_from(["uint16", "uint32"]),
)
def test_records_are_slices_of_the_stream(lengths, length, dtype):
    edges = np.cumsum([0, *lengths])
    documents = [(100 + i, np.arange(edges[i], edges[i + 1], dtype=np.uint32)) for i in range(len(lengths))]
    owners = np.repeat(100 + np.arange(len(lengths)), lengths)
    total = int(edges[-1])

    records = list(cut_records(iter(documents), length, dtype))
    assert len(records) == max(0, -(-(total - 1) // length))
    for index, record in enumerate(records):
        first, end = index * length, min(total, (index + 1) * length + 1)
        assert record.tokens.dtype == dtype
        assert (record.length, record.valid) == (length, end - first)
        np.testing.assert_array_equal(record.tokens[: record.valid], np.arange(first, end))
        assert not record.tokens[record.valid :].any()
        numbers = np.repeat(record.document_ids, np.diff([*record.segment_starts, record.valid]))
        np.testing.assert_array_equal(numbers, owners[first:end])
        assert len(set(record.document_ids.tolist())) == len(record.document_ids)
        to_bytes(record)  # the record is valid in the format


def test_a_sample_covers_all_parts_and_does_not_depend_on_the_order_of_files(tmp_path):
    rows = [(f"<urn:uuid:{i}>", f"document {i} " + "word " * 20) for i in range(3000)]
    for name, order in (("a", range(3)), ("b", (2, 0, 1))):
        for file, part in enumerate(order):
            write_documents(tmp_path / name / f"{file}.parquet", rows[part * 1000 : (part + 1) * 1000])
    total = sum(len(text) for _, text in rows)
    drawn = [
        list(sample_texts(document_files(tmp_path / name), total // 10, tmp_path / f"s{name}")) for name in ("a", "b")
    ]
    assert sorted(drawn[0]) == sorted(drawn[1])
    assert set(drawn[0]) < {text for _, text in rows}
    assert 0.8 * total / 10 < sum(map(len, drawn[0])) < 1.2 * total / 10
    assert {int(text.split()[1]) // 1000 for text in drawn[0]} == {0, 1, 2}
    everything = list(sample_texts(document_files(tmp_path / "a"), 2 * total, tmp_path))
    assert everything == [text for _, text in rows]


def test_split_by_ends_holds_out_the_last_characters_of_each_document(tmp_path):
    texts = [("one", "0123456789" * 10), ("two", "a"), ("three", "épée" * 5)]
    write_documents(tmp_path / "a.parquet", texts[:1])
    write_documents(tmp_path / "b.parquet", texts[1:])
    found = [
        document
        for file in document_files(tmp_path)
        for document in tokenize_file(file, TOKENIZER.encode_array, TOKENIZER.bos_id, 0.1, NO_KEYS, "ends")
    ]
    assert [d.number for d in found] == [0, 1, 0, 1, 2, 3]
    assert [d.split for d in found] == ["train", "val"] * 3
    parts = [TOKENIZER.decode(d.tokens[1:].tolist()) for d in found]
    assert ["".join(parts[i : i + 2]) for i in (0, 2, 4)] == [text for _, text in texts]
    assert [len(part) for part in parts] == [90, 10, 0, 1, 18, 2]
    assert [d.text_bytes for d in found] == [len(part.encode()) for part in parts]
    assert all(d.tokens[0] == TOKENIZER.bos_id for d in found)


def test_a_sample_of_few_large_documents_is_not_empty(tmp_path):
    write_documents(tmp_path / "a.parquet", [("one", "a large document " * 1000)])
    assert next(sample_texts(document_files(tmp_path), 10, tmp_path / "sample")).startswith("a large")


def test_an_input_without_documents_is_rejected(tmp_path):
    with pytest.raises(InputError, match=r"no documents in .* \(0 Parquet files\).*launch.prepare_documents"):
        document_files(tmp_path)
    write_documents(tmp_path / "a.parquet", [])
    with pytest.raises(InputError, match=r"\(1 Parquet files\)"):
        document_files(tmp_path)


def test_damaged_files_are_named(tmp_path):
    path = tmp_path / "a.parquet"
    path.write_bytes(b"PAR1 nothing PAR1")
    with pytest.raises(InputError, match=r"a\.parquet is not a readable Parquet file"):
        document_files(tmp_path)

    write_documents(path, [(str(i), "text " * 50 * i) for i in range(90)], compression="zstd")
    files = document_files(tmp_path)
    data = bytearray(path.read_bytes())
    data[40:400] = bytes(360)
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"a\.parquet is damaged"):
        list(read_texts(files))

    pq.write_table(pa.table({"body": ["x"]}), path)
    with pytest.raises(InputError, match=r"a\.parquet has no column text"):
        list(read_texts(document_files(tmp_path)))


def test_a_document_that_the_vocabulary_cannot_encode_is_named(tmp_path):
    tokenizer = LibraryTokenizer.from_json(lacking_bytes(), "<|endoftext|>")
    write_documents(tmp_path / "0.parquet", [("fine", "a mill"), ("broken", "a \x1d mill")])
    (file,) = document_files(tmp_path)
    found = tokenize_file(file, tokenizer.encode_array, tokenizer.bos_id, 0.0, NO_KEYS)
    assert next(found).id == "fine"
    with pytest.raises(UsageError, match=r"0\.parquet, document broken: Character 2 .*U\+001D.* needs the byte 0x1D"):
        next(found)
