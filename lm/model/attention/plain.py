"""Attention in plain operations, for any device.

Axes: B batch, T query position, S key position, H query heads, K key-value heads, G = H / K, C channels of a head, N
blocks of queries, R queries of a block.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lm.model import cpu
from lm.model.arrays import CachedKeys, GroupedQueries, Queries, SeenKeys, VisibleKeys
from lm.model.attention.mask import AttentionMask
from lm.model.cpu import on_cpu
from lm.parallel import devices_of

WHOLE_LENGTH = 1024  # up to this length, `xla` computes the scores of a whole sequence at once
LEAST_ROWS = 128  # queries per block: fewer would not fill a matrix unit
CAUSAL_BLOCKS, CAUSAL_ROWS = 4, 64  # maximum number of causal blocks, minimum queries in each


def attend(
    q_BTHC: Queries,
    k_BSKC: SeenKeys,
    v_BSKC: SeenKeys,
    visible_BTS: VisibleKeys,
) -> Queries:
    """softmax(q k / sqrt(C)) v over the visible keys; scores and softmax in float32. Every query must have a visible
    key."""
    q_BKGTC, k_BKSC, v_BKSC = heads_first(q_BTHC, k_BSKC, v_BSKC)
    return heads_last(attend_by_heads(q_BKGTC, k_BKSC, v_BKSC, visible_BTS))


def heads_first(q_BTHC: Queries, k_BSKC: SeenKeys, v_BSKC: SeenKeys) -> tuple[GroupedQueries, CachedKeys, CachedKeys]:
    """Move heads before positions, and group the queries that share a key head."""
    return grouped(q_BTHC, k_BSKC.shape[2]), k_BSKC.transpose(0, 2, 1, 3), v_BSKC.transpose(0, 2, 1, 3)


def grouped(q_BTHC: Queries, kv_heads: int) -> GroupedQueries:
    batch, length, heads, channels = q_BTHC.shape
    return q_BTHC.reshape(batch, length, kv_heads, heads // kv_heads, channels).transpose(0, 2, 3, 1, 4)


def heads_last(out_BKGTC: GroupedQueries) -> Queries:
    batch, _, _, length, channels = out_BKGTC.shape
    return out_BKGTC.transpose(0, 3, 1, 2, 4).reshape(batch, length, -1, channels)


def attend_by_heads(
    q_BKGTC: GroupedQueries,
    k_BKSC: CachedKeys,
    v_BKSC: CachedKeys,
    visible_BTS: VisibleKeys,
) -> GroupedQueries:
    """Return softmax(q k / sqrt(C)) v over the visible keys, for arrays in the layout of `heads_first`."""
    weights_BKGTS = weights_by_heads(q_BKGTC, k_BKSC, visible_BTS)
    return weighted(weights_BKGTS.astype(v_BKSC.dtype), v_BKSC)


def weights_by_heads(
    q_BKGTC: GroupedQueries, k_BKSC: CachedKeys, visible_BTS: VisibleKeys
) -> Float[Array, "B K G T S"]:
    """softmax(q k / sqrt(C)) over the visible keys, float32."""
    scores_BKGTS = jnp.einsum("BKGTC,BKSC->BKGTS", q_BKGTC, k_BKSC, preferred_element_type=jnp.float32)
    scores_BKGTS = scores_BKGTS * q_BKGTC.shape[-1] ** -0.5
    scores_BKGTS = jnp.where(visible_BTS[:, None, None], scores_BKGTS, jnp.finfo(jnp.float32).min)
    return jax.nn.softmax(scores_BKGTS, axis=-1)


weighted = on_cpu(cpu.weighted)(cpu.product)


def filled_up(x: jax.Array, multiple: int, axis: int, value: int = 0) -> jax.Array:
    """Pad `x` at the end of `axis` to a multiple of `multiple`. Zero channels do not change products, and positions at
    the end are not visible to earlier ones."""
    widths = [(0, 0)] * x.ndim
    widths[axis] = (0, -x.shape[axis] % multiple)
    return jnp.pad(x, widths, constant_values=value)


def attention_weights(q_BTHC: Queries, k_BSKC: SeenKeys, mask: AttentionMask) -> Float[Array, "B H T S"]:
    """Attention weights in float32, all at once, for inspection."""
    q_BKGTC, k_BKSC, _ = heads_first(q_BTHC, k_BSKC, k_BSKC)
    weights_BKGTS = weights_by_heads(q_BKGTC, k_BKSC, mask.all_visible())
    return weights_BKGTS.reshape(weights_BKGTS.shape[0], -1, *weights_BKGTS.shape[3:])


def xla(
    q_BTHC: Queries,
    k_BSKC: SeenKeys,
    v_BSKC: SeenKeys,
    mask: AttentionMask,
) -> Queries:
    """Plain attention, for any device, type, shape and mask, also over the keys of a cache. Long sequences are computed
    in blocks of queries, so that only a bounded number of scores is in memory at once."""
    length, keys = q_BTHC.shape[1], k_BSKC.shape[1]
    if length * keys <= WHOLE_LENGTH**2:
        return by_causal_blocks(q_BTHC, k_BSKC, v_BSKC, mask)
    rows = max(WHOLE_LENGTH**2 // keys, LEAST_ROWS)
    return by_blocks(q_BTHC, k_BSKC, v_BSKC, mask, blocks=-(-length // rows))


def over_cache(
    q_BTHC: Queries,
    k_BKSC: CachedKeys,
    v_BKSC: CachedKeys,
    mask: AttentionMask,
) -> Queries:
    """Attend to the keys of a cache, which are stored head by head. Long sequences are computed in blocks, as by
    `xla`."""
    kv_heads, keys = k_BKSC.shape[1:3]
    if q_BTHC.shape[1] * keys > WHOLE_LENGTH**2:
        return xla(q_BTHC, k_BKSC.transpose(0, 2, 1, 3), v_BKSC.transpose(0, 2, 1, 3), mask)
    return heads_last(attend_by_heads(grouped(q_BTHC, kv_heads), k_BKSC, v_BKSC, mask.all_visible()))


def by_causal_blocks(
    q_BTHC: Queries,
    k_BSKC: SeenKeys,
    v_BSKC: SeenKeys,
    mask: AttentionMask,
) -> Queries:
    """Attend in a few blocks of consecutive queries. Each block is compared only with the keys up to its last query,
    and only with those in the window if there is one. This saves at least 3/8 of the work."""
    length = q_BTHC.shape[1]
    blocks = min(CAUSAL_BLOCKS, length // CAUSAL_ROWS)
    causal = mask.prefix_B is None and mask.positions_BT is None
    if blocks < 2 or length % blocks or not causal or devices_of("length") > 1:
        return attend(q_BTHC, k_BSKC, v_BSKC, mask.all_visible())
    q_BKGTC, k_BKSC, v_BKSC = heads_first(q_BTHC, k_BSKC, v_BSKC)
    rows, out = length // blocks, []
    for end in range(rows, length + 1, rows):
        first = 0 if mask.window is None else max(0, end - rows - mask.window + 1)
        own, seen = slice(end - rows, end), slice(first, end)
        visible_BRS = mask.visible(jnp.arange(end - rows, end)[None], mask.segment_ids_BT[:, own], seen)
        out.append(attend_by_heads(q_BKGTC[:, :, :, own], k_BKSC[:, :, seen], v_BKSC[:, :, seen], visible_BRS))
    return heads_last(jnp.concatenate(out, axis=3))


def by_blocks(
    q_BTHC: Queries,
    k_BSKC: SeenKeys,
    v_BSKC: SeenKeys,
    mask: AttentionMask,
    blocks: int,
) -> Queries:
    """Compute `xla` attention for one block of queries at a time, to save memory. The backward pass recomputes the
    scores.

    Of N = `blocks` blocks, block n has the queries n, n + N, n + 2 N, ..., so devices that share a sequence each have a
    part of every block. If N does not divide the number of queries, they are padded; the output has no padding.
    """
    length = q_BTHC.shape[1]

    def in_blocks(x_BT: jax.Array) -> jax.Array:  # (B, T, ...) to (N, B, R, ...)
        x_BT = filled_up(x_BT, blocks, axis=1)
        return jnp.moveaxis(x_BT.reshape(x_BT.shape[0], -1, blocks, *x_BT.shape[2:]), 2, 0)

    # Gradients of keys and values are summed over blocks in the type of the closed-over arrays: float32.
    k32_BSKC, v32_BSKC = k_BSKC.astype(jnp.float32), v_BSKC.astype(jnp.float32)

    def one_block(block: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        q_BRHC, positions_BR, segments_BR = block
        visible_BRS = mask.visible(positions_BR, segments_BR)
        return attend(q_BRHC, k32_BSKC.astype(k_BSKC.dtype), v32_BSKC.astype(v_BSKC.dtype), visible_BRS)

    work = (in_blocks(q_BTHC), in_blocks(mask.query_positions()), in_blocks(mask.segment_ids_BT))
    out_NBRHC = jax.lax.map(jax.checkpoint(one_block, prevent_cse=False), work)
    return jnp.moveaxis(out_NBRHC, 0, 2).reshape(len(q_BTHC), -1, *q_BTHC.shape[2:])[:, :length]
