"""Kept columns of input tables (pages.keep_columns) stay with their documents bit for bit through every stage; columns
that cannot be kept are rejected by name."""

import dataclasses
import json
import math
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from configs.demo import get_config
from data_prep.kept_columns import common_type, kept_type
from data_prep.measure.run import extract_texts, units_of
from data_prep.prepare import prepare_documents
from data_prep.sources import columns as column_limits
from data_prep.sources import fetch_pages, input_files, parquet_rows
from data_prep.sources.formats import FORMATS
from data_prep.sources.local import own_files
from data_prep.sources.manifest import InputFile
from data_prep.sources.tables import read_table
from lm.errors import InputError, UsageError
from lm.storage import parquet_pages
from tests.data_prep.measured import prose
from tests.data_prep.pages import GERMAN, demo_config

CONFIG = demo_config(steps=("gopher_quality", "exact_dedup"))
PAGES = get_config().pages
FILES, ROWS = 3, 16
DAY = 19_000
type Columns = dict[str, Callable[[int], Any]]
"""{column: its value in row n}."""
PLAIN: Columns = {
    "whole": lambda n: None if n % 5 == 4 else (-1) ** n * (2**63 - 1 - n),
    "share": lambda n: [0.1 * n, -0.0, 5e-324, math.inf, None][n % 5],
    "flag": lambda n: [True, False, None][n % 3],
    "author": lambda n: [f"Zoë {n}", "", None, "\x00\u2028\U0001f600"][n % 4],
    "nothing": lambda n: None,
    "tags": lambda n: [["a", "b c"], [], None, ["", None, "é" * n]][n % 4],
    "about.editor": lambda n: f"editor {n}" if n % 3 else None,
}
"""Columns in every format."""
TYPED: dict[str, tuple[pa.DataType, Callable[[int], Any]]] = {
    "small": (pa.int8(), lambda n: n - 8),
    "unsigned": (pa.uint64(), lambda n: 2**64 - 1 - n),
    "short": (pa.float32(), lambda n: math.nan if n == 3 else n / 3),
    "day": (pa.date32(), lambda n: DAY + n if n % 2 else None),
    "at": (pa.timestamp("us", "Europe/Berlin"), lambda n: 10**15 * n + 1),
    "instant": (pa.timestamp("ns"), lambda n: None if n == 2 else 10**18 + n),
    "never": (pa.timestamp("ms"), lambda n: 2**62 - n),  # in a year beyond Python's dates
    "timestamp": (pa.timestamp("ms", "UTC"), lambda n: 10**12 + n),  # also the date of the document
}
"""{column: (type, its value in row n)}, only in Parquet."""


def text(number: int) -> str:
    """Of eight documents, one is in another language, one a copy of the first, and one too short."""
    return {5: GERMAN, 6: prose(0), 7: "Too short."}.get(number % 8, prose(number))


def rows(file: int, columns: Columns) -> list[dict]:
    made = []
    for n in range(file * ROWS, (file + 1) * ROWS):
        values = {name: value(n) for name, value in columns.items()}
        editor = {"about": {"editor": values.pop("about.editor")}} if "about.editor" in values else {}
        made.append({"text": text(n), "id": str(n)} | values | editor)
    return made


def write_parquet(path: Path, file: int) -> Columns:
    typed = {name: value for name, (_, value) in TYPED.items()}
    kinds = {name: kind for name, (kind, _) in TYPED.items()}
    kinds |= {"author": pa.large_string(), "tags": pa.large_list(pa.string())}
    made = rows(file, PLAIN | typed)
    table = pa.table({name: pa.array([row[name] for row in made], kinds.get(name)) for name in made[0]})
    place = table.schema.get_field_index("author")
    table = table.set_column(place, "author", table["author"].dictionary_encode()) if file else table
    pq.write_table(table, path, row_group_size=5)
    return PLAIN | typed


def write_lines(path: Path, file: int) -> Columns:
    path.write_bytes("\n".join(map(json.dumps, rows(file, PLAIN))).encode())
    return PLAIN


WRITERS: dict[str, tuple[str, Callable[[Path, int], Columns]]] = {
    "Parquet": ("parquet", write_parquet),
    "JSON lines or a JSON array": ("jsonl", write_lines),
}
"""{name of a format: (ending, function that writes such a file and returns its columns)}."""


def with_stages(folder: Path, files: list[InputFile]) -> Path:
    extract_texts(files, CONFIG, folder)
    prepare_documents(folder / "texts", CONFIG, folder)
    return folder


def read(path: Path, *keep: str) -> tuple[list[dict[str, Any]], list[str]]:
    """Return (kept values of each document, reasons of quarantined rows)."""
    reasons: list[str] = []
    note = lambda row: reasons.append(row.reason)
    found = [
        {name: value for name, _, value in one.kept} for one in read_table(path, keep_columns=keep, on_quarantine=note)
    ]
    return found, reasons


