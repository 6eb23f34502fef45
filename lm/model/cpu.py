"""Operations in the forms that XLA's CPU backend is fast at. The model is written in plain operations; this file alone
decides where another form takes their place, by what is compiled for.

Axes: B batch, T query position, S key position, K key-value heads, G query heads of one of them, C channels of a head;
I and O, in and out of a linear map, N rows, t tiles and b blocks of o outputs; V vocabulary.
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from lm.parallel import target


def on_cpu[**P, R](
    fast: Callable[P, R], unless: Callable[[], bool] = lambda: False
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorates the plain form of an operation: where a CPU is compiled for, `fast` computes the same, `unless` that
    says True when it is traced."""

    def choice(plain: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(plain)
        def chosen(*args: P.args, **kwargs: P.kwargs) -> R:
            form = fast if target().platform == "cpu" and not unless() else plain
            return form(*args, **kwargs)

        return chosen

    return choice


def linear(
    x_BTI: Float[Array, "B T I"], weight_IO: Float[Array, "I O"], bias_O: Float[Array, " O"] | None
) -> Float[Array, "B T O"]:
    """One product of two matrices: the backend is markedly slower at the three-axis form of the same."""
    batch, length, width = x_BTI.shape
    y_NO = x_BTI.reshape(batch * length, width) @ weight_IO
    if bias_O is not None:
        y_NO = with_bias(y_NO, bias_O.astype(y_NO.dtype))
    return y_NO.reshape(batch, length, -1)


@jax.custom_vjp
def with_bias(y_NO: Float[Array, "N O"], bias_O: Float[Array, " O"]) -> Float[Array, "N O"]:
    """The bias on every row; its gradient is summed in float32, whatever the type."""
    return y_NO + bias_O[None, :]


def _with_bias_backward(_: None, g_NO: Float[Array, "N O"]) -> tuple[Float[Array, "N O"], Float[Array, " O"]]:
    if g_NO.dtype == jnp.float32:
        return g_NO, jnp.sum(g_NO, axis=0)
    # A product with ones: the backend sums the rows of other types some thirty times as slowly.
    ones_8N = jnp.ones((8, g_NO.shape[0]), g_NO.dtype)
    return g_NO, jnp.dot(ones_8N, g_NO, preferred_element_type=jnp.float32)[0].astype(g_NO.dtype)


with_bias.defvjp(lambda y_NO, bias_O: (with_bias(y_NO, bias_O), None), _with_bias_backward)


def weighted(weights_BKGTS: Float[Array, "B K G T S"], v_BKSC: Float[Array, "B K S C"]) -> Float[Array, "B K G T C"]:
    """The gradient for the values is summed over queries in float32: the backend is several times as slow at that
    product in bfloat16."""
    return product(weights_BKGTS, v_BKSC) if v_BKSC.dtype == jnp.float32 else product_narrow(weights_BKGTS, v_BKSC)


def product(weights_BKGTS: Float[Array, "B K G T S"], v_BKSC: Float[Array, "B K S C"]) -> Float[Array, "B K G T C"]:
    return jnp.einsum("BKGTS,BKSC->BKGTC", weights_BKGTS, v_BKSC)


product_narrow = jax.custom_vjp(product)


def _product_backward(saved, g_BKGTC):
    weights_BKGTS, v_BKSC = saved
    dv_BKSC = jnp.einsum("BKGTS,BKGTC->BKSC", weights_BKGTS.astype(jnp.float32), g_BKGTC.astype(jnp.float32))
    return jnp.einsum("BKGTC,BKSC->BKGTS", g_BKGTC, v_BKSC), dv_BKSC.astype(v_BKSC.dtype)


product_narrow.defvjp(lambda weights, v: (product(weights, v), (weights, v)), _product_backward)


TILE = 32
"""Outputs of a tile: their sums stay in the registers while a thread goes through the tile's weights, which lie one
behind the other."""


def in_tiles(weight_IO: np.ndarray) -> np.ndarray:
    """(tiles, I, TILE): the weight cut along its outputs, which are filled up with zeros."""
    filled_IO = np.pad(weight_IO, ((0, 0), (0, -weight_IO.shape[1] % TILE)))
    return np.ascontiguousarray(filled_IO.reshape(len(weight_IO), -1, TILE).transpose(1, 0, 2))


def by_tiles(x_NI: Float[Array, "N I"], weight_tIo: Float[Array, "t I o"]) -> Float[Array, "N O"]:
    """x @ weight, the weight of in_tiles, all float32: a loop that multiplies and adds, one tile after the other. The
    backend's own product of matrices reads a weight of a few rows at two thirds of the speed.
    """
    y_tNo = jnp.sum(x_NI[None, :, :, None] * weight_tIo[:, None], axis=2)
    return y_tNo.transpose(1, 0, 2).reshape(x_NI.shape[0], -1)


def bfloat16_product(x_NI: Float[Array, "N I"], weight_OI: Float[Array, "O I"]) -> Float[Array, "N O"]:
    """x @ weight.T, sums in float32. One row is filled up to two: of one the backend has no fast product in
    bfloat16."""
    rows = x_NI.shape[0]
    x_NI = jnp.concatenate([x_NI, x_NI]) if rows == 1 else x_NI
    narrow_NI, axes = x_NI.astype(jnp.bfloat16), (((1,), (1,)), ((), ()))
    return jax.lax.dot_general(narrow_NI, weight_OI, axes, preferred_element_type=jnp.float32)[:rows]


DIGIT = 254.0
"""The second digit of an activation counts so many times less than the first: half a step of that, at most, is 127."""


BLOCK = 768
"""Outputs of a block of an int8 weight: the backend is several times as slow at one product with some 50,000."""


def int8_product(x_NI: Float[Array, "N I"], weight_boI: Int[Array, "b o I"]) -> Float[Array, "N O"]:
    """x @ weight.T for a weight of int8, in blocks of outputs, by a product of integers: each row of x is a scale times
    two digits of int8 (a step is 1 / 64,000 of the row's greatest value), and a row of the product's operand each. The
    backend multiplies int8 by floats, and a single row of int8, many times as slowly.
    """
    rows = x_NI.shape[0]
    x_NI = x_NI.astype(jnp.float32)
    greatest_N1 = jnp.max(jnp.abs(x_NI), axis=1, keepdims=True)
    scale_N1 = jnp.where(greatest_N1 > 0, greatest_N1, 1.0) / 127
    scaled_NI = x_NI / scale_N1
    first_NI = jnp.round(scaled_NI)
    second_NI = jnp.round((scaled_NI - first_NI) * DIGIT)
    digits_NI = jnp.concatenate([first_NI, second_NI]).astype(jnp.int8)
    digits_bNI = jnp.broadcast_to(digits_NI[None], (weight_boI.shape[0], *digits_NI.shape))
    axes = (((2,), (2,)), ((0,), (0,)))
    y_boN = jax.lax.dot_general(weight_boI, digits_bNI, axes, preferred_element_type=jnp.int32)
    y_NO = y_boN.transpose(2, 0, 1).reshape(2 * rows, -1).astype(jnp.float32)
    return (y_NO[:rows] + y_NO[rows:] / DIGIT) * scale_N1


def argmax(x_BV: Float[Array, "B V"]) -> Int[Array, " B"]:
    """The first place of each row's greatest value: the greatest by columns side by side, then where it stands. The
    backend compares one pair of value and place after the other."""
    width = x_BV.shape[1]
    filled_BV = jnp.pad(x_BV, ((0, 0), (0, -width % TILE)), constant_values=-jnp.inf)
    by_columns_BV = jnp.max(filled_BV.reshape(x_BV.shape[0], -1, TILE), axis=1)
    greatest_B1 = jnp.max(by_columns_BV, axis=1, keepdims=True)
    places_1V = jnp.arange(width)[None]
    return jnp.min(jnp.where(x_BV == greatest_B1, places_1V, width - 1), axis=1)


def written_by_head(
    slots_BKSC: Float[Array, "B K S C"], x_BTKC: Float[Array, "B T K C"], positions_BT: Int[Array, "B T"]
) -> Float[Array, "B K S C"]:
    """One new token of each row goes into the cache where it lies; a scatter would copy the whole of it."""
    if x_BTKC.shape[1] > 1:
        rows_B1 = jnp.arange(slots_BKSC.shape[0])[:, None]
        return slots_BKSC.at[rows_B1, :, positions_BT].set(x_BTKC.astype(slots_BKSC.dtype), mode="drop")
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
    """The tanh form of GELU (arXiv:1606.08415). Its gradient is computed from x alone: to compute the tanh again is
    cheaper than to keep and read it."""
    return 0.5 * x * (1.0 + jnp.tanh(GELU_SLOPE * (x + GELU_CUBE * x**3)))


GELU_SLOPE, GELU_CUBE = math.sqrt(2.0 / math.pi), 0.044715


def _gelu_backward(x: Array, by_y: Array) -> tuple[Array]:
    tanh = jnp.tanh(GELU_SLOPE * (x + GELU_CUBE * x**3))
    slope = GELU_SLOPE * (1.0 + 3.0 * GELU_CUBE * x**2)
    return (by_y * (0.5 * (1.0 + tanh) + 0.5 * x * (1.0 - tanh**2) * slope),)


gelu.defvjp(lambda x: (gelu(x), x), _gelu_backward)
