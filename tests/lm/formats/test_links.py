"""Links that lead out of a model's folder are neither read nor published; those of huggingface_hub's cache are read."""

import hashlib
import shutil
from pathlib import Path
from typing import Any

import pytest

from configs.experiment.run_folder import PUBLISHED, RunFolder
from data_prep.quality import embedding
from launch.export import export
from launch.import_model import open_source
from launch.release.imported import write_run
from lm.config import TokenizerConfig
from lm.errors import InputError
from lm.formats.hugging_face.reading import KEPT
from lm.tokenizer import Tokenizer, load, save, train_tokenizer
from lm.tokenizer.files import KINDS
from lm.tokenizer.hugging_face.library import LibraryTokenizer
from lm.tokenizer.published import load_published
from tests.launch.test_release import CONFIGS, source_of
from tests.lm.hugging_face_files import INDEX, load_hugging_face, write_shards
from tests.lm.tokenizer.test_hugging_face_library import smollm2_like
from tests.run_files import LICENSE


def trained(algorithm: Any, size: int) -> Tokenizer:
    config = TokenizerConfig(vocab_size=size, split_pattern="gpt2", train_characters=100_000, algorithm=algorithm)
    return train_tokenizer([LICENSE], config)


TOKENIZERS = {
    "bpe": lambda: trained("bpe", 300),
    "sentencepiece": lambda: trained("sentencepiece_bpe", 400),
    "hugging_face": lambda: LibraryTokenizer.from_json(smollm2_like().to_str().encode(), "<|endoftext|>"),
    "characters": lambda: trained("characters", len({*LICENSE})),
}
"""{tokenizer kind: function that makes a small one}."""


@pytest.fixture(scope="module")
def downloaded(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tokenizer = train_tokenizer([LICENSE], TokenizerConfig(300, "gpt2", 100_000))
    write_run(source_of(CONFIGS["llama"], tokenizer), folder / "first", "numbers")
    export(RunFolder(folder / "first").open_to_publish(), folder / "model", "hugging_face")
    (folder / "model/chat_template.jinja").write_text("{{ messages }}")
    return folder / "model"


@pytest.fixture
def model(downloaded, tmp_path) -> Path:
    """A downloaded folder with each kind of file that an import may read."""
    return Path(shutil.copytree(downloaded, tmp_path / "model"))


def move_behind_link(path: Path, outside: Path) -> Path:
    """Move the file out of its folder and leave a link to it."""
    outside.mkdir(exist_ok=True)
    target = path.rename(outside / path.name)
    path.symlink_to(target)
    return target


READ = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
        "chat_template.jinja")  # fmt: skip


@pytest.mark.parametrize("name", READ)
def test_a_link_that_leads_out_of_a_model_folder_is_rejected_with_link_and_target(model, tmp_path, name):
    target = move_behind_link(model / name, tmp_path / "outside")
    with pytest.raises(InputError) as refused:
        open_source(model, None)
    assert f"{model / name} is a link to {target}" in str(refused.value)


def test_every_file_that_an_import_reads_is_tested(model):
    assert {path.name for path in model.iterdir()} & {*KEPT, "config.json", "model.safetensors"} == set(READ)


@pytest.mark.parametrize("name", [INDEX, "model-00002-of-00002.safetensors"])
def test_shards_and_their_index_must_not_be_links_out_of_the_folder(tmp_path, name):
    folder, _ = write_shards(tmp_path / "model", "llama", 2)
    move_behind_link(folder / name, tmp_path / "outside")
    with pytest.raises(InputError, match=rf"{name} is a link to .*outside"):
        load_hugging_face(folder)


