"""The loss against its definition in float64."""

import jax.numpy as jnp
import numpy as np

from lm.loss import cross_entropy, weighted_mean


def test_cross_entropy_is_minus_log_softmax():
    generator = np.random.default_rng(0)
    logits_BTV, targets_BT = generator.normal(size=(2, 3, 7)) * 20, generator.integers(0, 7, (2, 3))
    exponentials = np.exp(logits_BTV)
    expected_BT = -np.log(np.take_along_axis(exponentials, targets_BT[..., None], -1)[..., 0] / exponentials.sum(-1))
    found_BT = cross_entropy(jnp.asarray(logits_BTV, jnp.float32), jnp.asarray(targets_BT, jnp.int32))
    np.testing.assert_allclose(np.asarray(found_BT), expected_BT, atol=1e-4)


def test_large_logits_do_not_overflow():
    logits_BTV = jnp.array([[[1e4, 0.0], [-1e4, 0.0]]], jnp.float32)
    found_BT = np.asarray(cross_entropy(logits_BTV, jnp.zeros((1, 2), jnp.int32)))
    np.testing.assert_allclose(found_BT, [[0.0, 1e4]])


def test_weights_leave_padding_out_of_the_mean():
    values_BT, weights_BT = jnp.array([[1.0, 5.0, 100.0]]), jnp.array([[1.0, 1.0, 0.0]])
    assert float(weighted_mean(values_BT, weights_BT)) == 3.0
    assert float(weighted_mean(values_BT, jnp.zeros((1, 3)))) == 0.0
