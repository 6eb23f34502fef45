"""The operations for CPUs equal the plain ones in values and gradients, and are compiled only for CPUs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from lm.devices import Target
from lm.model import cpu
from lm.model.attention.plain import weighted
from lm.model.layers import gelu, linear
from lm.parallel import CONTEXT, Context
from tests.lm.trees import leaf_pairs


def plain_linear(x, weight, bias):
    y = jnp.einsum("BTI,IO->BTO", x, weight)
    return (y.astype(jnp.float32) + bias.astype(jnp.float32)[None, None, :]).astype(y.dtype)


def plain_weighted(weights, v):
    return jnp.einsum("BKGTS,BKSC->BKGTC", weights, v)


def plain_gelu(x):
    return jax.nn.gelu(x, approximate=True)


FORMS = {
    "linear": (linear, cpu.linear, plain_linear, [(2, 16, 8), (8, 12), (12,)]),
    "weighted": (weighted, cpu.weighted, plain_weighted, [(2, 2, 2, 16, 16), (2, 2, 16, 4)]),
    "gelu": (gelu, cpu.gelu, plain_gelu, [(2, 16, 8)]),
}
EACH = pytest.mark.parametrize(("chosen", "fast", "plain", "shapes"), FORMS.values(), ids=FORMS)


def with_gradients(form):
    def step(*inputs):
        value, pull = jax.vjp(form, *inputs)
        return value, pull(jnp.sin(value))

    return step


def program(form, shapes, platform):
    inputs = [jax.ShapeDtypeStruct(shape, "bfloat16") for shape in shapes]
    with CONTEXT(Context(Target(platform))):
        traced = jax.jit(with_gradients(form)).trace(*inputs)
        return traced.lower(lowering_platforms=(platform,)).as_text()


@EACH
@pytest.mark.parametrize("platform", ["tpu", "cuda", "rocm"])
def test_other_platforms_use_the_plain_operation(chosen, fast, plain, shapes, platform):
    assert program(chosen, shapes, platform) == program(plain, shapes, platform)


@EACH
def test_cpus_use_their_own_operation(chosen, fast, plain, shapes):
    assert program(chosen, shapes, "cpu") == program(fast, shapes, "cpu") != program(plain, shapes, "cpu")


@pytest.mark.fast_rows(3)
@EACH
@pytest.mark.parametrize(("dtype", "atol"), [("float32", 1e-5), ("bfloat16", 0.1)])
def test_both_operations_have_the_same_values_and_gradients(chosen, fast, plain, shapes, dtype, atol):
    generator = np.random.default_rng(0)
    inputs = [jnp.asarray(generator.normal(size=shape), dtype) for shape in shapes]
    found, expected = (jax.jit(with_gradients(form))(*inputs) for form in (fast, plain))
    for one, other in leaf_pairs(found, expected):
        assert one.dtype == other.dtype == jnp.dtype(dtype)
        assert_allclose(one.astype(jnp.float32), other.astype(jnp.float32), atol=atol, rtol=atol)


def test_gelu_of_large_values_is_the_identity_or_zero_with_finite_gradients():
    x = jnp.array([-1e4, -50.0, 50.0, 1e4])
    assert_allclose(cpu.gelu(x), [0.0, 0.0, 50.0, 1e4])
    assert_allclose(jax.vmap(jax.grad(cpu.gelu))(x), [0.0, 0.0, 1.0, 1.0])
