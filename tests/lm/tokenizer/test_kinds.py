"""All stages from tokenizer to sampling, for each kind of tokenizer, by the functions of the launch scripts."""

import json
from dataclasses import replace

import jax
import numpy as np
import pytest

from configs.experiment import Experiment
from lm.config import TokenizerConfig
from lm.data.batches import document_stream
from lm.errors import UsageError
from lm.evaluation.evaluators import evaluate
from lm.inference.generate import sample_texts
from lm.tokenizer import load, save, train_tokenizer
from lm.training.loop import train
from tests.corpus import texts, tiny_experiment, write_tokens
from tests.run_files import restore_model

CHARACTERS = len({*"".join(texts(40)), "\n"})
SIZES = {"bpe": 330, "sentencepiece_bpe": 330, "sentencepiece_unigram": 330, "characters": CHARACTERS}
ROWS = max(SIZES.values())  # of the embedding: one model for all, so that it is compiled once


def experiment_with(tokenizer: TokenizerConfig) -> Experiment:
    """A tiny experiment of two steps."""
    tiny = tiny_experiment()
    steps = replace(
        tiny.train, steps=2, validate_every=2, sample_every=2, checkpoint_every=2, log_every=1,
        optimizer=replace(tiny.train.optimizer, warmup_steps=1),
    )  # fmt: skip
    model = replace(tiny.model, vocab_size=ROWS)
    return replace(tiny, tokenizer=tokenizer, model=model, train=steps)


def config_of(algorithm: str, **fields) -> TokenizerConfig:
    return replace(tiny_experiment().tokenizer, **{"algorithm": algorithm, "vocab_size": SIZES[algorithm]} | fields)


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", SIZES)
def test_every_stage_works_with(algorithm, tmp_path):
    experiment = experiment_with(config_of(algorithm))
    write_tokens(tmp_path, experiment)
    tokenizer = load(tmp_path / "tokenizer")
    assert tokenizer == train_tokenizer(texts(40), experiment.tokenizer)

    # The shards hold the documents, each after a BOS token.
    tokens_N, documents_N = document_stream(tmp_path / "tokens", "val", tokenizer.fingerprint)
    written = texts(40)
    held_out = sorted(set(documents_N.tolist()))
    assert len(held_out) > 1
    for number in held_out:
        document = tokens_N[documents_N == number].tolist()
        assert document == [tokenizer.bos_id, *tokenizer.encode(written[number])]
        assert tokenizer.decode(document[1:]) == written[number]

    train(experiment.model, experiment.train, tmp_path)
    model = restore_model(experiment.model, tmp_path / "checkpoints")
    figures = evaluate(model, experiment.model, experiment.evaluate, tokenizer, tmp_path / "tokens")
    assert figures["validation_bytes"] == sum(len(written[number].encode()) for number in held_out)
    nats = figures["validation_loss"] * (len(tokens_N) - 1)
    assert figures["validation_bits_per_byte"] == pytest.approx(nats / np.log(2) / figures["validation_bytes"])

    prompts = ["The miller", ""]
    drawn = sample_texts(model, experiment.model, tokenizer, prompts, [0.0, 1.0], 32, key=jax.random.key(0))
    assert drawn[0].startswith("The miller")
    assert json.loads((tmp_path / "samples/step-00000002.json").read_text())["text"] is not None

    assert tokenizer.vocab_size == SIZES[algorithm]


@pytest.mark.parametrize("algorithm", ["bpe", "sentencepiece_unigram", "characters"])
def test_a_tokenizer_is_loaded_instead_of_trained(algorithm, tmp_path):
    trained = train_tokenizer(texts(40), config_of(algorithm))
    save(trained, tmp_path)
    config = config_of("bpe", load=str(tmp_path), vocab_size=trained.vocab_size + 300)
    size = trained.vocab_size
    with pytest.raises(UsageError, match=f"has {size} symbols, but .* is {size + 300}. Set that to {size}"):
        train_tokenizer([], config)
    right = replace(config, vocab_size=size)
    assert train_tokenizer([], right) == trained
