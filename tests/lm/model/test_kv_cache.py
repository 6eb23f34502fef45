"""What is kept of the tokens already read: rows that move into the slots of a running batch."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.model.attention.mask import AttentionMask
from lm.model.kv_cache import LayerCache, empty_cache, with_rows, written, written_by_head
from tests.lm.model.test_transformer import MODERN, make, tokens

SCANNED = dataclasses.replace(MODERN, scan_layers=True)


@jax.jit
def read_on(model, tokens_BT, positions_BT, segments_BT, cache):
    x_BTD, cache = model(tokens_BT, positions_BT, AttentionMask(segments_BT), cache)
    return model.logits(x_BTD), cache


def positions_of(tokens_BT):
    return jnp.broadcast_to(jnp.arange(tokens_BT.shape[1]), tokens_BT.shape)


def read(model, config, tokens_BT, lengths_B, capacity):
    places_BT = positions_of(tokens_BT)
    real_BT = (places_BT < jnp.asarray(lengths_B)[:, None]).astype(jnp.int32)
    return read_on(model, tokens_BT, places_BT, real_BT, empty_cache(config, len(tokens_BT), capacity))[1]


@pytest.mark.parametrize("config", [MODERN, SCANNED], ids=["unrolled", "scanned"])
def test_rows_of_another_cache_go_on_in_their_slots_and_leave_the_others_alone(config):
    """Slot 2 gets a row of a shorter cache and forgets its own; slot 0 goes on as if nothing had come."""
    model, tokens_BT, length = make(config), tokens(config, batch=3), config.context_length
    running = read(model, config, tokens_BT, [9, 6, 11], length)
    arriving = read(model, config, tokens_BT[1:, :8], [5, 3], 8)
    joined = jax.jit(with_rows)(running, arriving, jnp.array([2, 7], jnp.int32))
    np.testing.assert_array_equal(joined.lengths_B, [9, 6, 5])
    rows_BT = jnp.stack([tokens_BT[0], tokens_BT[1], tokens_BT[1]])
    expected_BTV = read_on(model, rows_BT, positions_of(rows_BT), jnp.ones_like(rows_BT), empty_cache(config, 3))[0]
    ones_B1 = jnp.ones((3, 1), jnp.int32)
    for _ in range(3):
        at_B1 = joined.lengths_B[:, None]
        token_B1 = jnp.take_along_axis(rows_BT, at_B1, axis=1)
        logits_B1V, joined = read_on(model, token_B1, at_B1, ones_B1, joined)
        for row in range(3):
            np.testing.assert_allclose(logits_B1V[row, 0], expected_BTV[row, at_B1[row, 0]], atol=1e-4)


def test_rows_with_more_positions_than_the_slots_have_are_refused():
    with pytest.raises(ValueError, match="rows of 16 positions do not fit into a cache of 8"):
        with_rows(empty_cache(MODERN, 1, 8), empty_cache(MODERN, 1, 16), jnp.zeros((1,), jnp.int32))


@pytest.mark.parametrize("count", [1, 3])
def test_keys_are_written_at_their_positions_and_nothing_beyond_the_last_slot(count):
    """The form for one token a row, which writes in place, and that for several put the same there."""
    generator = np.random.default_rng(0)
    slots_BKSC = jnp.asarray(generator.standard_normal((3, 2, 6, 4)), jnp.float32)
    x_BTKC = jnp.asarray(generator.standard_normal((3, count, 2, 4)), jnp.float32)
    positions_BT = jnp.array([[0], [6], [5]]) + jnp.arange(count)[None]
    expected = written(slots_BKSC.transpose(0, 2, 1, 3), x_BTKC, positions_BT).transpose(0, 2, 1, 3)
    np.testing.assert_array_equal(written_by_head(slots_BKSC, x_BTKC, positions_BT), expected)


def test_a_step_writes_into_the_cache_in_place():
    """The compiled step aliases every buffer of a donated cache, and holds no copy of one."""
    config = dataclasses.replace(MODERN, token_shift=False, ngram_rows=0)
    model, cache = make(config), empty_cache(config, 2, 64)
    one_B1 = jnp.ones((2, 1), jnp.int32)
    step = jax.jit(
        lambda model, cache: model(one_B1, cache.lengths_B[:, None], AttentionMask(one_B1), cache)[1],
        donate_argnums=1,
    )
    compiled = step.lower(model, cache).compile()
    layer = cache.layers[0]
    assert isinstance(layer, LayerCache)
    shape = ",".join(str(size) for size in layer.keys_BKSC.shape)
    program = compiled.as_text()
    assert program is not None
    assert len(re.findall("may-alias|must-alias", program)) == len(jax.tree.leaves(cache))
    copies = [line for line in program.splitlines() if f"f32[{shape}]" in line and " copy(" in line]
    assert not copies
