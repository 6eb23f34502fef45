"""Helpers for tests of attention: inputs, gradients, errors, and assertions for one and several devices."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from lm.data.batches import host_batch
from lm.model.attention.mask import AttentionMask
from lm.model.transformer import Transformer
from lm.parallel import batch_sharding, shardings, traced_on
from lm.training.step import loss_and_gradients
from tests.corpus import tiny_experiment


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


def assert_only_its_document_is_felt(influence, targets):
    """Each query of `targets`, {position: start of its document}, depends on exactly the positions from that start up
    to itself. `influence(target)` gives the norms of its gradients by (keys, values)."""
    for target, start in targets.items():
        for felt_T in map(np.asarray, influence(target)):
            assert np.all(felt_T[:start] == 0) and np.all(felt_T[target + 1 :] == 0)
            assert np.all(felt_T[start : target + 1] > 0) or start == target  # a single key has weight 1


def assert_model_as_on_one_device(config, mesh, use_kernel, name):
    """Loss and gradients with a kernel on the mesh equal those of plain operations on one device. `use_kernel` replaces
    the operations; then `name` is in the program."""
    shape = (2, config.context_length)
    tokens_BT = np.random.default_rng(0).integers(0, 64, shape, np.int32)
    segments_BT = np.repeat(np.arange(1, 5, dtype=np.int32), shape[1] // 4)[None].repeat(2, 0)
    batch = host_batch(tokens_BT, tokens_BT, segments_BT, np.ones(shape, np.float32))
    model = Transformer(config, jax.random.key(0))
    differentiate = lambda model, batch: loss_and_gradients(model, batch, tiny_experiment().train)
    expected = jax.jit(differentiate)(model, batch)
    use_kernel()
    placed = jax.device_put((model, batch), (shardings(model, mesh), batch_sharding(mesh)))
    traced = jax.jit(traced_on(mesh, differentiate)).trace(*placed)
    assert name in str(traced.jaxpr)
    found = traced.lower().compile()(*placed)
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(np.asarray(x), np.asarray(y), atol=1e-5)
