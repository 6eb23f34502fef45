"""Token shift and n-grams see only earlier tokens of the same document, and no block lacks a token shift silently."""

import jax.numpy as jnp
import numpy as np

from lm.model.attention.mask import AttentionMask
from lm.model.kv_cache import empty_cache
from lm.model.lookback import shifted, tokens_before
from tests.lm.model_configs import MODERN


def test_the_token_shift_uses_only_the_previous_token_of_the_same_document():
    x_BTD = jnp.arange(1.0, 11.0).reshape(1, 5, 2)
    mask = AttentionMask(jnp.array([[1, 1, 2, 2, 0]], jnp.int32))
    found = np.asarray(shifted(x_BTD, mask))
    np.testing.assert_array_equal(found[0], [[0, 0], [1, 2], [0, 0], [5, 6], [0, 0]])
    over = mask.over(jnp.arange(1, 6)[None], jnp.array([[1, 1, 1, 2, 2, 0, -1]], jnp.int32))
    found = np.asarray(shifted(x_BTD, over, jnp.full((1, 1, 2), 20.0)))
    np.testing.assert_array_equal(found[0], [[20, 20], [1, 2], [0, 0], [5, 6], [0, 0]])


def test_the_tokens_before_are_the_same_with_and_without_a_cache():
    tokens_BT, segments_BT = jnp.array([[5, 6, 7, 8, 9]]), jnp.array([[1, 1, 2, 2, 2]])
    expected = [[[-1, 5, -1, 7, 8]], [[-1, -1, -1, -1, 7]]]
    np.testing.assert_array_equal(tokens_before(tokens_BT, AttentionMask(segments_BT), 2), expected)
    cache, found = empty_cache(MODERN, 1), []
    for part in (slice(0, 3), slice(3, 5)):
        positions_BT = jnp.arange(5)[None, part]
        cache = cache.reading(tokens_BT[:, part], positions_BT, segments_BT[:, part])
        mask = AttentionMask(segments_BT[:, part]).over(positions_BT, cache.segment_ids_BS)
        found.append(tokens_before(tokens_BT[:, part], mask, 2, cache))
    np.testing.assert_array_equal(np.concatenate(found, axis=2), expected)
