"""A training step: micro-batches, remat and meshes do not change the result; randomness is reproducible."""

import contextlib
import functools
import io
import math
import re
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.ad_checkpoint import print_saved_residuals
from numpy.testing import assert_allclose

from lm.config import REMAT, MeshConfig, MuonConfig
from lm.data.batches import host_batch
from lm.model.cost import block_channels
from lm.model.transformer import Dropout, Transformer, drop
from lm.parallel import batch_sharding, make_mesh, shardings, traced_on
from lm.training.memory import of_device, training_bytes
from lm.training.optimizer import OPTIMIZERS, make_optimizer
from lm.training.state import abstract_state, initializer, state_shardings
from lm.training.step import compile_step, loss_and_gradients, update
from tests.corpus import tiny_experiment
from tests.lm.model_configs import FAMILIES, GPT2, LLAMA, MODERN, initial_model
from tests.lm.trees import leaf_pairs, named_arrays

TRAIN = replace(tiny_experiment().train, loss_chunks=2, batch_size=8)


def batch_of(config, rows=8, seed=0):
    """Random tokens, two documents per row, the last two tokens without a target."""
    generator = np.random.default_rng(seed)
    inputs, targets = (generator.integers(0, config.vocab_size, (rows, config.context_length), np.int32)
                       for _ in range(2))  # fmt: skip
    segments = np.where(np.arange(config.context_length) < 5, 1, 2) * np.ones((rows, 1), np.int32)
    weights = np.ones_like(inputs, np.float32)
    weights[-1, -2:] = 0
    return host_batch(inputs, targets, segments.astype(np.int32), weights)


@functools.cache
def loss_and_named_gradients(config, train=TRAIN):
    found = jax.jit(loss_and_gradients, static_argnums=2)(initial_model(config), batch_of(config), train)
    return float(found[0]), named_arrays(found[1])


def assert_the_same(found, expected):
    assert abs(found[0] - expected[0]) < 1e-5
    assert found[1].keys() == expected[1].keys()
    for name, gradient in expected[1].items():
        assert_allclose(found[1][name], gradient, atol=1e-5, rtol=1e-4, err_msg=name)


GOLDEN = {"llama": (4.8621097, 2.7489733), "gpt2": (4.8296728, 1.8753377), "modern": (4.5847073, 1.6502737)}
"""(loss, global norm of the gradients) of batch_of(config) with initial_model(config)."""


@pytest.mark.fast_rows
@pytest.mark.parametrize("name", ["llama", "modern", "gpt2"])
def test_the_first_step_has_the_recorded_values(name):
    loss, gradients = loss_and_named_gradients(FAMILIES[name])
    norm = float(np.sqrt(sum(np.sum(np.square(gradient, dtype=np.float64)) for gradient in gradients.values())))
    assert_allclose(
        (loss, norm),
        GOLDEN[name],
        rtol=1e-4,
        err_msg=(
            f"The loss or the gradients of a new {name} model have changed. Should they have, as with another "
            f'initialization: set GOLDEN["{name}"] = ({loss:.8g}, {norm:.8g}), and say in the commit and the changelog '
            "why, because results of earlier versions can then no longer be reproduced. If not, find the change: the "
            "tests of lm/model and of lm/model/loss.py, which compare with references, narrow it down."
        ),
    )


GOLDEN_METRICS = [
    {"loss": 4.8621097, "gradient_norm": 2.7489734, "learning_rate": 0.0033333333},
    {"loss": 4.1646643, "gradient_norm": 2.2762051, "learning_rate": 0.0066666667},
    {"loss": 3.3556371, "gradient_norm": 2.0845106, "learning_rate": 0.01},
]
"""Metrics of the first steps of the llama model on batch_of(LLAMA), with AdamW, clipping, warm-up and weight decay."""


@pytest.mark.slow
def test_the_metrics_of_the_first_steps_have_the_recorded_values():
    """The second loss depends on the first update, the third also on moments and weight decay."""
    mesh, optimizer = mesh_of(LLAMA, {}), make_optimizer(TRAIN.optimizer, 12)
    state, found = initializer(LLAMA, optimizer, 0, mesh)(), []
    step = compile_step(optimizer, state, mesh, TRAIN)
    for _ in GOLDEN_METRICS:
        state, metrics = step(state, batch_of(LLAMA))
        found.append({name: float(metrics[name]) for name in GOLDEN_METRICS[0]})
    for one, expected in zip(found, GOLDEN_METRICS, strict=True):
        assert one == pytest.approx(expected, rel=1e-3), (  # other CPUs round differently
            "The first steps have other metrics than before. Should they have, as with another initialization or "
            f"update: set GOLDEN_METRICS = {found}, and say in the commit and the changelog why, because results of "
            "earlier versions can then no longer be reproduced. If not: the loss of the first step is that of GOLDEN; "
            "what differs only later comes from the optimizer, the schedule or the guard."
        )