def listed(folder: Path, keep: tuple[str, ...]) -> list[InputFile]:
    return own_files((), (str(folder),), "text", keep)


def bits(array: pa.Array | pa.ChunkedArray) -> list:
    """The values as stored: NaN equals NaN, and -0.0 does not equal 0.0."""
    if pa.types.is_temporal(array.type):
        array = array.cast(pa.int64() if pa.types.is_timestamp(array.type) else pa.int32())
    return [repr(value) for value in array.to_pylist()]


@pytest.mark.fast_rows
@pytest.mark.parametrize("format", WRITERS)
def test_values_stay_with_kept_and_dropped_documents_bit_for_bit(tmp_path, format):
    assert WRITERS.keys() == {one.title for one in FORMATS} - {"plain text"}
    ending, write = WRITERS[format]
    (tmp_path / "in").mkdir()
    _, _, columns = (write(tmp_path / f"in/{file}.{ending}", file) for file in range(FILES))
    run = with_stages(tmp_path, listed(tmp_path / "in", tuple(columns)))
    seen: set[str] = set()
    for folder in ("documents", "dropped"):
        for file in range(FILES):
            table = pq.read_table(run / folder / f"{file}.parquet")
            numbers = [int(one) for one in table["id"].to_pylist()]
            assert [name for name in table.column_names if name in columns] == list(columns)
            for name, value in columns.items():
                kind = TYPED[name][0] if name in TYPED else table[name].type
                expected = pa.array([value(n) for n in numbers], kind)
                assert table[name].type == kind and bits(table[name]) == bits(expected), name
            seen |= {*table["id"].to_pylist()}
            reasons = table["reason"].to_pylist() if folder == "dropped" else []
            assert folder == "documents" or {"exact_duplicate"} <= {*reasons} or not file
    assert len(seen) == FILES * ROWS
    kinds = {field.name: field.type for field in pq.read_schema(run / "documents/0.parquet")}
    assert [kinds[name] for name in PLAIN] == [
        pa.int64(), pa.float64(), pa.bool_(), pa.string(), pa.null(), pa.list_(pa.string()), pa.string()
    ]  # fmt: skip
    without = with_stages(tmp_path / "without", listed(tmp_path / "in", ()))
    for folder in ("documents", "dropped"):
        for file in range(FILES):
            mine, other = (pq.read_table(one / folder / f"{file}.parquet") for one in (run, without))
            assert mine.drop_columns(list(columns)).equals(other)


def test_a_kept_timestamp_is_also_the_date_of_the_document(tmp_path):
    write_parquet(tmp_path / "0.parquet", 0)
    dates = [one.date for one in read_table(tmp_path / "0.parquet", keep_columns=("timestamp",))]
    assert dates[:2] == ["2001-09-09T01:46:40Z", "2001-09-09T01:46:40.001000Z"]


def test_a_date_beyond_pythons_range_counts_as_missing(tmp_path):
    kinds = {"date": pa.timestamp("us"), "created": pa.timestamp("ms", "No/Where")}
    for name, kind in kinds.items():
        pq.write_table(pa.table({"text": ["a", "b"], name: pa.array([0, 2**62], kind)}), tmp_path / "t.parquet")
        assert [one.date for one in read_table(tmp_path / "t.parquet")][1] == ""


UNKEPT: dict[str, tuple[Any, str]] = {
    "object": ({"x": 1}, "an object"),
    "list": ([1], "a list of values"),
    "nested": ([["a"]], "a list of values"),
    "large": (2**63, "an integer of more than 64 bits"),
}


@pytest.mark.parametrize("name", UNKEPT)
def test_a_json_value_that_cannot_be_kept_is_rejected_by_file_line_and_column(tmp_path, name):
    value, words = UNKEPT[name]
    lines = [{"text": prose(0), "author": "x"}, {"text": prose(1), "author": value}]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(InputError, match=rf"t\.jsonl, line 2: the column 'author' has {words}.*lists of strings"):
        extract_texts(listed(tmp_path, ("author",)), CONFIG, tmp_path / "run")
    assert not list((tmp_path / "run/scratch").rglob("*.columns"))


UNKEPT_TYPES = {
    "binary": pa.array([b"x"]),
    "decimal": pa.array([Decimal("1.5")]),
    "struct": pa.array([{"x": 1}]),
    "map": pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64())),
    "ints": pa.array([[1]]),
    "time": pa.array([1], pa.time64("us")),
    "span": pa.array([1], pa.duration("s")),
    "half": pa.array([1.0], pa.float16()),
    "fixed": pa.array([b"ab"], pa.binary(2)),
}


