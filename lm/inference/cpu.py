"""Linear maps with weights laid out for generation, which replace the trained ones: fewer bytes, read in memory order.
Most are for CPUs, where decoding a few rows is limited by memory bandwidth. Created by lm.inference.weights.

Axes: B batch, T position, D width, I and O inputs and outputs of a linear map, N rows, t tiles and b blocks of o
outputs, V vocabulary.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from lm.model.arrays import InputRows, LinearInputs, LinearOutputs, OutputRows, ResidualStream
from lm.model.attention.layer import Attention, Products
from lm.model.cpu import on_cpu

TILE = 32
"""Outputs per tile: their sums stay in registers while a thread reads the weights of the tile, which are contiguous."""
BLOCK = 768
"""Outputs per block of an int8 weight: the CPU backend is several times slower at one product with about 50,000
outputs."""
DIGIT = 254.0
"""Ratio of the first to the second int8 digit of an activation, such that half a step of the first digit is 127."""


def unsharded(array: jax.Array | np.ndarray) -> nnx.Param:
    """Return a parameter with the values of `array`, replicated on all devices (no logical axes)."""
    return nnx.Param(jnp.asarray(array), axes=(None,) * array.ndim)


class PreparedLinear(nnx.Module):
    """Base class of linear maps for generation: x @ weight (+ bias), with the weight in another layout or type."""

    def __init__(self, weight_OI: np.ndarray, bias_O: jax.Array | None, compute_dtype: str):
        self.outputs, self.compute_dtype = len(weight_OI), compute_dtype
        self.bias = None if bias_O is None else unsharded(bias_O)
        self.lay_out(weight_OI)

    def lay_out(self, weight_OI: np.ndarray) -> None:
        """Store a float32 weight."""
        raise NotImplementedError

    def product(self, x_NI: InputRows) -> OutputRows:
        """Return x @ weight, without bias, in float32."""
        raise NotImplementedError

    def table(self) -> Float[Array, "O I"]:
        """Return the weight as a plain float32 matrix with one row per output."""
        raise NotImplementedError

    def __call__(self, x_BTI: LinearInputs) -> LinearOutputs:
        batch, length, width = x_BTI.shape
        y_NO = self.product(x_BTI.reshape(batch * length, width).astype(self.compute_dtype))
        if self.bias is not None:
            y_NO = y_NO + self.bias[...].astype(jnp.float32)[None, :]
        return y_NO.reshape(batch, length, -1).astype(self.compute_dtype)


class TiledLinear(PreparedLinear):
    """Linear map for CPUs: float32 weight in contiguous tiles of TILE outputs, the last one padded with zeros."""

    def lay_out(self, weight_OI: np.ndarray) -> None:
        filled_OI = np.pad(weight_OI, ((0, -self.outputs % TILE), (0, 0)))
        self.weight = unsharded(np.ascontiguousarray(filled_OI.reshape(-1, TILE, weight_OI.shape[1]).swapaxes(1, 2)))

    def product(self, x_NI: InputRows) -> OutputRows:
        # A multiply-add loop over the tiles: with few rows, the backend's own matrix product reads a weight at only two
        # thirds of the speed.
        y_tNo = jnp.sum(x_NI.astype(jnp.float32)[None, :, :, None] * self.weight[...][:, None], axis=2)
        return y_tNo.transpose(1, 0, 2).reshape(x_NI.shape[0], -1)[:, : self.outputs]

    def table(self) -> Float[Array, "O I"]:
        weight_tIo = self.weight[...]
        return weight_tIo.transpose(0, 2, 1).reshape(-1, weight_tIo.shape[1])[: self.outputs]


class Bfloat16Linear(PreparedLinear):
    """Linear map for CPUs: bfloat16 weight, one row per output. Inputs are rounded too; sums are float32."""

    def lay_out(self, weight_OI: np.ndarray) -> None:
        self.weight = unsharded(jnp.asarray(weight_OI).astype(jnp.bfloat16))

    def product(self, x_NI: InputRows) -> OutputRows:
        # A single row is duplicated, because the backend has no fast bfloat16 product for one row.
        rows = x_NI.shape[0]
        x_NI = jnp.concatenate([x_NI, x_NI]) if rows == 1 else x_NI
        narrow_NI, axes = x_NI.astype(jnp.bfloat16), (((1,), (1,)), ((), ()))
        return jax.lax.dot_general(narrow_NI, self.weight[...], axes, preferred_element_type=jnp.float32)[:rows]

    def table(self) -> Float[Array, "O I"]:
        return self.weight[...].astype(jnp.float32)


class Int8Linear(PreparedLinear):
    """Linear map with an int8 weight and a float32 scale per output; the largest absolute int8 weight of each output is
    127."""

    def lay_out(self, weight_OI: np.ndarray) -> None:
        greatest_O = np.abs(weight_OI).max(axis=1)
        scale_O = np.where(greatest_O > 0, greatest_O, 1.0).astype(np.float32) / np.float32(127)
        rounded_OI = np.round(weight_OI / scale_O[:, None]).astype(np.int8)
        blocks = -(-self.outputs // BLOCK)
        filled_OI = np.pad(rounded_OI, ((0, -self.outputs % blocks), (0, 0)))
        self.weight = unsharded(filled_OI.reshape(blocks, -1, weight_OI.shape[1]))
        self.scale = unsharded(scale_O)

    def product(self, x_NI: InputRows) -> OutputRows:
        return int8_product(x_NI, self.weight[...])[:, : self.outputs] * self.scale[...][None, :]

    def table(self) -> Float[Array, "O I"]:
        weight_boI = self.weight[...].astype(jnp.float32)
        return weight_boI.reshape(-1, weight_boI.shape[2])[: self.outputs] * self.scale[...][:, None]


def int8_product_on_cpu(x_NI: InputRows, weight_boI: Int[Array, "b o I"]) -> OutputRows:
    """Return x @ weight.T in float32, by an int8 product, for an int8 weight in b blocks of o outputs.

    Each row of x is quantized to two int8 digits (steps of 1/64,000 of the row's maximum), which are two rows of the
    product: the CPU backend is many times slower with int8 x float, and with a single int8 row.
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


@on_cpu(int8_product_on_cpu)
def int8_product(x_NI: InputRows, weight_boI: Int[Array, "b o I"]) -> OutputRows:
    """Return x @ weight.T with float32 sums, for an int8 weight in b blocks of o outputs; scales are not applied."""
    weight_OI = weight_boI.reshape(-1, weight_boI.shape[2]).astype(x_NI.dtype)
    return jnp.einsum("NI,OI->NO", x_NI, weight_OI, preferred_element_type=jnp.float32)


class JoinedAttention(Attention):
    """Attention that computes queries, keys and values by one product. Replaces only plain Attention, in which all
    three have the same input."""

    def __init__(self, attention: Attention, joined: PreparedLinear):
        for name, value in vars(attention).items():
            if not name.startswith("_pytree") and name not in ("query", "key", "value"):
                setattr(self, name, value)
        self.joined = joined

    def products(self, x_BTD: ResidualStream) -> Products:
        inner, inner_kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        y_BTO = self.joined(x_BTD)
        return y_BTO[..., :inner], y_BTO[..., inner : inner + inner_kv], y_BTO[..., inner + inner_kv :]