@pytest.mark.fast_rows(2)
@pytest.mark.parametrize(
    ("config", "change"),
    [
        (LLAMA, {"loss_chunks": 8, "skip_untrained": True}),
        (LLAMA, {"micro_batches": 2, "remat": "full", "loss_chunks": 4}),
        (MODERN, {"micro_batches": 4}),
        *((LLAMA, {"remat": name}) for name in REMAT),
        (MODERN, {"remat": "full", "remat_keep": ("mlpwi",), "remat_offload": ("decoder_layer_input", "context")}),
    ],
    ids=lambda value: (
        " ".join(f"{name} {one}" for name, one in value.items()) if isinstance(value, dict) else value.mlp
    ),
)
def test_micro_batches_and_remat_give_the_same_gradients(config, change):
    changed = loss_and_named_gradients(config, replace(TRAIN, **change))
    assert_the_same(changed, loss_and_named_gradients(config))


@pytest.mark.slow
def test_untrained_tokens_are_skipped_on_a_mesh_that_shards_tokens_and_vocabulary():
    """The devices that share a chunk all skip it or all compute it."""
    mesh, optimizer = mesh_of(LLAMA, {"fsdp": 2, "tensor": 2}), make_optimizer(TRAIN.optimizer, 12)
    batch = batch_of(LLAMA)
    batch = batch._replace(weights_BT=batch.weights_BT * (np.arange(len(batch.weights_BT)) == 6)[:, None])
    found = []
    for skip in (False, True):
        state = initializer(LLAMA, optimizer, 0, mesh)()
        train = replace(TRAIN, loss_chunks=8, skip_untrained=skip)
        _, metrics = compile_step(optimizer, state, mesh, train)(state, batch)
        found.append([float(metrics[name]) for name in ("loss", "gradient_norm")])
    assert_allclose(*found, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "remat"),
    [(GPT2, "full"), (MODERN, "minimal_offloaded")],
    ids=["gpt2", "modern"],
)
def test_a_scan_over_layers_equals_separate_blocks(config, remat):
    """The same initial parameters, loss and gradients, stacked over the layers."""
    loss, unrolled = loss_and_named_gradients(config)
    scanned = replace(config, scan_layers=True)
    found_loss, found = loss_and_named_gradients(scanned, replace(TRAIN, remat=remat))
    assert abs(found_loss - loss) < 1e-5
    blocks = {name for name in found if name.startswith("blocks.")}
    assert found.keys() - blocks == {name for name in unrolled if not name.startswith("blocks.")}
    for name in blocks:
        for layer in range(config.layers):
            one = unrolled[name.replace("blocks.", f"blocks.{layer}.")]
            assert_allclose(found[name][layer], one, atol=1e-5, rtol=1e-4, err_msg=name)


def kept_by_a_block(config, change):
    """{name: values per token} of the named residuals saved for the backward pass of the blocks."""
    model = Transformer(config, jax.random.key(0))
    batch, train = batch_of(config), replace(TRAIN, **change)

    def loss(model):
        return jnp.sum(model.read(jnp.asarray(batch.inputs_BT), jnp.asarray(batch.segment_ids_BT), train.remat_policy))

    with contextlib.redirect_stdout(io.StringIO()) as said:
        print_saved_residuals(loss, model)
    found = {}
    for shape, name in re.findall(r"^f32\[([\d,]+)\] named '(\w+)'", said.getvalue(), re.MULTILINE):
        found[name] = found.get(name, 0) + math.prod(map(int, shape.split(","))) // batch.inputs_BT.size
    return found


@pytest.mark.fast_rows
@pytest.mark.parametrize("config", [LLAMA, GPT2], ids=["llama", "gpt2"])
def test_a_remat_policy_saves_exactly_the_named_values(config):
    """Each with the size that the planner computes."""
    config = replace(config, layers=1)
    for name, policy in REMAT.items():
        if policy is None or policy.offload:
            continue
        wanted = {one for one in policy.keep if one in block_channels(config)}
        found = kept_by_a_block(config, {"remat": name})
        assert found == {one: block_channels(config)[one] for one in wanted}, name


@pytest.mark.slow
def test_z_loss_adds_its_gradient_but_the_logged_loss_excludes_it():
    loss, plain = loss_and_named_gradients(MODERN)
    with_loss, found = loss_and_named_gradients(MODERN, replace(TRAIN, z_loss=0.1))
    assert abs(with_loss - loss) < 1e-6
    assert np.abs(found["head.weight"] - plain["head.weight"]).max() > 1e-4


