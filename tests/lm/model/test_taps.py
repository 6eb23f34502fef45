"""Taps: names, stacked layers, and the program of training, which they do not change."""

import functools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.errors import UsageError
from lm.model import layers, transformer
from lm.model.attention import layer as attention
from lm.model.attention.mask import AttentionMask
from lm.model.transformer import Transformer
from lm.training.step import loss_and_gradients
from tests.lm.model_configs import LLAMA, MODERN, initial_model, stack_layers
from tests.lm.training.test_step import TRAIN, batch_of


def model_and_tokens(config):
    model = initial_model(config)
    rows = np.random.default_rng(0).integers(0, config.vocab_size, (2, config.context_length), np.int32)
    segments_BT = np.ones_like(rows)
    segments_BT[1, 7:] = 2
    return model, jnp.asarray(rows), jnp.asarray(segments_BT)


@functools.partial(jax.jit, static_argnums=3)
def look(model, tokens_BT, segments_BT, names, window=None):
    return model.forward_with_taps(tokens_BT, AttentionMask(segments_BT, window), names)


def test_names_may_be_patterns_and_stacks_are_tapped_layer_by_layer():
    model, tokens_BT, segments_BT = model_and_tokens(MODERN)
    names = ("blocks.*.attention.[qkv]*", "logits")
    found = look(model, tokens_BT, segments_BT, names)
    parts = ("query", "key", "value")
    inside = [f"blocks.{layer}.attention.{part}" for layer in range(MODERN.layers) for part in parts]
    assert sorted(found) == sorted([*inside, "logits"])
    stacked = look(stack_layers(model), tokens_BT, segments_BT, names)
    for name, value in found.items():
        np.testing.assert_allclose(stacked[name], value, atol=1e-5)


def test_the_tapped_weights_and_values_give_the_output_of_attention():
    """With a window and grouped-query attention."""
    config = replace(LLAMA, attention_windows=(3,))
    model, tokens_BT, segments_BT = model_and_tokens(config)
    found = look(model, tokens_BT, segments_BT, ("blocks.1.attention.*",))
    weights_BHTS, value_BTKC = (np.asarray(found[f"blocks.1.attention.{name}"]) for name in ("weights", "value"))
    shared_BTHC = value_BTKC.repeat(config.heads // config.kv_heads, axis=2)
    gathered = np.einsum("BHTS,BSHC->BTHC", weights_BHTS, shared_BTHC).reshape(2, config.context_length, -1)
    weight = np.asarray(model.blocks[1].attention.out.weight[...])
    np.testing.assert_allclose(gathered @ weight, found["blocks.1.attention.out"], atol=1e-5)
    assert (weights_BHTS[0, :, 9, :7] == 0).all() and (weights_BHTS[0, :, 9, 7:10] > 0).all()


def test_an_unknown_name_is_rejected_with_the_existing_names():
    model, tokens_BT, segments_BT = model_and_tokens(LLAMA)
    with pytest.raises(
        UsageError, match=r"no activations named blocks.2.mlp.out. Its names: embedding, .*blocks.1.mlp.out"
    ):
        look(model, tokens_BT, segments_BT, ("norm", "blocks.2.mlp.out"))


@pytest.mark.parametrize("config", [MODERN, replace(LLAMA, scan_layers=True)], ids=["modern", "scan"])
def test_training_compiles_to_the_same_program_without_taps(config, monkeypatch):
    """The text of the step's program is the same if the model has no taps."""
    model = jax.eval_shape(lambda: Transformer(config, jax.random.key(0)))
    step = lambda model, batch: loss_and_gradients(model, batch, replace(TRAIN, remat="full"))
    program = lambda: jax.jit(lambda *both: step(*both)).trace(model, batch_of(config)).lower().as_text()
    with_taps = program()
    for module in (attention, layers, transformer):
        monkeypatch.setattr(module, "tap", lambda *_: None)
    assert program() == with_taps
