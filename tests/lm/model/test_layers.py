"""The position-wise layers of a block, and the token shift."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.model import cpu
from lm.model.layers import unit_rms

GELUS = pytest.mark.parametrize(
    "gelu", [cpu.gelu, functools.partial(jax.nn.gelu, approximate=True)], ids=["on a CPU", "elsewhere"]
)


@GELUS
def test_gelu_and_its_gradient_equal_the_tanh_approximation(gelu):
    """In float64, with the gradient by central differences."""
    x = np.linspace(-6, 6, 241)
    form = lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    slope = (form(x + 1e-5) - form(x - 1e-5)) / 2e-5
    found, found_slope = jax.vmap(jax.value_and_grad(gelu))(jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(found, form(x), atol=1e-5)
    np.testing.assert_allclose(found_slope, slope, atol=1e-5)


@GELUS
def test_gelu_of_large_values_is_the_identity_or_zero_with_finite_gradients(gelu):
    x = jnp.array([-1e4, -50.0, 50.0, 1e4])
    np.testing.assert_allclose(gelu(x), [0.0, 0.0, 50.0, 1e4])
    np.testing.assert_allclose(jax.vmap(jax.grad(gelu))(x), [0.0, 0.0, 1.0, 1.0])


def test_normalized_queries_keep_their_direction():
    x_BTHC = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 4, 8)) * 7, jnp.float32)
    y_BTHC = np.asarray(unit_rms(x_BTHC, 1e-6))
    np.testing.assert_allclose(np.sqrt((y_BTHC**2).mean(-1)), 1.0, atol=1e-5)
    np.testing.assert_allclose(y_BTHC / y_BTHC[..., :1], x_BTHC / x_BTHC[..., :1], rtol=1e-3)
