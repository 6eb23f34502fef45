import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_prep.parquet import CHARACTERS_PER_GROUP, ROWS_PER_GROUP, read_batches, read_rows, rows_in, write_rows
from lm.errors import InputError

SCHEMA = pa.schema([("n", pa.int64()), ("text", pa.string())])


def rows(number: int) -> list[dict]:
    return [{"n": i, "text": f"text {i} é"} for i in range(number)]


@pytest.mark.parametrize("number", [0, 1, ROWS_PER_GROUP, 2 * ROWS_PER_GROUP + 1])
def test_round_trip_through_plain_pyarrow(tmp_path, number):
    path = tmp_path / "a.parquet"
    write_rows(((path, row) for row in rows(number)), {path: SCHEMA}, tmp_path)
    assert pq.read_table(path).to_pylist() == rows(number)
    assert pq.read_schema(path) == SCHEMA
    assert list(read_rows(path)) == rows(number)
    assert rows_in(path) == number
    assert list(tmp_path.iterdir()) == [path]


def test_same_rows_same_bytes(tmp_path):
    paths = [tmp_path / "a.parquet", tmp_path / "b.parquet"]
    for path in paths:
        write_rows(((path, row) for row in rows(1500)), {path: SCHEMA}, tmp_path)
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_long_texts_make_smaller_groups_and_no_batch_spans_two(tmp_path):
    """The memory is bounded by the text, not by the number of rows."""
    path, others = tmp_path / "a.parquet", tmp_path / "b.parquet"
    lengths = [CHARACTERS_PER_GROUP // 2] * 3 + [10] * 5 + [2 * CHARACTERS_PER_GROUP] + [10] * 4
    given = [{"n": i, "text": "x" * length} for i, length in enumerate(lengths)]
    mixed = ((target, row) for i, row in enumerate(given) for target in ((path, others) if i < 2 else (path,)))
    write_rows(mixed, {path: SCHEMA, others: SCHEMA}, tmp_path)
    with pq.ParquetFile(path) as file:
        groups = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    assert groups == [2, 7, 4]
    assert pq.read_metadata(others).num_row_groups == 1  # each file counts for itself
    assert [batch.num_rows for batch in read_batches(path, ["n"])] == groups
    assert [batch.num_rows for batch in read_batches(path, ["n"], 3)] == [2, 3, 3, 1, 3, 1]
    assert [len(row["text"]) for row in read_rows(path)] == lengths


def test_failure_leaves_what_was_there(tmp_path):
    path = tmp_path / "a.parquet"
    path.write_text("before")

    def failing():
        yield from ((path, row) for row in rows(1500))
        raise ValueError("midway")

    with pytest.raises(ValueError, match="midway"):
        write_rows(failing(), {path: SCHEMA}, tmp_path)
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_cut_file_is_not_whole(tmp_path):
    path = tmp_path / "a.parquet"
    assert rows_in(path) is None
    write_rows(((path, row) for row in rows(100)), {path: SCHEMA}, tmp_path)
    whole = path.read_bytes()
    for size in (0, 3, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        assert rows_in(path) is None


def test_damage_and_missing_columns_are_named_with_the_remedy(tmp_path):
    path = tmp_path / "a.parquet"
    write_rows(((path, row) for row in rows(5000)), {path: SCHEMA}, tmp_path)
    with pytest.raises(InputError, match=r"a\.parquet has no column url, id\. .*launch\.prepare_documents"):
        list(read_rows(path, ["url", "text", "id"]))
    whole = path.read_bytes()
    path.write_bytes(whole[:10] + bytes(300) + whole[310:])
    with pytest.raises(InputError, match=r"a\.parquet is damaged: .*launch\.prepare_documents"):
        list(read_rows(path))


def test_a_folder_that_is_not_there(tmp_path):
    path = tmp_path / "a.parquet"
    with pytest.raises(InputError, match=r"a\.parquet cannot be written: .*Make room"):
        write_rows([], {path: SCHEMA}, tmp_path / "missing")
