"""Helpers for tests of attention: inputs, gradients and errors."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from lm.model.attention.mask import AttentionMask
from tests.lm.model import plain_attention
from tests.lm.trees import leaf_pairs


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


def check_with_reference(run, inputs, tolerance, **mask):
    """Compare the output and the gradients of `run` with the float64 reference, for a random gradient of the output.

    Errors are relative to the largest value of each array. Return the result of `run`.
    """
    gradient_BTHC = jnp.asarray(np.random.default_rng(1).normal(size=inputs[0].shape), inputs[0].dtype)
    found = run(*inputs, gradient_BTHC)
    for x, y in leaf_pairs(found, plain_attention.attention(*inputs, gradient_BTHC, **mask)):
        assert np.abs(np.asarray(x, np.float64) - y).max() < tolerance * (np.abs(y).max() or 1.0)
    return found
