"""Position-wise parts of a block: linear maps, norms, MLPs, rotary embeddings.

Axes: B batch, T position, D width, F MLP width, H heads, C channels of a head, V vocabulary; I and O inputs and outputs
of a linear map.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

from lm.config import ModelConfig, RopeScalingConfig
from lm.model import cpu
from lm.model.arrays import LinearInputs, LinearOutputs, OutputTable, Positions, Queries, ResidualStream
from lm.model.cpu import on_cpu
from lm.model.taps import Taps, tap
from lm.parallel import (
    TOKENS,
    constrain,
    context,
    gather_width,
    manual_axes,
    on_each_device,
    sum_over,
    when_ready,
)
from lm.trusted_code import named


def parameter(key: jax.Array, shape: tuple[int, ...], axes: tuple[str, ...], std: float, dtype: str) -> nnx.Param:
    """Return a parameter initialized from a normal distribution, with the names of its logical axes for lm.parallel."""
    return nnx.Param(std * jax.random.normal(key, shape, jnp.dtype(dtype)), axes=axes)


def constant(value: float, shape: tuple[int, ...], axes: tuple[str, ...], dtype: str) -> nnx.Param:
    """Return a parameter initialized with a constant."""
    return nnx.Param(jnp.full(shape, value, jnp.dtype(dtype)), axes=axes)


@on_cpu(cpu.linear, unless_sharded="length")  # merging B and T would replicate sharded sequences
def linear(x_BTI: LinearInputs, weight_IO: Float[Array, "I O"], bias_O: Float[Array, " O"] | None) -> LinearOutputs:
    """x @ weight (+ bias), in the type of x and weight; the bias is added, and its gradient summed, in float32."""
    return with_bias(jnp.einsum("BTI,IO->BTO", x_BTI, weight_IO), bias_O)


def with_bias(y_BTO: LinearOutputs, bias_O: Float[Array, " O"] | None) -> LinearOutputs:
    """Add the bias, if any, and sum its gradient, in float32."""
    if bias_O is None:
        return y_BTO
    return (y_BTO.astype(jnp.float32) + bias_O.astype(jnp.float32)[None, None, :]).astype(y_BTO.dtype)


def used(axis: str) -> str:
    """Return the logical axis of activations that are multiplied along a weight's axis: "embed", which is not sharded,
    for "width"; `axis` itself for any other axis."""
    return "embed" if axis == "width" else axis


class Linear(nnx.Module):
    """x @ weight (+ bias), computed in the config's compute dtype, plus the output of an adapter (lora.py), if any."""

    def __init__(
        self,
        config: ModelConfig,
        key: jax.Array,
        sizes: tuple[int, int],
        axes: tuple[str, str],
        *,
        std: float,
        may_have_bias: bool = True,
    ):
        self.weight = parameter(key, sizes, axes, std, config.parameter_dtype)
        has_bias = config.biases and may_have_bias
        self.bias = constant(0.0, (sizes[1],), (axes[1],), config.parameter_dtype) if has_bias else None
        self.adapter: Callable[[jax.Array], jax.Array] | None = None
        self.compute_dtype = config.compute_dtype
        self.axes = axes

    def __call__(self, x_BTI: LinearInputs) -> LinearOutputs:
        if self.adapter is None:
            return self.of_weight(x_BTI)
        x_BTI = x_BTI.astype(self.compute_dtype)
        return self.of_weight(x_BTI) + self.adapter(x_BTI)

    def of_weight(self, x_BTI: LinearInputs) -> LinearOutputs:
        """Compute x @ weight (+ bias)."""
        x_BTI, weight_IO = x_BTI.astype(self.compute_dtype), self.weight[...]
        bias_O = None if self.bias is None else self.bias[...]
        if context().weights_stay(x_BTI.shape[0] * x_BTI.shape[1], weight_IO):
            # Each device has, for all rows, the channels of its shard of the weight.
            channels_in, channels_out = self.axes
            x_BTI = constrain(x_BTI, "rows", None, channels_in)
            y_BTO = linear(x_BTI, weight_IO.astype(self.compute_dtype), bias_O)
            y_BTO = constrain(y_BTO, "rows", None, channels_out)
            return constrain(y_BTO, "batch", "length", used(channels_out))
        # Gather here: over the devices that share the width, weights and their gradients move, but activations do not.
        if context().gathers_weights:
            channels_in, channels_out = map(used, self.axes)
            on_parts = on_each_device(((*TOKENS, channels_in), self.axes, self.axes[1:]), (*TOKENS, channels_out))
            return on_parts(self.of_parts)(x_BTI, weight_IO.astype(self.compute_dtype), bias_O)
        x_BTI, weight_IO = when_ready(x_BTI, weight_IO)
        weight_IO = constrain(weight_IO.astype(self.compute_dtype), *map(used, self.axes))
        return linear(x_BTI, weight_IO, bias_O)

    def of_parts(
        self, x_BTI: LinearInputs, weight_io: Float[Array, "i o"], bias_o: Float[Array, " o"] | None
    ) -> LinearOutputs:
        """Compute the map on one device, for the device's own tokens. The weight is first gathered from its shards
        along the width. With tensor parallelism, the other axis of the weight stays sharded; if that is the input axis,
        the products are summed over the devices that share it."""
        weight_IO = gather_width(weight_io, self.axes.index("width"))
        bias_O = gather_width(bias_o, 0) if bias_o is not None and self.axes[1] == "width" else bias_o
        if not (summed := manual_axes(used(self.axes[0]))):
            return linear(x_BTI, weight_IO, bias_O)
        return with_bias(sum_over(linear(x_BTI, weight_IO, None), summed), bias_O)


