"""The decoder-only transformer: GPT-2 and Llama 3 are two settings of one ModelConfig.

A Transformer is a plain JAX pytree: jit, grad, eval_shape and tree maps take it as they take a dict of arrays.
Axes: B batch, T position, D width, V vocabulary.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from lm.config import ModelConfig
from lm.model.attention import Attention
from lm.model.kv_cache import Cache, LayerCache
from lm.model.layers import MLPS, NORMS, Linear, mixed, parameter, shift_share, shifted
from lm.model.loss import logits_of
from lm.model.ngrams import ngram_embeddings, tokens_before
from lm.parallel import constrain


def row_positions(like_BT: Int[Array, "B T"]) -> Int[Array, "B T"]:
    """0, 1, ... T - 1 in every row. They do not start anew at each document: GPT-2 is trained so, and RoPE is
    relative."""
    return jnp.broadcast_to(jnp.arange(like_BT.shape[1])[None], like_BT.shape)


class Dropout(NamedTuple):
    """What a training step with dropout (arXiv:1207.0580) hands through the model."""

    key: jax.Array
    rate: float
    rows_B: Int[Array, " B"]  # noqa: N815
    """Which rows of the step's whole batch these are: a row is dropped from alike in whichever micro-batch it is."""

    def at(self, place: int | jax.Array) -> "Dropout":
        """Its own randomness for one place in the model."""
        return self._replace(key=jax.random.fold_in(self.key, place))


