"""launch.index_corpus as a stage: built once, rejected if the shards differ; and the commands for users."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from launch import extract_texts, fetch_pages, index_corpus, prepare_documents, train_tokenizer, write_shards
from launch.run_folder.outputs import files_in
from launch.stages.stage import run_stage, settings_of, stages_before
from lm.config import MixtureSource
from lm.corpus_index.index import CorpusIndex
from lm.errors import InputError, UsageError
from lm.run_paths import RunPaths
from tests.corpus import tiny_experiment, write_tokens
from tests.launch.run_folder import NO_OUTPUTS, write_json
from tests.run_files import REPOSITORY

STAGES = (fetch_pages, extract_texts, prepare_documents, train_tokenizer, write_shards)


def mark(run: Path, shards_key: str) -> None:
    """Write markers of the stages up to the shards, as if they had run."""
    for stage in (one.STAGE for one in STAGES):
        key = lambda name: shards_key if name == "shards" else name
        before = {f"<{one.name}>": key(one.name) for one in stages_before(stage, tiny_experiment())}
        settings = settings_of(stage, tiny_experiment()) | before
        files = files_in(run, ("tokens",) if stage.name == "shards" else ())
        marker = NO_OUTPUTS | {"key": key(stage.name), "settings": settings, "seconds": 1.0, "files": files}
        write_json(RunPaths(run).marker(stage.name), marker)


@pytest.fixture
def run(tmp_path) -> Path:
    folder = tmp_path / "run"
    write_tokens(folder, tiny_experiment())
    mark(folder, "first")
    return folder


def test_the_index_is_built_once_and_rejected_for_other_shards(run):
    assert run_stage(index_corpus.STAGE, tiny_experiment(), run)
    assert not run_stage(index_corpus.STAGE, tiny_experiment(), run)
    assert index_corpus.check(tiny_experiment(), run, index_corpus.Options(check=1))
    assert sum(one["documents"] for one in CorpusIndex(run).splits().values()) == 40
    mark(run, "second")
    with pytest.raises(UsageError, match=r"corpus_index of another experiment(.|\n)*stages/corpus_index.json"):
        run_stage(index_corpus.STAGE, tiny_experiment(), run)
    assert CorpusIndex(run)  # nothing was changed
    RunPaths(run).marker("corpus_index").unlink()
    assert run_stage(index_corpus.STAGE, tiny_experiment(), run)


def test_the_index_of_a_mixture_records_its_folders(run, tmp_path):
    other = tmp_path / "other/tokens"
    shutil.copytree(run / "tokens", other)
    train = dataclasses.replace(tiny_experiment().train, mixture=(MixtureSource(str(other), 1.0),))
    experiment = dataclasses.replace(tiny_experiment(), train=train)
    assert run_stage(index_corpus.STAGE, experiment, run)
    assert not run_stage(index_corpus.STAGE, experiment, run)
    index = CorpusIndex(run, train)
    documents = {source: {part.split: 0 for part in index.header.parts} for source in (0, 1)}
    for part in index.header.parts:
        documents[part.source][part.split] += part.documents
    assert documents[0]["train"] == documents[1]["train"] > 0 and documents[0]["val"] > 0 == documents[1]["val"]
    (other / "manifest.json").write_text((other / "manifest.json").read_text() + " ")
    with pytest.raises(UsageError, match=r"corpus_index of another experiment(.|\n)*other/tokens/manifest.json"):
        run_stage(index_corpus.STAGE, experiment, run)


def test_a_run_without_shards_names_the_command_to_run(run):
    shutil.rmtree(run / "tokens")
    with pytest.raises(InputError, match=r"corpus_index needs tokens .*launch.write_shards"):
        run_stage(index_corpus.STAGE, tiny_experiment(), run)


@pytest.mark.slow
def test_the_commands_for_users(run):
    def call(script: str, *words: str) -> tuple[int, str]:
        command = [sys.executable, "-m", script, "tests/configs.py", "--workdir", str(run), *words]
        done = subprocess.run(command, cwd=REPOSITORY, env=os.environ, capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr

    code, told = call("launch.search_corpus", "--text", "the miller")
    assert code == 1 and "python -m launch.index_corpus" in told and "Traceback" not in told
    assert call("launch.index_corpus")[0] == 0
    code, told = call("launch.search_corpus", "--text", "the village")
    assert code == 0 and "times in train" in told
    code, told = call("launch.search_corpus")
    assert code == 2 and "--text" in told
    path = run / "corpus_index/train-00000.positions.npy"
    path.write_bytes(path.read_bytes()[:-5] + b"abcde")
    code, told = call("launch.index_corpus", "--check")
    assert code == 1 and path.name in told and json.loads((run / "corpus_index/index.json").read_text())
