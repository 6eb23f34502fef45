"""Device programs of the engine: read prompts (prefill), draw tokens (decode), score prompts. Each is one jitted
function, so a request runs the same program whatever else is in the batch.

Axes: B slots, R prompts read together, T positions of a prompt, N steps, D width, V token ids that can be drawn, W rows
of the output table, K alternatives.
"""

import dataclasses
import functools
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int

from lm.config import ModelConfig
from lm.inference.requests import SamplingParams
from lm.inference.sampling import Drawn, Sampling, draw, logprobs
from lm.model.arrays import RowInts, TokenInts, TokenMask
from lm.model.attention.mask import AttentionMask
from lm.model.kv_cache import Cache
from lm.model.transformer import Transformer, empty_cache, map_positions
from lm.parallel import constrain, traced_on

SCORED_TOGETHER = 64
"""Positions of a prompt whose logits exist at once."""


class Shape(NamedTuple):
    """Static shapes and config for which a batch is compiled."""

    config: ModelConfig
    slots: int
    """Rows of the batch: requests that are decoded together."""
    context: int
    """Positions per row, for prompt and new text."""
    symbols: int
    """Token ids that can be drawn: those of the tokenizer. Further rows of the embedding are unused."""
    alternatives: int
    """Most likely tokens returned with each drawn token, if requested."""
    decode_steps: int
    """Maximum number of tokens per row and call."""


class Slots(NamedTuple):
    """Device state of the engine's batch; each slot holds one request."""

    cache: Cache
    token_B: RowInts  # noqa: N815
    """Last token drawn, not yet read by the model."""
    seen_BV: TokenMask  # noqa: N815
    """Tokens of the prompt and the text so far."""


def joined(slots: Slots, rows: Slots, places_R: Int[Array, " R"], config: ModelConfig) -> Slots:
    """Return `slots` with row r of `rows`, which may have fewer positions, written to slot places_R[r].

    Leftovers of an earlier request in the slot are never read: tokens attend only to earlier positions, and each
    position is written before it is read.
    """

    def put(all_rows: jax.Array, some: jax.Array, axes: tuple[str | None, ...]) -> jax.Array:
        axis = next(number for number, name in enumerate(axes) if name in ("batch", "drawn"))
        for row in range(places_R.shape[0]):
            start = [jnp.int32(0)] * all_rows.ndim
            start[axis] = places_R[row]
            one = jax.lax.slice_in_dim(some, row, row + 1, axis=axis).astype(all_rows.dtype)
            all_rows = jax.lax.dynamic_update_slice(all_rows, one, start)
        return all_rows

    return laid_out(over_leaves(put, config, slots, rows), config)


def laid_out(slots: Slots, config: ModelConfig) -> Slots:
    """Constrain the sharding of `slots`, by rows and key-value heads, so that all jitted functions shard them alike."""
    return over_leaves(lambda leaf, axes: constrain(leaf, *axes), config, slots)


def over_leaves(function: Any, config: ModelConfig, *many: Slots) -> Slots:
    """Call `function(*arrays, axes)` for each leaf of a Slots: `arrays` has this leaf from each of `many`, `axes` its
    logical axes (lm.parallel.AXES). Return the results as a Slots."""
    axes = Slots(cache_axes(config), ("batch",), ("drawn", None))  # ty: ignore[invalid-argument-type]
    return jax.tree.map(function, *many, axes)  # ends at the arrays: a block's cache may be a tuple, as axes are


@functools.cache
def cache_axes(config: ModelConfig) -> Cache:
    """Return the logical axes of each array in a cache, such as ("batch", None, "kv_heads", None). Only the block knows
    the layout, so the axes are inferred: from which sizes change with the rows or heads."""
    config = dataclasses.replace(config, heads=1, kv_heads=1, head_dim=config.head_channels)
    more_heads = dataclasses.replace(config, heads=2, kv_heads=2)
    shapes = lambda config, rows: jax.eval_shape(lambda: empty_cache(config, rows, 1))

    def named(one: Any, rows: Any, heads: Any) -> tuple[str | None, ...]:
        differ = zip(one.shape, rows.shape, heads.shape, strict=True)
        return tuple("batch" if a != b else "kv_heads" if a != c else None for a, b, c in differ)

    return jax.tree.map(named, shapes(config, 1), shapes(config, 3), shapes(more_heads, 1))


@functools.partial(jax.jit, static_argnums=1, keep_unused=True)
def start(model: Transformer, shape: Shape) -> Slots:
    """Return empty slots on the devices of the model."""
    cache = empty_cache(shape.config, shape.slots, shape.context)
    seen_BV = jnp.zeros((shape.slots, shape.symbols), bool)
    return laid_out(Slots(cache, jnp.zeros(shape.slots, jnp.int32), seen_BV), shape.config)


def last_logits(
    model: Transformer, tokens_BT: jax.Array, positions_BT: jax.Array, real_BT: jax.Array, cache: Cache
) -> tuple[Float[Array, "B W"], Cache]:
    """Run the model on further tokens and return (logits after each row's last real token, updated cache). `real_BT` is
    True for real tokens, which come before padding."""
    last_B11 = jnp.maximum(jnp.sum(real_BT, axis=1) - 1, 0)[:, None, None]
    mask = AttentionMask(real_BT.astype(jnp.int32))
    x_BTD, cache = cast(tuple[jax.Array, Cache], model(tokens_BT, positions_BT, mask, cache))
    return model.logits(jnp.take_along_axis(x_BTD, last_B11, axis=1))[:, 0], cache


