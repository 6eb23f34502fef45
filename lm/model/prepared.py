"""Linear maps with weights laid out for inference, which replace the trained ones: fewer bytes, read in memory order.
Created by lm/inference/weights.py.

Axes: B batch, T position, D width, I and O inputs and outputs of a linear map, N rows, t tiles and b blocks of o
outputs.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from lm.model import cpu
from lm.model.attention.layer import Attention
from lm.model.cpu import on_cpu


def kept(array: jax.Array | np.ndarray) -> nnx.Param:
    """Return an unsharded parameter."""
    return nnx.Param(jnp.asarray(array), axes=(None,) * array.ndim)


class PreparedLinear(nnx.Module):
    """x @ weight (+ bias) like `Linear`, with a weight in another layout or type."""

    def __init__(self, outputs: int, bias_O: jax.Array | None, compute_dtype: str):
        self.outputs, self.compute_dtype = outputs, compute_dtype
        self.bias = None if bias_O is None else kept(bias_O)

    def product(self, x_NI: Float[Array, "N I"]) -> Float[Array, "N O"]:
        """x @ weight, float32."""
        raise NotImplementedError

    def table(self) -> Float[Array, "O I"]:
        """Weight in the plain layout, one row per output, float32."""
        raise NotImplementedError

    def __call__(self, x_BTI: Float[Array, "B T I"]) -> Float[Array, "B T O"]:
        batch, length, width = x_BTI.shape
        y_NO = self.product(x_BTI.reshape(batch * length, width).astype(self.compute_dtype))
        if self.bias is not None:
            y_NO = y_NO + self.bias[...].astype(jnp.float32)[None, :]
        return y_NO.reshape(batch, length, -1).astype(self.compute_dtype)


class TiledLinear(PreparedLinear):
    """For CPUs: float32 weight in tiles of a few outputs (lm.model.cpu.in_tiles)."""

    def __init__(self, weight_IO: np.ndarray, bias_O: jax.Array | None, compute_dtype: str):
        super().__init__(weight_IO.shape[1], bias_O, compute_dtype)
        self.weight = kept(cpu.in_tiles(weight_IO))

    def product(self, x_NI: Float[Array, "N I"]) -> Float[Array, "N O"]:
        return cpu.by_tiles(x_NI.astype(jnp.float32), self.weight[...])[:, : self.outputs]

    def table(self) -> Float[Array, "O I"]:
        weight_tIo = self.weight[...]
        return weight_tIo.transpose(0, 2, 1).reshape(-1, weight_tIo.shape[1])[: self.outputs]


class Bfloat16Linear(PreparedLinear):
    """For CPUs: bfloat16 weight, one row per output. Inputs are rounded to bfloat16 too; sums are float32."""

    def __init__(self, weight_OI: np.ndarray, bias_O: jax.Array | None, compute_dtype: str):
        super().__init__(weight_OI.shape[0], bias_O, compute_dtype)
        self.weight = kept(jnp.asarray(weight_OI).astype(jnp.bfloat16))

    def product(self, x_NI: Float[Array, "N I"]) -> Float[Array, "N O"]:
        return cpu.bfloat16_product(x_NI, self.weight[...])

    def table(self) -> Float[Array, "O I"]:
        return self.weight[...].astype(jnp.float32)


class Int8Linear(PreparedLinear):
    """int8 weight with a float32 scale per output: symmetric quantization, in which the largest weight of an output is
    127."""

    def __init__(self, weight_OI: np.ndarray, bias_O: jax.Array | None, compute_dtype: str):
        super().__init__(weight_OI.shape[0], bias_O, compute_dtype)
        greatest_O = np.abs(weight_OI).max(axis=1)
        scale_O = np.where(greatest_O > 0, greatest_O, 1.0).astype(np.float32) / np.float32(127)
        rounded_OI = np.round(weight_OI / scale_O[:, None]).astype(np.int8)
        blocks = -(-self.outputs // cpu.BLOCK)
        filled_OI = np.pad(rounded_OI, ((0, -self.outputs % blocks), (0, 0)))
        self.weight = kept(filled_OI.reshape(blocks, -1, weight_OI.shape[1]))
        self.scale = kept(scale_O)

    def product(self, x_NI: Float[Array, "N I"]) -> Float[Array, "N O"]:
        return int8_product(x_NI, self.weight[...])[:, : self.outputs] * self.scale[...][None, :]

    def table(self) -> Float[Array, "O I"]:
        weight_boI = self.weight[...].astype(jnp.float32)
        return weight_boI.reshape(-1, weight_boI.shape[2])[: self.outputs] * self.scale[...][:, None]


@on_cpu(cpu.int8_product)
def int8_product(x_NI: Float[Array, "N I"], weight_boI: Int[Array, "b o I"]) -> Float[Array, "N O"]:
    """x @ weight.T for an int8 weight in blocks of outputs, with float32 sums."""
    weight_OI = weight_boI.reshape(-1, weight_boI.shape[2]).astype(x_NI.dtype)
    return jnp.einsum("NI,OI->NO", x_NI, weight_OI, preferred_element_type=jnp.float32)


class JoinedAttention(Attention):
    """Attention that computes queries, keys and values by one product. Only without token shift, with which each has a
    different input."""

    def __init__(self, attention: Attention, joined: PreparedLinear):
        for name, value in vars(attention).items():
            if not name.startswith("_pytree") and name not in ("query", "key", "value"):
                setattr(self, name, value)
        self.joined = joined

    def products(
        self, x_BTD: Float[Array, "B T D"], before_BTD: Float[Array, "B T D"] | None
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        inner, inner_kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        y_BTO = self.joined(x_BTD)
        return y_BTO[..., :inner], y_BTO[..., inner : inner + inner_kv], y_BTO[..., inner + inner_kv :]
