"""Attention over given pairs of a query block and a key block, in plain operations: FlashAttention-2
(arXiv:2307.08691), whose backward pass recomputes the scores. Only the listed pairs are computed.

Axes: B batch, T query position, S key position, H query heads, K key-value heads, G = H / K, C channels of a head, P
pairs, R positions of a block.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Bool, Float, Int

from lm.model.arrays import Queries, SeenKeys, TokenInts
from lm.model.attention.mask import causal
from lm.model.attention.plain import heads_first, heads_last

KEPT = "context"
"""Name, for remat policies, of the values that the backward pass of attention needs: output and log-sum-exp of the
softmax."""
UNROLLED = 40  # up to this many pairs, the loop over pairs is unrolled
HIDDEN = float(jnp.finfo(jnp.float32).min)


class Blocks(NamedTuple):
    """Positions of the query blocks, and segment ids of queries and keys. Keys are at positions 0, 1, ..."""

    starts_N: Int[Array, " N"]  # noqa: N815
    """Position of the first query of each block; positions within a block are consecutive."""
    segment_ids_BT: TokenInts  # noqa: N815
    """Document of each query in its row."""
    key_segment_ids_BS: Int[Array, "B S"]  # noqa: N815
    """Document of each key; queries only see keys of their own."""


def by_pairs(
    q_BTHC: Queries,
    k_BSKC: SeenKeys,
    v_BSKC: SeenKeys,
    blocks: Blocks,
    pairs_P2: Int[Array, "P 2"],
    window: int | None,
) -> Queries:
    """Return causal attention within documents, computed for the given pairs of blocks. `pairs_P2` are (query block,
    key block) indices; blocks have equal length, and the pairs must cover everything that the queries may attend to."""
    q_BKGTC, k_BKSC, v_BKSC = heads_first(q_BTHC, k_BSKC, v_BSKC)
    out_BKGTC = attend_by_pairs(window, q_BKGTC, k_BKSC, v_BKSC, blocks, pairs_P2)
    return heads_last(out_BKGTC)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def attend_by_pairs(window, q_BKGTC, k_BKSC, v_BKSC, blocks, pairs_P2):
    return forward(window, q_BKGTC, k_BKSC, v_BKSC, blocks, pairs_P2)[0]


def block_of(x: jax.Array, number: jax.Array, rows: int, axis: int) -> jax.Array:
    return jax.lax.dynamic_slice_in_dim(x, number * rows, rows, axis)


def with_block(x: jax.Array, block: jax.Array, number: jax.Array, axis: int) -> jax.Array:
    return jax.lax.dynamic_update_slice_in_dim(x, block, number * block.shape[axis], axis)


def scores_of(
    q_BKGRC: jax.Array, k_BKRC: jax.Array, blocks: Blocks, pair_2: jax.Array, window: int | None
) -> tuple[Float[Array, "B K G R R"], Bool[Array, "B 1 1 R R"]]:
    """Return (scaled float32 scores of one pair of blocks; mask of visible keys)."""
    rows = q_BKGRC.shape[3]
    query, key = pair_2[0], pair_2[1]
    positions_R = blocks.starts_N[query] + jnp.arange(rows)
    key_positions_R = key * rows + jnp.arange(rows)
    segments_BR = block_of(blocks.segment_ids_BT, query, rows, 1)
    key_segments_BR = block_of(blocks.key_segment_ids_BS, key, rows, 1)
    visible_BRR = causal(positions_R[None, :, None], key_positions_R[None, None, :], window)
    visible_BRR = visible_BRR & (segments_BR[:, :, None] == key_segments_BR[:, None, :])
    scores_BKGRR = jnp.einsum("BKGTC,BKSC->BKGTS", q_BKGRC, k_BKRC, preferred_element_type=jnp.float32)
    return scores_BKGRR * q_BKGRC.shape[-1] ** -0.5, visible_BRR[:, None, None]


def over_pairs(step, carry, pairs_P2):
    count = pairs_P2.shape[0]
    return jax.lax.scan(
        lambda carry, pair_2: (step(carry, pair_2), None), carry, pairs_P2, unroll=count if count <= UNROLLED else 1
    )[0]


def forward(window, q_BKGTC, k_BKSC, v_BKSC, blocks, pairs_P2):
    """Return the output and the residuals for the backward pass."""
    rows = q_BKGTC.shape[3] // blocks.starts_N.shape[0]

    def step(carry: tuple[jax.Array, ...], pair_2: jax.Array) -> tuple[jax.Array, ...]:
        query, key = pair_2[0], pair_2[1]
        peak, total, out = (block_of(x, query, rows, 3) for x in carry)
        scores, visible = scores_of(
            block_of(q_BKGTC, query, rows, 3), block_of(k_BKSC, key, rows, 2), blocks, pair_2, window
        )
        new_peak = jnp.maximum(peak, jnp.max(scores, axis=-1, where=visible, initial=HIDDEN))
        shrunk = jnp.exp(peak - new_peak)
        weights = jnp.where(visible, jnp.exp(scores - new_peak[..., None]), 0.0)
        v_BKRC = block_of(v_BKSC, key, rows, 2)
        found = jnp.einsum(
            "BKGTS,BKSC->BKGTC", weights.astype(v_BKRC.dtype), v_BKRC, preferred_element_type=jnp.float32
        )
        new = (new_peak, total * shrunk + jnp.sum(weights, axis=-1), out * shrunk[..., None] + found)
        return tuple(with_block(x, block, query, 3) for x, block in zip(carry, new, strict=True))

    zeros = jnp.zeros(q_BKGTC.shape, jnp.float32)
    carry = (jnp.full(zeros.shape[:-1], HIDDEN), zeros[..., 0], zeros)
    peak, total, out = over_pairs(step, carry, pairs_P2)
    out_BKGTC = checkpoint_name((out / total[..., None]).astype(q_BKGTC.dtype), KEPT)
    log_sums_BKGT = checkpoint_name(peak + jnp.log(total), KEPT)
    return out_BKGTC, (q_BKGTC, k_BKSC, v_BKSC, blocks, pairs_P2, out_BKGTC, log_sums_BKGT)


def backward(window, saved, g_BKGTC):
    """Return the gradients of queries, keys and values, each summed over the pairs in float32."""
    q_BKGTC, k_BKSC, v_BKSC, blocks, pairs_P2, out_BKGTC, log_sums_BKGT = saved
    rows, scale = q_BKGTC.shape[3] // blocks.starts_N.shape[0], q_BKGTC.shape[-1] ** -0.5
    # D in the paper: the term that the softmax subtracts from the gradients of a query's scores.
    delta_BKGT = jnp.sum(g_BKGTC.astype(jnp.float32) * out_BKGTC.astype(jnp.float32), axis=-1)
    product = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)

    def step(carry: tuple[jax.Array, ...], pair_2: jax.Array) -> tuple[jax.Array, ...]:
        query, key = pair_2[0], pair_2[1]
        q, g, log_sums, delta = (block_of(x, query, rows, 3) for x in (q_BKGTC, g_BKGTC, log_sums_BKGT, delta_BKGT))
        k, v = (block_of(x, key, rows, 2) for x in (k_BKSC, v_BKSC))
        scores, visible = scores_of(q, k, blocks, pair_2, window)
        weights = jnp.where(visible, jnp.exp(scores - log_sums[..., None]), 0.0)
        by_weights = product("BKGTC,BKSC->BKGTS", g, v)
        by_scores = (weights * (by_weights - delta[..., None]) * scale).astype(q.dtype)
        found = (
            product("BKGTS,BKSC->BKGTC", by_scores, k),
            product("BKGTS,BKGTC->BKSC", by_scores, q),
            product("BKGTS,BKGTC->BKSC", weights.astype(g.dtype), g),
        )
        places = ((query, 3), (key, 2), (key, 2))
        return tuple(
            with_block(x, block_of(x, number, rows, axis) + block, number, axis)
            for x, block, (number, axis) in zip(carry, found, places, strict=True)
        )

    operands = (q_BKGTC, k_BKSC, v_BKSC)
    sums = over_pairs(step, tuple(jnp.zeros(x.shape, jnp.float32) for x in operands), pairs_P2)
    return *(total.astype(x.dtype) for total, x in zip(sums, operands, strict=True)), None, None


attend_by_pairs.defvjp(forward, backward)
