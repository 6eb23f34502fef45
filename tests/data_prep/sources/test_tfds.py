"""Datasets of tensorflow-datasets are read row by row without TensorFlow, in ranges that cover them."""

import dataclasses
import importlib.util
import os
import subprocess
import sys
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from data_prep.config import PagesConfig
from data_prep.config.pages import NO_DATASET, TfdsPages
from data_prep.documents import Damage
from data_prep.sources import fetch_pages, input_files
from data_prep.sources.manifest import InputFile
from data_prep.sources.tfds import read
from lm.errors import InputError, UsageError
from tests.data_prep.pages import documents_in

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow_datasets") is None, reason="tensorflow-datasets is not installed"
)
ROWS = [{"text": f"Text {n}, ä.", "url": f"https://{n}.example/", "stars": n} for n in range(25)]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    """A dataset of 25 rows in three shards as tensorflow-datasets writes it; returns the folder of datasets."""
    folder = tmp_path_factory.mktemp("datasets")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tfds = importlib.import_module("tensorflow_datasets")

        class Reviews(tfds.core.GeneratorBasedBuilder):
            VERSION = tfds.core.Version("1.0.2")

            def _info(self):
                features = {
                    "text": tfds.features.Text(),
                    "url": tfds.features.Text(),
                    "stars": tfds.features.Scalar(np.int64),
                }
                return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

            def _split_generators(self, dl_manager):
                return {
                    "train": self._generate_examples(ROWS),
                    "blank": self._generate_examples([ROWS[0] | {"text": ""}] * 3),
                }

            def _generate_examples(self, rows):
                yield from enumerate(rows)

        config = tfds.download.DownloadConfig(num_shards=3)
        Reviews(data_dir=folder, file_format="array_record").download_and_prepare(download_config=config)
    return folder


def config(**changes) -> TfdsPages:
    return dataclasses.replace(NO_DATASET, **changes)


def fetch(run: Path, text_field: str = "text", **changes) -> dict[str, list]:
    return fetch_pages(PagesConfig(text_field=text_field, tfds=config(**changes)), run, [].append)


def test_ranges_cover_the_dataset(dataset, tmp_path):
    folder = dataset / "reviews/1.0.2"
    manifest = fetch(tmp_path, dataset="reviews:1.0.2", data_dir=str(dataset), rows_per_file=10)
    size = sum(path.stat().st_size for path in folder.glob("*train*"))
    assert manifest["files"] == [
        {
            "path": str(folder), "name": f"reviews/1.0.2/train/{n:05d}", "kind": "tfds", "bytes": size,
            "pages": stop - start, "rows": [start, stop], "split": "train", "text_field": "text",
        }
        for n, (start, stop) in enumerate([(0, 10), (10, 20), (20, 25)])
    ]  # fmt: skip
    documents = documents_in(input_files(tmp_path))
    assert sorted((d.text, d.url) for d in documents) == sorted((row["text"], row["url"]) for row in ROWS)
    assert documents[12].id == "reviews/1.0.2/train/00001/12"
    assert documents == documents_in(input_files(tmp_path))
    whole = list(read(part(folder, "train"), no_damage, Counter()))
    assert [d.text for d in whole] == [d.text for d in documents]


def part(folder: Path, split: str) -> InputFile:
    return InputFile(folder, f"reviews/1.0.2/{split}", "tfds", 0, split=split)


def no_damage(row: Damage) -> None:
    raise AssertionError(row)


def test_a_folder_works_like_a_name_and_a_split_may_be_a_part(dataset, tmp_path):
    folder = dataset / "reviews/1.0.2"
    fetch(tmp_path, dataset=str(folder), split="train[20:]", rows_per_file=3)
    files = input_files(tmp_path)
    assert [file.rows for file in files] == [(0, 3), (3, 5)]
    everything = [d.text for d in read(part(folder, "train"), no_damage, Counter())]
    assert [d.text for d in documents_in(files)] == everything[20:]


