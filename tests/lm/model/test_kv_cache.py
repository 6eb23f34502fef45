"""The key-value cache: positions of the keys, and updates in place."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.model.attention.mask import AttentionMask
from lm.model.kv_cache import LayerCache, written, written_by_head
from lm.model.transformer import empty_cache
from tests.lm.model_configs import MODERN, random_model


@pytest.mark.parametrize("count", [1, 3])
def test_keys_are_written_at_their_positions_and_nothing_beyond_the_last_slot(count):
    """The in-place update for one token per row equals the update for several tokens."""
    generator = np.random.default_rng(0)
    slots_BKSC = jnp.asarray(generator.standard_normal((3, 2, 6, 4)), jnp.float32)
    x_BTKC = jnp.asarray(generator.standard_normal((3, count, 2, 4)), jnp.float32)
    positions_BT = jnp.array([[0], [6], [5]]) + jnp.arange(count)[None]
    expected = written(slots_BKSC.transpose(0, 2, 1, 3), x_BTKC, positions_BT).transpose(0, 2, 1, 3)
    np.testing.assert_array_equal(written_by_head(slots_BKSC, x_BTKC, positions_BT), expected)


def test_the_cache_is_updated_in_place():
    """The compiled step aliases every buffer of a donated cache, and has no copy of any."""
    config = dataclasses.replace(MODERN, token_shift=False, ngram_rows=0)
    model, cache = random_model(config), empty_cache(config, 2, 64)
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
