"""The places of a running batch: what each request that is in it has read, drawn and seen.

Everything else in lm.inference reaches the cache of keys and values by the functions here: where its rows stand in
memory, and that a row has room for a whole context, is known in this file alone.

Axes: B slots, R rows that join, V ids that may be drawn.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from lm.config import ModelConfig
from lm.model.kv_cache import Cache, empty_cache
from lm.model.transformer import Transformer
from lm.parallel import constrain


class Slots(NamedTuple):
    """What the device holds of the batch."""

    cache: Cache
    token_B: Int[Array, " B"]  # noqa: N815
    """Drawn last, and not read yet."""
    seen_BV: Bool[Array, "B V"]  # noqa: N815
    """Tokens of the prompt and of the text so far."""


def empty_slots(model: Transformer, config: ModelConfig, slots: int, context: int, symbols: int) -> Slots:
    """Free places, of `context` positions each, on the devices of the model."""
    del model  # its arrays say on which devices
    cache = empty_cache(config, slots, context)
    return laid_out(Slots(cache, jnp.zeros(slots, jnp.int32), jnp.zeros((slots, symbols), bool)), config)


def joined(slots: Slots, rows: Slots, places_R: Int[Array, " R"], config: ModelConfig) -> Slots:
    """The slots with row r of `rows`, which may have room for fewer positions, at places_R[r].

    What a former request left behind them is never seen: a token looks back only, and each position is written before
    it is looked at.
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
    """`slots`, cut over the mesh that this is traced on by their rows and by the heads of keys and values: every jitted
    function leaves them as it was given them."""
    return over_leaves(lambda leaf, axes: constrain(leaf, *axes), config, slots)


def over_leaves(function: Any, config: ModelConfig, *many: Slots) -> Slots:
    """`function` of each array of the slots, and of its logical axes (lm.parallel.AXES)."""
    axes = Slots(cache_axes(config), ("batch",), ("drawn", None))  # ty: ignore[invalid-argument-type]
    leaves = [jax.tree.leaves(one) for one in many]
    named = jax.tree.leaves(axes, is_leaf=lambda node: type(node) is tuple)
    made = [function(*arrays, names) for *arrays, names in zip(*leaves, named, strict=True)]
    return jax.tree.unflatten(jax.tree.structure(many[0]), made)


@functools.cache
def cache_axes(config: ModelConfig) -> Cache:
    """The logical axes of the arrays in a cache, found by making it of other sizes: lm.model.kv_cache lays them out as
    attention likes them best."""
    config = dataclasses.replace(config, heads=1, kv_heads=1, head_dim=config.head_channels)
    more_heads = dataclasses.replace(config, heads=2, kv_heads=2)
    shapes = lambda config, rows: jax.eval_shape(lambda: empty_cache(config, rows, 1))

    def named(one: Any, rows: Any, heads: Any) -> tuple[str | None, ...]:
        differ = zip(one.shape, rows.shape, heads.shape, strict=True)
        return tuple("batch" if a != b else "kv_heads" if a != c else None for a, b, c in differ)

    return jax.tree.map(named, shapes(config, 1), shapes(config, 3), shapes(more_heads, 1))
