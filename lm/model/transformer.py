"""Decoder-only transformer. GPT-2 and Llama 3 are two settings of one ModelConfig.

A Transformer is a plain JAX pytree: jit, grad, eval_shape and tree maps accept it like a dict of arrays. Axes: B batch,
T position, D width, V vocabulary.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Int

from lm.config import ModelConfig, RematPolicy
from lm.errors import UsageError
from lm.model import lookback
from lm.model.arrays import OutputTable, Positions, ResidualStream, TokenInts
from lm.model.attention.mask import AttentionMask
from lm.model.block import Block, Dropout, drop, residual
from lm.model.kv_cache import NOTHING, Cache, LayerCache
from lm.model.layers import Linear, Rotary, logits_of, make_norm, parameter, rotary_tables
from lm.model.param_names import part_name
from lm.model.taps import ANY_LAYER, Taps, tap
from lm.parallel import (
    TOKENS,
    constrain,
    context,
    exchange_width,
    gather_tokens,
    is_parameter,
    on_each_device,
)
from lm.trusted_code import named


def row_positions(like_BT: TokenInts) -> Int[Array, "1 T"]:
    """Return the positions 0, 1, ... T - 1, for every row. They do not restart at each document: GPT-2 is trained this
    way, and RoPE is relative."""
    return jnp.arange(like_BT.shape[1])[None]


def with_remat[**P, R](block: Callable[P, R], policy: RematPolicy | None, in_scan: bool) -> Callable[P, R]:
    """Apply the remat policy to `block`. In a scan, prevent_cse is not needed, and its barrier would also prevent the
    recomputation from gathering weights early."""
    if policy is None:
        return block
    keep = jax.checkpoint_policies.save_only_these_names(*policy.keep)
    if policy.offload:
        keep = jax.checkpoint_policies.save_and_offload_only_these_names(
            names_which_can_be_saved=list(policy.keep), names_which_can_be_offloaded=list(policy.offload),
            offload_src="device", offload_dst="pinned_host",
        )  # fmt: skip
    return jax.checkpoint(block, policy=keep, prevent_cse=not in_scan)


BLOCKS: dict[str, type[Block]] = {"pre_norm": Block}
"""By the names of ModelConfig.block. A user's own class has the methods of Block."""


def block_class(config: ModelConfig) -> Any:
    """Return the class of the model's blocks. Raises UsageError if the user's own class cannot be loaded."""
    return lookback.ShiftedBlock if config.token_shift else named(config.block, BLOCKS, "model.block")


def declares_cache(config: ModelConfig) -> bool:
    """Return whether the block's class itself has an `init_cache`. A subclass declares it again, because it may read
    more of earlier tokens than its base class."""
    return "init_cache" in getattr(block_class(config), "__dict__", {})


def reads_by_attention(config: ModelConfig) -> bool:
    """Return whether a token depends on earlier ones only through attention: the block's cache is only its keys and
    values, and there are no n-grams."""
    if not declares_cache(config) or config.tokens_back:
        return False
    return type(jax.eval_shape(lambda: block_class(config).init_cache(config, 1, 1))) is LayerCache


def check_cache(config: ModelConfig) -> None:
    """Raise UsageError if the block declares no cache, so that no text can be generated, or an invalid one."""
    if not declares_cache(config):
        raise UsageError(
            f"model.block = {config.block} does not say what it keeps of earlier tokens, so no text can be generated. "
            "Define init_cache(config, rows, capacity) in the class itself (docs/how_to_change_it.md); "
            "if it reads other tokens only by Block's attention, init_cache = Block.init_cache. "
            "Otherwise train without samples (--train.sample-every 0; launch.pretrain --until evaluate)."
        )
    sizes = [jax.eval_shape(lambda rows=rows: block_class(config).init_cache(config, rows, 1)) for rows in (1, 2)]
    (one, form), (two, other) = map(jax.tree.flatten, sizes)
    alike = form == other and all(a.ndim == b.ndim for a, b in zip(one, two, strict=True))
    if not alike or any(np.not_equal(a.shape, b.shape).sum() != 1 for a, b in zip(one, two, strict=True)):
        one, two = (jax.tree.map(lambda leaf: leaf.shape, tree) for tree in sizes)
        raise UsageError(
            f"init_cache of model.block = {config.block} returns arrays of the shapes {one} for one row and {two} for "
            "two. Give each array exactly one axis of size `rows`."
        )


