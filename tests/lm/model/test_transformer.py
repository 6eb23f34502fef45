"""The transformer: causality and separate documents by gradients, and parity with a float64 reference."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from lm.errors import UsageError
from lm.model.attention.mask import AttentionMask
from lm.model.kv_cache import NOTHING
from lm.model.lookback import previous
from lm.model.param_names import named_leaves
from lm.model.transformer import Transformer, empty_cache, row_positions, unstack_layers
from tests.lm import reference_model
from tests.lm.model_configs import FAMILIES, GPT2, LLAMA, MODERN, random_model, stack_layers
from tests.lm.trees import leaf_pairs

CONFIGS = pytest.mark.parametrize("config", FAMILIES.values(), ids=FAMILIES)

forward = jax.jit(lambda model, tokens_BT, segments_BT: model.logits(model.read(tokens_BT, segments_BT)))


def tokens(config, batch=2, seed=0):
    rows = np.random.default_rng(seed).integers(0, config.vocab_size, (batch, config.context_length), np.int32)
    return jnp.asarray(rows)


def influence(config, tokens_BT, segments_BT, target):
    """(T,) influence of each position's embedding on the logits at `target`: the norm of the gradient."""
    return np.linalg.norm(np.asarray(gradient(random_model(config), tokens_BT, segments_BT, target))[0], axis=-1)


@jax.jit  # `target` is an argument, so there is one program for all
def gradient(model, tokens_BT, segments_BT, target):
    def felt(x_BTD):
        x_BTD, _ = model.hidden(x_BTD, row_positions(tokens_BT), AttentionMask(segments_BT))
        return jnp.sum(jnp.sin(model.logits(x_BTD)[0, target]))

    before, _ = previous(tokens_BT, AttentionMask(segments_BT), len(model.ngrams), missing=NOTHING)
    return jax.grad(felt)(model.embed(tokens_BT, row_positions(tokens_BT), before))


@pytest.mark.fast_rows
@CONFIGS
def test_gradients_show_causality_and_separate_documents(config):
    tokens_BT = tokens(config)
    segments_BT = jnp.ones_like(tokens_BT).at[:, 6:11].set(2).at[:, 11:].set(3)
    for target, start in ((0, 0), (5, 0), (9, 6), (config.context_length - 1, 11)):
        felt_T = influence(config, tokens_BT, segments_BT, target)
        assert np.all(felt_T[start : target + 1] > 0), "every token of the document up to the target must matter"
        assert np.all(felt_T[:start] == 0) and np.all(felt_T[target + 1 :] == 0), "no other token must"


WINDOWS = replace(LLAMA, layers=3, attention_windows=(4, 0))
OWN_HEADS = replace(GPT2, width=34, head_dim=6)
MORE = FAMILIES | {"windows": WINDOWS, "head_dim": OWN_HEADS}
WITH_OTHERS = pytest.mark.parametrize("config", MORE.values(), ids=MORE)


@pytest.mark.fast_rows
@WITH_OTHERS
def test_logits_and_taps_equal_the_float64_reference(config):
    model, tokens_BT = random_model(config), tokens(config)
    segments_BT = jnp.ones_like(tokens_BT).at[1, 7:].set(2)
    rows = [reference_model.row(config, model, *row) for row in zip(tokens_BT, segments_BT, strict=True)]
    expected = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    tapped = jax.jit(lambda: model.forward_with_taps(tokens_BT, AttentionMask(segments_BT), tuple(expected)))()
    assert tapped.keys() == expected.keys()
    for name, value in tapped.items():
        assert_allclose(value, expected[name], rtol=0, atol=2e-4, err_msg=name)
    assert_allclose(forward(model, tokens_BT, segments_BT), expected["logits"], rtol=0, atol=2e-4)


def test_rotary_positions_are_relative():
    """In Llama, the same document later in the window gives the same logits."""
    model, tokens_BT = random_model(LLAMA), tokens(LLAMA, batch=1)
    apart = jnp.concatenate([tokens_BT[:, :6], tokens_BT[:, :10]], axis=1)
    segments_BT = jnp.array([[1] * 6 + [2] * 10], jnp.int32)
    logits_BTV = np.asarray(forward(model, apart, segments_BT))
    assert_allclose(logits_BTV[0, :6], logits_BTV[0, 6:12], atol=1e-4)