def also_seen(seen_BV: TokenMask, tokens_BT: TokenInts) -> TokenMask:
    """Return `seen_BV` with the tokens of each row marked too; ids >= V are ignored."""
    return jax.vmap(lambda seen_V, tokens_T: seen_V.at[tokens_T].set(True, mode="drop"))(seen_BV, tokens_BT)


@functools.partial(jax.jit, static_argnums=1, donate_argnums=2)
def prefill(
    model: Transformer,
    shape: Shape,
    slots: Slots,
    prompts_RT: Int[Array, "R T"],
    lengths_R: Int[Array, " R"],
    places_R: Int[Array, " R"],
    sampling: Sampling,
) -> tuple[Slots, Drawn]:
    """Read R prompts into the slots `places_R`, the first lengths_R[r] tokens of each, and draw the next token of each.
    The arrays of Drawn have a first axis of steps, as in `decode`; here its size is 1."""
    rows, length = prompts_RT.shape
    positions_RT = jnp.broadcast_to(jnp.arange(length), (rows, length))
    real_RT = positions_RT < lengths_R[:, None]
    cache = empty_cache(shape.config, rows, length)
    logits_RW, cache = last_logits(model, prompts_RT, positions_RT, real_RT, cache)
    ids_RT = jnp.where(real_RT, prompts_RT, shape.symbols)
    seen_RV = also_seen(jnp.zeros((rows, shape.symbols), bool), ids_RT)
    drawn = draw(logits_RW, seen_RV, sampling, lengths_R, shape.alternatives)
    read = Slots(cache, drawn.token_B, also_seen(seen_RV, drawn.token_B[:, None]))
    slots = joined(slots, read, places_R, shape.config)
    return slots, jax.tree.map(lambda one: one[None], drawn)


@functools.partial(jax.jit, static_argnums=1, donate_argnums=2)
def decode(
    model: Transformer,
    shape: Shape,
    slots: Slots,
    active_B: Bool[Array, " B"],
    sampling: Sampling,
    steps: Int[Array, ""],
) -> tuple[Slots, Drawn]:
    """Draw `steps` tokens (at most shape.decode_steps) for every active slot; results of other slots are undefined. The
    arrays of Drawn have an additional first axis N, whose first `steps` entries are filled.

    All slots are computed, however many are active, because a matrix product with another number of rows, or another
    program, can round differently.
    """

    def step(carry: tuple[jax.Array, Slots, Drawn]) -> tuple[jax.Array, Slots, Drawn]:
        number, slots, drawn = carry
        at_B = slots.cache.lengths_B
        real_B = active_B & (at_B < shape.context)
        logits_BW, cache = last_logits(model, slots.token_B[:, None], at_B[:, None], real_B[:, None], slots.cache)
        new = draw(logits_BW, slots.seen_BV, sampling, at_B + 1, shape.alternatives)
        seen_BV = also_seen(slots.seen_BV, new.token_B[:, None])
        drawn = jax.tree.map(lambda all_steps, one: all_steps.at[number].set(one), drawn, new)
        return number + 1, laid_out(Slots(cache, new.token_B, seen_BV), shape.config), drawn

    many, top = (shape.decode_steps, shape.slots), (shape.decode_steps, shape.slots, shape.alternatives)
    nothing = Drawn(
        jnp.zeros(many, jnp.int32), jnp.zeros(many, jnp.float32), jnp.zeros(top, jnp.int32), jnp.zeros(top, jnp.float32)
    )
    unfinished = lambda carry: carry[0] < steps
    _, slots, drawn = jax.lax.while_loop(unfinished, step, (jnp.int32(0), slots, nothing))
    return slots, drawn


def lower_decode(model: Transformer, shape: Shape, mesh: Mesh) -> jax.stages.Lowered:
    """Lower `decode` for an abstract model on `mesh` and return it for compilation; nothing is run."""
    free = cast(Any, traced_on(mesh, start.lower))(model, shape)
    abstract = lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
    slots = jax.tree.map(abstract, free.out_info, free.compile().output_shardings)
    active_B, sampling = np.ones(shape.slots, bool), Sampling.of([SamplingParams()] * shape.slots)
    return cast(Any, traced_on(mesh, decode.lower))(model, shape, slots, active_B, sampling, np.int32(1))


@functools.partial(jax.jit, static_argnums=(1, 2))
def score(
    model: Transformer, symbols: int, alternatives: int, tokens_1T: Int[Array, "1 T"]
) -> tuple[Float[Array, " T"], Int[Array, "T K"], Float[Array, "T K"]]:
    """Return (log-probability of the token after each position, K most likely tokens there, their log-probabilities),
    in nats, for one prompt. Values at the prompt's last token and at the padding after it are undefined."""
    x_1TD = model.read(tokens_1T, jnp.ones_like(tokens_1T))
    blocks = -(-tokens_1T.shape[1] // SCORED_TOGETHER)
    score_block = functools.partial(logprobs, symbols=symbols, alternatives=alternatives)
    return map_positions(model, tokens_1T, x_1TD, blocks, score_block)