def empty_cache(config: ModelConfig, batch_size: int, capacity: int | None = None) -> Cache:
    """Return an empty cache with `capacity` positions per row (by default config.context_length). Raises like
    `check_cache`."""
    check_cache(config)
    capacity = config.context_length if capacity is None else capacity
    layer = lambda: block_class(config).init_cache(config, batch_size, capacity)
    stacked = lambda x: jnp.broadcast_to(x, (config.layers, *x.shape))
    last_tokens = (batch_size, config.tokens_back)
    return Cache(
        jax.tree.map(stacked, layer()) if config.scan_layers else [layer() for _ in range(config.layers)],
        jnp.full(last_tokens, NOTHING, jnp.int32) if config.tokens_back else None,
        jnp.full((batch_size, capacity), NOTHING, jnp.int32),
        jnp.zeros((batch_size,), jnp.int32),
    )


def with_layer_axis(blocks: Block, layers: bool) -> Block:
    """Add the first axis "layers" to the axis names of the blocks' parameters, or remove it. Returns `blocks`."""
    for _, leaf in nnx.iter_graph(blocks):
        if isinstance(leaf, nnx.Variable):
            own = tuple(axis for axis in leaf.get_metadata()["axes"] if axis != "layers")
            leaf.set_metadata(axes=("layers", *own) if layers else own)
    return blocks


def unstack_layers(model: "Transformer") -> "Transformer":
    """Return the model with its blocks one by one."""
    return with_blocks(model, model.layer_blocks()) if model.is_stacked else model


def with_blocks(model: "Transformer", blocks: Block | list[Block]) -> "Transformer":
    copied = jax.tree.map(lambda x: x, model)
    copied.blocks = nnx.List(blocks) if isinstance(blocks, list) else blocks
    return copied


def map_positions[Found](
    model: "Transformer", tokens_1T: TokenInts, x_1TD: ResidualStream, parts: int, function: Callable[[Any, Any], Found]
) -> Found:
    """Return `function(logits_NV, next tokens_N)` of all positions of a text, computed in `parts` parts to save memory.
    `x_1TD` is the result of Transformer.read; the last position has no next token."""
    length = tokens_1T.shape[1]
    padding = (0, -length % parts)
    x_PND = jnp.pad(x_1TD[0], (padding, (0, 0))).reshape(parts, -1, x_1TD.shape[-1])
    next_PN = jnp.pad(jnp.roll(tokens_1T[0], -1), padding).reshape(parts, -1)
    found = jax.lax.map(lambda part: function(model.logits(part[0][None])[0], part[1]), (x_PND, next_PN))
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:length], found)


def abstract_model(config: ModelConfig) -> "Transformer":
    """Return the model with a jax.ShapeDtypeStruct for each array."""
    return jax.eval_shape(lambda: Transformer(config, jax.random.key(0)))


def parameters_by_layer(config: ModelConfig) -> dict[str, Any]:
    """Return {name: parameter} of the abstract model. Every layer has its own names, such as
    "blocks.0.attention.query.weight", even with scan_layers. All layers have equal shapes, so only one is traced."""
    one_layer = abstract_model(dataclasses.replace(config, layers=1, scan_layers=False))
    found = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(one_layer, is_leaf=is_parameter)[0]:
        name = ".".join(map(part_name, path))
        for layer in range(config.layers if name.startswith("blocks.") else 1):
            found[name.replace("blocks.0.", f"blocks.{layer}.", 1)] = leaf
    return found


