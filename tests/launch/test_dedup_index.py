"""An index of documents for users: written by one run, passed to another from a disk or a bucket, moved."""

import dataclasses
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from configs.experiment import Experiment
from data_prep.config import DedupIndexConfig
from data_prep.dedup_index.format import open_index
from launch import extract_texts, fetch_pages, prepare_documents
from launch.run_folder.markers import read_note
from launch.run_folder.outputs import files_in
from launch.stages.stage import run_stage, settings_of
from lm.errors import UsageError
from lm.run_paths import RunPaths
from lm.storage import Url, write_atomically
from tests.data_prep.measured import real_rows, write_records, write_texts
from tests.launch.run_folder import NO_OUTPUTS, write_json
from tests.launch.test_refilter import EXPERIMENT
from tests.object_store import serving, variables


def experiment_of(**index: object) -> Experiment:
    steps = ("exact_dedup", "minhash_dedup")
    config = DedupIndexConfig(**index)  # ty: ignore[invalid-argument-type]
    documents = dataclasses.replace(EXPERIMENT.documents, steps=steps, dedup_index=config)
    return dataclasses.replace(EXPERIMENT, documents=documents)


def write_run(workdir: Path, first: int, last: int) -> Path:
    """A run up to texts/; the two share some rows."""
    write_texts(workdir / "texts/a.parquet", real_rows(EXPERIMENT.documents)[first:last])
    write_records(workdir / "texts", last - first)
    experiment, keys = experiment_of(), {}
    for stage, outputs in ((fetch_pages.STAGE, ()), (extract_texts.STAGE, ("texts",))):
        marker = {"key": stage.name, "settings": settings_of(stage, experiment) | keys, "seconds": 1.0}
        write_json(RunPaths(workdir).marker(stage.name), NO_OUTPUTS | marker | {"files": files_in(workdir, outputs)})
        keys = {f"<{stage.name}>": stage.name}
    return workdir


def make(workdir: Path, **index: object) -> bool:
    return run_stage(prepare_documents.STAGE, experiment_of(**index), workdir)


def reasons(workdir: Path) -> set[str]:
    return {*pq.read_table(workdir / "dropped/a.parquet")["reason"].to_pylist()}


def test_an_index_is_an_output_if_requested_and_may_be_moved(tmp_path):
    plain, first, second, third = (
        write_run(tmp_path / name, *rows)
        for name, rows in {"plain": (0, 9), "first": (0, 30), "second": (20, 50), "third": (25, 60)}.items()
    )
    make(plain)
    assert not (plain / "dedup_index").exists()
    make(first, write=True)
    marker = read_note(RunPaths(first).marker("documents")) or {}
    assert "dedup_index/index.json" in marker["files"]
    make(second, against=(str(first),), write=True)
    assert {"exact_seen_before"} <= reasons(second)
    shutil.move(first, tmp_path / "moved")
    moved = {"against": (str(tmp_path / "moved/dedup_index"),), "write": True}
    assert not make(second, **moved)  # up to date
    make(third, against=(str(second),))
    assert reasons(third) == {"exact_seen_before"} | reasons(third) and not (third / "dedup_index").exists()
    with pytest.raises(UsageError, match=open_index(str(second)).name):
        make(third, **moved | {"write": False})  # another index


@pytest.mark.slow
def test_an_index_in_a_bucket_gives_the_same_bytes(tmp_path):
    first = write_run(tmp_path / "first", 0, 30)
    make(first, write=True)
    with serving() as store, variables(store.environment()):
        store.bucket("indices")
        for name in files_in(first, ("dedup_index",)):
            write_atomically(Url("s3://indices/first") / name, (first / name).read_bytes())
        outcome = []
        for name, against in (("disk", str(first)), ("bucket", "s3://indices/first")):
            run = write_run(tmp_path / name, 20, 50)
            make(run, against=(against,))
            outcome.append({path: (run / path).read_bytes() for path in files_in(run, ("documents", "dropped"))})
        asked = [request for request in store.requests if request.method == "GET" and "/keys/" in request.path]
    assert outcome[0] == outcome[1] and asked
