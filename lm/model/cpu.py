"""Operations in forms that are fast on XLA's CPU backend. The model is written in plain operations; only this file
replaces them, depending on the compilation target.

Axes: B batch, T query position, S key position, K key-value heads, G query heads per key-value head, C channels of a
head; I and O inputs and outputs of a linear map, N rows.
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lm.model.arrays import CachedKeys, GroupedQueries, Keys, LinearInputs, LinearOutputs, OutputRows, TokenInts
from lm.parallel import context, devices_of


def on_cpu[**P, R](
    fast: Callable[P, R], unless_sharded: str | None = None
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorate the plain form of an operation: on a CPU target, `fast` is called instead, unless the logical axis
    `unless_sharded` is sharded."""

    def choice(plain: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(plain)
        def chosen(*args: P.args, **kwargs: P.kwargs) -> R:
            form = fast if context().target.platform == "cpu" and devices_of(unless_sharded) == 1 else plain
            return form(*args, **kwargs)

        return chosen

    return choice


def linear(x_BTI: LinearInputs, weight_IO: Float[Array, "I O"], bias_O: Float[Array, " O"] | None) -> LinearOutputs:
    """Return x @ weight (+ bias), as a product of two matrices: the CPU backend is much slower with three axes."""
    batch, length, width = x_BTI.shape
    y_NO = x_BTI.reshape(batch * length, width) @ weight_IO
    if bias_O is not None:
        y_NO = with_bias(y_NO, bias_O.astype(y_NO.dtype))
    return y_NO.reshape(batch, length, -1)


@jax.custom_vjp
def with_bias(y_NO: OutputRows, bias_O: Float[Array, " O"]) -> OutputRows:
    """Add the bias to every row. Its gradient is summed in float32, whatever the type."""
    return y_NO + bias_O[None, :]


def _with_bias_backward(_: None, g_NO: OutputRows) -> tuple[OutputRows, Float[Array, " O"]]:
    if g_NO.dtype == jnp.float32:
        return g_NO, jnp.sum(g_NO, axis=0)
    # Sum by a product with ones: the backend's sum over rows is about 30 times slower for other types.
    ones_8N = jnp.ones((8, g_NO.shape[0]), g_NO.dtype)
    return g_NO, jnp.dot(ones_8N, g_NO, preferred_element_type=jnp.float32)[0].astype(g_NO.dtype)


with_bias.defvjp(lambda y_NO, bias_O: (with_bias(y_NO, bias_O), None), _with_bias_backward)


def weighted(weights_BKGTS: Float[Array, "B K G T S"], v_BKSC: CachedKeys) -> GroupedQueries:
    """Weighted sum of the values, whose gradient is summed over queries in float32: the CPU backend is several times
    slower at that product in bfloat16."""
    return product(weights_BKGTS, v_BKSC) if v_BKSC.dtype == jnp.float32 else product_narrow(weights_BKGTS, v_BKSC)


def product(weights_BKGTS: Float[Array, "B K G T S"], v_BKSC: CachedKeys) -> GroupedQueries:
    return jnp.einsum("BKGTS,BKSC->BKGTC", weights_BKGTS, v_BKSC)


product_narrow = jax.custom_vjp(product)


def _product_backward(saved, g_BKGTC):
    weights_BKGTS, v_BKSC = saved
    dv_BKSC = jnp.einsum("BKGTS,BKGTC->BKSC", weights_BKGTS.astype(jnp.float32), g_BKGTC.astype(jnp.float32))
    return jnp.einsum("BKGTC,BKSC->BKGTS", g_BKGTC, v_BKSC), dv_BKSC.astype(v_BKSC.dtype)


product_narrow.defvjp(lambda weights, v: (product(weights, v), (weights, v)), _product_backward)


def scattered_by_head(slots_BKSC: CachedKeys, x_BTKC: Keys, positions_BT: TokenInts) -> CachedKeys:
    """Return `slots_BKSC` with `x_BTKC` written at these positions of each row; tokens beyond the last slot are
    dropped."""
    rows_B1 = jnp.arange(slots_BKSC.shape[0])[:, None]
    return slots_BKSC.at[rows_B1, :, positions_BT].set(x_BTKC.astype(slots_BKSC.dtype), mode="drop")


def written_by_head(slots_BKSC: CachedKeys, x_BTKC: Keys, positions_BT: TokenInts) -> CachedKeys:
    """Write one new token per row into the cache in place; a scatter would copy the whole cache."""
    if x_BTKC.shape[1] > 1:
        return scattered_by_head(slots_BKSC, x_BTKC, positions_BT)
    x_BK1C = x_BTKC.astype(slots_BKSC.dtype).transpose(0, 2, 1, 3)
    for row in range(slots_BKSC.shape[0]):
        at = positions_BT[row, 0]
        start = (row, 0, at, 0)
        old_1K1C = jax.lax.dynamic_slice(slots_BKSC, start, (1, *x_BK1C.shape[1:]))
        new_1K1C = jnp.where(at < slots_BKSC.shape[2], x_BK1C[row : row + 1], old_1K1C)
        slots_BKSC = jax.lax.dynamic_update_slice(slots_BKSC, new_1K1C, start)
    return slots_BKSC


@jax.custom_vjp
def gelu(x: Array) -> Array:
    """GELU with the tanh approximation (arXiv:1606.08415). The gradient is recomputed from x: recomputing the tanh is
    cheaper than storing and reading it."""
    return 0.5 * x * (1.0 + jnp.tanh(GELU_SLOPE * (x + GELU_CUBE * x**3)))


GELU_SLOPE, GELU_CUBE = math.sqrt(2.0 / math.pi), 0.044715


def _gelu_backward(x: Array, by_y: Array) -> tuple[Array]:
    tanh = jnp.tanh(GELU_SLOPE * (x + GELU_CUBE * x**3))
    slope = GELU_SLOPE * (1.0 + 3.0 * GELU_CUBE * x**2)
    return (by_y * (0.5 * (1.0 + tanh) + 0.5 * x * (1.0 - tanh**2) * slope),)


gelu.defvjp(lambda x: (gelu(x), x), _gelu_backward)