def test_the_layout_of_the_hub_cache_is_read_but_no_link_out_of_it(model, tmp_path):
    """models--OWNER--NAME/snapshots/REVISION/FILE -> ../../blobs/HASH."""
    cache = tmp_path / "models--owner--name"
    snapshot = cache / "snapshots/0123abc"
    snapshot.mkdir(parents=True)
    (cache / "blobs").mkdir()
    for path in model.iterdir():
        blob = cache / "blobs" / hashlib.sha256(path.read_bytes()).hexdigest()
        shutil.copy(path, blob)
        (snapshot / path.name).symlink_to(Path("../../blobs") / blob.name)
    found = open_source(snapshot, None)
    assert found.files["chat_template.jinja"] == b"{{ messages }}"
    (tmp_path / "by_name").symlink_to(snapshot)  # the user's own link to the folder
    assert open_source(tmp_path / "by_name", None).tokenizer.fingerprint == found.tokenizer.fingerprint

    other = tmp_path / "models--owner--other/blobs"
    other.mkdir(parents=True)
    (other / "secret").write_text("secret")
    (snapshot / "chat_template.jinja").unlink()
    (snapshot / "chat_template.jinja").symlink_to(other / "secret")
    with pytest.raises(InputError, match=r"chat_template\.jinja is a link"):
        open_source(snapshot, None)


@pytest.mark.parametrize("kind", KINDS)
def test_every_file_of_every_kind_of_tokenizer_must_be_in_its_folder(kind, tmp_path):
    tokenizer = TOKENIZERS[kind]()
    save(tokenizer, tmp_path / "tokenizer")
    assert load(tmp_path / "tokenizer").fingerprint == tokenizer.fingerprint
    read = 0
    for path in sorted((tmp_path / "tokenizer").iterdir()):
        target = move_behind_link(path, tmp_path / "outside")
        try:
            load(tmp_path / "tokenizer")
        except InputError as error:
            assert f"{path} is a link to {target}" in str(error)
            read += 1
        path.unlink()
        target.rename(path)
    assert read >= 2  # meta.json and another; files that are only written for other programs are not read


def test_a_hugging_face_folder_with_a_linked_sentencepiece_model_is_rejected(tmp_path):
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "model").mkdir()
    (tmp_path / "model/tokenizer.model").symlink_to(tmp_path / "secret")
    with pytest.raises(InputError, match=r"tokenizer\.model is a link to .*secret"):
        load_published(str(tmp_path / "model"))


@pytest.mark.parametrize("name", embedding.FILES)
def test_the_model_of_an_embedding_filter_must_be_in_its_folder(tmp_path, name):
    (tmp_path / "secret").write_text("{}")
    (tmp_path / "model").mkdir()
    for one in embedding.FILES:
        (tmp_path / "model" / one).write_text("{}")
    (tmp_path / "model" / name).unlink()
    (tmp_path / "model" / name).symlink_to(tmp_path / "secret")
    with pytest.raises(InputError, match=f"{name} is a link to .*secret"):
        embedding.load_classifier(embedding.EmbeddingFilter(min_score=2.5, model=str(tmp_path / "model")))


def test_an_export_follows_no_link_out_of_the_run_folder(model, tmp_path):
    write_run(open_source(model, None), tmp_path / "run", "numbers")
    outside = tmp_path / "outside"
    outside.mkdir()
    parts = [tmp_path / "run" / part for part in PUBLISHED]
    for path in parts:
        if not path.exists():
            path.write_text("{}")
    for place in [*parts, *(file for path in parts if path.is_dir() for file in path.iterdir())]:
        target = place.rename(outside / "moved")
        place.symlink_to(target)
        with pytest.raises(InputError) as refused:
            RunFolder(tmp_path / "run").open_to_publish()
        assert f"{place} is a link to {target}" in str(refused.value)
        place.unlink()
        target.rename(place)
    RunFolder(tmp_path / "run").open_to_publish()


def test_an_export_copies_only_files_that_an_import_keeps(model, tmp_path):
    write_run(open_source(model, None), tmp_path / "run", "numbers")
    (tmp_path / "run/imported/added.py").write_text("")
    export(RunFolder(tmp_path / "run").open_to_publish(), tmp_path / "out", "hugging_face")
    assert not (tmp_path / "out/added.py").exists()
    assert (tmp_path / "out/chat_template.jinja").read_text() == "{{ messages }}"
