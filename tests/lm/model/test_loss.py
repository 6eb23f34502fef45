"""The loss compared with its definition in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from optax import softmax_cross_entropy_with_integer_labels as cross_entropy

from lm.model.layers import softcapped
from lm.model.loss import summed_cross_entropy, token_losses
from tests.lm.trees import leaf_pairs
from tests.traced import equations


def case(dtype: str = "float32", vocabulary: int = 37):
    """x, table, targets and weights, one of them 0."""
    generator = np.random.default_rng(0)
    x_BTD = jnp.asarray(generator.normal(size=(2, 8, 5)), dtype)
    table_VD = jnp.asarray(generator.normal(size=(vocabulary, 5)), jnp.float32)
    targets_BT = jnp.asarray(generator.integers(0, vocabulary, (2, 8)), jnp.int32)
    weights_BT = jnp.asarray(generator.random((2, 8)), jnp.float32).at[1, 3].set(0.0)
    return x_BTD, table_VD, targets_BT, weights_BT


def plain_sum(x_BTD, table_VD, targets_BT, weights_BT, softcap=None, z_loss=0.0):
    """(sum with the z-loss, sum of only the losses), by their definitions."""
    table_VD = table_VD.astype(x_BTD.dtype)
    logits_BTV = softcapped(jnp.einsum("BTD,VD->BTV", x_BTD, table_VD, preferred_element_type=jnp.float32), softcap)
    losses_BT = cross_entropy(logits_BTV, targets_BT)
    penalty_BT = z_loss * jnp.square(jax.nn.logsumexp(logits_BTV, axis=-1))
    return jnp.sum((losses_BT + penalty_BT) * weights_BT), jnp.sum(losses_BT * weights_BT)


def assert_all_close(found, expected):
    for one, other in leaf_pairs(found, expected):
        assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.fast_rows
@pytest.mark.parametrize(
    ("parts", "softcap", "z_loss"), [(1, None, 0.0), (8, None, 0.0), (4, 2.0, 0.0), (2, None, 0.3), (4, 2.0, 0.3)]
)
def test_the_sum_in_parts_has_the_value_and_gradients_of_its_definition(parts, softcap, z_loss):
    x_BTD, table_VD, *others = case()
    of = lambda form, *more: lambda x, table: [3.0 * value for value in form(x, table, *others, *more)]
    summed, plain = of(summed_cross_entropy, parts, softcap, z_loss), of(plain_sum, softcap, z_loss)
    with_gradients = lambda form: jax.value_and_grad(lambda x, table: tuple(form(x, table)), (0, 1), has_aux=True)
    found, gradients = jax.jit(with_gradients(summed))(x_BTD, table_VD)
    expected, wanted = with_gradients(plain)(x_BTD, table_VD)
    assert_all_close((found, gradients), (expected, wanted))
    assert not gradients[0][1, 3].any()  # weight 0
    assert_all_close(tuple(summed(x_BTD, table_VD)), expected)  # the code path without gradients


def test_parts_without_trained_tokens_are_skipped():
    """What is not computed may be NaN: of 16 tokens in 4 parts, 12 have the weight 0."""
    x_BTD, table_VD, targets_BT, weights_BT = case()
    weights_BT = weights_BT * (np.arange(16).reshape(2, 8) % 4 == 1)
    summed = lambda x, table: summed_cross_entropy(x, table, targets_BT, weights_BT, 4, None, 0.1, True)[0]
    whole = lambda x, table: summed_cross_entropy(x, table, targets_BT, weights_BT, 4, None, 0.1)[0]
    broken_BTD = jnp.where(weights_BT[..., None] == 0, jnp.nan, x_BTD)
    found, gradients = jax.jit(jax.value_and_grad(summed, (0, 1)))(broken_BTD, table_VD)
    expected, wanted = jax.jit(jax.value_and_grad(whole, (0, 1)))(x_BTD, table_VD)
    assert_all_close((found, gradients), (expected, wanted))
    nothing = jax.grad(lambda x: summed_cross_entropy(x, table_VD, targets_BT, 0 * weights_BT, 4, None, 0.0, True)[0])
    assert not nothing(broken_BTD).any()


def test_products_in_bfloat16_keep_the_gradients_dtypes_and_nearly_their_values():
    x_BTD, table_VD, targets_BT, weights_BT = case("bfloat16")
    gradients = jax.grad(lambda x, table: summed_cross_entropy(x, table, targets_BT, weights_BT, 4)[0], (0, 1))(
        x_BTD, table_VD
    )
    wanted = jax.grad(lambda x, table: plain_sum(x, table, targets_BT, weights_BT)[0], (0, 1))(
        x_BTD.astype(jnp.float32), table_VD
    )
    assert [gradient.dtype for gradient in gradients] == [jnp.bfloat16, jnp.float32]
    for one, other in zip(gradients, wanted, strict=True):
        error = jnp.linalg.norm(one.astype(jnp.float32) - other) / jnp.linalg.norm(other)
        assert error < 0.02


def test_large_logits_do_not_overflow():
    x_BTD, table_VD = jnp.ones((1, 2, 1)), jnp.array([[1e4], [0.0], [-1e4]])
    targets_BT = jnp.array([[0, 2]], jnp.int32)
    assert_allclose(token_losses(x_BTD, table_VD, targets_BT, None), [[0.0, 2e4]])
    summed = lambda x: summed_cross_entropy(x, table_VD, targets_BT, jnp.ones((1, 2)), 2)[0]
    loss, gradient = jax.value_and_grad(summed)(x_BTD)
    assert (float(loss), gradient[0, 0, 0], gradient[0, 1, 0]) == (2e4, 0.0, 2e4)


def test_the_logits_are_never_all_in_memory():
    """No value in the program of the gradient, including inner loops, is as large as the logits of two parts."""
    x_BTD, table_VD, targets_BT, weights_BT = case(vocabulary=1000)
    gradient = jax.grad(lambda x, table: summed_cross_entropy(x, table, targets_BT, weights_BT, 8)[0], (0, 1))
    traced = jax.make_jaxpr(gradient)(x_BTD, table_VD).jaxpr
    sizes = [result.aval.size for equation, _ in equations(traced) for result in equation.outvars]
    assert 2 * 1000 <= max(sizes) == 5 * 1000  # the logits of a part with 2 positions; the gradient of the table


def test_token_losses_in_parts_equal_those_of_whole_logits(monkeypatch):
    x_BTD, table_VD, targets_BT, _ = case()
    expected_BT = cross_entropy(softcapped(jnp.einsum("BTD,VD->BTV", x_BTD, table_VD), 5.0), targets_BT)
    for limit in (1, 2 * 4 * 37, 1 << 26):  # one position per row at a time, four, all
        monkeypatch.setattr("lm.model.loss.LOGITS_AT_ONCE", limit)
        found_BT = jax.jit(lambda x: token_losses(x, table_VD, targets_BT, 5.0))(x_BTD)
        assert_allclose(found_BT, expected_BT, rtol=1e-5)
