"""Data pages of the window equal the run's records, for any documents and for incomplete runs."""

import dataclasses
import html
import json
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from configs.experiment import Experiment
from configs.experiment.run_folder import Loaded, RunFolder
from data_prep.funnel.report import read_counts
from data_prep.select.apply_filters import kept_schema
from data_prep.shards.write import write_shards as tokens_of
from data_prep.warc import write_pages
from launch import extract_texts, fetch_pages, prepare_documents, train_tokenizer, write_shards
from launch.stages.stage import run_stage
from lm.config import MixtureSource
from lm.data.batches import BatchSource
from lm.fields import with_values
from lm.model.transformer import Transformer
from lm.serving.answers import to_json
from lm.serving.fields import ApiError, Fields
from lm.storage import Url, local_copy_of, stores
from lm.storage.local_copy import COPIES
from lm.tokenizer import load
from tests.corpus import tiny_experiment
from tests.object_store import HOPELESS, QUICK, serving, variables
from tests.window.runs import HANDLER, LONG, hostile_experiment, hostile_pages
from viewer.page import key_of
from viewer.window import batches, documents
from viewer.window.corpus.parquet_folder import ParquetFolder
from viewer.window.window_run import WindowRun

STAGES = tuple(one.STAGE for one in (fetch_pages, extract_texts, prepare_documents, train_tokenizer, write_shards))
STEPS = 9


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Path, Experiment]:
    """A run built by the data stages from two archives."""
    folder = tmp_path_factory.mktemp("data")
    pages, source = hostile_pages(), folder / "archives"
    source.mkdir()
    for number in range(2):
        write_pages(source / f"{number}.warc.gz", pages[number::2])
    experiment = hostile_experiment(str(source / "*.warc.gz"))
    train = dataclasses.replace(experiment.train, steps=STEPS, seed=3, batch_schedule=((3, 4), (6, 16)))
    experiment = dataclasses.replace(experiment, train=train)
    for stage in STAGES:
        run_stage(stage, experiment, folder / "run", None)
    return folder / "run", experiment


class Asked:
    """A run that answers requests as for the page."""

    def __init__(self, folder: Path, experiment: Experiment, step: int = STEPS):
        tokenizer = load(folder / "tokenizer")
        model = Transformer(experiment.model, jax.random.key(0))
        mesh = jax.make_mesh((1,), ("data",), devices=jax.devices()[:1])
        self.run = WindowRun(experiment, folder, Loaded(experiment, tokenizer, model, mesh, step, ""), "run")
        self.known = {one.name: one for room in (documents, batches) for one in room.inspections(self.run)}

    def __call__(self, name: str, **fields):
        return json.loads(to_json(self.known[name].answer(Fields(fields, self.known[name].known))))

    def all(self, **fields) -> list[dict]:
        """All documents of a list, page by page."""
        found, offset = [], 0
        while offset is not None:
            answer = self("documents", **fields, offset=offset)
            assert answer["next"] is None or answer["next"] > offset
            assert len(answer["documents"]) <= fields.get("limit", 50)
            found, offset = found + answer["documents"], answer["next"]
        return found


@pytest.fixture(scope="module")
def asked(made) -> Asked:
    return Asked(*made)


@pytest.fixture(autouse=True)
def unhurried(monkeypatch):
    """Disable the time limit: otherwise partial answers would depend on the load of the machine."""
    for module, name in ((batches, "URL_SECONDS"), (batches, "SECONDS"), (documents, "ID_SECONDS")):
        monkeypatch.setattr(module, name, 600.0)


def rows(folder: Path) -> dict[tuple[str, int], dict]:
    """{(file, row): row} of all documents, kept and dropped."""
    return {
        (f"{path.parent.name}/{path.name}", number): row
        for name in ("documents", "dropped")
        for path in sorted((folder / name).glob("*.parquet"))
        for number, row in enumerate(pq.read_table(path).to_pylist())
    }


def test_the_funnel_counts_equal_funnel_json_and_each_reason_has_its_documents(made, asked):
    counts, told, there = read_counts(made[0] / "funnel.json").counts, asked("funnel"), rows(made[0])
    reasons = {one["name"]: one for stage in told["stages"] for one in stage["reasons"]}
    assert {name: [one["documents"], one["bytes"]] for name, one in reasons.items()} == counts["reasons"]
    assert len(reasons) > 1
    assert (told["pages"], told["kept"], told["kept_bytes"]) == (counts["rows"], *counts["kept"])
    for limit in (3, 50):
        for name in (None, *reasons):
            listed = asked.all(limit=limit) if name is None else asked.all(reason=name, limit=limit)
            expected = [
                place for place, row in there.items()
                if (f"{row['stage']}/{row['reason']}" == name if "stage" in row else name is None)
            ]  # fmt: skip
            assert [(one["file"], one["row"]) for one in listed] == expected
            assert len(expected) == (counts["reasons"][name][0] if name else counts["kept"][0])


