"""The decoder-only transformer: GPT-2 and Llama 3 are two settings of one ModelConfig.

A Transformer is a plain JAX pytree: jit, grad, eval_shape and tree maps take it as they take a dict of arrays.
Axes: B batch, T position, D width, V vocabulary.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from lm.model.attention import Attention, causal_within_documents
from lm.model.config import ModelConfig
from lm.model.kv_cache import LayerCache
from lm.model.layers import MLPS, NORMS, Linear, parameter


def row_positions(like_BT: Int[Array, "B T"]) -> Int[Array, "B T"]:
    """0, 1, ... T - 1 in every row. They do not start anew at each document: GPT-2 is trained so, and RoPE is
    relative."""
    return jnp.broadcast_to(jnp.arange(like_BT.shape[1])[None], like_BT.shape)


class Block(nnx.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)): the pre-norm residual block."""

    def __init__(self, config: ModelConfig, key: jax.Array):
        attention_key, mlp_key = jax.random.split(key)
        # Two residual additions a layer: scaled so that the stream's variance does not grow with depth (GPT-2).
        residual_std = config.initial_std * (2 * config.layers) ** -0.5
        self.attention_norm = NORMS[config.norm](config)
        self.attention = Attention(config, attention_key, residual_std)
        self.mlp_norm = NORMS[config.norm](config)
        self.mlp = MLPS[config.mlp](config, mlp_key, residual_std)

    def __call__(
        self, x_BTD: Float[Array, "B T D"], positions_BT: Int[Array, "B T"], visible_BTS: Bool[Array, "B T T"]
    ) -> Float[Array, "B T D"]:
        x_BTD = x_BTD + self.attention(self.attention_norm(x_BTD), positions_BT, visible_BTS)
        return x_BTD + self.mlp(self.mlp_norm(x_BTD))

    def decode(
        self, x_B1D: Float[Array, "B 1 D"], position: Int[Array, ""], cache: LayerCache
    ) -> tuple[Float[Array, "B 1 D"], LayerCache]:
        out_B1D, cache = self.attention.decode(self.attention_norm(x_B1D), position, cache)
        x_B1D = x_B1D + out_B1D
        return x_B1D + self.mlp(self.mlp_norm(x_B1D)), cache


class Transformer(nnx.Module):
    """Token ids to next-token logits."""

    def __init__(self, config: ModelConfig, key: jax.Array):
        embedding_key, position_key, head_key, *block_keys = jax.random.split(key, 3 + config.layers)
        table, dtype, std = (config.vocabulary_size, config.width), config.parameter_dtype, config.initial_std
        self.embedding = parameter(embedding_key, table, ("vocabulary", "width"), std, dtype)
        positions = (config.context_length, config.width)
        self.positions = (
            parameter(position_key, positions, ("position", "width"), std, dtype)
            if config.position == "learned"
            else None
        )
        self.blocks = nnx.List([Block(config, block_key) for block_key in block_keys])
        self.norm = NORMS[config.norm](config)
        self.head = (
            None
            if config.tie_embeddings
            else Linear(config, head_key, table[::-1], ("width", "vocabulary"), std=std, bias=False)
        )
        self.compute_dtype = config.compute_dtype

    def embed(self, tokens_BT: Int[Array, "B T"], positions_BT: Int[Array, "B T"]) -> Float[Array, "B T D"]:
        x_BTD = self.embedding[...][tokens_BT]
        if self.positions is not None:
            x_BTD = x_BTD + self.positions[...][positions_BT]
        return x_BTD.astype(self.compute_dtype)

    def hidden(self, x_BTD: Float[Array, "B T D"], segment_ids_BT: Int[Array, "B T"]) -> Float[Array, "B T D"]:
        """Embedded tokens to the residual stream behind the last norm; each sees earlier ones of its own segment
        alone."""
        positions_BT = row_positions(segment_ids_BT)
        visible_BTS = causal_within_documents(segment_ids_BT)
        for block in self.blocks:
            x_BTD = block(x_BTD, positions_BT, visible_BTS)
        return self.norm(x_BTD)

    def output_table(self) -> Float[Array, "V D"]:
        """What `logits` compares the residual stream with: a row a token."""
        return self.embedding[...] if self.head is None else self.head.weight[...].T

    def logits(self, x_BTD: Float[Array, "B T D"]) -> Float[Array, "B T V"]:
        """float32 scores of the next token from what `hidden` returned."""
        table_VD = self.output_table()
        x_ND = x_BTD.reshape(-1, x_BTD.shape[-1])
        # Operands in the compute dtype, sums in float32: the loss must not see logits that were rounded.
        logits_NV = jnp.einsum(
            "ND,VD->NV", x_ND, table_VD.astype(self.compute_dtype), preferred_element_type=jnp.float32
        )
        return logits_NV.reshape(*x_BTD.shape[:2], -1)

    def __call__(self, tokens_BT: Int[Array, "B T"], segment_ids_BT: Int[Array, "B T"]) -> Float[Array, "B T V"]:
        x_BTD = self.embed(tokens_BT, row_positions(tokens_BT))
        return self.logits(self.hidden(x_BTD, segment_ids_BT))

    def decode(
        self, token_B: Int[Array, " B"], position: Int[Array, ""], cache: list[LayerCache]
    ) -> tuple[Float[Array, "B V"], list[LayerCache]]:
        """Logits behind one more token at `position`, and the cache that holds it."""
        x_B1D = self.embed(token_B[:, None], jnp.full((token_B.shape[0], 1), position))
        new_cache = []
        for block, layer_cache in zip(self.blocks, cache, strict=True):
            x_B1D, layer_cache = block.decode(x_B1D, position, layer_cache)
            new_cache.append(layer_cache)
        return self.logits(self.norm(x_B1D))[:, 0], new_cache
