"""The document that the report follows: its choice, and that its parts equal the run folder's."""

import dataclasses
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from configs.experiment import load_config
from lm.errors import InputError
from tests.data_prep.measured import prose
from tests.launch.run_folder import REPOSITORY, make_document, write_json, write_run
from tests.launch.test_report import DROPPED
from viewer.run_folder import read_run
from viewer.window.followed import SHOWN, FollowedDocument, HtmlPiece, lines_of, read_followed

EXPERIMENT = load_config(REPOSITORY / "configs/demo.py")
KEPT = [make_document(n, prose(n) + "\n" + prose(n + 100)) for n in range(8)]


def follow(workdir: Path, experiment=EXPERIMENT) -> FollowedDocument:
    run = read_run(workdir, experiment.documents)
    return read_followed(workdir, experiment, run.tokenizer, run.funnel.thresholds)


def set_splits(workdir: Path, *splits: str) -> None:
    table = pq.read_table(workdir / "tokens/documents.parquet")
    rows = [row | {"split": split} for row, split in zip(table.to_pylist(), splits, strict=True)]
    pq.write_table(pa.Table.from_pylist(rows), workdir / "tokens/documents.parquet")


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("followed")
    write_run(workdir, KEPT, DROPPED)
    set_splits(workdir, *["train"] * 5, "val", "train", "val")
    return workdir


def test_it_is_held_out_and_the_same_each_time(run_folder: Path):
    page = follow(run_folder)
    assert page.held_out and page.url in {KEPT[5].url, KEPT[7].url}
    assert follow(run_folder) == page


def test_its_parts_equal_the_files_of_the_run_folder(run_folder: Path):
    page, tokenizer = follow(run_folder), read_run(run_folder, EXPERIMENT.documents).tokenizer
    (document,) = (one for one in KEPT if one.url == page.url)
    assert document.text.startswith(page.text) and len(page.ids) == SHOWN
    assert page.text == "\n".join(line for line, kept in page.lines if kept)
    assert page.ids == tokenizer.encode(document.text)[:SHOWN]
    assert page.tokens == len(tokenizer.encode(document.text))
    assert page.bytes == len(document.text.encode())
    measured = dict(pq.read_table(run_folder / "documents/00000.parquet").to_pylist()[int(document.id[-9:-1])])
    thresholds = read_run(run_folder, EXPERIMENT.documents).funnel.thresholds
    assert [value for value, _, _ in page.values] == [measured[one.signal] for one in thresholds]
    assert len(page.values) == 31 and not any(dropped for _, _, dropped in page.values)


def test_html_marks_the_text_and_has_no_personal_data(run_folder: Path, tmp_path: Path):
    page = follow(run_folder)
    (document,) = (one for one in KEPT if one.url == page.url)
    lines = document.text.split("\n")[: page.text.count("\n") + 1]  # the last one as a whole
    assert [piece.text for piece in page.html if piece.kind == "kept"] == lines
    assert HtmlPiece("text", "Home of the pages") in page.html
    write_run(tmp_path, [make_document(0, prose(0))], [])  # all of it is shown, including the footer
    footer = [piece.text for piece in follow(tmp_path).html if "Write to" in piece.text]
    assert len(footer) == 1 and "miller@mill.example" not in footer[0]


def test_without_a_held_out_document_a_training_document_is_shown(tmp_path: Path):
    write_run(tmp_path, KEPT, DROPPED)
    set_splits(tmp_path, *["train"] * 8)
    page = follow(tmp_path)
    assert not page.held_out and page.html


def test_without_an_archive_there_is_no_html(tmp_path: Path):
    write_run(tmp_path, KEPT, DROPPED)
    set_splits(tmp_path, *["train"] * 5, "val", "train", "val")
    (tmp_path / "pages/00000.warc.gz").unlink()
    assert follow(tmp_path).held_out and follow(tmp_path).html == ()
    (tmp_path / "pages/00000.warc.gz").write_bytes(b"not an archive any more")
    assert follow(tmp_path).html == ()


def test_the_held_out_end_of_a_document(tmp_path: Path):
    write_run(tmp_path, KEPT[:1], [])
    end = KEPT[0].text[int(len(KEPT[0].text) * 0.75) :]
    tokenizer = read_run(tmp_path, EXPERIMENT.documents).tokenizer
    rows = [{"split": "train", "tokens": 9}, {"split": "val", "tokens": 1 + len(tokenizer.encode(end))}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "tokens/documents.parquet")
    shards = dataclasses.replace(EXPERIMENT.shards, held_out="ends", validation_fraction=0.25)
    page = follow(tmp_path, dataclasses.replace(EXPERIMENT, shards=shards))
    assert page.held_out and page.is_end and end.startswith(page.text)
    assert page.tokens == len(tokenizer.encode(end))


@pytest.mark.parametrize(
    ("extracted", "document", "passage"),
    [
        ("menu\na b.\nmore\nc d.", "a b.\nc d.", "a b.\nc d."),
        ("a b.\nmore\nc d. e f.\nmenu", "a b.\nc d. e f.", "a b.\nc d."),
        ("a b.[1]\nc d.\nmenu\nmenu", "a b.\nc d.", "a b.\nc d."),
        ("a b.\nc d.", "a b.\nc d.", "a"),
        ("", "a b.", "a b."),
    ],
)
def test_removed_lines_are_shown_between_the_kept_ones(extracted: str, document: str, passage: str):
    lines = lines_of(extracted, document, passage)
    assert "\n".join(line for line, kept in lines if kept) == passage
    assert all(line in extracted.split("\n") for line, kept in lines if not kept)


def test_lines_before_the_first_line_of_the_passage_are_shown_as_removed():
    assert lines_of("menu\na b.\nmore\nc d.", "a b.\nc d.", "a b.\nc d.") == (
        ("menu", False), ("a b.", True), ("more", False), ("c d.", True)
    )  # fmt: skip


def test_a_run_without_documents_names_the_command(run_folder: Path, tmp_path: Path):
    write_run(tmp_path, KEPT, DROPPED)
    (tmp_path / "documents/00000.parquet").unlink()
    with pytest.raises(InputError, match="no documents"):
        follow(tmp_path)
    write_json(tmp_path / "pages/manifest.json", {"files": [{"path": "x"}]})
    with pytest.raises(InputError, match="has no valid name"):
        follow(tmp_path)