def test_a_long_prompt_is_added_to_the_cache_in_blocks(monkeypatch):
    monkeypatch.setattr("lm.model.attention.plain.WHOLE_LENGTH", 8)
    monkeypatch.setattr("lm.model.attention.plain.LEAST_ROWS", 4)
    model, tokens_BT = random_model(LLAMA), tokens(LLAMA)
    mask = AttentionMask(jnp.ones_like(tokens_BT))
    x_BTD, _ = model(tokens_BT, row_positions(tokens_BT), mask, empty_cache(LLAMA, 2))
    expected_BTV = reference_model.logits(LLAMA, model, tokens_BT, jnp.ones_like(tokens_BT))
    assert_allclose(model.logits(x_BTD), expected_BTV, atol=2e-4)


@pytest.mark.slow
def test_gradients_show_the_window():
    """With one layer, only the window; with two, also the windows of its positions."""
    tokens_BT = tokens(LLAMA)
    for layers, windows, first in ((1, (4,), 9), (2, (4,), 6), (2, (4, 0), 0)):
        config = replace(LLAMA, layers=layers, attention_windows=windows)
        felt_T = influence(config, tokens_BT, jnp.ones_like(tokens_BT), target=12)
        assert np.flatnonzero(felt_T).tolist() == list(range(first, 13)), windows


def test_a_prefix_is_bidirectional_in_the_whole_model():
    model, tokens_BT = random_model(LLAMA), tokens(LLAMA)
    mask = AttentionMask(jnp.ones_like(tokens_BT), prefix_B=jnp.array([6, 0]))

    @jax.jit
    def felt(x_BTD, row, target):
        out = lambda x_BTD: jnp.sum(jnp.sin(model.hidden(x_BTD, row_positions(tokens_BT), mask)[0][row, target]))
        return jnp.linalg.norm(jax.grad(out)(x_BTD)[row], axis=-1)

    x_BTD = model.embed(tokens_BT, row_positions(tokens_BT), [])
    for row, target, end in ((0, 2, 6), (0, 5, 6), (0, 8, 9), (1, 2, 3)):
        assert np.flatnonzero(np.asarray(felt(x_BTD, row, target))).tolist() == list(range(end))


@pytest.mark.fast_rows
@WITH_OTHERS
def test_stacked_and_separate_layers_are_the_same_model(config):
    config = replace(config, attention_windows=config.attention_windows[:1])
    model, tokens_BT = random_model(config), tokens(config)
    stack = stack_layers(model)
    like = jax.eval_shape(lambda: Transformer(replace(config, scan_layers=True), jax.random.key(0)))
    assert jax.tree.structure(stack) == jax.tree.structure(like)
    found = named_leaves(stack)
    assert all(found[name].shape == leaf.shape for name, leaf in named_leaves(like).items())
    again = unstack_layers(stack)
    assert jax.tree.structure(again) == jax.tree.structure(model)
    for one, other in leaf_pairs(again, model):
        assert_array_equal(one, other)
    expected_BTV = forward(model, tokens_BT, jnp.ones_like(tokens_BT))
    assert_allclose(forward(stack, tokens_BT, jnp.ones_like(tokens_BT)), expected_BTV, atol=1e-4)


def test_layers_with_different_windows_are_not_stacked():
    with pytest.raises(UsageError, match=r"attention_windows = \(4, 0\) gives the 3 layers different windows, but"):
        replace(WINDOWS, scan_layers=True)


@pytest.mark.parametrize("config", [LLAMA, MODERN], ids=["llama", "modern"])
def test_rotary_tables_are_computed_once_per_forward_pass(config):
    model, tokens_BT = random_model(config), tokens(config)
    program = str(jax.make_jaxpr(lambda model: model.read(tokens_BT, jnp.ones_like(tokens_BT)))(model))
    assert program.count(" cos ") == 1 and program.count(" sin ") == 1


@pytest.mark.fast_rows
@CONFIGS
def test_bfloat16_compute_keeps_float32_logits_and_parameters(config):
    exact = config
    config = replace(config, compute_dtype="bfloat16")
    model, tokens_BT = random_model(config), tokens(config)
    logits_BTV = forward(model, tokens_BT, jnp.ones_like(tokens_BT))
    assert logits_BTV.dtype == jnp.float32
    rounded_BTV = logits_BTV.astype(jnp.bfloat16).astype(jnp.float32)
    assert float(jnp.mean(logits_BTV == rounded_BTV)) < 0.1, "the logits were rounded to bfloat16"
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(model))
    exact_BTV = np.asarray(forward(random_model(exact), tokens_BT, jnp.ones_like(tokens_BT)))
    difference = np.abs(np.asarray(logits_BTV) - exact_BTV)
    assert 0 < difference.max() < 0.05 * np.abs(exact_BTV).max()
