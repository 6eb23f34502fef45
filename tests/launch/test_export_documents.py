"""launch.export_documents writes the documents of a run with all columns, equal in every format and for any number of
workers, atomically; other files are never changed or read."""

import importlib.util
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Generator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from configs.experiment.run_folder import RunFolder
from data_prep.documents import DOCUMENT_SCHEMA
from launch import export_documents, extract_texts, fetch_pages, prepare_documents, train_tokenizer
from launch.export_documents import Command
from launch.release import documents
from launch.release.documents import FORMATS, Group, cut
from launch.release.out_folder import RECORD
from launch.stages.stage import Stage, run_stage
from lm.errors import InputError, UsageError
from lm.fields import with_values
from lm.run_paths import RunPaths
from lm.storage import Url, write_atomically
from lm.storage.local_copy import COPIES
from lm.tokenizer import load
from tests.corpus import texts, tiny_experiment
from tests.launch.toy_stages import files_of
from tests.object_store import QUICK, serving, variables

COLUMNS = ("score", "share", "author", "tags", "at", "day", "about.editor")
STAGES = tuple(script.STAGE for script in (fetch_pages, extract_texts, prepare_documents, train_tokenizer))
NAMED = ("id", "tags", "about.editor", "author", "score")
KINDS = {
    "score": pa.int32(), "at": pa.timestamp("us", "UTC"), "day": pa.date32(), "tags": pa.list_(pa.string()),
    "share": pa.float64(), "author": pa.string(), "about.editor": pa.string(),
}  # fmt: skip


def row(n: int) -> dict:
    return {
        "text": texts(n + 1)[n], "id": f"<{n}>", "token_count": 7, "score": None if n % 4 == 3 else n, "share": n / 3,
        "author": None if n < 20 else f"Zoë\u2028 {n}", "tags": ["a", None, f"{n}"][: n % 4],
        "about": {"editor": f"e{n}"},
    }  # fmt: skip


def with_times(rows: list[dict]) -> pa.Table:
    times = {
        "at": pa.array(range(10**15, 10**15 + len(rows)), KINDS["at"]),
        "day": pa.array(range(len(rows)), pa.date32()),
    }
    table = pa.Table.from_pylist(rows)
    table = table.set_column(table.schema.get_field_index("score"), "score", table["score"].cast(pa.int32()))
    for name, values in times.items():
        table = table.append_column(name, values)
    return table


def write_tables(folder: Path) -> None:
    """Two Parquet tables, and one of JSON lines in which numbers have other types and times are null."""
    folder.mkdir(parents=True)
    made = [row(n) for n in range(60)]
    made[21]["text"] = made[2]["text"]  # dropped as a copy
    for number in range(2):
        pq.write_table(with_times(made[20 * number : 20 * number + 20]), folder / f"{number}.parquet")
    lines = [one | {"at": None, "day": None} for one in made[40:]]
    (folder / "2.jsonl").write_text("\n".join(map(json.dumps, lines)))


def make_run(workdir: Path, tables: Path, columns: tuple[str, ...], stages: Sequence[Stage] = STAGES) -> RunFolder:
    values = {"pages.tables": (str(tables),), "pages.keep_columns": columns, "documents.steps": ("exact_dedup",)}
    for stage in stages:
        run_stage(stage, with_values(tiny_experiment(), values), workdir)
    return RunFolder(workdir)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("run")
    write_tables(place / "tables")
    return make_run(place / "run", place / "tables", COLUMNS).root


@pytest.fixture
def copied(made, tmp_path) -> Path:
    shutil.copytree(made, tmp_path / "run")
    return tmp_path / "run"


def write(run: object, out: object, **options) -> None:
    export_documents.run(Command(str(run), str(out), **options))


def export(workdir: Path, out: Path, **options) -> pa.Table:
    """The written rows, in the order of the files."""
    write(workdir, out, **options)
    files = sorted((out / "data").iterdir())
    assert [path.name for path in files] == [
        f"train-{n:05d}-of-{len(files):05d}.{options.get('format', 'parquet')}" for n in range(len(files))
    ]
    if options.get("format") == "jsonl":
        return pa.Table.from_pylist(
            [json.loads(line) for path in files for line in path.read_text().split("\n") if line]
        )
    return pa.concat_tables(pq.read_table(path) for path in files)


