import itertools
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_prep import parquet
from data_prep.parquet import (
    ROWS_PER_GROUP,
    column_of,
    floats_of,
    nulls_of,
    opened,
    read_batches,
    read_rows,
    rows_in,
    write_rows,
)
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


VALUES = {
    pa.string(): ("", "a", "é\U0001f600", " x" * 9),
    pa.float64(): (0.0, -1.5, float("inf"), 1e-300),
    pa.int64(): (0, -(2**63), 2**63 - 1, 7),
    pa.list_(pa.int64()): ([], [1, 2]),
}


@pytest.mark.parametrize("kind", VALUES, ids=str)
def test_columns_equal_those_of_pyarrow(kind):
    for number in (0, 1, 7, 8, 9, 33):
        for several in ((None,), VALUES[kind], (*VALUES[kind], None)):
            values = list(itertools.islice(itertools.cycle(several), number))
            column, wanted = column_of(values, kind), pa.array(values, kind)
            column.validate(full=True)
            assert column.equals(wanted)
            for start, length in ((0, number), (number // 2, number), (min(number, 9), 3)):
                part = column.slice(start, length)
                nulls = wanted.slice(start, length).is_null().to_pylist()
                assert nulls_of(part).tolist() == nulls == nulls_of(pa.chunked_array([part], kind)).tolist()
                if kind in (pa.float64(), pa.int64()):
                    floats = np.array([np.nan if one is None else one for one in part.to_pylist()], np.float64)
                    assert floats_of(part).tobytes() == floats.tobytes()
                    assert floats_of(pa.chunked_array([part, part])).tobytes() == 2 * floats.tobytes()


@pytest.mark.parametrize(
    ("value", "kind"), [(3, pa.string()), ("3", pa.float64()), ("3", pa.int64()), (2**63, pa.int64())], ids=str
)
def test_a_value_of_another_type_is_rejected_as_by_pyarrow(value, kind):
    refusals = []
    for build in (column_of, pa.array):
        with pytest.raises((pa.ArrowException, OverflowError)) as refusal:
            build([None, value], kind)
        refusals.append(refusal.type)
    assert refusals[0] is refusals[1]


def test_rows_are_written_and_read_without_pandas(tmp_path):
    """Importing pandas would add a quarter of a second to the start of each worker."""
    program = f"""
import sys
from pathlib import Path
import pyarrow as pa
from data_prep.parquet import floats_of, nulls_of, read_batches, write_rows
path = Path({str(tmp_path / "a.parquet")!r})
schema = pa.schema([("t", pa.string()), ("x", pa.float64()), ("n", pa.int64())])
rows = {{"t": None, "x": 1.0, "n": 2}}, {{"t": "a", "x": None, "n": None}}
write_rows([(path, row) for row in rows], {{path: schema}}, path.parent)
for batch in read_batches(path):
    print(batch.to_pylist(), floats_of(batch["x"]), nulls_of(batch["t"]))
print("pandas" in sys.modules)
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.split()[-1] == "False", ran.stdout


def test_long_texts_make_smaller_groups_and_no_batch_spans_two_groups(tmp_path, monkeypatch):
    """Memory is bounded by the size of the text, not by the number of rows."""
    monkeypatch.setattr(parquet, "CHARACTERS_PER_GROUP", 10_000)
    path, others = tmp_path / "a.parquet", tmp_path / "b.parquet"
    lengths = [5_000] * 3 + [10] * 5 + [20_000] + [10] * 4
    given = [{"n": i, "text": "x" * length} for i, length in enumerate(lengths)]
    mixed = ((target, row) for i, row in enumerate(given) for target in ((path, others) if i < 2 else (path,)))
    write_rows(mixed, {path: SCHEMA, others: SCHEMA}, tmp_path)
    with pq.ParquetFile(path) as file:
        groups = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    assert groups == [2, 7, 4]
    assert pq.read_metadata(others).num_row_groups == 1  # per file
    assert [batch.num_rows for batch in read_batches(path, ["n"])] == groups
    assert [batch.num_rows for batch in read_batches(path, ["n"], 3)] == [2, 3, 3, 1, 3, 1]
    assert [len(row["text"]) for row in read_rows(path)] == lengths


@pytest.mark.parametrize("columns", [None, [], ["n"], ["text", "n"]], ids=str)
@pytest.mark.parametrize("sizes", [(3,), (0,), (2, 0, 5)], ids=str)
def test_the_bounded_reader_returns_the_row_groups_of_pyarrow(tmp_path, sizes, columns):
    path = tmp_path / "a.parquet"
    with pq.ParquetWriter(path, SCHEMA) as writer:
        for size in sizes:
            writer.write_table(pa.Table.from_pylist(rows(size), SCHEMA))
    with pq.ParquetFile(path) as plain, opened(path) as bounded:
        for group in range(plain.num_row_groups):
            wanted, found = plain.read_row_group(group, columns), bounded.read_row_group(group, columns)
            assert len(found) == len(wanted)
            assert found.select(sorted(found.column_names)).equals(wanted.select(sorted(wanted.column_names)))
            batches = bounded.iter_batches(2, row_groups=[group], columns=columns)
            assert sum(batch.num_rows for batch in batches) == len(wanted)


def test_a_truncated_file_is_incomplete(tmp_path):
    path = tmp_path / "a.parquet"
    assert rows_in(path) is None
    write_rows(((path, row) for row in rows(100)), {path: SCHEMA}, tmp_path)
    whole = path.read_bytes()
    for size in (0, 3, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        assert rows_in(path) is None


def test_damage_and_missing_columns_are_named_with_the_fix(tmp_path):
    path = tmp_path / "a.parquet"
    write_rows(((path, row) for row in rows(5000)), {path: SCHEMA}, tmp_path)
    with pytest.raises(InputError, match=r"a\.parquet has no column url, id\. .*launch\.prepare_documents"):
        list(read_rows(path, ["url", "text", "id"]))
    whole = path.read_bytes()
    path.write_bytes(whole[:10] + bytes(300) + whole[310:])
    with pytest.raises(InputError, match=r"a\.parquet is damaged: .*launch\.prepare_documents"):
        list(read_rows(path))


def test_a_missing_folder_is_reported(tmp_path):
    path = tmp_path / "a.parquet"
    with pytest.raises(InputError, match=r"a\.parquet cannot be written: .*Free space"):
        write_rows([], {path: SCHEMA}, tmp_path / "missing")
