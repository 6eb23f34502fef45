"""The classic small experiment, from a plain text to samples, on a few kilobytes of text."""

import json

import numpy as np
import pytest

from configs.experiment import load_config
from lm.data.batches import document_stream
from lm.fields import with_values
from lm.tokenizer import load
from tests.commands import run_command
from tests.corpus import texts
from tests.run_files import REPOSITORY, restore_model
from tests.train_runs import rows


@pytest.mark.slow
def test_a_plain_text_becomes_a_character_model(tmp_path):
    text, run = "\n\n".join(texts(6)), tmp_path / "run"
    (tmp_path / "play.txt").write_text(text)
    config = REPOSITORY / "configs/shakespeare_char_modern.py"
    characters = len(set(text))
    small = """--train.batch-size 16 --train.steps 40 --train.validate-every 40 --train.validation-batches 1
        --train.sample-every 40 --train.checkpoint-every 40 --model.layers 1"""
    words = ["--workdir", run, "--pages.tables", tmp_path / "play.txt", *small.split()]
    words += ["--tokenizer.vocab-size", characters, "--model.vocab-size", characters]
    words += ["--train.sample-prompt", "The miller", "--sample.prompts", "The miller"]
    done = run_command("launch.pretrain", config, *words)
    assert done.returncode == 0 and "Done in" in done.stdout, done.stderr

    # The text is split at nine tenths, to the character; each part starts with a newline.
    tokenizer, end = load(run / "tokenizer"), int(len(text) * 0.9)
    for split, part in (("train", text[:end]), ("val", text[end:])):
        tokens_N, _ = document_stream(run / "tokens", split)
        assert tokenizer.decode(tokens_N.tolist()) == "\n" + part
    evaluation = json.loads((run / "evaluation.json").read_text())
    assert evaluation["validation_bytes"] == len(text) - end
    assert rows(run)[-1]["validation_loss"] < 0.9 * np.log(characters)  # it learns

    # Muon updated the linear maps; those back into the residual stream started at zero.
    model = with_values(load_config(config).model, {"vocab_size": characters, "layers": 1})
    block = restore_model(model, run / "checkpoints").layer_blocks()[0]
    assert np.abs(np.asarray(block.mlp.down.weight[...])).max() > 0.01
