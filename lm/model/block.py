"""The shipped residual block.

Axes: B batch, T position, D width, K key-value heads, S positions of a cache, C channels of a head.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from lm.config import ModelConfig
from lm.model.arrays import ResidualStream, RowInts
from lm.model.attention.layer import Attention
from lm.model.attention.mask import AttentionMask
from lm.model.kv_cache import LayerCache
from lm.model.layers import MLP, Rotary, make_norm
from lm.model.taps import Taps, at, tap
from lm.parallel import constrain


class Dropout(NamedTuple):
    """Randomness of dropout (arXiv:1207.0580) in a training step."""

    key: jax.Array
    """Key of the step."""
    rate: float
    """Probability that a value becomes 0."""
    rows_B: RowInts  # noqa: N815
    """Indices of the rows in the whole batch, so that dropout does not depend on the micro-batch of a row."""

    def at(self, place: int | jax.Array) -> "Dropout":
        """Return dropout with another random key, for place number `place` in the model."""
        return self._replace(key=jax.random.fold_in(self.key, place))


def residual(x_BTD: ResidualStream) -> ResidualStream:
    """Constrain the sharding of the residual stream between the parts of a block."""
    return constrain(x_BTD, "batch", "residual_length", "embed")


def drop(x_BTD: ResidualStream, dropout: Dropout | None, place: int) -> ResidualStream:
    """Set each value to 0 with probability `rate`, else divide it by 1 - rate; unchanged if dropout is None."""
    if dropout is None:
        return x_BTD
    of_row = lambda row: jax.random.bernoulli(dropout.at(place).at(row).key, 1.0 - dropout.rate, x_BTD.shape[1:])
    kept_BTD = jax.vmap(of_row)(dropout.rows_B)
    return jnp.where(kept_BTD, x_BTD / (1.0 - dropout.rate), 0.0).astype(x_BTD.dtype)


class Block(nnx.Module):
    """Pre-norm residual block: x + attention(norm(x)), then x + mlp(norm(x))."""

    attention_class: type[Attention] = Attention

    def __init__(self, config: ModelConfig, key: jax.Array, layer: int):
        """`layer` is the index of the block, from 0; it determines its attention window."""
        attention_key, mlp_key = jax.random.split(key)
        # Two residual additions per layer: scaled so that the variance of the stream does not grow with depth (GPT-2).
        residual_std = 0.0 if config.zero_init else config.initial_std * (2 * config.layers) ** -0.5
        self.attention_norm = make_norm(config)
        self.attention = self.attention_class(config, attention_key, layer, residual_std)
        self.mlp_norm = make_norm(config)
        self.mlp = MLP(config, mlp_key, residual_std)

    @staticmethod
    def init_cache(config: ModelConfig, rows: int, capacity: int) -> Any:
        """Return the empty cache of one block for `rows` sequences of at most `capacity` tokens: a pytree of arrays,
        each with exactly one axis of size `rows`. A prompt is read into a cache of a smaller capacity, whose arrays are
        then copied to the start of those of the batch.

        A block of another class has an `init_cache` of its own; `init_cache = Block.init_cache` if it reads other
        tokens only by attention.
        """
        # Separate buffers, so that the cache can be donated.
        zeros = lambda: jnp.zeros((rows, config.kv_heads, capacity, config.head_channels), config.compute_dtype)
        return LayerCache(zeros(), zeros())

    def __call__(
        self,
        x_BTD: ResidualStream,
        rotary: Rotary | None,
        mask: AttentionMask,
        cache: Any = None,
        dropout: Dropout | None = None,
        taps: Taps | None = None,
    ) -> tuple[ResidualStream, Any]:
        """Return the residual stream after the block, and the cache with the tokens added; None without a cache.
        `rotary` and `mask` are as in Attention; `cache` has the structure of `init_cache`."""
        whole = lambda h_BTD: constrain(h_BTD, "batch", "length", "embed")
        x_BTD = residual(x_BTD)
        h_BTD = whole(self.attention_norm(x_BTD))
        out_BTD, cache = self.attention(h_BTD, rotary, mask, cache, at(taps, "attention"))
        out_BTD = residual(out_BTD)
        x_BTD = x_BTD + drop(out_BTD, dropout, 0)
        tap(taps, "attention.out", out_BTD)
        tap(taps, "attention.residual", x_BTD)
        g_BTD = whole(self.mlp_norm(x_BTD))
        out_BTD, cache = self.feed_forward(g_BTD, mask, cache, at(taps, "mlp"))
        out_BTD = residual(out_BTD)
        x_BTD = residual(x_BTD + drop(out_BTD, dropout, 1))
        tap(taps, "mlp.out", out_BTD)
        tap(taps, "mlp.residual", x_BTD)
        return x_BTD, cache

    def feed_forward(
        self, g_BTD: ResidualStream, mask: AttentionMask, cache: Any, taps: Taps | None
    ) -> tuple[ResidualStream, Any]:
        """Return the output of the MLP for its normalized input, and the cache, which only subclasses read."""
        return self.mlp(g_BTD, taps), cache
