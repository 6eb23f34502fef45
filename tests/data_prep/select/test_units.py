"""The stage "documents" by units: changed files cost only their own work; an object store gives the same bytes."""

import json
from pathlib import Path

import pytest

from data_prep.config import ONE_PROCESS, EngineConfig
from data_prep.prepare import prepare_documents
from data_prep.shards.tokenize import document_files
from lm.errors import InputError
from lm.storage import Url, write_atomically
from tests.data_prep.dedup.test_duplicates import FILES, random_corpus
from tests.data_prep.measured import contents, write_records, write_texts
from tests.data_prep.pages import demo_config
from tests.object_store import QUICK, serving, variables

CONFIG = demo_config(steps=("exact_dedup", "minhash_dedup"))


@pytest.fixture
def texts(tmp_path) -> Path:
    folder = tmp_path / "texts"
    corpus = dict(zip(FILES, random_corpus(1), strict=True))
    for name, rows in corpus.items():
        write_texts(folder / name, rows)
    write_records(folder, sum(map(len, corpus.values())))
    return folder


def prepare(texts, out, engine: EngineConfig = ONE_PROCESS) -> None:
    prepare_documents(texts, CONFIG, out, engine=engine)


def test_folders_may_be_relative_paths(texts, tmp_path, monkeypatch):
    prepare(texts, tmp_path / "out")
    monkeypatch.chdir(tmp_path)
    prepare(Path("texts"), Path("again"))
    assert contents(tmp_path / "again") == contents(tmp_path / "out")


def test_document_files_are_listed_from_one_manifest_or_else_from_their_footers(texts, tmp_path):
    prepare(texts, tmp_path / "out")
    with serving() as store, variables(store.environment() | QUICK):
        store.bucket("units")
        there = Url("s3://units/run")
        manifest = "units/filtering/manifest"
        for path in [tmp_path / "out" / manifest, *(tmp_path / "out/documents").iterdir()]:
            write_atomically(there / path.relative_to(tmp_path / "out").as_posix(), path.read_bytes())
        store.requests.clear()
        files = document_files(there / "documents")
        assert len(store.requests) == 2  # one listing and the manifest, for any number of files
        (tmp_path / "out" / manifest).unlink()
        of_footers = document_files(tmp_path / "out/documents")
        assert [(one.name, one.rows, one.text_bytes, one.bytes) for one in files] == [
            (one.name, one.rows, one.text_bytes, one.bytes) for one in of_footers
        ]
        (there / "documents/a.parquet").unlink()
        write_atomically(there / "documents/e.parquet", (tmp_path / "out/documents/b.parquet").read_bytes())
        assert [(one.name, one.rows) for one in document_files(there / "documents")] == [
            (name, files[number].rows) for name, number in (("b", 1), ("c", 2), ("e", 1))
        ]


@pytest.mark.parametrize("step", ["keys", "filtering"])
def test_a_marker_without_files_stops_the_stage(texts, tmp_path, step):
    """Otherwise the documents of a file would silently be missing from the joins or the counts."""
    prepare(texts, tmp_path / "out")
    manifest = tmp_path / f"out/units/{step}/manifest"
    found = json.loads(manifest.read_text())
    found[next(iter(found))]["outputs"] = {}
    manifest.write_text(json.dumps(found))
    with pytest.raises(InputError, match=r"recorded as done .* the records list . output files in parts/"):
        prepare(texts, tmp_path / "out")
