"""Scores of a text token by token: losses equal the evaluation's, alternatives follow from the logits."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.evaluation.bits_per_byte import strided_windows
from lm.evaluation.held_out import batch_losses
from lm.evaluation.token_view import view_tokens
from lm.model.transformer import Transformer
from tests.lm.model_configs import FAMILIES

K = 5


@functools.cache
def make_model(config):
    return jax.jit(Transformer, static_argnums=0)(config, jax.random.key(0))


def random_ids(config, count: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, config.vocab_size, count)


@pytest.mark.parametrize(("family", "count"), [("llama", 2), ("llama", 41), ("gpt2", 41), ("modern", 41)])
def test_losses_equal_those_of_evaluation(family: str, count: int):
    config = FAMILIES[family]
    model, ids = make_model(config), random_ids(config, count)
    view = view_tokens(model, config, ids, stride=6, alternatives=K, symbols=config.vocab_size)
    found = []
    for batch in strided_windows(ids, np.zeros(count, np.int64), config.context_length, 6, batch_size=2):
        losses = np.asarray(jax.jit(batch_losses)(model, batch))
        found += losses[np.asarray(batch.weights_BT) == 1].tolist()
    np.testing.assert_allclose(view.losses, found, atol=1e-5)
    assert len(view.losses) == count - 1


def test_probabilities_and_ranks_follow_from_the_logits():
    config = FAMILIES["modern"]
    model, ids = make_model(config), random_ids(config, config.context_length + 1)
    symbols = config.vocab_size - 7  # the last ids are unused
    ids %= symbols
    before = jnp.asarray(ids[None, :-1], jnp.int32)
    logits_BTV = model.logits(model.read(before, jnp.ones_like(before)))
    ids[-1] = jnp.argmax(logits_BTV[0, -1, :symbols])  # a token of rank 1
    view = view_tokens(model, config, ids, stride=8, alternatives=K, symbols=symbols)
    tokens = jnp.asarray(ids[None, :-1], jnp.int32)
    p_TV = np.asarray(jax.nn.softmax(model.logits(model.read(tokens, jnp.ones_like(tokens)))[0]))
    for i, target in enumerate(ids[1:].tolist()):
        assert view.losses[i] == pytest.approx(-math.log(p_TV[i, target]), abs=1e-5)
        assert view.ranks[i] == 1 + int((p_TV[i, :symbols] > p_TV[i, target]).sum())
        likeliest = sorted(range(symbols), key=lambda token: -p_TV[i, token])[:K]
        np.testing.assert_allclose(view.probabilities[i], p_TV[i, likeliest], atol=1e-6)
    assert (view.alternatives < symbols).all()
    assert (np.diff(view.probabilities, axis=1) <= 0).all()
    assert (view.probabilities.sum(axis=1) <= 1 + 1e-6).all()
    first = view.ranks == 1
    assert first.any() and (view.alternatives[first, 0] == ids[1:][first]).all()


def test_a_text_without_a_token_to_predict_is_rejected():
    config = FAMILIES["llama"]
    with pytest.raises(ValueError, match="1 ids hold no token"):
        view_tokens(make_model(config), config, np.array([3]), 8, K, config.vocab_size)