def as_json(table: pa.Table) -> list[dict]:
    """Rows with times as in JSON lines."""
    rows = table.set_column(table.schema.get_field_index("at"), "at", table["at"].cast(pa.int64())).to_pylist()
    for one in rows:
        one["at"] = None if one["at"] is None else f"{np.datetime64(one['at'], 'us')}Z"
        one["day"] = None if one["day"] is None else str(one["day"])
    return rows


def test_columns_are_finewebs_plus_the_users_and_rows_are_equal_in_every_format(made, tmp_path):
    table = export(made, tmp_path / "parquet")
    assert table.column_names == [*DOCUMENT_SCHEMA.names, *COLUMNS]
    assert {name: table.schema.field(name).type for name in COLUMNS} == KINDS | {"score": pa.int64()}
    documents = [one for path in sorted((made / "documents").iterdir()) for one in pq.read_table(path).to_pylist()]
    assert len(documents) == 59
    tokenizer = load(RunPaths(made).tokenizer)
    for mine, theirs in zip(table.to_pylist(), documents, strict=True):
        number = int(mine["id"][1:-1])
        expected = row(number) | {"about.editor": f"e{number}", "token_count": len(tokenizer.encode(mine["text"]))}
        expected["text"] = theirs["text"]
        assert expected.pop("about") and expected.items() <= {**mine, "about": None}.items()
        assert {name: mine[name] for name in mine if name != "token_count"}.items() <= theirs.items()
    for format in FORMATS:
        lines = export(made, tmp_path / f"{format} again", format=format)
        assert (as_json(table) if format == "jsonl" else table.to_pylist()) == lines.to_pylist()


@pytest.mark.fast_rows
@pytest.mark.parametrize("format", ["parquet", "jsonl"])
def test_any_number_of_workers_writes_the_same_bytes(made, tmp_path, format):
    for workers in (1, 3):
        export(made, tmp_path / str(workers) / "out", format=format, workers=workers, shard_bytes=1)
    one, three = (files_of(tmp_path / name / "out") for name in ("1", "3"))
    assert one == three and len([name for name in one if name.startswith("data/")]) == 3


def test_shards_hold_all_row_groups_in_order_up_to_the_requested_size():
    groups = [Group(Path("a"), n, 1, size) for n, size in enumerate((5, 3, 2, 20, 1, 1, 9, 0, 0))]
    for most in (1, 5, 10, 10**9):
        shards = cut(groups, most)
        assert [one for some in shards for one in some] == groups
        sizes = [[one.bytes for one in some] for some in shards]
        assert all(sum(some) <= most or not any(some[1:]) for some in sizes)
        assert all(sum(one) + two[0] > most for one, two in itertools.pairwise(sizes))


@pytest.mark.fast_rows
@pytest.mark.parametrize("format", ["jsonl", "parquet"])
def test_datasets_loads_the_folder(made, tmp_path, format):
    """With the library if it is installed, and otherwise with the patterns of the card's header. The first file has no
    author, so its type cannot be inferred from JSON lines."""
    table = export(made, tmp_path / "typed")
    export(made, tmp_path / "out", format=format, shard_bytes=1)
    card = (tmp_path / "out/README.md").read_text()
    (pattern,) = re.findall(r"^    path: (.+)$", card.split("---")[1], re.MULTILINE)
    assert sum(1 for _ in (tmp_path / "out").glob(pattern)) == 3
    if importlib.util.find_spec("datasets") is None:
        return
    code = (
        "import sys, json, datasets\n"
        "found = datasets.load_dataset(sys.argv[1], split='train', cache_dir=sys.argv[2])\n"
        "types = [*map(str, found.features.arrow_schema.types)]\n"
        "print(json.dumps([types, *([*found[name]] for name in sys.argv[3:])]))"
    )
    words = [sys.executable, "-c", code, str(tmp_path / "out"), str(tmp_path / "cache"), *NAMED]
    done = subprocess.run(words, capture_output=True, text=True, env=os.environ | {"HF_HUB_OFFLINE": "1"})
    assert done.returncode == 0, done.stderr
    types = [str(one).replace("element", "item") for one in table.schema.types]
    expected = [types, *(table[name].to_pylist() for name in NAMED)]
    assert json.loads(done.stdout.splitlines()[-1]) == expected


