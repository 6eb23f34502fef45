"""Token shift, n-grams and users' blocks see only earlier tokens of the same document."""

import jax.numpy as jnp
from numpy.testing import assert_array_equal

from lm.model.attention.mask import AttentionMask
from lm.model.lookback import previous


def test_the_tokens_before_are_the_same_with_and_without_a_cache():
    """Padding, which has segment 0, does not enter the cache."""
    tokens_BT, segments_BT = jnp.array([[5, 6, 7, 8, 9]]), jnp.array([[1, 1, 2, 2, 2]])
    expected = [[[-1, 5, -1, 7, 8]], [[-1, -1, -1, -1, 7]]]
    assert_array_equal(previous(tokens_BT, AttentionMask(segments_BT), 2, missing=-1)[0], expected)
    last_BN, found = jnp.zeros((1, 2), jnp.int32), []
    for part, real in ((slice(0, 3), 3), (slice(3, 5), 1), (slice(4, 5), 1)):
        mask = AttentionMask(jnp.where(jnp.arange(part.stop - part.start) < real, segments_BT[:, part], 0))
        mask = mask.over(jnp.arange(5)[None, part], segments_BT)
        before, last_BN = previous(tokens_BT[:, part], mask, 2, last_BN, -1)
        found.append(jnp.stack(before)[:, :, :real])
    assert_array_equal(jnp.concatenate(found, axis=2), expected)
    assert_array_equal(last_BN, [[8, 9]])
