"""Helpers for tests of attention: inputs, gradients and errors."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from lm.model.attention.mask import AttentionMask


def arguments(batch, length, heads, kv_heads, channels, dtype="float32"):
    """Queries, keys, values, and segment ids: documents of different lengths, then padding (0) if there is room."""
    generator = np.random.default_rng(length)
    shapes = [(batch, length, count, channels) for count in (heads, kv_heads, kv_heads)]
    q_BTHC, k_BTKC, v_BTKC = (jnp.asarray(generator.normal(size=shape), dtype) for shape in shapes)
    segments_BT = np.zeros((batch, length), np.int32)
    for row in segments_BT:
        ends = np.sort(generator.choice(length, min(4, length), replace=False)) + 1
        for document, (start, end) in enumerate(itertools.pairwise([0, *ends]), 1):
            row[start:end] = document
    return q_BTHC, k_BTKC, v_BTKC, jnp.asarray(segments_BT)


def mask_of(segments_BT, window=None, prefix=None):
    """The first `prefix` positions of every row attend to one another."""
    return AttentionMask(segments_BT, window, None if prefix is None else jnp.full(segments_BT.shape[:1], prefix))


def with_gradients(implementation, **mask):
    """(q, k, v, segments, gradient of out) -> (out, gradients of q, k, v)."""

    def run(q_BTHC, k_BTKC, v_BTKC, segments_BT, gradient_BTHC):
        attend = lambda q, k, v: implementation(q, k, v, mask_of(segments_BT, **mask))
        out_BTHC, pull = jax.vjp(attend, q_BTHC, k_BTKC, v_BTKC)
        return out_BTHC, pull(gradient_BTHC)

    return run


def worst(found, expected):
    """The largest error of out and of each gradient, relative to its largest value."""
    errors = []
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        errors.append(float(np.abs(np.asarray(x, np.float64) - y).max() / (np.abs(y).max() or 1.0)))
    return errors
