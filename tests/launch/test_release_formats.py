"""launch.export and launch.import_model with GGUF and standalone folders, from and to a run folder, atomically."""

import dataclasses

import numpy as np
import pytest

from configs.experiment.run_folder import RunFolder
from launch.export import export
from launch.import_model import open_source
from launch.release.imported import write_run
from lm.config import TokenizerConfig
from lm.errors import InputError, UsageError
from lm.tokenizer import train_tokenizer
from tests.commands import call
from tests.launch.test_release import LICENSE, source_of
from tests.lm.model_configs import LLAMA, MODERN

CONFIGS = {
    name: dataclasses.replace(config, vocab_size=300, context_length=80)
    for name, config in {"llama": LLAMA, "modern": MODERN}.items()
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """{name: a run folder of a random model}; llama has stacked layers."""
    place = tmp_path_factory.mktemp("runs")
    tokenizer = train_tokenizer([LICENSE], TokenizerConfig(300, "cl100k", 100_000))
    for name, config in CONFIGS.items():
        write_run(source_of(config, tokenizer), place / name, "numbers", scan_layers=name == "llama")
    return {name: RunFolder(place / name) for name in CONFIGS}


def test_a_run_is_exported_as_gguf_and_imported(runs, tmp_path, capsys):
    out = tmp_path / "made" / "m.gguf"
    assert call("launch.export", runs["llama"].root, out, "--format", "gguf") == 0
    assert call("launch.import_model", out, tmp_path / "back") == 0
    before, after = runs["llama"].open_to_publish(), RunFolder(tmp_path / "back").open_to_publish()
    assert after.tokenizer.fingerprint == before.tokenizer.fingerprint
    for name in before.parameters:
        np.testing.assert_array_equal(after.parameters[name], before.parameters[name])
    whole = out.read_bytes()
    assert call("launch.export", runs["llama"].root, out, "--format", "gguf") == 2
    assert "already exists" in capsys.readouterr().err and out.read_bytes() == whole


def test_an_unsupported_model_leaves_no_files(runs, tmp_path, capsys):
    assert call("launch.export", runs["modern"].root, tmp_path / "m.gguf", "--format", "gguf") == 2
    assert "model.qk_norm = True (only False)" in capsys.readouterr().err
    with pytest.raises(UsageError, match="--dtype is 'q8_0'; a standalone folder supports float32, bfloat16, float16"):
        export(runs["modern"].open_to_publish(), tmp_path / "out", "standalone", "q8_0")
    with pytest.raises(UsageError, match="choose one of hugging_face, standalone, gguf"):
        export(runs["modern"].open_to_publish(), tmp_path / "out", "onnx")
    (tmp_path / "no.gguf").write_bytes(b"GGUF and no more")
    with pytest.raises(InputError, match="is not a complete GGUF file"):
        open_source(tmp_path / "no.gguf", None)
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare/config.json").write_text("{}")
    with pytest.raises(UsageError, match=r"no tokenizer \(.*tokenizer\.model\)\. Give the tokenizer .* as --tokenizer"):
        open_source(tmp_path / "bare", None)
    assert {path.name for path in tmp_path.iterdir()} == {"no.gguf", "bare"}
