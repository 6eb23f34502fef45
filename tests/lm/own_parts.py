"""An activation, a norm and a block as in a user's own module."""

import jax
import jax.numpy as jnp
from flax import nnx

from lm.config import ModelConfig
from lm.model.lookback import previous
from lm.model.taps import tap
from lm.model.transformer import Block


def geglu(x: jax.Array) -> jax.Array:
    return jax.nn.gelu(x, approximate=True)


class UnitNorm(nnx.Module):
    """x / rms(x): RMSNorm without a scale."""

    def __init__(self, config: ModelConfig):
        self.epsilon = config.norm_epsilon

    def __call__(self, x_BTD: jax.Array) -> jax.Array:
        x32_BTD = x_BTD.astype(jnp.float32)
        mean_BT1 = jnp.mean(jnp.square(x32_BTD), axis=-1, keepdims=True)
        return (x32_BTD * jax.lax.rsqrt(mean_BT1 + self.epsilon)).astype(x_BTD.dtype)


class ParallelBlock(Block):
    """Attention and MLP of the same input, as in PaLM (arXiv:2204.02311)."""

    init_cache = staticmethod(Block.init_cache)

    def __call__(self, x_BTD, rotary, mask, cache=None, dropout=None, taps=None):
        h_BTD = self.attention_norm(x_BTD)
        out_BTD, cache = self.attention(h_BTD, rotary, mask, cache)
        mlp_BTD = self.mlp(self.mlp_norm(x_BTD))
        tap(taps, "share", jnp.mean(jnp.abs(mlp_BTD)) / jnp.mean(jnp.abs(out_BTD) + jnp.abs(mlp_BTD)))
        return x_BTD + out_BTD + mlp_BTD, cache


class ConvolutionBlock(ParallelBlock):
    """A causal convolution of width 2, whose state is the last input of each row."""

    @staticmethod
    def init_cache(config, rows, capacity):
        last_B1D = jnp.zeros((rows, 1, config.width), config.compute_dtype)
        return Block.init_cache(config, rows, capacity), last_B1D

    def __call__(self, x_BTD, rotary, mask, cache=None, dropout=None, taps=None):
        kept, last_B1D = (None, None) if cache is None else cache
        (before_BTD,), last_B1D = previous(x_BTD, mask, 1, last_B1D)
        x_BTD, kept = super().__call__(x_BTD + 0.5 * before_BTD, rotary, mask, kept, dropout, taps)
        return x_BTD, None if cache is None else (kept, last_B1D)


class UndeclaredBlock(ConvolutionBlock):
    """A subclass that does not say what it keeps of earlier tokens."""
