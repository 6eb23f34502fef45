"""Dates of tables are read in the forms that tables have, and those that cannot be read are counted."""

import json
from datetime import UTC, date, datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from configs.own_text import get_config
from data_prep.dates import read_date
from data_prep.dedup.clusters import make_node
from data_prep.measure.run import extract_texts
from data_prep.sources.local import own_files
from data_prep.sources.tables import read_table

MOMENT = datetime(2021, 1, 31, 13, 53, 20, tzinfo=UTC)
SECONDS = 1_612_101_200
"""The moment as a Unix time. With three zeros, it also reads as ISO 8601 of the year 1612."""
FORMS = [
    SECONDS, float(SECONDS), SECONDS * 1000, SECONDS * 1000.0, SECONDS * 10**6, SECONDS * 10**9, str(SECONDS),
    f"{SECONDS}.0", f"{SECONDS}000", "1.6121012e9", "2021-01-31T13:53:20Z", "2021-01-31T14:53:20+01:00",
    "2021-01-31 13:53:20", "2021-01-31 13:53:20 UTC", "20210131135320", "Sun, 31 Jan 2021 13:53:20 GMT",
]  # fmt: skip


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_all_forms_of_a_moment_give_the_same_order(tmp_path, form):
    pq.write_table(pa.table({"text": ["a"], "id": ["x"], "date": [form]}), tmp_path / "t.parquet")
    (tmp_path / "t.jsonl").write_text(json.dumps({"text": "a", "id": "x", "date": form}))
    for name in ("t.parquet", "t.jsonl"):
        (document,) = read_table(tmp_path / name)
        assert read_date(document.date) == MOMENT
        assert make_node(document.date, "x", 0, 0) == make_node("2021-01-31T13:53:20Z", "x", 0, 0)
        if not isinstance(form, str):
            assert document.date == "2021-01-31T13:53:20Z"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("2020", date(2020, 1, 1)), ("202005", date(2020, 5, 1)), ("2020-05", date(2020, 5, 1)),
        ("20200531", date(2020, 5, 31)), ("202005312359", date(2020, 5, 31)), ("946684799000", date(1999, 12, 31)),
        ("20201399", None), ("0", None), ("-1", None), ("12", None), ("0.5", None),
        ("", None), ("yesterday", None), ("9" * 40, None), ("1e400", None), ("1" * 100_000, None),
        ("1609459200.25", date(2021, 1, 1)), ("Mon, 99 Foo 2020", None),
    ],
    ids=lambda one: str(one)[:20],
)  # fmt: skip
def test_partial_dates_are_read_and_other_numbers_are_no_dates(text, found):
    moment = read_date(text)
    assert (moment and moment.date()) == found


def test_dates_that_cannot_be_read_are_counted_with_an_example(tmp_path):
    rows = [{"text": f"A text, number {n}.", "date": when} for n, when in enumerate([SECONDS, "soon", None, 7, "2020"])]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    files = own_files((), (str(tmp_path / "t.jsonl"),), "text")
    counts = extract_texts(files, get_config().documents, tmp_path / "run")
    assert (counts["rows"], counts["no_dates"], counts["no_date"]) == (5, 2, "'soon'")


@pytest.mark.parametrize(("value", "id"), [(12.0, "12"), (12, "12"), (12.5, "12.5"), ("12.0", "12.0"), (None, "t/0")])
def test_float_ids_are_kept_as_pandas_writes_integers(tmp_path, value, id):
    pq.write_table(pa.table({"text": ["a"], "id": [value]}), tmp_path / "t.parquet")
    assert [one.id for one in read_table(tmp_path / "t.parquet", name="t")] == [id]
    pq.write_table(pa.table({"text": ["a"], "id": [float("nan")]}), tmp_path / "t.parquet")
    assert [one.id for one in read_table(tmp_path / "t.parquet", name="t")] == ["t/0"]