def test_requested_columns_are_written_in_that_order(made, tmp_path):
    asked = ("tags", "text_bytes", "id")
    with pytest.raises(UsageError, match=r"--columns has 'text_bytes', but the documents have: 'text', 'id'"):
        export(made, tmp_path / "out", columns=asked)
    with pytest.raises(UsageError, match=r"--columns has 'id' twice"):
        export(made, tmp_path / "out", columns=("id", "text", "id"))
    assert not (tmp_path / "out").exists()
    assert export(made, tmp_path / "out", columns=("tags", "words", "id")).column_names == ["tags", "words", "id"]


def test_without_a_tokenizer_token_counts_come_from_the_table_and_the_card_says_so(made, copied, tmp_path):
    own, without = "by the run's own tokenizer", "from the input table"
    export(made, tmp_path / "with")
    (copied / "stages/tokenizer.json").unlink()
    assert {*export(copied, tmp_path / "without")["token_count"].to_pylist()} == {7}
    cards = [(tmp_path / name / "README.md").read_text() for name in ("with", "without")]
    assert [own in card for card in cards] == [True, False] == [without not in card for card in cards]


def test_the_card_has_counts_source_settings_columns_and_how_to_load_it(made, tmp_path):
    table = export(made, tmp_path / "out")
    card = (tmp_path / "out/README.md").read_text()
    size = sum(len(text.encode()) for text in table["text"].to_pylist())
    assert f"59 documents with {size:,} bytes of text, in 1 files (parquet)" in card and "- n<1K" in card
    assert "Of 60 pages 59 documents were kept and 1 dropped." in card and "source `tables`" in card
    assert "| exact_dedup | exact_duplicate | 1 |" in card and "exact_dedup" in card
    assert 'load_dataset("out", split="train")' in card
    for name in (*DOCUMENT_SCHEMA.names, *COLUMNS):
        assert f"| `{name}` |" in card


def test_a_non_empty_folder_is_rejected_and_an_older_export_is_replaced(made, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"--out .*out already exists, and has files that launch.export did not write"):
        export(made, out)
    assert files_of(tmp_path) == {"out/mine.txt": b"mine"}
    (out / "mine.txt").unlink()
    export(made, out, format="jsonl")
    export(made, out)
    assert {Path(name).suffix for name in files_of(out)} == {".parquet", ".md", ".json"}
    (out / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"already exists"):
        export(made, out)
    for inside in (made, made / "documents/out", made / "new"):
        with pytest.raises(UsageError, match=r"--out .* is in the run folder"):
            export(made, inside)


