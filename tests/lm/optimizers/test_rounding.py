"""Stochastic rounding to bfloat16 is unbiased, gives one of two neighbors, does not depend on the mesh, and keeps
updates that rounding to nearest would lose."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from numpy.testing import assert_array_equal

from lm.config import MeshConfig, MuonConfig
from lm.data.batches import Batch
from lm.optimizers.rounding import apply_updates, stochastic_bfloat16
from lm.parallel import make_mesh, shardings
from lm.training.optimizer import make_optimizer
from lm.training.state import make_state
from lm.training.step import update
from tests.corpus import tiny_experiment
from tests.lm.model_configs import MODERN
from tests.lm.trees import leaf_pairs

BELOW, ABOVE = 1.0, 1.0 + 2**-7
"""Adjacent bfloat16 values."""


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("sign", [1, -1])
def test_rounding_is_unbiased_to_one_of_two_neighbours(share, sign):
    value, count = BELOW + share * (ABOVE - BELOW), 40_000
    x = jnp.full((count,), sign * value, jnp.float32)
    found = np.asarray(stochastic_bfloat16(x, jax.random.key(0)), np.float32)
    assert set(np.abs(found).tolist()) <= {BELOW, ABOVE}
    deviation = (ABOVE - BELOW) * (share * (1 - share) / count) ** 0.5
    assert abs(float(np.mean(found, dtype=np.float64)) - sign * value) <= 5 * deviation + 1e-7


def test_bfloat16_values_and_infinities_are_unchanged():
    """For all 65,536 bfloat16 values."""
    everything = jax.lax.bitcast_convert_type(jnp.arange(2**16, dtype=jnp.uint16), jnp.bfloat16)
    found = stochastic_bfloat16(everything.astype(jnp.float32), jax.random.key(1))
    assert_array_equal(np.asarray(found, np.float32), np.asarray(everything, np.float32))


def test_updates_of_float32_parameters_are_not_rounded():
    held, change = {"w": jnp.ones((8,), jnp.float32)}, {"w": jnp.full((8,), 1e-6, jnp.float32)}
    assert_array_equal(apply_updates(held, change, jax.random.key(0))["w"], np.float32(1) + np.float32(1e-6))


def test_rounding_does_not_depend_on_the_mesh():
    generator = np.random.default_rng(0)
    make = lambda dtype: nnx.Param(jnp.asarray(generator.normal(size=(64, 128)), dtype), axes=("width", "mlp"))
    held, change = make(jnp.bfloat16), make(jnp.float32)
    found = []
    for config in (MeshConfig(), MeshConfig(fsdp=8), MeshConfig(fsdp=2, tensor=2, context=2)):
        mesh = make_mesh(config, replace(MODERN, heads=8, kv_heads=8, width=64), 8)
        placed = jax.device_put((held, change), shardings((held, change), mesh))
        found.append(np.asarray(jax.jit(apply_updates)(*placed, jax.random.key(3))[...], np.float32))
    assert_array_equal(found[1], found[0])
    assert_array_equal(found[2], found[0])


def along(low: object, wide: object, before: object) -> float:
    """Mean movement of bfloat16 parameters in the direction of float32's, relative to it: 1 on average."""
    moves = lambda after: np.concatenate(
        [np.ravel(np.asarray(new, np.float64) - np.asarray(old, np.float64)) for new, old in leaf_pairs(after, before)]
    )
    return float(moves(low) @ np.sign(moves(wide))) / float(np.abs(moves(wide)).sum())


def small_rate(rule: str):
    """An optimizer config with updates of about 1e-5."""
    muon = MuonConfig(1e-4, 0.95, 5) if rule == "muon" else None
    return replace(
        tiny_experiment().train.optimizer, name="adamw" if muon else rule, muon=muon, learning_rate=1e-5,
        final_learning_rate=1e-5, warmup_steps=0, weight_decay=0.0, beta1=0.0 if rule == "adafactor" else 0.9,
    )  # fmt: skip


@pytest.mark.fast_rows
@pytest.mark.parametrize("rule", ["adamw", "muon", "lion", "adafactor"])
def test_every_optimizer_moves_bfloat16_parameters_as_far_as_float32(rule):
    """Adjacent bfloat16 parameters differ by up to 1e-3, a hundred times the update."""
    optimizer, generator = make_optimizer(small_rate(rule), 100), np.random.default_rng(0)
    make = lambda: nnx.Param(jnp.asarray(generator.normal(size=(256, 256)), jnp.bfloat16) / 10, axes=("width", "mlp"))
    held, gradients = {"w": make()}, {"w": make()}
    changes, _ = optimizer.update(gradients, optimizer.init(held), held)
    low = apply_updates(held, changes, jax.random.key(0))
    before = jax.tree.map(lambda x: x.astype(jnp.float32), held)
    assert 0.5 < along(low, apply_updates(before, changes, jax.random.key(0)), before) < 1.5


@pytest.mark.slow
def test_a_step_moves_bfloat16_parameters_as_far_as_float32():
    """The randomness depends on the step."""
    train = replace(tiny_experiment().train, optimizer=small_rate("adamw"))
    model = replace(MODERN, layers=1, width=64, initial_std=0.1, parameter_dtype="bfloat16")
    tokens = jnp.asarray(np.random.default_rng(0).integers(0, model.vocab_size, (4, model.context_length)), jnp.int32)
    batch = Batch(tokens, tokens, jnp.ones_like(tokens), jnp.ones(tokens.shape, jnp.float32))
    optimizer = make_optimizer(train.optimizer, 100)
    state = jax.jit(lambda: make_state(model, optimizer, 0, train.spikes))()
    wide = state._replace(model=jax.tree.map(lambda x: x.astype(jnp.float32), state.model))
    step = jax.jit(lambda state: update(state, batch, optimizer, train)[0].model)
    low, again, later = step(state), step(state), step(state._replace(step=state.step + 1))
    assert 0.5 < along(low, step(wide), wide.model) < 1.5
    same = lambda one, other: all(
        np.array_equal(a.astype(jnp.float32), b.astype(jnp.float32)) for a, b in leaf_pairs(one, other)
    )
    assert same(low, again) and not same(low, later)