@pytest.mark.parametrize("name", UNKEPT_TYPES)
def test_a_parquet_column_that_cannot_be_kept_is_rejected_before_reading(tmp_path, name):
    pq.write_table(pa.table({"text": ["a"], "author": UNKEPT_TYPES[name]}), tmp_path / "t.parquet")
    told = r"t\.parquet: the column 'author' is .*cannot be kept"
    with pytest.raises(InputError, match=told):
        listed(tmp_path, ("author",))
    with pytest.raises(InputError, match=told):
        next(read_table(tmp_path / "t.parquet", keep_columns=("author",)))
    if name == "struct":
        with pytest.raises(InputError, match=r"Give a part of it, such as 'author\.x'"):
            listed(tmp_path, ("author",))
        assert [one.kept for one in read_table(tmp_path / "t.parquet", keep_columns=("author.x",))] == [
            (("author.x", pa.int64(), 1),)
        ]


def test_a_column_missing_from_one_input_is_rejected_with_both_names(tmp_path):
    pq.write_table(pa.table({"text": ["a"], "author": ["x"]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"text": ["a"], "writer": ["x"]}), tmp_path / "b.parquet")
    with pytest.raises(InputError, match=r"b\.parquet has no column 'author' .*it has 'text', 'writer'"):
        listed(tmp_path, ("author",))
    (tmp_path / "b.parquet").unlink()
    (tmp_path / "note.txt").write_text("A text.")
    with pytest.raises(InputError, match=r"note\.txt is plain text without a column 'author'"):
        listed(tmp_path, ("author",))
    (tmp_path / "note.txt").unlink()
    (tmp_path / "a.parquet").unlink()
    lines = [{"text": prose(0)}, {"text": prose(1), "author": None}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, lines)))  # absent in the first row: null
    (tmp_path / "b.jsonl").write_text(json.dumps(lines[0]))
    files = listed(tmp_path, ("author",))
    extract_texts(files[:1], CONFIG, tmp_path / "run")
    assert pq.read_table(tmp_path / "run/texts/a.parquet")["author"].to_pylist() == [None, None]
    with pytest.raises(InputError, match=r"b\.jsonl has no column 'author' in any of its documents"):
        extract_texts(files[1:], CONFIG, tmp_path / "other")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, 2.5, None], pa.float64()),
        ([1, None], pa.int64()),
        ([2**53 + 1, 0.5], r"t\.jsonl: the column 'score' has the integer 9007199254740993 in 't\.jsonl/0'"),
        ([1, "a"], r"t\.jsonl: the column 'score' is string in 't\.jsonl/1' and int64 in earlier documents"),
        ([True, 1], r"is int64 in 't\.jsonl/1' and bool in earlier documents"),
        ([["a"], "a"], r"is string in 't\.jsonl/1' and list<item: string> in earlier documents"),
    ],
)
def test_a_json_column_has_one_type_for_all_its_values_or_is_rejected(tmp_path, values, expected):
    lines = [{"text": prose(n), "score": value} for n, value in enumerate(values)]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, lines)))
    if isinstance(expected, str):
        with pytest.raises(InputError, match=expected):
            extract_texts(listed(tmp_path, ("score",)), CONFIG, tmp_path / "run")
        return
    extract_texts(listed(tmp_path, ("score",)), CONFIG, tmp_path / "run")
    column = pq.read_table(tmp_path / "run/texts/t.parquet")["score"]
    assert column.type == expected and column.to_pylist() == values


def test_the_common_type_holds_both_types_and_does_not_depend_on_their_order():
    kinds = [kind for kind, _ in TYPED.values()] + [pa.null(), pa.bool_(), pa.string(), pa.list_(pa.string())]
    kinds += [pa.int64(), pa.int32(), pa.float64(), pa.timestamp("s", "UTC")]
    for one in kinds:
        assert kept_type(one) == one == common_type(one, one)
        for other in kinds:
            found = common_type(one, other)
            assert found == common_type(other, one)
            assert found is None or kept_type(found) == found == common_type(found, other)