def divided_by_rms(x: jax.Array, epsilon: float) -> jax.Array:
    """x / rms(x) along the last axis; `epsilon` is added to the mean square."""
    return x * jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + epsilon)


class RMSNorm(nnx.Module):
    """x / rms(x) * scale, in float32 (arXiv:1910.07467)."""

    def __init__(self, config: ModelConfig):
        self.scale = constant(1.0, (config.width,), ("width",), config.parameter_dtype)
        self.epsilon = config.norm_epsilon

    def __call__(self, x_BTD: ResidualStream) -> ResidualStream:
        unit_BTD = divided_by_rms(x_BTD.astype(jnp.float32), self.epsilon)
        return (unit_BTD * self.scale[...].astype(jnp.float32)[None, None, :]).astype(x_BTD.dtype)


class LayerNorm(nnx.Module):
    """(x - mean) / std * scale (+ bias), in float32 (arXiv:1607.06450)."""

    def __init__(self, config: ModelConfig):
        self.scale = constant(1.0, (config.width,), ("width",), config.parameter_dtype)
        self.epsilon = config.norm_epsilon
        self.bias = constant(0.0, (config.width,), ("width",), config.parameter_dtype) if config.biases else None

    def __call__(self, x_BTD: ResidualStream) -> ResidualStream:
        x32_BTD = x_BTD.astype(jnp.float32)
        centred_BTD = x32_BTD - jnp.mean(x32_BTD, axis=-1, keepdims=True)
        unit_BTD = divided_by_rms(centred_BTD, self.epsilon)
        y_BTD = unit_BTD * self.scale[...].astype(jnp.float32)[None, None, :]
        if self.bias is not None:
            y_BTD = y_BTD + self.bias[...].astype(jnp.float32)[None, None, :]
        return y_BTD.astype(x_BTD.dtype)


NORMS: dict[str, Callable[[ModelConfig], Any]] = {"rmsnorm": RMSNorm, "layernorm": LayerNorm}


def make_norm(config: ModelConfig) -> Any:
    """Return a new norm of the kind that the config names, x_BTD -> x_BTD."""
    return named(config.norm, NORMS, "model.norm")(config)


def unit_rms(x_BTHC: Queries, epsilon: float) -> Queries:
    """x / rms(x) per head, in float32: QK norm (arXiv:2302.05442), without a scale."""
    return divided_by_rms(x_BTHC.astype(jnp.float32), epsilon).astype(x_BTHC.dtype)


@on_cpu(cpu.gelu)
def gelu(x: Array) -> Array:
    """GELU with the tanh approximation (arXiv:1606.08415)."""
    return jax.nn.gelu(x, approximate=True)


ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "swiglu": jax.nn.silu,
    "gelu": gelu,
    "relu_squared": lambda x: jnp.square(jax.nn.relu(x)),
}
"""By the names of ModelConfig.mlp; applied to the gate if the MLP has one (ModelConfig.gated_mlp)."""


