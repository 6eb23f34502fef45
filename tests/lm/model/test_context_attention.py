"""Context parallelism: the values and gradients of the float64 reference, causality, and equal work for all devices."""

import functools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from numpy.testing import assert_allclose, assert_array_equal

from lm.config import MeshConfig
from lm.data.batches import host_batch
from lm.model.attention import context
from lm.model.attention.context import over_context, parts_of, plan_of_pairs, routes, splash_locally
from lm.model.attention.mask import causal
from lm.model.transformer import Transformer
from lm.parallel import batch_sharding, make_mesh, shardings, spec_of, traced_on
from lm.training.step import loss_and_gradients
from tests.corpus import tiny_experiment
from tests.lm.model.attention_laws import arguments, check_with_reference, with_gradients
from tests.lm.model_configs import LLAMA
from tests.lm.trees import leaf_pairs


@pytest.fixture(autouse=True)
def interpreted(monkeypatch):
    """Splash attention in interpret mode, for CPUs."""
    monkeypatch.setitem(context.LOCALLY, "splash", functools.partial(splash_locally, interpret=True))


def mesh_of(length, shards, tensor=1, fsdp=1):
    model = replace(LLAMA, context_length=length, width=96)
    return make_mesh(MeshConfig(fsdp, tensor, shards), model, fsdp, jax.devices()[: shards * tensor * fsdp])


def on_devices(mesh, choice, **mask):
    """with_gradients, jitted, with arguments and results sharded over the mesh."""
    by_position = NamedSharding(mesh, spec_of("batch", "length", "heads"))
    cut = (by_position, by_position, by_position, batch_sharding(mesh), by_position)
    step = jax.jit(traced_on(mesh, with_gradients(over_context(choice), **mask)), in_shardings=cut)
    return lambda *inputs: step(*jax.device_put(inputs, cut))


@pytest.mark.parametrize("devices", [1, 2, 3, 4, 7, 8, 16])
def test_each_device_has_a_part_of_each_half_with_equal_work(devices):
    parts = parts_of(devices)
    assert sorted(parts.ravel()) == list(range(2 * devices))
    assert set(parts.sum(axis=1)) == {2 * devices - 1}  # the number of parts before both together
    for half, route in enumerate(routes(devices)):
        assert sorted(to for _, to in route) == sorted(origin for origin, _ in route) == list(range(devices))
        for origin, to in route:
            assert parts[to, half] == 2 * origin + half, "the order in which they arrive"