OF_EVERY_DOCUMENT = r"keep_columns has '{}', which every document has.*Remove it"
COMPUTED = r"has '{}', but .*computed column. Rename the column"
REFUSED: list[tuple[dict, str]] = [
    *(({"keep_columns": (name,), "text_field": "content"}, OF_EVERY_DOCUMENT.format(name))
      for name in ("date", "text", "url", "language_script")),
    *(({"keep_columns": (name,)}, COMPUTED.format(name))
      for name in ("reason", "text_bytes", "stop_words", "cluster_size", "repeat", "duplicate_of", "text.x")),
    ({"tables": (), "warc": ("a.warc.gz",)}, r"keep_columns has 'author', but the pages come from warc; only tables"),
    ({"tables": ()}, r"keep_columns has 'author', but the pages come from packages; only tables"),
    ({"keep_columns": ("a", "a.b")}, r"has 'a' and 'a\.b', which overlap"),
    ({"keep_columns": ("a", "a")}, r"has 'a' and 'a', which overlap"),
    ({"keep_columns": ("a..b",)}, r"has 'a\.\.b', a name with an empty part"),
    ({"keep_columns": ("a\nb",)}, r"a name with an empty part"),
    ({"text_field": "author"}, r"has 'author', which is the text \(pages.text_field\)"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "told"), REFUSED)
def test_lists_with_columns_of_ours_or_invalid_names_are_rejected(changes, told):
    pages = {"tables": ("in/",), "keep_columns": ("author",)} | changes
    with pytest.raises(UsageError, match=told):
        dataclasses.replace(get_config(), pages=dataclasses.replace(PAGES, **pages))


def test_another_list_of_columns_reruns_the_stage_and_the_same_list_does_not(tmp_path):
    (tmp_path / "in").mkdir()
    write_lines(tmp_path / "in/t.jsonl", 0)
    identity = lambda *keep: units_of(listed(tmp_path / "in", keep), CONFIG)[0].identity
    assert identity("author") == identity("author")
    lists = [(), ("author",), ("tags",), ("author", "tags"), ("tags", "author")]
    assert len({identity(*keep) for keep in lists}) == len(lists)
    pages = dataclasses.replace(PAGES, tables=(str(tmp_path / "in"),))
    assert "keep_columns" not in pages.used()
    keeping = dataclasses.replace(pages, keep_columns=("author", "tags"))
    assert keeping.used()["keep_columns"] == ("author", "tags")
    fetch_pages(keeping, tmp_path / "run", print)
    (file,) = input_files(tmp_path / "run")
    assert units_of([file], CONFIG)[0].identity == identity("author", "tags")


def test_a_value_longer_than_the_limit_of_a_text_is_quarantined(tmp_path, monkeypatch):
    for module in (column_limits, parquet_rows):
        monkeypatch.setattr(module, "MAX_TEXT_BYTES", 1000)
    values = [("x" * 1000, ["a"]), ("x" * 1001, ["a"]), ("x", ["x" * 400] * 2), ("x", ["x" * 501] * 2)]
    made = [{"text": "A text.", "a": value, "tags": tags} for value, tags in values]
    pq.write_table(pa.Table.from_pylist(made), tmp_path / "t.parquet")
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, made)))
    for name in ("t.parquet", "t.jsonl"):
        kept = [{"a": value, "tags": tags} for value, tags in values[::2]]
        assert read(tmp_path / name, "a", "tags") == (kept, ["too_long"] * 2)


def test_lists_that_unpack_to_far_more_than_their_file_are_quarantined(tmp_path, monkeypatch):
    """A dictionary word that a list repeats many times, and a page of as many empty strings."""
    words = pa.DictionaryArray.from_arrays(pa.array([0] * 10_000, pa.int32()), pa.array(["x" * 100_000]))
    tags = pa.ListArray.from_arrays(pa.array([0, 1, 10_000], pa.int32()), words)
    pq.write_table(pa.table({"text": ["a", "b"], "tags": tags}), tmp_path / "t.parquet", store_schema=False)
    assert read(tmp_path / "t.parquet", "tags") == ([{"tags": ["x" * 100_000]}], ["too_long"])
    monkeypatch.setattr(parquet_pages, "MAX_PAGE_BYTES", 1_000_000)
    made = pa.table({"text": ["a", "b"], "tags": [["a"], [""] * 200_000]})
    pq.write_table(made, tmp_path / "t.parquet", row_group_size=1)
    assert (tmp_path / "t.parquet").stat().st_size < 5_000
    assert read(tmp_path / "t.parquet", "tags") == ([{"tags": ["a"]}], ["too_long"])


def test_a_row_group_of_lists_larger_than_the_limit_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet_pages, "MAX_PAGE_BYTES", 400_000)
    monkeypatch.setattr(parquet_rows, "BUFFER", 1 << 12)
    tags = [[f"{n} {k}" * 10 for k in range(5)] for n in range(3000)]
    table = pa.table({"text": [f"Text {n}." for n in range(3000)], "tags": tags})
    pq.write_table(table, tmp_path / "t.parquet", data_page_size=2000, use_dictionary=False, compression="none")
    found, reasons = read(tmp_path / "t.parquet", "tags")
    assert found == [{"tags": one} for one in tags] and not reasons
    assert (tmp_path / "t.parquet").stat().st_size > 2 * parquet_pages.MAX_PAGE_BYTES