# Meshes

SHARDED = replace(MODERN, heads=8, kv_heads=8, width=64, layers=1)  # 8 divides every axis
GPT2_SMALL = replace(GPT2, layers=1)
SHARDED_GPT2 = replace(GPT2, heads=8, kv_heads=8, width=64, layers=1)
MUON = replace(TRAIN.optimizer, muon=MuonConfig(0.02, 0.95, 5))


def mesh_of(config, sizes):
    devices = jax.devices()[: math.prod(sizes.values())]
    return make_mesh(MeshConfig(**{name: size for name, size in sizes.items() if name != "data"}), config, 8, devices)


@functools.cache
def first_state(config, train):
    """On one device; steps get copies."""
    return initializer(config, make_optimizer(train.optimizer, 100), 0, mesh_of(config, {}), train.spikes)()


def on_mesh(config, train, sizes, steps=1):
    """(losses and gradient norms of some steps, the final state) on a mesh of these sizes and train.mesh.zero1."""
    mesh, optimizer, state = mesh_of(config, sizes), make_optimizer(train.optimizer, 100), first_state(config, train)
    # A step donates its arguments, and device_put to more devices may keep the original on the first.
    state = jax.device_put(jax.tree.map(jnp.copy, state), state_shardings(state, mesh, train.mesh.zero1))
    step, told = compile_step(optimizer, state, mesh, train), []
    for number in range(steps):
        state, metrics = step(state, jax.device_put(batch_of(config, seed=number), batch_sharding(mesh)))
        told.append([float(metrics["loss"]), float(metrics["gradient_norm"])])
    return np.array(told), state


def gradients_on(config, sizes):
    mesh = mesh_of(config, sizes)
    model = jax.device_put(initial_model(config), shardings(initial_model(config), mesh))
    batch = jax.device_put(batch_of(config), batch_sharding(mesh))
    step = traced_on(mesh, lambda model, batch: loss_and_gradients(model, batch, TRAIN), training=True)
    loss, gradients = jax.jit(step)(model, batch)
    return float(loss), named_arrays(gradients)


MIXED = {"fsdp": 2, "context": 2, "tensor": 2}
SIZES = [
    *({name: 8} for name in ("data", "fsdp", "context", "tensor")), {"data": 4, "context": 2}, {"fsdp": 2, "tensor": 4},
]  # fmt: skip


@pytest.mark.fast_rows
@pytest.mark.parametrize(
    ("config", "sizes"),
    [(SHARDED, MIXED), *((SHARDED, sizes) for sizes in SIZES), (SHARDED_GPT2, MIXED)],
    ids=lambda value: str(value) if isinstance(value, dict) else value.mlp,
)
def test_loss_and_gradients_are_the_same_on_every_mesh(config, sizes):
    assert_the_same(gradients_on(config, sizes), loss_and_named_gradients(config))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "train"),
    [
        pytest.param(
            replace(SHARDED, scan_layers=True, ngram_rows=64),
            replace(TRAIN, remat="full", micro_batches=2, optimizer=MUON),
            id="muon in micro-batches over a scan",
        ),
        pytest.param(SHARDED_GPT2, replace(TRAIN, dropout=0.2), id="dropout"),
        pytest.param(
            SHARDED,
            replace(TRAIN, optimizer=replace(TRAIN.optimizer, name="adafactor")),
            id="adafactor",
        ),
    ],
)
def test_steps_on_a_mixed_mesh_equal_those_on_one_device(config, train):
    expected, _ = on_mesh(config, train, {}, steps=3)
    found, _ = on_mesh(config, train, MIXED, steps=3)
    assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["adamw", "adafactor"])
def test_bfloat16_parameters_keep_their_dtypes_over_steps_with_float32_moments(rule):
    optimizer = replace(MUON, name=rule)
    config = replace(MODERN, layers=1, parameter_dtype="bfloat16", compute_dtype="bfloat16")
    train = replace(TRAIN, optimizer=optimizer, micro_batches=2)
    told, state = on_mesh(config, train, {"fsdp": 2}, steps=3)
    assert np.isfinite(told).all()
    assert {x.dtype for x in jax.tree.leaves(state.model)} == {jnp.dtype("bfloat16")}
    moments = {x.dtype for x in jax.tree.leaves(state.optimizer_state) if x.dtype != jnp.int32}
    assert moments == {jnp.dtype("float32")}