def test_a_run_without_finished_documents_is_rejected_in_one_line(made, copied, tmp_path):
    told = rf"{re.escape(str(copied))} has no finished documents\. First run, or wait for: .*prepare_documents"
    file = copied / "documents/1.parquet"
    kept = file.read_bytes()
    for spoil in (lambda: file.write_bytes(kept[:-1]), file.unlink, (copied / "stages/documents.json").unlink):
        spoil()
        with pytest.raises(InputError, match=told) as refused:
            export(copied, tmp_path / "out")
        assert "\n" not in str(refused.value)
        if not file.exists():
            file.write_bytes(kept)
    with pytest.raises(UsageError, match=r"There is no run folder"):
        export(tmp_path / "none", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.fast_rows
@pytest.mark.parametrize("workers", [1, 2])
def test_damaged_documents_stop_the_export_by_name_and_nothing_is_written(copied, tmp_path, workers):
    file = copied / "documents/1.parquet"
    data = bytearray(file.read_bytes())
    data[100:2000] = bytes(1900)
    file.write_bytes(data)
    with pytest.raises(InputError, match=r"documents/1\.parquet is damaged") as refused:
        export(copied, tmp_path / "out", workers=workers, shard_bytes=1)
    assert refused.value.exit_code == 1 and [path.name for path in tmp_path.iterdir()] == ["run"]


def test_columns_without_a_common_type_are_rejected_with_both_files_and_may_be_left_out(tmp_path):
    (tmp_path / "in").mkdir()
    for name, value in (("a", 1), ("b", "one")):
        lines = [{"text": text, "score": value, "author": "x"} for text in texts(3, seed=ord(name))]
        (tmp_path / f"in/{name}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    folder = make_run(tmp_path / "run", tmp_path / "in", ("score", "author"), STAGES[:3]).root
    with pytest.raises(InputError, match=r"'score' is int64 in .*a\.parquet and string in .*b\.parquet, .*--columns"):
        export(folder, tmp_path / "out")
    assert export(folder, tmp_path / "out", columns=("text", "author")).num_rows == 6


def test_documents_rebuilt_during_the_export_are_rejected(copied, tmp_path, monkeypatch):
    def remade(*given):
        marker = copied / "stages/documents.json"
        marker.write_text(json.dumps(json.loads(marker.read_text()) | {"key": "other"}))
        return write(*given)

    from launch.release import documents

    write = documents.write_parquet
    monkeypatch.setattr(documents, "write_parquet", remade)
    with pytest.raises(InputError, match=r"were written again meanwhile"):
        export(copied, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "name", ["documents", "documents/1.parquet", "tokenizer", "tokenizer/meta.json", "funnel.json", "config.json"]
)
def test_a_link_out_of_a_strangers_run_folder_is_not_read(copied, tmp_path, name):
    victim = tmp_path / "private"
    (copied / name).rename(victim)
    (copied / name).symlink_to(victim)
    with pytest.raises(InputError, match=r"link"):
        export(copied, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.fixture
def bucket(made, tmp_path) -> Generator[Url]:
    """The run in a bucket, as /run."""
    cache = {"GRISTMILL_CACHE": str(tmp_path / "cache")}
    with serving() as store, variables(store.environment() | QUICK | cache):
        store.bucket("corpus")
        for name, data in files_of(made).items():
            if not name.startswith((".", "texts/", "units/")):
                write_atomically(Url(f"s3://corpus/run/{name}"), data)
        yield Url("s3://corpus")
        COPIES.clear()


@pytest.mark.slow
def test_a_run_in_a_bucket_gives_the_same_bytes_there_and_on_a_disk(made, bucket, tmp_path):
    for options in ({"shard_bytes": 1, "workers": 2}, {"format": "jsonl"}):
        write(made, tmp_path / "disk/out", **options)
        expected = files_of(tmp_path / "disk/out")
        write(bucket / "run", tmp_path / "bucket/out", **options)
        assert files_of(tmp_path / "bucket/out") == expected
        for source in (made, bucket / "run"):  # replaces the earlier export
            write(source, bucket / "out", **options)
            assert files_of(bucket / "out") == expected
    assert not list((tmp_path / "cache").rglob("*.parquet"))


def test_other_objects_at_an_address_are_kept(made, bucket):
    out = bucket / "out"
    write(made, out)
    for name in ("mine.txt", "data/train-00000-of-00001.parquet", "units/mine"):
        kept = files_of(out).get(name)
        write_atomically(out / name, "the user's")
        with pytest.raises(UsageError, match=rf"--out {out} already has files .* \({name}\)"):
            write(made, out, format="jsonl")
        assert (out / name).read_bytes() == b"the user's"
        write_atomically(out / name, kept) if kept else (out / name).unlink()
    for place in ("run", "run/documents/out"):
        with pytest.raises(UsageError, match=r"--out .* is in the run folder"):
            write(bucket / "run", bucket / place)
    for place in ("hf://datasets/a/b", "https://host/x"):
        with pytest.raises(UsageError, match=r"--out .* cannot be written: give a folder on a disk, or an"):
            write(made, place)


def test_an_export_to_a_bucket_resumes_where_it_was_interrupted(made, bucket, monkeypatch):
    out = bucket / "out"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(documents, "dataset_card", lambda *given: (_ for _ in ()).throw(KeyboardInterrupt))
        write(made, out, shard_bytes=1)
    assert json.loads((out / RECORD).read_bytes()).keys() == {"unfinished"}
    before = {name: one.etag for name, one in out.files().items() if name.startswith("data/")}
    with monkeypatch.context() as patch:
        patch.setattr(documents, "write_parquet", None)  # nothing is written again
        write(made, out, shard_bytes=1)
    assert {name: one.etag for name, one in out.files().items() if name.startswith("data/")} == before
    assert {name.split("/")[0] for name in out.files()} == {"data", "README.md", RECORD}
    write(made, bucket / "fresh/out", shard_bytes=1)
    assert files_of(bucket / "fresh/out") == files_of(out)
