"""Self-attention with grouped queries (arXiv:2305.13245), over the given tokens or over a cache that they are added to.

Axes: B batch, T query position, S key position, D width, H query heads, K key-value heads, C channels of a head; I and
J channels of all query heads and of all key heads.
"""

from collections.abc import Callable

import jax
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

from lm.config import ModelConfig
from lm.model.arrays import Keys, LinearInputs, Queries, ResidualStream
from lm.model.attention.choice import AttentionSpec, choose
from lm.model.attention.mask import AttentionMask
from lm.model.attention.plain import attention_weights, over_cache
from lm.model.kv_cache import LayerCache
from lm.model.layers import Linear, Rotary, rotate, unit_rms
from lm.model.taps import Taps, tap
from lm.parallel import constrain, context, devices_of

type Products = tuple[LinearInputs, Float[Array, "B T J"], Float[Array, "B T J"]]
"""Queries, keys and values, with heads concatenated."""


class Attention(nnx.Module):
    """Query, key and value projections, attention, and output projection."""

    def __init__(self, config: ModelConfig, key: jax.Array, layer: int, residual_std: float):
        keys = jax.random.split(key, 4)
        self.head_dim = config.head_channels
        inner, inner_kv = config.heads * self.head_dim, config.kv_heads * self.head_dim
        std = config.initial_std
        self.query = Linear(config, keys[0], (config.width, inner), ("width", "heads"), std=std)
        self.key = Linear(config, keys[1], (config.width, inner_kv), ("width", "kv_heads"), std=std)
        self.value = Linear(config, keys[2], (config.width, inner_kv), ("width", "kv_heads"), std=std)
        self.out = Linear(config, keys[3], (inner, config.width), ("heads", "width"), std=residual_std)
        self.heads, self.kv_heads = config.heads, config.kv_heads
        self.window = config.window(layer)
        self.qk_norm_epsilon = config.norm_epsilon if config.qk_norm else None
        self.choice = config.attention

    def products(self, x_BTD: ResidualStream) -> Products:
        """Project to queries, keys and values, with heads concatenated."""
        return self.query(x_BTD), self.key(x_BTD), self.value(x_BTD)

    def by_heads(self, products: Products, rotary: Rotary | None) -> tuple[Queries, Keys, Keys]:
        """Return (queries, keys, values) by head; queries and keys with QK norm and rotary embedding, if configured."""
        by_head = lambda x_BTI, heads: x_BTI.reshape(*x_BTI.shape[:2], heads, self.head_dim)
        q_BTI, k_BTJ, v_BTJ = products
        q_BTHC = by_head(q_BTI, self.heads)
        k_BTKC, v_BTKC = by_head(k_BTJ, self.kv_heads), by_head(v_BTJ, self.kv_heads)
        if self.qk_norm_epsilon is not None:
            q_BTHC, k_BTKC = unit_rms(q_BTHC, self.qk_norm_epsilon), unit_rms(k_BTKC, self.qk_norm_epsilon)
        if rotary is not None:
            q_BTHC, k_BTKC = rotate(q_BTHC, rotary), rotate(k_BTKC, rotary)
        k_BTKC, v_BTKC = (constrain(x, "batch", "length", "kv_heads", None) for x in (k_BTKC, v_BTKC))
        q_BTHC = constrain(q_BTHC, "batch", "length", "heads", None)
        names = ("query_proj", "key_proj", "value_proj")
        q_BTHC, k_BTKC, v_BTKC = map(checkpoint_name, (q_BTHC, k_BTKC, v_BTKC), names)
        return q_BTHC, k_BTKC, v_BTKC

    def implementation(self, q_BTHC: Queries, mask: AttentionMask) -> Callable[..., jax.Array]:
        """Return the attention implementation for the current mesh and device. Raises UsageError if it cannot run."""
        from lm.model.attention.context import over_context  # only a cache is read without a kernel
        from lm.model.attention.kernels import ATTENTION

        context_shards = devices_of("length")
        if mask.branched:  # no kernel supports trees
            return ATTENTION["xla"]
        prefix = mask.prefix_B is not None
        spec = AttentionSpec(str(q_BTHC.dtype), self.head_dim, q_BTHC.shape[1], context_shards, prefix)
        choice = choose(self.choice, context().target, spec)
        return over_context(choice) if context_shards > 1 else ATTENTION[choice]

    def __call__(
        self,
        x_BTD: ResidualStream,
        rotary: Rotary | None,
        mask: AttentionMask,
        cache: LayerCache | None = None,
        taps: Taps | None = None,
    ) -> tuple[ResidualStream, LayerCache | None]:
        """Return the attention output for each token, and the cache, if any, with the tokens' keys and values added.

        `rotary` has the rotary tables, if the model has them. With a cache, pass a mask from AttentionMask.over, which
        has the tokens' positions in the cache.
        """
        return self.attend(self.products(x_BTD), rotary, mask, cache, taps)

    def attend(
        self,
        products: Products,
        rotary: Rotary | None,
        mask: AttentionMask,
        cache: LayerCache | None,
        taps: Taps | None,
    ) -> tuple[ResidualStream, LayerCache | None]:
        """Return the same as `__call__`, from the result of `products`."""
        mask = mask.within(self.window)
        q_BTHC, k_BTKC, v_BTKC = self.by_heads(products, rotary)
        if cache is None:
            attend = self.implementation(q_BTHC, mask)
        else:
            attend = over_cache
            cache = cache.joined_by(k_BTKC, v_BTKC, mask.query_positions())
        for name, value in (("query", q_BTHC), ("key", k_BTKC), ("value", v_BTKC)):
            tap(taps, name, value)
        keys, values = (k_BTKC, v_BTKC) if cache is None else (cache.keys_BKSC, cache.values_BKSC)
        if taps is not None and taps.wants("weights"):
            seen_BSKC = keys if cache is None else keys.transpose(0, 2, 1, 3)
            taps.keep("weights", attention_weights(q_BTHC, seen_BSKC, mask))
        out_BTHC = constrain(attend(q_BTHC, keys, values, mask), "batch", "length", "heads", None)
        return checkpoint_name(self.out(out_BTHC.reshape(*out_BTHC.shape[:2], -1)), "out_proj"), cache