ZERO1_ROWS = [
    (TRAIN.optimizer, {"data": 8}), (TRAIN.optimizer, {"data": 4, "context": 2}),
    *((replace(base, name=name), {"data": 2, "fsdp": 2, "tensor": 2})
      for base in (TRAIN.optimizer, MUON) for name in OPTIMIZERS),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("rule", "sizes"), ZERO1_ROWS)
def test_zero1_gives_the_same_update_with_moments_sharded_over_data(rule, sizes):
    """For every optimizer, over clipped steps."""
    train = replace(TRAIN, optimizer=replace(rule, clip_norm=0.5))
    cut = replace(train, mesh=MeshConfig(zero1=True))
    (expected, whole), (found, parts) = (on_mesh(SHARDED, one, sizes, steps=2) for one in (train, cut))
    assert_allclose(found, expected, rtol=1e-6)
    for before, after in leaf_pairs(whole.model, parts.model):
        assert before.sharding == after.sharding
    held = lambda state: sum(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(state.optimizer_state))
    matrices = sum(leaf.nbytes for leaf in jax.tree.leaves(whole.model) if leaf.ndim > 1)
    moments = sum(leaf.nbytes for leaf in jax.tree.leaves(whole.optimizer_state))
    if moments > matrices:  # Adafactor's row and column moments are replicated
        assert held(parts) < 1.1 * held(whole) / sizes["data"]


def test_zero1_saves_the_predicted_memory_per_device():
    model = replace(SHARDED, width=256, mlp_width=512)
    held, said = [], []
    for zero1 in (False, True):
        train = replace(TRAIN, mesh=MeshConfig(zero1=zero1))
        mesh, optimizer = make_mesh(train.mesh, model, 8), make_optimizer(train.optimizer, 100)
        state = jax.tree.leaves(abstract_state(model, optimizer, mesh, zero1=zero1))
        held.append(sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in state))
        said.append(of_device(training_bytes(model, train), train, 8)["moments"])
    assert held[0] - held[1] == pytest.approx(said[0] - said[1], rel=0.01)
    assert said[1] == said[0] // 8


# Dropout


def test_dropout_keeps_the_mean_and_drops_the_given_share():
    x_BTD = jnp.full((64, 32, 8), 3.0)
    y_BTD = np.asarray(drop(x_BTD, Dropout(jax.random.key(0), 0.25, jnp.arange(64)), 1))
    assert set(np.unique(y_BTD).tolist()) == {0.0, 4.0}
    assert abs((y_BTD == 0).mean() - 0.25) < 0.01
    assert drop(x_BTD, None, 1) is x_BTD


@pytest.mark.slow
def test_dropout_depends_on_the_seed_and_the_step():
    """Masks differ at another step and with another seed. (test_loop.py covers equal masks for equal states.)"""
    optimizer = replace(TRAIN.optimizer, learning_rate=1e-9, final_learning_rate=1e-9)
    train = replace(TRAIN, dropout=0.5, optimizer=optimizer)
    config = replace(GPT2, layers=1)
    state = first_state(config, train)

    def loss(train, at):
        step = jax.jit(functools.partial(update, optimizer=make_optimizer(train.optimizer, 100), config=train))
        return [float(step(state._replace(step=jnp.int32(number)), batch_of(config))[1]["loss"]) for number in at]

    first, second, again = loss(train, (0, 1, 0))
    assert first == again
    (seeded,), (without,) = (
        loss(replace(train, seed=1), (0,)),
        loss(replace(train, dropout=0.0), (0,)),
    )
    assert len({round(value, 4) for value in (first, second, seeded, without)}) == 4


@pytest.mark.slow
def test_dropout_of_a_row_does_not_depend_on_its_micro_batch():
    dropped = replace(TRAIN, dropout=0.3)
    (expected, _), (found, _) = (
        on_mesh(GPT2_SMALL, replace(dropped, micro_batches=count), {}, steps=2) for count in (1, 4)
    )
    assert_allclose(found, expected, rtol=1e-4)
    other, _ = on_mesh(GPT2_SMALL, TRAIN, {}, steps=2)
    assert np.abs(other - expected).max() > 1e-3


def test_dropout_differs_between_layers_and_rows():
    dropout = Dropout(jax.random.key(0), 0.5, jnp.arange(1))
    x_BTD = jnp.ones((1, 16, 32))
    places = [np.asarray(drop(x_BTD, dropout.at(layer), place)) for layer in range(3) for place in range(2)]
    assert all((one != other).any() for i, one in enumerate(places) for other in places[:i])
    first, second = np.asarray(drop(jnp.ones((2, 16, 32)), dropout._replace(rows_B=jnp.arange(2)), 0))
    assert (first != second).any()