def test_a_document_has_values_on_the_right_side_of_the_thresholds(made, asked):
    thresholds = asked("funnel")["thresholds"]
    for (file, row), values in rows(made[0]).items():
        told = asked("document", file=file, row=row)
        assert told["text"] == values["text"][:20_000]
        assert told["characters"] == len(values["text"])
        assert (told["id"], told["kept"]) == (values["id"], file.startswith("documents/"))
        assert [value for value, _, _ in told["values"]] == [values[one["signal"]] for one in thresholds]
        for line, (_, _, breaks) in zip(thresholds, told["values"], strict=True):
            if told["kept"]:
                assert not breaks
            elif (line["stage"], line["reason"]) == (told["stage"], told["reason"]):
                assert breaks
        assert asked("document", id=values["id"])["file"].split("/")[0] in ("documents", "dropped")


def test_long_texts_come_in_parts_and_hostile_ones_unchanged(asked):
    (long,) = asked("documents", query="a" * 50, within="address")["documents"]
    assert (len(long["url"]), len(long["beginning"])) == (2000, 200)
    (long,) = asked("documents", query=f"{LONG[:50]} the", reason="language/low_language_score")["documents"]
    whole, offset = "", 0
    while not offset or offset < told["characters"]:
        told = asked("document", file=long["file"], row=long["row"], offset=offset)
        whole, offset = whole + told["text"], offset + len(told["text"])
        assert len(told["text"]) <= 20_000
    assert LONG in whole
    (odd,) = asked("documents", query=HANDLER.upper())["documents"]
    assert HANDLER in odd["passage"]
    assert HANDLER in asked("document", file=odd["file"], row=odd["row"])["text"]
    page = asked("raw", file=odd["file"], row=odd["row"])
    assert page["state"] == "found"
    assert html.escape(HANDLER) in page["text"]


def test_a_search_finds_documents_with_all_words_and_where_to_continue(made, asked, monkeypatch):
    there = rows(made[0])
    holds = lambda row, words: all(word in (row["url"] + "\n" + row["text"]).lower() for word in words)
    for words in (["miller", "horses"], ["tales-1.example"], ["absent"]):
        for reason in (None, "gopher_quality/gopher_short_document"):
            expected = [
                place for place, row in there.items() if holds(row, words)
                and (f"{row['stage']}/{row['reason']}" == reason if "stage" in row else reason is None)
            ]  # fmt: skip
            fields = {"query": " ".join(words).upper()} | ({"reason": reason} if reason else {})
            monkeypatch.setattr(documents, "SECONDS", 0.5)
            assert [(one["file"], one["row"]) for one in asked.all(**fields)] == expected
            monkeypatch.setattr(documents, "SECONDS", 0.0)  # a row group per answer
            assert [(one["file"], one["row"]) for one in asked.all(**fields)] == expected


def test_a_copy_names_the_document_that_was_kept(asked):
    (copy,) = asked("documents", reason="exact_dedup/exact_duplicate")["documents"]
    told = asked("document", file=copy["file"], row=copy["row"])["copy_of"]
    stayed = asked("document", file=told["file"], row=told["row"])
    assert stayed["kept"]
    assert stayed["text"] == asked("document", file=copy["file"], row=copy["row"])["text"]


def test_the_nearest_kept_documents_are_those_of_the_funnel(made, asked):
    written, there = read_counts(made[0] / "funnel.json"), rows(made[0])
    near = {"gopher_quality/gopher_short_document": written.counts["near"]["gopher_quality/gopher_short_document"]}
    for name, places in near.items():
        told = asked("beside", reason=name)["documents"]
        assert len(told) == len(places) > 0
        ids = [pq.read_table(made[0] / "texts" / written.files[file])["id"][row].as_py() for _, file, row in places]
        assert [there[one["file"], one["row"]]["id"] for one in told] == ids