class Transformer(nnx.Module):
    """Decoder-only transformer: token ids to next-token logits."""

    def __init__(self, config: ModelConfig, key: jax.Array):
        embedding_key, position_key, head_key, *block_keys = jax.random.split(key, 3 + config.layers)
        self.layers, self.logit_softcap = config.layers, config.logit_softcap
        table, dtype, std = (config.vocab_size, config.width), config.parameter_dtype, config.initial_std
        self.embedding = parameter(embedding_key, table, ("vocab", "width"), std, dtype)
        self.ngrams = nnx.List(lookback.ngram_tables(config, embedding_key))
        positions = (config.context_length, config.width)
        self.positions = (
            parameter(position_key, positions, ("position", "width"), std, dtype)
            if config.position == "learned"
            else None
        )
        make_block = block_class(config)
        self.blocks = (
            with_layer_axis(jax.vmap(lambda block_key: make_block(config, block_key, 0))(jnp.stack(block_keys)), True)
            if config.scan_layers  # then all layers have the same window
            else nnx.List([make_block(config, block_key, layer) for layer, block_key in enumerate(block_keys)])
        )
        self.norm = make_norm(config)
        head_std = 0.0 if config.zero_init else std
        self.head: Linear | None = (
            None
            if config.tie_embeddings
            else Linear(config, head_key, table[::-1], ("width", "vocab"), std=head_std, may_have_bias=False)
        )
        self.compute_dtype = config.compute_dtype
        self.rotary_pairs = config.head_channels // 2 if config.position == "rope" else None
        self.rope_theta, self.rope_scaling = config.rope_theta, config.rope_scaling

    def embed(self, tokens_BT: TokenInts, positions_BT: Positions, before: list[TokenInts]) -> ResidualStream:
        """Input of the first block. `before` is as in lm.model.lookback.with_ngrams."""
        one_row = positions_BT.shape[0] == 1

        def looked_up(embedding_VD, ngrams, positions_PD, tokens_BT, positions_BT, before):
            tokens_BT, before = gather_tokens(tokens_BT), [gather_tokens(ids_BT) for ids_BT in before]
            x_BTD = lookback.with_ngrams(embedding_VD[tokens_BT], ngrams, tokens_BT, before)
            if positions_PD is not None:
                x_BTD = x_BTD + positions_PD[gather_tokens(positions_BT, rows_are_cut=not one_row)]
            return exchange_width(x_BTD.astype(self.compute_dtype))

        look_up: Callable[..., jax.Array] = looked_up
        if (
            context().gathers_weights
        ):  # each device looks up its shard of the width for all tokens; no table is gathered
            tables = (("vocab", "width"), ("ngram", "width"), ("position", "width"))
            positions = (None, "length") if one_row else TOKENS
            on_parts = on_each_device((*tables, TOKENS, positions, TOKENS), (*TOKENS, None), left_to_xla=("tensor",))
            look_up = on_parts(looked_up)
        positions_PD = None if self.positions is None else self.positions[...]
        ngrams = [table[...] for table in self.ngrams]
        return residual(look_up(self.embedding[...], ngrams, positions_PD, tokens_BT, positions_BT, before))

    @property
    def is_stacked(self) -> bool:
        """Whether the blocks are one stack (ModelConfig.scan_layers)."""
        return not isinstance(self.blocks, nnx.List)

    def layer_blocks(self) -> list[Block]:
        """Return the blocks one by one, whether or not they are stacked."""
        if not self.is_stacked:
            return list(cast(nnx.List, self.blocks))
        one = lambda layer: with_layer_axis(jax.tree.map(lambda stack: stack[layer], self.blocks), False)
        return [one(layer) for layer in range(self.layers)]

    def rotary(self, positions_BT: Positions) -> Rotary | None:
        """Return the rotary tables, shared by all layers; None if positions are not rotary."""
        if self.rotary_pairs is None:
            return None
        return rotary_tables(positions_BT, self.rotary_pairs, self.rope_theta, self.rope_scaling)

    def hidden(
        self,
        x_BTD: ResidualStream,
        positions_BT: Positions,
        mask: AttentionMask,
        caches: Any = None,
        *,
        remat: RematPolicy | None = None,
        dropout: Dropout | None = None,
        taps: Taps | None = None,
    ) -> tuple[ResidualStream, Any]:
        """Map embedded tokens to the residual stream after the last norm, and return the caches of the layers with the
        tokens added.

        `caches` is Cache.layers; other arguments are as in `__call__`.
        """
        rotary = self.rotary(positions_BT)

        names: list[str] = []
        """Names of the values in a block that can be captured."""

        def one_block(
            x_BTD: jax.Array, block: Block, layer: int | jax.Array, cache: Any
        ) -> tuple[jax.Array, tuple[Any, dict[str, jax.Array]]]:
            own = None if dropout is None else dropout.at(layer)
            x_BTD = checkpoint_name(x_BTD, "decoder_layer_input")
            if taps is None:
                x_BTD, cache = block(x_BTD, rotary, mask, cache, own)
                return x_BTD, (cache, {})
            inner = taps.empty().at(f"blocks.{layer}" if isinstance(layer, int) else ANY_LAYER)
            x_BTD, cache = block(x_BTD, rotary, mask, cache, own, inner)
            names[:] = inner.seen
            return x_BTD, (cache, inner.found)  # returned: JAX traces the block separately in a scan and with remat

        apply: Callable = with_remat(one_block, remat, in_scan=self.is_stacked)
        x_BTD = drop(x_BTD, dropout, self.layers)
        tap(taps, "embedding", x_BTD)
        if self.is_stacked:
            step = lambda x_BTD, one: apply(x_BTD, *one)
            x_BTD, (caches, tapped) = jax.lax.scan(step, x_BTD, (self.blocks, jnp.arange(self.layers), caches))
            if taps is not None:
                for layer in range(self.layers):
                    taps.add_block(layer, {name: values[layer] for name, values in tapped.items()}, names)
        else:
            found = []
            for layer, block in enumerate(self.layer_blocks()):
                x_BTD, (cache, tapped) = apply(x_BTD, block, layer, None if caches is None else caches[layer])
                found.append(cache)
                if taps is not None:
                    taps.add_block(layer, tapped, names)
            caches = None if caches is None else found
        x_BTD = constrain(self.norm(x_BTD), "batch", "length", "embed")
        tap(taps, "norm", x_BTD)
        return x_BTD, caches

    def __call__(
        self,
        tokens_BT: TokenInts,
        positions_BT: Positions,
        mask: AttentionMask,
        cache: Cache | None = None,
        *,
        remat: RematPolicy | None = None,
        dropout: Dropout | None = None,
        taps: Taps | None = None,
    ) -> tuple[ResidualStream, Cache | None]:
        """Return (input of `logits`, cache with these tokens added): the whole model except the output projection, for
        training (no cache), for prefill, and for decoding one token per row.

        Without a cache, the tokens are whole rows. With a cache, each token is stored in the slot of its position, and
        padding (segment 0) comes after a row's tokens. `remat` is as in `with_remat`.
        """
        caches, last_BN = None, None
        if cache is not None:
            positions_BT = jnp.broadcast_to(positions_BT, tokens_BT.shape)
            cache = cache.reading(positions_BT, mask.segment_ids_BT)
            mask = mask.over(positions_BT, cache.segment_ids_BS)
            caches, last_BN = cache.layers, cache.last_tokens_BN
        before, last_BN = lookback.previous(tokens_BT, mask, len(self.ngrams), last_BN, NOTHING)
        x_BTD = self.embed(tokens_BT, positions_BT, before)
        x_BTD, caches = self.hidden(x_BTD, positions_BT, mask, caches, remat=remat, dropout=dropout, taps=taps)
        return x_BTD, None if cache is None else cache._replace(layers=caches, last_tokens_BN=last_BN)

    def read(
        self,
        tokens_BT: TokenInts,
        segment_ids_BT: TokenInts,
        remat: RematPolicy | None = None,
        dropout: Dropout | None = None,
        taps: Taps | None = None,
    ) -> ResidualStream:
        """Return the residual stream after the last norm (the input of `logits`) for whole rows of packed documents."""
        mask = AttentionMask(segment_ids_BT)
        return self(tokens_BT, row_positions(tokens_BT), mask, remat=remat, dropout=dropout, taps=taps)[0]

    def forward_with_taps(
        self, tokens_BT: TokenInts, mask: AttentionMask, names: tuple[str, ...]
    ) -> dict[str, jax.Array]:
        """Return {name: value} of the requested intermediate values of a forward pass over whole rows.

        Names: "embedding"; for each block N "blocks.N.attention." with "query", "key", "value" (after QK norm and
        rotary embedding; (B, T, heads, C)), "weights" ((B, heads, T, T), float32), "out", "residual" (the stream after
        attention), and "blocks.N.mlp." with "hidden", "out", "residual"; "norm"; "logits". Patterns are allowed:
        "blocks.*.attention.weights". Raises UsageError for unknown names.
        """
        taps = Taps(names)
        x_BTD, _ = unstack_layers(self)(tokens_BT, row_positions(tokens_BT), mask, taps=taps)
        if taps.wants("logits"):
            taps.keep("logits", self.logits(x_BTD))
        if unknown := taps.unmatched():
            raise UsageError(
                f"The model has no activations named {', '.join(unknown)}. Its names: {', '.join(taps.seen)}."
            )
        return taps.found

    def output_table(self) -> OutputTable:
        """Return the output projection: one row per token of the vocabulary."""
        return self.embedding[...] if self.head is None else self.head.weight[...].T

    def logits(self, x_BTD: ResidualStream) -> Float[Array, "B T V"]:
        """Return float32 logits of the next token from the output of `__call__`."""
        x_ND, table_VD = x_BTD.reshape(-1, x_BTD.shape[-1]), self.output_table()
        if context().weights_stay(x_ND.shape[0], table_VD):
            x_ND = constrain(constrain(x_ND, "batch", "embed"), "rows", "width")
        return logits_of(x_ND, table_VD, self.logit_softcap).reshape(*x_BTD.shape[:2], -1)