class MLP(nnx.Module):
    """down(activation(up(x))), or with a gate down(activation(gate(x)) * up(x)) (arXiv:2002.05202)."""

    def __init__(self, config: ModelConfig, key: jax.Array, residual_std: float):
        *gate, up, down = jax.random.split(key, 3 if config.gated_mlp else 2)
        inward = (config.width, config.mlp_width)
        make = lambda key: Linear(config, key, inward, ("width", "mlp"), std=config.initial_std)
        self.gate = make(gate[0]) if gate else None
        self.up = make(up)
        self.down = Linear(config, down, inward[::-1], ("mlp", "width"), std=residual_std)
        self.activation = config.mlp

    def __call__(self, x_BTD: ResidualStream, taps: Taps | None = None) -> ResidualStream:
        activation = named(self.activation, ACTIVATIONS, "model.mlp")
        if self.gate is None:
            up_BTF = checkpoint_name(constrain(self.up(x_BTD), "batch", "length", "mlp"), "mlpwi")
            h_BTF = activation(up_BTF)
        else:
            gate_BTF = checkpoint_name(self.gate(x_BTD), "mlpwi_0")
            up_BTF = checkpoint_name(self.up(x_BTD), "mlpwi_1")
            h_BTF = constrain(activation(gate_BTF) * up_BTF, "batch", "length", "mlp")
        tap(taps, "hidden", h_BTF)
        return checkpoint_name(self.down(h_BTF), "mlpwo")


def rotary_frequencies(pairs: int, theta: float, scaling: RopeScalingConfig | None) -> Float[Array, " c"]:
    """Return the rotation per position of each channel pair in radians, float32: theta**(-c/pairs), scaled as in Llama
    3.1 (arXiv:2407.21783) if `scaling` is set."""
    frequency_c = theta ** (-jnp.arange(pairs, dtype=jnp.float32) / pairs)
    if scaling is None:
        return frequency_c
    turns_c = frequency_c * (scaling.original_context_length / (2 * math.pi))
    low, high = scaling.low_frequency_factor, scaling.high_frequency_factor
    kept_c = jnp.clip((turns_c - low) / (high - low), 0.0, 1.0)
    return frequency_c * (kept_c + (1.0 - kept_c) / scaling.factor)


class Rotary(NamedTuple):
    """Tables of rotary positions, float32: cos_BT1c and sin_BT1c are cosine and sine of the rotation of each of c
    channel pairs at each position."""

    cos_BT1c: Float[Array, "#B T 1 c"]  # noqa: N815
    sin_BT1c: Float[Array, "#B T 1 c"]  # noqa: N815


def rotary_tables(positions_BT: Positions, pairs: int, theta: float, scaling: RopeScalingConfig | None) -> Rotary:
    """Rotary embedding tables at these positions (arXiv:2104.09864); the angle is position * frequency, in radians."""
    frequency_c = rotary_frequencies(pairs, theta, scaling)
    angle_BT1c = positions_BT.astype(jnp.float32)[:, :, None, None] * frequency_c[None, None, None, :]
    return Rotary(jnp.cos(angle_BT1c), jnp.sin(angle_BT1c))


def rotate(x_BTHC: Queries, rotary: Rotary) -> Queries:
    """Rotate channel pairs (c, c + C/2), the layout of Llama's weights in Hugging Face's format."""
    cos_BT1c, sin_BT1c = rotary
    half = x_BTHC.shape[-1] // 2
    left_BTHc, right_BTHc = x_BTHC[..., :half].astype(jnp.float32), x_BTHC[..., half:].astype(jnp.float32)
    turned = [left_BTHc * cos_BT1c - right_BTHc * sin_BT1c, right_BTHc * cos_BT1c + left_BTHc * sin_BT1c]
    return jnp.concatenate(turned, axis=-1).astype(x_BTHC.dtype)


def softcapped(logits: jax.Array, softcap: float | None) -> jax.Array:
    """softcap * tanh(logits / softcap) (Gemma 2, arXiv:2408.00118); unchanged if softcap is None."""
    return logits if softcap is None else softcap * jnp.tanh(logits / softcap)


def logits_of(x_ND: Float[Array, "*N D"], table_VD: OutputTable, softcap: float | None) -> Float[Array, "*N V"]:
    """softcapped(x @ table.T), with operands in the type of x and float32 sums, so that the loss does not get rounded
    logits."""
    logits_NV = jnp.einsum("...D,VD->...V", x_ND, table_VD.astype(x_ND.dtype), preferred_element_type=jnp.float32)
    return softcapped(constrain(logits_NV, *TOKENS[: x_ND.ndim - 1], "vocab"), softcap)