def test_batches_have_documents_of_the_records_and_seen_is_the_inverse(made, asked):
    folder, experiment = made
    train, context = experiment.train, experiment.model.context_length
    source = BatchSource(folder / "tokens", "train", context, train.stages(context), train.seed, 1)
    assert [(one["step"], one["batch_size"]) for one in asked("batch")["stages"]] == [(1, 8), (4, 4), (7, 16)]
    inverse: dict[int, list[list[int]]] = {}
    for step in range(1, STEPS + 1):
        size = 8 if step <= 3 else 4 if step <= 6 else 16
        told, batch = asked("batch", step=step, sequence=step % size), source.batch(step - 1)
        assert told["batch_size"] == len(told["sequences"]) == size
        assert told["trained"] == told["steps"] == STEPS
        for one, origin in zip(told["sequences"], source.documents(step - 1), strict=True):
            assert {part["document"] for part in one["documents"]} == origin.documents
            assert sum(part["tokens"] for part in one["documents"]) + one["padding"] == context
            for number in {part["document"]: None for part in one["documents"]}:
                inverse.setdefault(number, []).append([step, one["sequence"]])
            for part in one["documents"]:
                document = asked("document", number=part["document"])
                assert document["number"] == part["document"]
                assert document["url"] == part["url"]
        row = told["sequence"]
        assert row["ids"] == batch.inputs_BT[step % size].tolist()
        assert row["targets"] == batch.targets_BT[step % size].tolist()
        assert row["segments"] == batch.segment_ids_BT[step % size].tolist()
    held_out = 0
    for one in asked.all():
        number = asked("document", file=one["file"], row=one["row"])["number"]
        seen = asked("seen", document=number)
        assert (seen["places"], seen["next"]) == (inverse.get(number, []), None)
        assert seen["split"] == "train" or not seen["places"]
        held_out += seen["split"] == "val"
    assert held_out
    assert len(inverse) > 5


def test_shard_ends_held_out_shards_and_other_folders_of_a_mixture(made, tmp_path):
    folder, experiment = made
    for name in ("documents", "tokenizer"):
        shutil.copytree(folder / name, tmp_path / name)
    shards = dataclasses.replace(experiment.shards, held_out="ends", record_length=48)
    tokens_of(tmp_path / "documents", load(tmp_path / "tokenizer"), tmp_path / "tokens", shards)
    other = MixtureSource(str(folder / "tokens"), 2.0)
    mixed = with_values(experiment, {"shards": shards, "train.mixture": (other,), "train.steps": 4})
    asked = Asked(tmp_path, mixed)
    inverse: dict[tuple[int, int], list[list[int]]] = {}
    for step in range(1, 5):
        for one in asked("batch", step=step)["sequences"]:
            for part in {part["document"]: part for part in one["documents"]}.values():
                inverse.setdefault((one["folder"], part["document"]), []).append([step, one["sequence"]])
                if one["folder"] == 0:  # the run's own
                    assert part["document"] % 2 == 0  # the text before the end
                    assert asked("document", number=part["document"])["url"] == part["url"]
    assert {folder for folder, _ in inverse} == {0, 1}
    for (place, number), places in inverse.items():
        assert asked("seen", folder=place, document=number)["places"] == places
        assert asked("document", number=number if place == 0 else 0)["number"] % 2 == 0
    assert asked("seen", document=1)["split"] == "val"
    alone = with_values(mixed, {"train.own_weight": 0.0})
    assert "own_weight" in Asked(tmp_path, alone)("seen", document=0)["missing"]


PARTS = ("texts", "pages", "funnel.json", "documents", "dropped", "tokens")


def copy_parts(run: Path, to: Path, names: set[str]) -> None:
    for name in names:
        shutil.copytree(run / name, to / name) if (run / name).is_dir() else shutil.copy(run / name, to)


@pytest.mark.fast_rows(2)
@pytest.mark.parametrize("lost", ["all", *PARTS])
def test_missing_parts_of_a_run_are_reported_and_break_nothing(made, tmp_path, lost):
    folder, experiment = made
    copy_parts(folder, tmp_path, {"tokenizer", *(() if lost == "all" else PARTS)} - {lost})
    asked = Asked(tmp_path, experiment)
    asked_there = Asked(folder, experiment)
    dropped = asked_there("documents", reason="gopher_quality/gopher_short_document")["documents"][0]
    told = {
        "funnel": asked("funnel"), "documents": asked("documents"),
        "dropped": asked("documents", reason="gopher_quality/gopher_short_document"),
        "beside": asked("beside", reason="gopher_quality/gopher_short_document"),
        "document": asked("document", number=0),
        "copy": asked("document", file=dropped["file"], row=dropped["row"]),
        "raw": asked("raw", file=dropped["file"], row=dropped["row"]), "batch": asked("batch", step=1),
        "seen": asked("seen", document=0),
    }  # fmt: skip
    missing = {name for name, answer in told.items() if "missing" in answer or answer.get("state") == "missing"}
    everything = set(told)
    assert missing == {
        "all": everything - {"beside"}, "texts": set(), "pages": {"raw"}, "funnel.json": {"funnel"},
        "documents": {"documents", "document", "beside"}, "dropped": {"dropped", "copy", "raw"},
        "tokens": {"batch", "seen"},
    }[lost]  # fmt: skip
    for room in (documents, batches):  # any run can be exported as a page
        for name, fields in room.to_record(asked.run):
            assert key_of(name, fields)
            asked(name, **{field: value for field, value in fields.items() if value is not None})