def residual(x_BTD: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
    """The residual stream, as it lies on the devices between the parts of a block."""
    return constrain(x_BTD, "batch", "residual_length", "embed")


def drop(x_BTD: Float[Array, "B T D"], dropout: Dropout | None, place: int) -> Float[Array, "B T D"]:
    """Each value is 0 with probability `rate`, else divided by 1 - rate; unchanged where dropout is None."""
    if dropout is None:
        return x_BTD
    of_row = lambda row: jax.random.bernoulli(dropout.at(place).at(row).key, 1.0 - dropout.rate, x_BTD.shape[1:])
    kept_BTD = jax.vmap(of_row)(dropout.rows_B)
    return jnp.where(kept_BTD, x_BTD / (1.0 - dropout.rate), 0.0).astype(x_BTD.dtype)


REMAT: dict[str, Callable[[Callable], Callable]] = {
    "none": lambda block: block,
    "products": functools.partial(jax.checkpoint, policy=jax.checkpoint_policies.dots_with_no_batch_dims_saveable),
    "block": jax.checkpoint,
}
"""What of a block is kept from the forward pass for the backward pass, by train.remat: everything, the results of its
linear maps, or what went in alone; the rest is computed again (arXiv:1604.06174)."""


class Block(nnx.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)): the pre-norm residual block."""

    def __init__(self, config: ModelConfig, key: jax.Array):
        attention_key, mlp_key = jax.random.split(key)
        # Two residual additions a layer: scaled so that the stream's variance does not grow with depth (GPT-2).
        residual_std = 0.0 if config.zero_init else config.initial_std * (2 * config.layers) ** -0.5
        self.attention_norm = NORMS[config.norm](config)
        self.attention = Attention(config, attention_key, residual_std)
        self.mlp_norm = NORMS[config.norm](config)
        self.mlp = MLPS[config.mlp](config, mlp_key, residual_std)
        self.mlp_share = shift_share(config)

    def __call__(
        self,
        x_BTD: Float[Array, "B T D"],
        positions_BT: Int[Array, "B T"],
        segment_ids_BT: Int[Array, "B T"],
        dropout: Dropout | None = None,
    ) -> Float[Array, "B T D"]:
        before = lambda h_BTD: None if self.mlp_share is None else shifted(h_BTD, segment_ids_BT)
        whole = lambda h_BTD: constrain(h_BTD, "batch", "length", "embed")
        x_BTD = residual(x_BTD)
        h_BTD = whole(self.attention_norm(x_BTD))
        out_BTD = residual(self.attention(h_BTD, before(h_BTD), positions_BT, segment_ids_BT))
        x_BTD = x_BTD + drop(out_BTD, dropout, 0)
        h_BTD = whole(self.mlp_norm(x_BTD))
        out_BTD = residual(self.mlp(mixed(h_BTD, before(h_BTD), self.mlp_share)))
        return residual(x_BTD + drop(out_BTD, dropout, 1))

    def decode(
        self, x_B1D: Float[Array, "B 1 D"], position: Int[Array, ""], cache: LayerCache
    ) -> tuple[Float[Array, "B 1 D"], LayerCache]:
        """The same for one new token at `position`, and the cache that holds it."""
        keys_BSKC, values_BSKC, before_attention_B1D, before_mlp_B1D = cache
        h_B1D = self.attention_norm(x_B1D)
        out_B1D, keys_BSKC, values_BSKC = self.attention.decode(
            h_B1D, before_attention_B1D, position, keys_BSKC, values_BSKC
        )
        x_B1D = x_B1D + out_B1D
        g_B1D = self.mlp_norm(x_B1D)
        x_B1D = x_B1D + self.mlp(mixed(g_B1D, before_mlp_B1D, self.mlp_share))
        new = (None, None) if self.mlp_share is None else (h_B1D, g_B1D)
        return x_B1D, LayerCache(keys_BSKC, values_BSKC, *new)


def stacked_blocks(config: ModelConfig, keys: jax.Array) -> Block:
    """A Block whose every parameter has a first axis more, "layers": what the blocks of these keys hold."""
    blocks = jax.vmap(lambda key: Block(config, key))(keys)
    for _, parameter_ in nnx.iter_graph(blocks):
        if isinstance(parameter_, nnx.Variable):
            parameter_.set_metadata(axes=("layers", *parameter_.get_metadata()["axes"]))
    return blocks


class Transformer(nnx.Module):
    """Token ids to next-token logits."""

    def __init__(self, config: ModelConfig, key: jax.Array):
        embedding_key, position_key, head_key, *block_keys = jax.random.split(key, 3 + config.layers)
        self.layers, self.logit_softcap = config.layers, config.logit_softcap
        table, dtype, std = (config.vocabulary_size, config.width), config.parameter_dtype, config.initial_std
        self.embedding = parameter(embedding_key, table, ("vocab", "width"), std, dtype)
        self.ngrams = nnx.List(
            parameter(
                jax.random.fold_in(embedding_key, length), (config.ngram_rows, config.width), ("ngram", "width"),
                0.0 if config.zero_init else std, dtype,
            )
            for length in range(2, config.tokens_back + 2)
        )  # fmt: skip
        positions = (config.context_length, config.width)
        self.positions = (
            parameter(position_key, positions, ("position", "width"), std, dtype)
            if config.position == "learned"
            else None
        )
        self.blocks = (
            stacked_blocks(config, jnp.stack(block_keys))
            if config.scan_layers
            else nnx.List([Block(config, block_key) for block_key in block_keys])
        )
        self.norm = NORMS[config.norm](config)
        self.head = (
            None
            if config.tie_embeddings
            else Linear(
                config, head_key, table[::-1], ("width", "vocab"), std=0.0 if config.zero_init else std, bias=False
            )
        )
        self.compute_dtype = config.compute_dtype

    def embed(
        self, tokens_BT: Int[Array, "B T"], positions_BT: Int[Array, "B T"], before: list[Int[Array, "B T"]]
    ) -> Float[Array, "B T D"]:
        """What the first block is given. `before` is as of lm.model.ngrams.tokens_before."""
        x_BTD = self.embedding[...][tokens_BT]
        for ngram_BTD in ngram_embeddings([table[...] for table in self.ngrams], tokens_BT, before):
            x_BTD = x_BTD + ngram_BTD
        if self.positions is not None:
            x_BTD = x_BTD + self.positions[...][positions_BT]
        return residual(x_BTD.astype(self.compute_dtype))

    def layer_blocks(self) -> list[Block]:
        """The blocks one by one, whether or not they are kept as one stack."""
        if isinstance(self.blocks, Block):
            one = lambda layer: jax.tree.map(lambda stack: stack[layer], self.blocks)
            return [one(layer) for layer in range(self.layers)]
        return list(self.blocks)

    def hidden(
        self,
        x_BTD: Float[Array, "B T D"],
        segment_ids_BT: Int[Array, "B T"],
        remat: str = "none",
        dropout: Dropout | None = None,
    ) -> Float[Array, "B T D"]:
        """Embedded tokens to the residual stream behind the last norm; each sees earlier ones of its own segment alone.

        `remat` is a key of REMAT.
        """
        positions_BT = row_positions(segment_ids_BT)

        def one_block(x_BTD: jax.Array, block: Block, layer: int | jax.Array) -> jax.Array:
            return block(x_BTD, positions_BT, segment_ids_BT, None if dropout is None else dropout.at(layer))

        apply = REMAT[remat](one_block)
        x_BTD = drop(x_BTD, dropout, self.layers)
        if isinstance(self.blocks, Block):
            step = lambda x_BTD, block_and_layer: (apply(x_BTD, *block_and_layer), None)
            x_BTD, _ = jax.lax.scan(step, x_BTD, (self.blocks, jnp.arange(self.layers)))
        else:
            for layer, block in enumerate(self.blocks):
                x_BTD = apply(x_BTD, block, layer)
        return constrain(self.norm(x_BTD), "batch", "length", "embed")

    def read(
        self,
        tokens_BT: Int[Array, "B T"],
        segment_ids_BT: Int[Array, "B T"],
        remat: str = "none",
        dropout: Dropout | None = None,
    ) -> Float[Array, "B T D"]:
        """Token ids to what `hidden` makes of them: all of the model but its output projection."""
        before = tokens_before(tokens_BT, segment_ids_BT, len(self.ngrams))
        return self.hidden(self.embed(tokens_BT, row_positions(tokens_BT), before), segment_ids_BT, remat, dropout)

    def output_table(self) -> Float[Array, "V D"]:
        """What `logits` compares the residual stream with: a row a token."""
        return self.embedding[...] if self.head is None else self.head.weight[...].T

    def logits(self, x_BTD: Float[Array, "B T D"]) -> Float[Array, "B T V"]:
        """float32 scores of the next token from what `hidden` returned."""
        x_ND = x_BTD.reshape(-1, x_BTD.shape[-1])
        return logits_of(x_ND, self.output_table(), self.logit_softcap).reshape(*x_BTD.shape[:2], -1)

    def __call__(self, tokens_BT: Int[Array, "B T"], segment_ids_BT: Int[Array, "B T"]) -> Float[Array, "B T V"]:
        return self.logits(self.read(tokens_BT, segment_ids_BT))

    def decode(
        self, token_B: Int[Array, " B"], position: Int[Array, ""], cache: Cache
    ) -> tuple[Float[Array, "B V"], Cache]:
        """Logits after one more token at `position`, and the cache that holds it."""
        token_B1, before_BN = token_B[:, None], cache.before_BN
        before = [before_BN[:, n : n + 1] for n in range(len(self.ngrams))]
        x_B1D = self.embed(token_B1, jnp.full(token_B1.shape, position), before)
        layers = []
        for block, layer_cache in zip(self.layer_blocks(), cache.layers, strict=True):
            x_B1D, layer_cache = block.decode(x_B1D, position, layer_cache)
            layers.append(layer_cache)
        newest_BN = jnp.concatenate([token_B1.astype(before_BN.dtype), before_BN], axis=1)[:, : before_BN.shape[1]]
        return self.logits(self.norm(x_B1D))[:, 0], Cache(layers, newest_BN)
