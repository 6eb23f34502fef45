"""Weights for inference: the same model in another layout, or with small rounding errors and fewer bytes."""

import functools
import inspect
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from numpy.testing import assert_allclose, assert_array_equal

from lm.errors import UsageError
from lm.inference.cpu import Int8Linear, int8_product
from lm.inference.sampling import argmax_by_blocks
from lm.inference.weights import for_inference
from lm.model.attention.mask import AttentionMask
from lm.model.transformer import empty_cache
from tests.lm.model.test_transformer import tokens
from tests.lm.model_configs import FAMILIES, MODERN, random_model

CONFIGS = {
    "gpt2": replace(FAMILIES["gpt2"], layers=1),
    "llama, scanned": replace(FAMILIES["llama"], scan_layers=True),
    "modern, softcap": replace(MODERN, layers=1, logit_softcap=5.0),
}


@functools.cache
def case(name):
    config = CONFIGS[name]
    return config, random_model(config), tokens(config)


@functools.partial(jax.jit, static_argnums=2)
def by_cache(model, tokens_BT, config):
    """Logits of a prompt; its last two tokens are read one by one, the others together."""
    ones_BT, logits = jnp.ones_like(tokens_BT), []
    cache = empty_cache(replace(config, scan_layers=model.is_stacked), len(tokens_BT))
    positions_BT = jnp.broadcast_to(jnp.arange(tokens_BT.shape[1]), tokens_BT.shape)
    for piece in (slice(0, -2), slice(-2, -1), slice(-1, None)):
        x_BTD, cache = model(tokens_BT[:, piece], positions_BT[:, piece], AttentionMask(ones_BT[:, piece]), cache)
        logits.append(model.logits(x_BTD))
    return jnp.concatenate(logits, axis=1)


@functools.cache
def logits_of(name, weights):
    config, model, tokens_BT = case(name)
    if weights is None:
        return np.asarray(jax.jit(lambda: model.logits(model.read(tokens_BT, jnp.ones_like(tokens_BT))))())
    return np.asarray(by_cache(for_inference(model, config, weights), tokens_BT, config))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["llama, scanned", "modern, softcap"])
def test_float32_weights_are_equivalent(name):
    expected_BTV, found_BTV = logits_of(name, None), logits_of(name, "float32")
    assert_allclose(found_BTV, expected_BTV, rtol=0, atol=1e-5 * np.abs(expected_BTV).max())
    assert_array_equal(found_BTV.argmax(-1), expected_BTV.argmax(-1))


@pytest.mark.fast_rows
@pytest.mark.parametrize(
    ("name", "weights", "bound"),
    [
        ("llama, scanned", "bfloat16", 0.02),
        ("gpt2", "int8", 0.04),
        ("modern, softcap", "int8", 0.04),
    ],
)
def test_rounded_weights_change_logits_by_a_small_part_of_their_spread(name, weights, bound):
    expected_BTV, found_BTV = logits_of(name, None), logits_of(name, weights)
    moved = np.sqrt(np.mean(np.square(found_BTV - expected_BTV))) / expected_BTV.std()
    assert 1e-5 < moved < bound


def test_products_with_int8_weights_equal_those_of_the_dequantized_table(monkeypatch):
    """With several blocks and padding. Activations in two digits lose only 1/60,000 of the largest value."""
    monkeypatch.setattr("lm.inference.cpu.BLOCK", 16)
    generator = np.random.default_rng(0)
    weight_OI = generator.standard_normal((50, 32)).astype(np.float32)
    weight_OI[7] = 0.0
    linear = Int8Linear(weight_OI, None, "float32")
    x_NI = jnp.asarray(generator.standard_normal((3, 32)), jnp.float32).at[1].set(0.0)
    greatest_O1 = np.abs(weight_OI).max(axis=1, keepdims=True)
    assert (np.abs(linear.table() - weight_OI) <= greatest_O1 / 254 * 1.0001).all()
    expected_NO = np.asarray(x_NI, np.float64) @ np.asarray(linear.table(), np.float64).T
    bound_N1 = np.abs(x_NI).max(axis=1, keepdims=True) / 60_000
    error_NO = np.abs(linear.product(x_NI) - expected_NO)
    assert (error_NO <= bound_N1 * np.abs(linear.table()).sum(axis=1)[None] + 1e-6).all()
    plain_NO = inspect.unwrap(int8_product)(x_NI, linear.weight[...])[:, :50] * linear.scale[...][None]
    assert_allclose(plain_NO, expected_NO, rtol=0, atol=1e-4)


@pytest.mark.parametrize("weights", ["float32", "int8"])
def test_the_output_table_equals_that_of_the_model(weights):
    config, model, _ = case("llama, scanned")
    table_VD = np.asarray(model.output_table())
    bound = 1e-7 if weights == "float32" else np.abs(table_VD).max() / 200
    assert_allclose(for_inference(model, config, weights).output_table(), table_VD, rtol=0, atol=bound)


def test_a_model_on_several_devices_is_rejected():
    model = jax.device_put(case("gpt2")[1], NamedSharding(jax.make_mesh((2,), ("x",)), PartitionSpec()))
    with pytest.raises(UsageError, match=r"weights = int8 work on one device only, and this model is on 2"):
        for_inference(model, CONFIGS["gpt2"], "int8")


def test_argmax_returns_the_first_of_equal_maxima():
    generator = np.random.default_rng(0)
    x_BV = jnp.asarray(generator.integers(-3, 3, (7, 131)), jnp.float32).at[3].set(-jnp.inf)
    x_BV = x_BV.at[4, -1].set(9.0).at[5, 0].set(9.0)
    assert_array_equal(argmax_by_blocks(x_BV), jnp.argmax(x_BV, axis=-1))
