"""Laws of the transformer: causality and isolation of documents by gradients, and parity with a float64 reference."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.model.kv_cache import empty_cache
from lm.model.ngrams import tokens_before
from lm.model.transformer import Transformer, row_positions
from tests.lm import reference_model
from tests.lm.model_configs import FAMILIES, LLAMA

CONFIGS = pytest.mark.parametrize("config", FAMILIES.values(), ids=FAMILIES)


forward = jax.jit(lambda model, tokens_BT, segments_BT: model(tokens_BT, segments_BT))


@functools.partial(jax.jit, static_argnums=(0, 1))
def make(config, seed=0):
    model = Transformer(config, jax.random.key(seed))
    # Away from the ones and zeros of fresh norms and biases, which would hide a scale or bias that is left out.
    leaves, structure = jax.tree.flatten(model)
    keys = jax.random.split(jax.random.key(seed + 1), len(leaves))
    moved = [x + 0.1 * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(structure, moved)


def tokens(config, batch=2, seed=0):
    rows = np.random.default_rng(seed).integers(0, config.vocabulary_size, (batch, config.context_length), np.int32)
    return jnp.asarray(rows)


def influence(config, tokens_BT, segments_BT, target):
    """(T,) how much the logits at `target` feel each position's embedding: the norm of the gradient."""
    return np.linalg.norm(np.asarray(gradient(make(config), tokens_BT, segments_BT, target))[0], axis=-1)


@jax.jit  # with `target` as an argument: one program for all of them
def gradient(model, tokens_BT, segments_BT, target):
    def felt(x_BTD):
        return jnp.sum(jnp.sin(model.logits(model.hidden(x_BTD, segments_BT))[0, target]))

    before = tokens_before(tokens_BT, segments_BT, len(model.ngrams))
    return jax.grad(felt)(model.embed(tokens_BT, row_positions(tokens_BT), before))


@CONFIGS
def test_causality_by_gradients(config):
    tokens_BT = tokens(config)
    for target in (0, 5, config.context_length - 1):
        felt_T = influence(config, tokens_BT, jnp.ones_like(tokens_BT), target)
        assert np.all(felt_T[: target + 1] > 0), "every token up to the target must matter"
        assert np.all(felt_T[target + 1 :] == 0), "a later token must not"


@CONFIGS
def test_documents_do_not_attend_to_one_another_by_gradients(config):
    tokens_BT = tokens(config)
    segments_BT = jnp.ones_like(tokens_BT).at[:, 6:11].set(2).at[:, 11:].set(3)
    felt_T = influence(config, tokens_BT, segments_BT, target=9)
    assert np.all(felt_T[6:10] > 0)
    assert np.all(felt_T[:6] == 0) and np.all(felt_T[10:] == 0)


@CONFIGS
def test_logits_equal_a_plain_float64_reference(config):
    model, tokens_BT = make(config), tokens(config)
    segments_BT = jnp.ones_like(tokens_BT).at[1, 7:].set(2)
    logits_BTV = np.asarray(forward(model, tokens_BT, segments_BT))
    expected_BTV = reference_model.logits(config, model, tokens_BT, segments_BT)
    np.testing.assert_allclose(logits_BTV, expected_BTV, rtol=0, atol=2e-4)


def test_rotary_positions_are_relative():
    """Llama sees distances alone: the same document later in the window gives the same logits."""
    model, tokens_BT = make(LLAMA), tokens(LLAMA, batch=1)
    apart = jnp.concatenate([tokens_BT[:, :6], tokens_BT[:, :10]], axis=1)
    segments_BT = jnp.array([[1] * 6 + [2] * 10], jnp.int32)
    logits_BTV = np.asarray(forward(model, apart, segments_BT))
    np.testing.assert_allclose(logits_BTV[0, :6], logits_BTV[0, 6:12], atol=1e-4)


@CONFIGS
def test_decoding_with_a_cache_equals_the_whole_forward_pass(config):
    model, tokens_BT = make(config), tokens(config)
    expected_BTV = np.asarray(forward(model, tokens_BT, jnp.ones_like(tokens_BT)))
    cache, decode = empty_cache(config, 2), jax.jit(lambda m, t, p, c: m.decode(t, p, c))
    for position in range(config.context_length):
        logits_BV, cache = decode(model, tokens_BT[:, position], jnp.int32(position), cache)
        np.testing.assert_allclose(np.asarray(logits_BV), expected_BTV[:, position], atol=1e-4)


@CONFIGS
def test_bfloat16_compute_keeps_float32_logits_and_parameters(config):
    exact = config
    config = dataclasses.replace(config, compute_dtype="bfloat16")
    model, tokens_BT = make(config), tokens(config)
    logits_BTV = forward(model, tokens_BT, jnp.ones_like(tokens_BT))
    assert logits_BTV.dtype == jnp.float32
    rounded_BTV = logits_BTV.astype(jnp.bfloat16).astype(jnp.float32)
    assert float(jnp.mean(logits_BTV == rounded_BTV)) < 0.1, "the logits were rounded to bfloat16"
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(model))
    exact_BTV = np.asarray(forward(make(exact), tokens_BT, jnp.ones_like(tokens_BT)))
    difference = np.abs(np.asarray(logits_BTV) - exact_BTV)
    assert 0 < difference.max() < 0.05 * np.abs(exact_BTV).max()