def test_damage_is_reported_and_skipped(made, tmp_path):
    folder, experiment = made
    copy_parts(folder, tmp_path, {"documents", "tokenizer", "tokens", "funnel.json"})
    asked, (first, second) = Asked(tmp_path, experiment), sorted((tmp_path / "documents").iterdir())
    there = asked.all()
    assert {one["file"] for one in there} == {f"documents/{first.name}", f"documents/{second.name}"}
    data = first.read_bytes()
    first.write_bytes(data[:4] + b"\0" * (len(data) // 2) + data[4 + len(data) // 2 :])  # its index is intact
    answer = asked("documents")
    assert answer["unreadable"] == [first.name]
    assert {one["file"] for one in answer["documents"]} == {f"documents/{second.name}"}
    assert "damaged" in asked("document", file=f"documents/{first.name}", row=0)["missing"]
    for table in (tmp_path / "tokens/documents").iterdir():
        table.write_bytes(b"no table")
    assert "url" not in asked("batch", step=1)["sequences"][0]["documents"][0]
    assert "cannot be read" in asked("seen", document=0)["missing"]


def test_documents_from_elsewhere_may_only_have_a_text(made, tmp_path):
    folder, experiment = made
    shutil.copytree(folder / "tokenizer", tmp_path / "tokenizer")
    for name, table in {
        "a": {"text": ["One.", None]}, "b": {"url": ["u"], "score": [float("nan")]}, "c": {"text": [1]},
        "d": {"text": ["Two."], "url": [7]}, "e": {"text": ["Three."], "language_score": [float("inf")]},
    }.items():  # fmt: skip
        (tmp_path / "documents").mkdir(exist_ok=True)
        pq.write_table(pa.table(table), tmp_path / f"documents/{name}.parquet")
    asked = Asked(tmp_path, experiment)
    answer = asked("documents")
    assert [one["beginning"] for one in answer["documents"]] == ["One.", "", "", "Three."]
    assert answer["unreadable"] == ["c.parquet", "d.parquet"]
    assert [one["beginning"] for one in asked("documents", query="three")["documents"]] == ["Three."]
    told = {name: asked("document", file=f"documents/{name}.parquet", row=0) for name in "abcde"}
    assert [told[name].get("text") for name in "abcde"] == ["One.", "", None, None, "Three."]
    assert "column text is int64" in told["c"]["missing"] and told["e"]["language_score"] is None
    assert "missing" in asked("document", id="nothing")


def test_invalid_fields_are_rejected_by_name(asked):
    for name, fields in {
        "documents": {"limit": 0}, "document": {"file": "texts/0.parquet", "row": 0}, "batch": {"step": 0},
        "seen": {"document": 10**6},
    }.items():  # fmt: skip
        with pytest.raises(ApiError, match=r" must be|from "):
            asked(name, **fields)
    with pytest.raises(ApiError, match="query"):
        asked("documents", query="a" * 201)
    with pytest.raises(ApiError, match="file"):
        asked("document", file="../documents/0.parquet", row=0)
    assert "no file" in asked("document", file="documents/../funnel.json", row=0)["missing"]


def write_many(folder: Path, files: int, rows_of_each: int) -> None:
    """documents/ of many small documents."""
    config = tiny_experiment().documents
    schema, text = kept_schema(config), "A short text of the mill. " * 8
    folder.mkdir(parents=True)
    count = rows_of_each
    ids = [str(number) for number in range(count)]
    columns = {"text": [text] * count, "id": ids, "url": [f"https://a.example/{one}" for one in ids]}
    table = pa.table({field.name: pa.array(columns.get(field.name, [None] * count), field.type) for field in schema})
    pq.write_table(table, folder / "00000.parquet", row_group_size=1000)
    for number in range(1, files):
        shutil.copy(folder / "00000.parquet", folder / f"{number:05d}.parquet")


def test_a_row_with_kept_columns_of_a_table_is_read_whatever_the_year_of_a_timestamp(tmp_path):
    (tmp_path / "documents").mkdir()
    kept = {"at": pa.array([2**62], pa.timestamp("ms")), "tags": [["a", "b"]], "about.editor": ["x"]}
    pq.write_table(pa.table({"text": ["A text."], "id": ["1"], **kept}), tmp_path / "documents/a.parquet")
    folder = ParquetFolder(tmp_path / "documents")
    assert folder.refresh()
    assert {"text": "A text.", "id": "1", "at": 2**62, "about.editor": "x"}.items() <= folder.row(
        "a.parquet", 0
    ).items()


def test_a_page_of_a_large_folder_reads_one_row_group_and_counts_only_the_files_it_needs(tmp_path):
    write_many(tmp_path / "documents", 80, 100)
    folder = ParquetFolder(tmp_path / "documents")
    assert folder.refresh()
    assert folder.locate(0) == (0, 0)
    assert folder.counted is None  # 64 files were counted
    assert folder.locate(79 * 100 + 5) == (79, 5)
    assert folder.counted == 8000
    assert folder.locate(8000) is None
    (tmp_path / "documents/00003.parquet").write_bytes(b"no Parquet")
    (tmp_path / "documents/00099.parquet").write_bytes(b"nor this")
    assert folder.refresh()
    assert folder.locate(10**9) is None
    assert (folder.counted, folder.unreadable) == (7900, {"00003.parquet", "00099.parquet"})


@pytest.mark.slow
def test_a_run_in_a_bucket_is_read_there_a_part_at_a_time(made, asked, tmp_path):
    folder, experiment = made
    reasons = [None, *(one["name"] for stage in asked("funnel")["stages"] for one in stage["reasons"])]
    with serving() as store, variables(store.environment() | QUICK | {"GRISTMILL_CACHE": str(tmp_path)}):
        store.bucket("mill")
        for file in (path for path in folder.rglob("*") if path.is_file()):
            stores.upload(file, f"s3://mill/run/{file.relative_to(folder)}")
        copy = RunFolder.to_read(Url("s3://mill/run")).root
        files = local_copy_of(copy)
        assert files
        files.fetch(files.matching(["tokenizer", "tokens"]))
        there = Asked(copy, experiment)
        before = len(store.requests)
        first = there("documents", limit=1)
        assert first["documents"] and len(store.requests) - before < 12  # two files counted, one group read
        for fields in [{"reason": one} for one in reasons] + [{"query": "miller"}, {"query": "short.example"}]:
            found = asked.all(**fields)
            assert there.all(**fields) == found
            for one in found[:3]:
                which = {"file": one["file"], "row": one["row"]}
                assert there("document", **which) == asked("document", **which)
                assert there("raw", **which) == asked("raw", **which)
        for name, fields in (("funnel", {}), ("batch", {"step": 3}), ("seen", {"document": 2})):
            assert there(name, **fields) | {"folders": []} == asked(name, **fields) | {"folders": []}
        for reason in reasons[1:]:
            assert there("beside", reason=reason) == asked("beside", reason=reason)
        assert not any((copy / name).exists() for name in ("documents", "dropped", "texts"))
        with variables(HOPELESS):
            store.fail(lambda request: "500")
            cut_off = Asked(copy, experiment)("documents")
            assert "mill/run" in cut_off["missing"] and "damaged" not in cut_off["missing"]
    COPIES.clear()


@pytest.mark.slow
def test_documents_are_listed_and_searched_without_pandas(made):
    """Importing it would add .4 s to the first answer, for which a user waits."""
    run, _ = made
    program = f"""
import sys
from pathlib import Path
from viewer.window.corpus.parquet_folder import DocumentFilter, find_id, list_documents
from viewer.window.corpus.parquet_folder import ParquetFolder
for name, reason in (("documents", ""), ("dropped", "exact_dedup/exact_duplicate")):
    folder = ParquetFolder(Path({str(run)!r}) / name)
    assert folder.refresh()
    found = list_documents(folder, DocumentFilter(reason, ("miller",)), 0, 9, None, 60)["documents"]
    print(len(found), find_id(folder, "none", found[0]["file"].partition("/")[2]))
print("pandas" in sys.modules)
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.split()[-1] == "False", ran.stdout
