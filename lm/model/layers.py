"""The parts of a block that look at one position at a time: linear maps, norms, MLPs, rotary positions.

Axes: B batch, T position, D width, F MLP width, H heads, C channels of a head, V vocabulary; I and O, in and out of a
map.
"""

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from lm.model.config import ModelConfig, RopeScalingConfig


def parameter(key: jax.Array, shape: tuple[int, ...], axes: tuple[str, ...], std: float, dtype: str) -> nnx.Param:
    """A normal-initialised parameter that carries the names of its logical axes, for lm.sharding."""
    return nnx.Param(std * jax.random.normal(key, shape, jnp.dtype(dtype)), axes=axes)


def constant(value: float, shape: tuple[int, ...], axes: tuple[str, ...], dtype: str) -> nnx.Param:
    """A parameter that starts with one value everywhere."""
    return nnx.Param(jnp.full(shape, value, jnp.dtype(dtype)), axes=axes)


class Linear(nnx.Module):
    """x @ weight (+ bias), computed in the config's compute dtype."""

    def __init__(
        self,
        config: ModelConfig,
        key: jax.Array,
        sizes: tuple[int, int],
        axes: tuple[str, str],
        *,
        std: float,
        bias: bool,
    ):
        self.weight = parameter(key, sizes, axes, std, config.parameter_dtype)
        self.bias = constant(0.0, (sizes[1],), (axes[1],), config.parameter_dtype) if bias else None
        self.compute_dtype = config.compute_dtype

    def __call__(self, x_BTI: Float[Array, "B T I"]) -> Float[Array, "B T O"]:
        batch, length, width = x_BTI.shape
        # One plain matrix product: XLA's CPU backend is markedly slower on the three-axis form of the same product.
        x_NI = x_BTI.reshape(batch * length, width).astype(self.compute_dtype)
        y_NO = x_NI @ self.weight[...].astype(self.compute_dtype)
        if self.bias is not None:
            y_NO = y_NO + self.bias[...].astype(self.compute_dtype)[None, :]
        return y_NO.reshape(batch, length, -1)


class RMSNorm(nnx.Module):
    """x / rms(x) * scale, in float32 (arXiv:1910.07467)."""

    def __init__(self, config: ModelConfig):
        self.scale = constant(1.0, (config.width,), ("width",), config.parameter_dtype)
        self.epsilon = config.norm_epsilon

    def __call__(self, x_BTD: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        x32_BTD = x_BTD.astype(jnp.float32)
        inverse_BT1 = jax.lax.rsqrt(jnp.mean(jnp.square(x32_BTD), axis=-1, keepdims=True) + self.epsilon)
        return (x32_BTD * inverse_BT1 * self.scale[...].astype(jnp.float32)[None, None, :]).astype(x_BTD.dtype)


class LayerNorm(nnx.Module):
    """(x - mean) / std * scale + bias, in float32 (arXiv:1607.06450)."""

    def __init__(self, config: ModelConfig):
        self.scale = constant(1.0, (config.width,), ("width",), config.parameter_dtype)
        self.bias = constant(0.0, (config.width,), ("width",), config.parameter_dtype)
        self.epsilon = config.norm_epsilon

    def __call__(self, x_BTD: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        x32_BTD = x_BTD.astype(jnp.float32)
        centred_BTD = x32_BTD - jnp.mean(x32_BTD, axis=-1, keepdims=True)
        inverse_BT1 = jax.lax.rsqrt(jnp.mean(jnp.square(centred_BTD), axis=-1, keepdims=True) + self.epsilon)
        scale_D, bias_D = self.scale[...].astype(jnp.float32), self.bias[...].astype(jnp.float32)
        return (centred_BTD * inverse_BT1 * scale_D[None, None, :] + bias_D[None, None, :]).astype(x_BTD.dtype)


NORMS = {"rmsnorm": RMSNorm, "layernorm": LayerNorm}


class GatedMLP(nnx.Module):
    """down(silu(gate(x)) * up(x)), without biases (SwiGLU, arXiv:2002.05202)."""

    def __init__(self, config: ModelConfig, key: jax.Array, residual_std: float):
        gate, up, down = jax.random.split(key, 3)
        inward, std = (config.width, config.mlp_width), config.initial_std
        self.gate = Linear(config, gate, inward, ("width", "mlp"), std=std, bias=False)
        self.up = Linear(config, up, inward, ("width", "mlp"), std=std, bias=False)
        self.down = Linear(config, down, inward[::-1], ("mlp", "width"), std=residual_std, bias=False)

    def __call__(self, x_BTD: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        return self.down(jax.nn.silu(self.gate(x_BTD)) * self.up(x_BTD))


class GeluMLP(nnx.Module):
    """down(gelu(up(x))) with biases and the tanh form of GELU, as in GPT-2."""

    def __init__(self, config: ModelConfig, key: jax.Array, residual_std: float):
        up, down = jax.random.split(key)
        inward = (config.width, config.mlp_width)
        self.up = Linear(config, up, inward, ("width", "mlp"), std=config.initial_std, bias=True)
        self.down = Linear(config, down, inward[::-1], ("mlp", "width"), std=residual_std, bias=True)

    def __call__(self, x_BTD: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        return self.down(jax.nn.gelu(self.up(x_BTD), approximate=True))


MLPS = {"swiglu": GatedMLP, "gelu": GeluMLP}


def rotary_frequencies(pairs: int, theta: float, scaling: RopeScalingConfig | None) -> Float[Array, " c"]:
    """Radians a position by which each of `pairs` channel pairs turns, float32: theta**(-c/pairs), stretched as in
    Llama 3.1 (arXiv:2407.21783) where `scaling` is given."""
    frequency_c = theta ** (-jnp.arange(pairs, dtype=jnp.float32) / pairs)
    if scaling is None:
        return frequency_c
    turns_c = frequency_c * (scaling.original_context_length / (2 * math.pi))
    low, high = scaling.low_frequency_factor, scaling.high_frequency_factor
    kept_c = jnp.clip((turns_c - low) / (high - low), 0.0, 1.0)
    return frequency_c * (kept_c + (1.0 - kept_c) / scaling.factor)


def rotate(
    x_BTHC: Float[Array, "B T H C"],
    positions_BT: Int[Array, "B T"],
    theta: float,
    scaling: RopeScalingConfig | None = None,
) -> Float[Array, "B T H C"]:
    """Turns channel pairs (c, c + C/2) by position * frequency: rotary positions (arXiv:2104.09864) in the layout of
    Llama's released weights in Hugging Face's format."""
    half = x_BTHC.shape[-1] // 2
    frequency_c = rotary_frequencies(half, theta, scaling)
    angle_BT1c = positions_BT.astype(jnp.float32)[:, :, None, None] * frequency_c[None, None, None, :]
    cos_BT1c, sin_BT1c = jnp.cos(angle_BT1c), jnp.sin(angle_BT1c)
    left_BTHc, right_BTHc = x_BTHC[..., :half].astype(jnp.float32), x_BTHC[..., half:].astype(jnp.float32)
    turned = [left_BTHc * cos_BT1c - right_BTHc * sin_BT1c, right_BTHc * cos_BT1c + left_BTHc * sin_BT1c]
    return jnp.concatenate(turned, axis=-1).astype(x_BTHC.dtype)
