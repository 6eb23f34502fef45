"""Slots of a running batch: cache, last token and seen tokens of each request.

The rest of lm.inference accesses the key-value cache through these functions: only this file knows its memory layout,
and that each row has room for a whole context.

Axes: B slots, R rows that join, V token ids that can be drawn.
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
    """Device state of the batch."""

    cache: Cache
    token_B: Int[Array, " B"]  # noqa: N815
    """Last token drawn, not yet read by the model."""
    seen_BV: Bool[Array, "B V"]  # noqa: N815
    """Tokens of the prompt and the text so far."""


def empty_slots(model: Transformer, config: ModelConfig, slots: int, context: int, symbols: int) -> Slots:
    """Return free slots of `context` positions each, on the devices of the model."""
    del model  # its arrays say on which devices
    cache = empty_cache(config, slots, context)
    return laid_out(Slots(cache, jnp.zeros(slots, jnp.int32), jnp.zeros((slots, symbols), bool)), config)


def joined(slots: Slots, rows: Slots, places_R: Int[Array, " R"], config: ModelConfig) -> Slots:
    """Write row r of `rows`, which may have fewer positions, into slot places_R[r].

    Leftovers of an earlier request are never visible: tokens attend only to earlier positions, and each position is
    written before it is read.
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
    """Constrain the sharding of `slots` by rows and by key-value heads, so that every jitted function keeps it."""
    return over_leaves(lambda leaf, axes: constrain(leaf, *axes), config, slots)


def over_leaves(function: Any, config: ModelConfig, *many: Slots) -> Slots:
    """Apply `function` to each array of the slots and its logical axes (lm.parallel.AXES)."""
    axes = Slots(cache_axes(config), ("batch",), ("drawn", None))  # ty: ignore[invalid-argument-type]
    leaves = [jax.tree.leaves(one) for one in many]
    named = jax.tree.leaves(axes, is_leaf=lambda node: type(node) is tuple)
    made = [function(*arrays, names) for *arrays, names in zip(*leaves, named, strict=True)]
    return jax.tree.unflatten(jax.tree.structure(many[0]), made)


@functools.cache
def cache_axes(config: ModelConfig) -> Cache:
    """Return the logical axes of the arrays in a cache, inferred from the shapes for other sizes, because
    lm.model.kv_cache chooses the layout."""
    config = dataclasses.replace(config, heads=1, kv_heads=1, head_dim=config.head_channels)
    more_heads = dataclasses.replace(config, heads=2, kv_heads=2)
    shapes = lambda config, rows: jax.eval_shape(lambda: empty_cache(config, rows, 1))

    def named(one: Any, rows: Any, heads: Any) -> tuple[str | None, ...]:
        differ = zip(one.shape, rows.shape, heads.shape, strict=True)
        return tuple("batch" if a != b else "kv_heads" if a != c else None for a, b, c in differ)

    return jax.tree.map(named, shapes(config, 1), shapes(config, 3), shapes(more_heads, 1))
