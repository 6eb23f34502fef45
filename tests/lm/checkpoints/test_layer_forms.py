"""Checkpoints with separate layers load into stacked layers and vice versa: parameters, moments and sharding."""

import contextlib
from dataclasses import replace

import jax
import numpy as np
import pytest

from lm.checkpoints.manager import Checkpoints
from lm.checkpoints.manifest import RetentionPolicy
from lm.config import MeshConfig, MuonConfig
from lm.errors import InputError
from lm.model.param_names import are_stacked, named_leaves, stack_names, unstack_names
from lm.parallel import make_mesh
from lm.training.optimizer import make_optimizer
from lm.training.state import abstract_state
from tests.corpus import tiny_experiment
from tests.lm.model_configs import MODERN
from tests.lm.trees import named_arrays
from tests.run_files import restore_model

TRAIN = tiny_experiment().train
OPTIMIZERS = {
    "adafactor": replace(TRAIN.optimizer, name="adafactor"),
    "adamw": TRAIN.optimizer,
    "muon": replace(TRAIN.optimizer, muon=MuonConfig(0.02, 0.95, 5)),
}
ONE_BY_ONE = replace(MODERN, width=128, mlp_width=128, heads=4)  # Adafactor factors from 128 channels on
STACK = replace(ONE_BY_ONE, scan_layers=True)
EITHER = pytest.mark.parametrize("config", [ONE_BY_ONE, STACK], ids=["one by one", "stack"])


def saved(folder, config, optimizer):
    """A state in which all values differ, and its checkpoint in `folder`."""
    mesh = make_mesh(MeshConfig(), config, 8, jax.devices()[:1])
    like = abstract_state(config, make_optimizer(optimizer, 10), mesh, TRAIN.spikes)
    generator = np.random.default_rng(0)
    random = lambda leaf: jax.device_put((100 * generator.random(leaf.shape)).astype(leaf.dtype), leaf.sharding)
    state = jax.tree.map(random, like)
    with contextlib.closing(Checkpoints(folder, RetentionPolicy(newest=1))) as checkpoints:
        checkpoints.save(1, state, {})
    return state


def restored(folder, config, optimizer):
    """(the state in `folder` on a mesh that shards it, the expected state)."""
    mesh = make_mesh(MeshConfig(fsdp=2, tensor=2), config, 8, jax.devices()[:4])
    like = abstract_state(config, make_optimizer(optimizer, 10), mesh, TRAIN.spikes)
    with contextlib.closing(Checkpoints(folder, RetentionPolicy(newest=1))) as checkpoints:
        found = checkpoints.restore_newest(like)
    assert found is not None
    return found[0], like


@pytest.mark.fast_rows
@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
@EITHER
def test_either_layer_form_is_restored_into_the_other(tmp_path, config, optimizer):
    expected = named_arrays(saved(tmp_path, config, optimizer))
    other = replace(config, scan_layers=not config.scan_layers)
    state, like = restored(tmp_path, other, optimizer)
    found = named_leaves(state)
    for name, leaf in named_leaves(like).items():
        assert (found[name].shape, found[name].dtype, found[name].sharding) == (leaf.shape, leaf.dtype, leaf.sharding)
    # A single value replaces a moment that is not kept, for all layers.
    whole = lambda name, layers: layers[0] if layers[0].shape == found[name].shape else np.stack(layers)
    one = lambda name, stack, layer: stack if stack.shape == found[name].shape else stack[layer]
    expected = stack_names(expected, whole) if other.scan_layers else unstack_names(expected, config.layers, one)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(np.asarray(found[name]), value, err_msg=name)


def test_parameters_without_the_state_are_read_in_the_form_of_the_config(tmp_path):
    expected = named_leaves(saved(tmp_path, STACK, TRAIN.optimizer).model)
    found = named_leaves(restore_model(ONE_BY_ONE, tmp_path))
    assert are_stacked(expected) and not are_stacked(found)
    for layer in range(ONE_BY_ONE.layers):
        name = "mlp.up.weight"
        np.testing.assert_array_equal(found[f"blocks.{layer}.{name}"], expected[f"blocks.{name}"][layer])


@EITHER
def test_another_number_of_layers_is_rejected_in_either_form(tmp_path, config):
    saved(tmp_path, config, TRAIN.optimizer)
    deeper = replace(config, layers=3, scan_layers=not config.scan_layers)
    with pytest.raises(InputError, match=r"it has 2 layers, but model.layers = 3"):
        restore_model(deeper, tmp_path)
