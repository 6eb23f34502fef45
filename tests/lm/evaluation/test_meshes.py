"""Evaluation and sampling give the same metrics and texts on every mesh."""

import math
from dataclasses import replace

import jax
import numpy as np
import pytest

from lm.checkpoints.manager import Checkpoints
from lm.checkpoints.manifest import RetentionPolicy
from lm.config import MeshConfig
from lm.errors import InputError
from lm.evaluation.bits_per_byte import evaluate_texts
from lm.evaluation.evaluators import evaluate
from lm.inference.devices import inference_mesh, mesh_for_rows, moved_onto
from lm.inference.generate import sample_texts
from lm.model.param_names import named_leaves
from lm.parallel import make_mesh, shardings
from lm.run_paths import RunPaths
from lm.tokenizer import load
from lm.training.optimizer import make_optimizer
from lm.training.state import initializer
from tests.corpus import texts, tiny_experiment, write_tokens
from tests.lm.model_configs import initial_model
from tests.run_files import restore_model

EXPERIMENT = tiny_experiment()
MODEL = replace(EXPERIMENT.model, heads=4, kv_heads=4, width=32, initial_std=0.2)
MESHES = {
    "tensor": (MeshConfig(tensor=4), 8),
    "mixed": (MeshConfig(fsdp=2, tensor=2, context=2), 8),
    "four devices": (MeshConfig(fsdp=4), 4),
    "data alone": (MeshConfig(), 8),
}
PROMPTS, TEMPERATURES = ["The miller", "", "A farmer"] * 8, [0.0, 0.8, 0.0, 0.8, 0.5, 0.7] * 4


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> RunPaths:
    """A run with shards, tokenizer, and a checkpoint saved from a mesh of eight devices with sharded parameters."""
    paths = RunPaths(tmp_path_factory.mktemp("meshes") / "run")
    write_tokens(paths.root, EXPERIMENT)
    optimizer = make_optimizer(EXPERIMENT.train.optimizer, EXPERIMENT.train.steps)
    state = initializer(MODEL, optimizer, 3, make_mesh(MeshConfig(fsdp=8), MODEL, 8))()
    checkpoints = Checkpoints(paths.checkpoints, RetentionPolicy(1))
    checkpoints.save(1, state, {})
    checkpoints.close()
    return paths


def figures(run: RunPaths, mesh) -> tuple[dict, dict, list[str]]:
    """(metrics of the validation split, metrics of a text, samples)."""
    model, tokenizer = restore_model(MODEL, run.checkpoints, mesh), load(run.tokenizer)
    config = replace(EXPERIMENT.evaluate, batch_size=6)  # not a multiple of eight devices
    held_out = evaluate(model, MODEL, config, tokenizer, run.tokens, mesh)
    text = evaluate_texts(model, MODEL, config, tokenizer, texts(1, seed=9), mesh)
    arguments = (model, MODEL, tokenizer, PROMPTS, TEMPERATURES, 24)
    return held_out, text, sample_texts(*arguments, key=jax.random.key(1), mesh=mesh)


@pytest.fixture(scope="module")
def alone(run) -> tuple[dict, dict, list[str]]:
    return figures(run, None)


@pytest.mark.slow
@pytest.mark.parametrize("name", MESHES)
def test_every_mesh_gives_the_metrics_of_one_device(run, alone, name):
    config, count = MESHES[name]
    mesh = make_mesh(config, MODEL, count, jax.devices()[:count])
    model = restore_model(MODEL, run.checkpoints, mesh)
    expected = named_leaves(shardings(model, mesh))
    assert all(leaf.sharding == expected[key] for key, leaf in named_leaves(model).items())
    cut = config.fsdp * config.context * config.tensor
    largest = named_leaves(model)["blocks.0.mlp.up.weight"]
    assert largest.addressable_shards[0].data.size * cut == largest.size
    held_out, text, samples = figures(run, mesh)
    assert held_out == pytest.approx(alone[0], rel=1e-5)
    assert text == pytest.approx(alone[1], rel=1e-5)
    assert samples == alone[2]


@pytest.mark.slow
def test_rows_are_sharded_over_the_context_axis_without_moving_parameters():
    mesh = make_mesh(MeshConfig(fsdp=2, context=2), MODEL, 8)
    assert mesh_for_rows(mesh, 4) is mesh and mesh_for_rows(mesh, 12) is mesh
    rows_mesh = mesh_for_rows(mesh, 16)
    assert dict(rows_mesh.shape) == {"data": 2, "fsdp": 4, "context": 1, "tensor": 1}
    model = initial_model(MODEL)
    model = jax.device_put(model, shardings(model, mesh))
    moved = moved_onto(model, rows_mesh)
    named = named_leaves(shardings(moved, rows_mesh))
    for name, before in named_leaves(model).items():
        after = named_leaves(moved)[name]
        assert after.sharding == named[name]
        pointers = lambda leaf: {one.device: one.data.unsafe_buffer_pointer() for one in leaf.addressable_shards}
        assert pointers(after) == pointers(before)
        np.testing.assert_array_equal(np.asarray(after), np.asarray(before))


@pytest.mark.slow
def test_a_text_is_scored_token_by_token_as_one_document(run):
    """A model with uniform predictions: every token costs log(vocabulary) nats in any window."""
    tokenizer, text = load(run.tokenizer), texts(1, seed=9)[0]
    model = jax.tree.map(np.zeros_like, restore_model(MODEL, run.checkpoints))
    found = evaluate_texts(model, MODEL, EXPERIMENT.evaluate, tokenizer, [text])
    ids, size = tokenizer.encode(text), len(text.encode())
    assert (found["tokens"], found["bytes"]) == (len(ids), size)
    assert found["loss"] == pytest.approx(math.log(MODEL.vocab_size), rel=1e-6)
    assert found["bits_per_byte"] == pytest.approx(math.log2(MODEL.vocab_size) * len(ids) / size, rel=1e-6)
    assert evaluate_texts(model, MODEL, EXPERIMENT.evaluate, tokenizer, ["x"])["tokens"] == 1
    with pytest.raises(InputError, match="empty"):
        evaluate_texts(model, MODEL, EXPERIMENT.evaluate, tokenizer, [""])


def test_a_mesh_that_does_not_fit_falls_back_to_one_device_with_a_reason():
    mesh, why = inference_mesh(MeshConfig(fsdp=2, tensor=2), MODEL)
    assert (mesh.devices.size, mesh.shape["data"], why) == (8, 2, "")
    mesh, why = inference_mesh(MeshConfig(fsdp=3), MODEL)
    assert mesh.devices.size == 1 and "fsdp = 3" in why and "8 devices" in why
