"""Bits per byte: every token is scored once, documents are separate, and the sum equals a naive loop."""

import gzip
import math
from dataclasses import replace

import jax
import numpy as np
import pytest

from lm.data.batches import BatchSource, document_stream
from lm.evaluation.bits_per_byte import compressed_bits_per_byte, strided_windows
from lm.evaluation.evaluator import EvaluatorConfig
from lm.evaluation.evaluators import evaluate
from lm.evaluation.held_out import Validation
from lm.parallel import make_mesh
from lm.tokenizer import load
from tests.corpus import texts, tiny_experiment, write_tokens
from tests.lm.inference.models import log_probabilities
from tests.lm.model_configs import initial_model

EXPERIMENT = tiny_experiment()
EXPERIMENT = replace(EXPERIMENT, model=replace(EXPERIMENT.model, layers=1))


@pytest.mark.parametrize(("length", "context", "stride"), [(100, 8, 4), (9, 8, 4), (5, 8, 8), (101, 8, 8), (50, 8, 3)])
def test_windows_score_every_token_but_the_first_once_in_order(length, context, stride):
    tokens_N, segments_N = np.arange(100, 100 + length), np.arange(length) // 7
    scored, contexts = [], []
    for batch in strided_windows(tokens_N, segments_N, context, stride, batch_size=3):
        weights_BT, inputs_BT = np.asarray(batch.weights_BT), np.asarray(batch.inputs_BT)
        for row, position in np.argwhere(weights_BT == 1):
            target = int(np.asarray(batch.targets_BT)[row, position])
            scored.append(target)
            assert inputs_BT[row, position] == target - 1
            contexts.append(position + 1)
            segment_ids = np.asarray(batch.segment_ids_BT)[row]
            index = target - 1 - 100  # position of the input in the stream
            same = [i for i in range(position + 1) if segment_ids[i] == segment_ids[position]]
            assert len(same) == min(index % 7, position) + 1
    assert scored == list(range(101, 100 + length))
    assert min(contexts[context:], default=context) >= context - stride + 1


def test_bits_equal_a_naive_loop_over_targets(tmp_path):
    """Each target separately, in its window by the definition, with only the tokens of its document."""
    experiment = replace(EXPERIMENT, shards=replace(EXPERIMENT.shards, validation_fraction=0.3, record_length=32))
    write_tokens(tmp_path, experiment, count=16)
    tokenizer = load(tmp_path / "tokenizer")
    model = initial_model(experiment.model)
    figures = evaluate(model, experiment.model, experiment.evaluate, tokenizer, tmp_path / "tokens")

    tokens_N, documents_N = document_stream(tmp_path / "tokens", "val", tokenizer.fingerprint)
    assert len(set(documents_N.tolist())) > 1
    context, stride = experiment.model.context_length, experiment.evaluate.stride
    log_p = log_probabilities(model, context)
    nats = 0.0
    for target in range(1, len(tokens_N)):
        start = 0 if target <= context else math.ceil((target - context) / stride) * stride
        own = [i for i in range(start, target) if documents_N[i] == documents_N[target - 1]]
        # The document's tokens moved to the window's left end: rotary positions depend only on distances.
        nats -= float(log_p(tokens_N[own].tolist())[-1, tokens_N[target]])

    content = sum(len(tokenizer.token_bytes(t)) for t in tokens_N.tolist() if t != tokenizer.bos_id)
    assert figures["validation_bytes"] == content
    assert figures["validation_tokens"] == len(tokens_N)
    assert figures["validation_loss"] == pytest.approx(nats / (len(tokens_N) - 1), rel=1e-5)
    assert figures["validation_bits_per_byte"] == pytest.approx(nats / math.log(2) / content, rel=1e-5)


@pytest.mark.fast_rows
@pytest.mark.parametrize("kind", ["bpe", "sentencepiece_bpe", "sentencepiece_unigram", "characters"])
def test_training_and_evaluation_give_the_same_metrics_for_the_same_tokens(tmp_path, kind):
    """On all windows of the validation split. The first token of a document is never text, even if it is a newline."""
    symbols = len({*"".join(texts(40)), "\n"}) if kind == "characters" else 320
    experiment = replace(
        EXPERIMENT,
        tokenizer=replace(EXPERIMENT.tokenizer, algorithm=kind, vocab_size=symbols),
        evaluate=replace(EXPERIMENT.evaluate, stride=EXPERIMENT.model.context_length),
    )
    write_tokens(tmp_path, experiment)
    tokenizer = load(tmp_path / "tokenizer")
    context = experiment.model.context_length
    windows = BatchSource(tmp_path / "tokens", "val", context, 1, seed=0, loader_threads=1).windows
    config = EvaluatorConfig(experiment.model, tokenizer, tmp_path / "tokens", 1, context, windows)
    mesh = make_mesh(experiment.train.mesh, experiment.model, 1, jax.devices()[:1])
    model = initial_model(experiment.model)
    figures = evaluate(model, experiment.model, experiment.evaluate, tokenizer, tmp_path / "tokens")
    found = Validation(config).run(model, mesh)
    assert figures["validation_documents"] > 2
    assert found == pytest.approx({name: figures[name] for name in found}, rel=1e-6)
    assert found.keys() == {"validation_loss", "validation_bits_per_byte"}


def test_compressors_are_counted_in_bits_for_each_byte():
    text = b"the quick brown fox " * 50
    figures = compressed_bits_per_byte(text, len(text))
    assert figures["gzip_bits_per_byte"] == 8 * len(gzip.compress(text, 9, mtime=0)) / len(text)
    assert set(figures) == {"gzip_bits_per_byte", "xz_bits_per_byte", "zstd_bits_per_byte"}
    assert all(0 < value < 2 for value in figures.values())