@pytest.mark.parametrize("window", [None, 1, 20, 500])
@pytest.mark.parametrize("devices", [2, 4])
def test_the_pairs_of_blocks_cover_the_visible_positions_evenly_over_devices(devices, window, monkeypatch):
    monkeypatch.setattr(context, "LONGEST_BLOCK", 8)
    length, rows = 128, 8
    starts, pairs = plan_of_pairs(devices, length, window)
    visible = causal(np.arange(length)[:, None], np.arange(length)[None], window)
    seen = np.zeros((length, length), int)
    for own, found in zip(starts, pairs, strict=True):
        for block, key in found:
            queries, keys = slice(own[block], own[block] + rows), slice(key * rows, (key + 1) * rows)
            seen[queries, keys] += visible[queries, keys]
    assert_array_equal(seen, visible)
    if window is None:
        assert pairs.shape[1] == (length // rows) * (length // rows + 1) / 2 / devices
        monkeypatch.setattr(context, "LONGEST_BLOCK", length)  # parts of one block: half of the pairs, and a diagonal
        assert plan_of_pairs(devices, length, None)[1].shape == (devices, 2 * devices + 1, 2)


@pytest.mark.fast_rows
@pytest.mark.parametrize(
    ("choice", "shape", "mesh", "mask"),
    [
        ("xla", (1, 512, 2, 1, 8), {"shards": 2}, {"window": 70}),  # enough blocks for the loop
        ("xla", (2, 128, 4, 2, 8), {"shards": 4, "tensor": 2}, {}),
        ("xla", (2, 96, 6, 2, 8), {"shards": 2, "fsdp": 2}, {"window": 20}),
        ("xla", (2, 96, 4, 2, 8), {"shards": 2, "tensor": 2}, {"prefix": 30}),  # not divided evenly
        ("xla", (1, 99, 2, 1, 8), {"shards": 3}, {}),  # odd parts
        ("splash", (1, 1024, 2, 2, 64), {"shards": 4, "tensor": 2}, {}),
        ("splash", (2, 512, 2, 1, 64), {"shards": 2, "fsdp": 2}, {"window": 100}),
    ],
    ids=str,
)
def test_values_and_gradients_equal_the_float64_reference(choice, shape, mesh, mask, monkeypatch):
    monkeypatch.setattr(context, "LONGEST_BLOCK", 16)
    mesh = mesh_of(shape[1], **mesh)
    found = check_with_reference(on_devices(mesh, choice, **mask), arguments(*shape), 3e-6, **mask)
    by_position = NamedSharding(mesh, spec_of("batch", "length", "heads"))
    shared_out = shape[1] % 2 == 0 and "prefix" not in mask
    assert not shared_out or all(x.sharding.is_equivalent_to(by_position, 4) for x in jax.tree.leaves(found))


@pytest.mark.slow
def test_bfloat16_is_as_exact_as_on_one_device():
    inputs = arguments(2, 128, 2, 1, 64, "bfloat16")
    # The gradients of keys and values are summed over the devices in bfloat16.
    found = check_with_reference(on_devices(mesh_of(128, 2), "xla"), inputs, 8e-3)
    assert all(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(found))


@pytest.mark.slow
def test_a_model_with_splash_over_context_equals_plain_operations_on_one_device(monkeypatch):
    """Loss and gradients, with rotary positions and documents."""
    config = replace(LLAMA, context_length=512, width=128, heads=2, kv_heads=2, layers=1)
    tokens_BT = np.random.default_rng(0).integers(0, 64, (2, 512), np.int32)
    segments_BT = np.repeat(np.arange(1, 5, dtype=np.int32), 128)[None].repeat(2, 0)
    batch = host_batch(tokens_BT, tokens_BT, segments_BT, np.ones((2, 512), np.float32))
    model, mesh = Transformer(config, jax.random.key(0)), mesh_of(512, 2, tensor=2, fsdp=2)
    differentiate = lambda model, batch: loss_and_gradients(model, batch, tiny_experiment().train)
    expected = jax.jit(differentiate)(model, batch)
    monkeypatch.setitem(context.LOCALLY, "xla", context.LOCALLY["splash"])
    placed = jax.device_put((model, batch), (shardings(model, mesh), batch_sharding(mesh)))
    traced = jax.jit(traced_on(mesh, differentiate)).trace(*placed)
    assert "splash" in str(traced.jaxpr)
    for x, y in leaf_pairs(traced.lower().compile()(*placed), expected):
        assert_allclose(np.asarray(x), np.asarray(y), atol=1e-5)


def test_splash_over_context_is_lowered_for_tpu_with_one_forward_pass(monkeypatch):
    """The backward pass gathers keys and values again, but reuses the saved result."""
    monkeypatch.setitem(context.LOCALLY, "splash", splash_locally)
    mesh = mesh_of(8192, 4, tensor=2)
    q_BTHC, kv_BTKC = (jax.ShapeDtypeStruct((2, 8192, n, 128), "bfloat16") for n in (32, 8))
    function = jax.jit(traced_on(mesh, with_gradients(over_context("splash"))))
    traced = function.trace(q_BTHC, kv_BTKC, kv_BTKC, jax.ShapeDtypeStruct((2, 8192), "int32"), q_BTHC)
    text = traced.lower(lowering_platforms=("tpu",)).as_text()
    assert text.count("@tpu_custom_call") == 3  # forward, the gradient of q, the gradient of k and v
    assert text.count('"stablehlo.all_gather"') == 5  # documents; keys and values, twice


@pytest.mark.parametrize("window", [None, 1, 100, 127])  # 127 ends at the edge of a block
def test_the_position_mask_of_splash_is_causal(window):
    from lm.model.attention.splash import PositionMask

    positions = (parts_of(2)[..., None] * 128 + np.arange(128)).ravel()
    mask = PositionMask(positions, window)
    for rows in (slice(start, start + 64) for start in range(0, 512, 64)):
        for keys in (slice(start, start + 64) for start in range(0, 512, 64)):
            expected = causal(positions[rows, None], np.arange(512)[None, keys], window)
            assert_array_equal(np.broadcast_to(mask[rows, keys], (64, 64)), expected)
