"""Causal self-attention with grouped queries (arXiv:2305.13245), confined to one document by segment ids.

Axes: B batch, T query position, S key position, D width, H query heads, K key-value heads, C channels of a head.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from lm.config import ModelConfig
from lm.model.attention_choice import Workload, choose
from lm.model.attention_kernels import ATTENTION, attend
from lm.model.layers import Linear, mixed, rotate, shift_share, unit_rms
from lm.parallel import constrain, target


def of_whole_sequences(implementation: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """`implementation`, where devices have parts of sequences: keys and values are gathered for it (arXiv:2407.21783,
    section 3.3.2). The backward pass does it again, and the scores too: no device keeps what is of all positions."""

    def attended(q_BTHC: jax.Array, k_BTKC: jax.Array, v_BTKC: jax.Array, segment_ids_BT: jax.Array) -> jax.Array:
        # Without this, XLA gathers the queries instead, once for each block of them.
        k_BTKC, v_BTKC = (constrain(x, "batch", None, "kv_heads", None) for x in (k_BTKC, v_BTKC))
        return implementation(q_BTHC, k_BTKC, v_BTKC, segment_ids_BT)

    return jax.checkpoint(attended)


class Attention(nnx.Module):
    """Projections to queries, keys and values, attention, and the projection back."""

    def __init__(self, config: ModelConfig, key: jax.Array, residual_std: float):
        keys = jax.random.split(key, 4)
        inner, inner_kv = config.heads * config.head_width, config.kv_heads * config.head_width
        std, bias = config.initial_std, config.biases
        self.query = Linear(config, keys[0], (config.width, inner), ("width", "heads"), std=std, bias=bias)
        self.key = Linear(config, keys[1], (config.width, inner_kv), ("width", "kv_heads"), std=std, bias=bias)
        self.value = Linear(config, keys[2], (config.width, inner_kv), ("width", "kv_heads"), std=std, bias=bias)
        self.out = Linear(config, keys[3], (inner, config.width), ("heads", "width"), std=residual_std, bias=bias)
        self.query_share, self.key_share, self.value_share = (shift_share(config) for _ in range(3))
        self.heads, self.kv_heads, self.head_width = config.heads, config.kv_heads, config.head_width
        self.theta = config.rope_theta if config.position == "rope" else None
        self.rope_scaling = config.rope_scaling
        self.qk_norm_epsilon = config.norm_epsilon if config.qk_norm else None
        self.choice = config.attention

    def project(
        self,
        x_BTD: Float[Array, "B T D"],
        before_BTD: Float[Array, "B T D"] | None,
        positions_BT: Int[Array, "B T"],
    ) -> tuple[Float[Array, "B T H C"], Float[Array, "B T K C"], Float[Array, "B T K C"]]:
        """Queries, keys (both normed, if so configured, and turned to their positions) and values."""
        batch, length, _ = x_BTD.shape
        q_BTHC = self.query(mixed(x_BTD, before_BTD, self.query_share)).reshape(
            batch, length, self.heads, self.head_width
        )
        k_BTKC = self.key(mixed(x_BTD, before_BTD, self.key_share)).reshape(
            batch, length, self.kv_heads, self.head_width
        )
        v_BTKC = self.value(mixed(x_BTD, before_BTD, self.value_share)).reshape(
            batch, length, self.kv_heads, self.head_width
        )
        if self.qk_norm_epsilon is not None:
            q_BTHC, k_BTKC = unit_rms(q_BTHC, self.qk_norm_epsilon), unit_rms(k_BTKC, self.qk_norm_epsilon)
        if self.theta is not None:
            q_BTHC = rotate(q_BTHC, positions_BT, self.theta, self.rope_scaling)
            k_BTKC = rotate(k_BTKC, positions_BT, self.theta, self.rope_scaling)
        k_BTKC, v_BTKC = (constrain(x, "batch", "length", "kv_heads", None) for x in (k_BTKC, v_BTKC))
        return constrain(q_BTHC, "batch", "length", "heads", None), k_BTKC, v_BTKC

    def __call__(
        self,
        x_BTD: Float[Array, "B T D"],
        before_BTD: Float[Array, "B T D"] | None,
        positions_BT: Int[Array, "B T"],
        segment_ids_BT: Int[Array, "B T"],
    ) -> Float[Array, "B T D"]:
        q_BTHC, k_BTKC, v_BTKC = self.project(x_BTD, before_BTD, positions_BT)
        context_shards = jax.sharding.get_abstract_mesh().shape.get("context", 1)
        work = Workload(str(q_BTHC.dtype), self.head_width, x_BTD.shape[1], context_shards)
        implementation = ATTENTION[choose(self.choice, target(), work)]
        if context_shards > 1:
            implementation = of_whole_sequences(implementation)
        out_BTHC = constrain(implementation(q_BTHC, k_BTKC, v_BTKC, segment_ids_BT), "batch", "length", "heads", None)
        return self.out(out_BTHC.reshape(*x_BTD.shape[:2], -1))

    def decode(
        self,
        x_B1D: Float[Array, "B 1 D"],
        before_B1D: Float[Array, "B 1 D"] | None,
        position: Int[Array, ""],
        keys_BSKC: Float[Array, "B S K C"],
        values_BSKC: Float[Array, "B S K C"],
    ) -> tuple[Float[Array, "B 1 D"], Float[Array, "B S K C"], Float[Array, "B S K C"]]:
        """The same for one new token at `position`, and the keys and values that its own have joined."""
        batch, capacity = keys_BSKC.shape[:2]
        q_B1HC, k_B1KC, v_B1KC = self.project(x_B1D, before_B1D, jnp.full((batch, 1), position))
        keys_BSKC = jax.lax.dynamic_update_slice_in_dim(keys_BSKC, k_B1KC, position, axis=1)
        values_BSKC = jax.lax.dynamic_update_slice_in_dim(values_BSKC, v_B1KC, position, axis=1)
        seen_S = jnp.arange(capacity) <= position
        out_B1HC = attend(q_B1HC, keys_BSKC, values_BSKC, jnp.broadcast_to(seen_S[None, None], (batch, 1, capacity)))
        return self.out(out_B1HC.reshape(batch, 1, -1)), keys_BSKC, values_BSKC