def test_a_row_without_text_is_quarantined(dataset):
    quarantined: list[Damage] = []
    assert list(read(part(dataset / "reviews/1.0.2", "blank"), quarantined.append, Counter())) == []
    assert quarantined == [Damage(n, "empty_text", "", "reviews/1.0.2/blank", f"row {n}") for n in range(3)]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"dataset": "reviews"}, r"'reviews': neither a folder .* nor a name with a version"),
        ({"dataset": "/nowhere/reviews/1.0.2"}, "neither a folder"),
        ({"dataset": "reviews:1.0.2", "split": "test"}, "split is 'test', but reviews/1.0.2 has: blank, train"),
        ({"dataset": "reviews:1.0.2", "split": "train[oops]"}, r"split is 'train\[oops\]', which cannot be read"),
        (
            {"dataset": "reviews:1.0.2", "text_field": "body"},
            "no feature 'body'; its features are 'stars', 'text', 'url'",
        ),
        ({"dataset": "reviews:1.0.2", "text_field": "stars"}, "reviews/1.0.2 has int, not text, in 'stars'"),
        ({"dataset": "reviews:1.0.2", "rows_per_file": 0}, "rows_per_file is 0"),
        ({"dataset": "reviews:1.0.2", "split": ""}, "split is empty"),
    ],
)
def test_invalid_settings_are_rejected_with_the_choices(dataset, tmp_path, changes, told):
    with pytest.raises(UsageError, match=told):
        fetch(tmp_path, **({"data_dir": str(dataset)} | changes))
    assert not (tmp_path / "pages").exists()


def test_an_unavailable_dataset_is_rejected(dataset, tmp_path):
    with pytest.raises(InputError, match=r"no_such_dataset_at_all:1\.0\.0 cannot be prepared: .*not found"):
        fetch(tmp_path, dataset="no_such_dataset_at_all:1.0.0", data_dir=str(tmp_path))


def copied(dataset: Path, folder: Path) -> Path:
    folder.mkdir()
    for path in (dataset / "reviews/1.0.2").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def test_other_formats_missing_and_damaged_files_are_rejected(dataset, tmp_path):
    folder = copied(dataset, tmp_path / "copy")
    fetch(tmp_path / "run", dataset=str(folder))
    shard = folder / "reviews-train.array_record-00001-of-00003"
    data = shard.read_bytes()
    shard.write_bytes(data + b"more")
    with pytest.raises(InputError, match=r"has \d+ bytes, but \d+ are listed in"):
        input_files(tmp_path / "run")
    shard.write_bytes(bytes(len(data)))
    with pytest.raises(InputError, match=r"cannot be read"):
        documents_in(input_files(tmp_path / "run"))
    shard.unlink()
    with pytest.raises(InputError, match=r"00001-of-00003 of reviews/1\.0\.2 is missing|cannot be read"):
        input_files(tmp_path / "run")
    info = folder / "dataset_info.json"
    info.write_text(info.read_text().replace('"array_record"', '"tfrecord"'))
    with pytest.raises(InputError, match="which needs TensorFlow"):
        fetch(tmp_path / "run", dataset=str(folder))
    info.write_text("{")
    with pytest.raises(InputError, match="no dataset that tensorflow-datasets can read"):
        fetch(tmp_path / "run", dataset=str(folder))


def test_a_missing_library_is_reported_with_the_install_command(dataset, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(InputError, match="make add PACKAGE='tensorflow-datasets importlib-resources'"):
        next(read(part(dataset / "reviews/1.0.2", "train"), no_damage, Counter()))


def test_tensorflow_is_not_needed(dataset):
    code = f"""
import sys
from data_prep.sources.manifest import InputFile
from data_prep.sources.tfds import read
assert "tensorflow_datasets" not in sys.modules, "imported before it is needed"
file = InputFile({str(dataset / "reviews/1.0.2")!r}, "reviews", "tfds", 0, split="train")
print(sum(1 for _ in read(file, None, None)))
assert "tensorflow" not in sys.modules, "TensorFlow was imported"
"""
    repository = Path(__file__).parents[3]
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=repository, env=environment)
    assert (done.stdout.strip(), done.returncode) == ("25", 0), done.stderr
