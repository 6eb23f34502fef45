"""Low-rank adapters: the explicit formula, frozen weights, exact resume, every mesh, and peft's files."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from configs.experiment.run_folder import RunFolder
from launch.export import export
from launch.finetune import prepared
from lm.checkpoints.from_parameters import write_parameters
from lm.config import ChatConfig, LoraConfig, MeshConfig, StartConfig
from lm.errors import UsageError
from lm.formats.hugging_face.adapter import write_adapter
from lm.formats.hugging_face.names import stored_tensors
from lm.formats.safetensors import read_header
from lm.formats.tensors import stored_value
from lm.model.lora import Adapters, adapted, make_adapters, merged, with_products
from lm.model.param_names import named_leaves, replace_leaves
from lm.parallel import make_mesh, shard_batch
from lm.storage import write_json
from lm.tokenizer import load
from lm.training.loop import train
from lm.training.memory import training_bytes
from lm.training.optimizer import make_optimizer
from lm.training.state import abstract_state, initializer, make_state
from lm.training.step import compile_step, loss_and_gradients, loss_terms, update
from tests.corpus import tiny_experiment
from tests.lm.model_configs import GPT2, LLAMA, MODERN, random_model, random_parameters
from tests.lm.training.test_step import TRAIN, batch_of
from tests.lm.trees import leaf_pairs, named_arrays
from tests.train_runs import bits, copy, forget, steps_there

LORA = LoraConfig(rank=3, alpha=6.0)
TINY = tiny_experiment()
TINY = replace(TINY, model=replace(TINY.model, layers=1))
STEPS = 6


def drawn_adapters(config, lora=LORA) -> Adapters:
    """Adapters of a `random_model`, with a B that is not zero."""
    source = np.random.default_rng(0)
    made = make_adapters(random_model(config), lora, 0)
    return jax.tree.map(lambda x: jnp.asarray(source.normal(0, 0.3, x.shape), jnp.float32), made)


def device_batch(config):
    return jax.tree.map(jnp.asarray, batch_of(config))


@pytest.mark.slow
def test_a_step_equals_the_explicit_formula():
    lora = replace(LORA, maps=("mlp.up",))
    config = replace(TRAIN, lora=lora)
    optimizer = make_optimizer(config.optimizer, 12)
    adapters = drawn_adapters(LLAMA, lora)
    state = make_state(LLAMA, optimizer, 0, config.spikes, lora=lora)._replace(
        model=random_model(LLAMA), adapters=adapters
    )
    after, metrics = jax.jit(lambda state: update(state, device_batch(LLAMA), optimizer, config))(state)

    gradients_of = jax.jit(loss_and_gradients, static_argnums=2)
    _, of_weights = gradients_of(merged(state.model, adapters), device_batch(LLAMA), config)
    gradients, held = {}, {name: np.asarray(x, np.float64) for name, x in named_leaves(adapters).items()}
    for name in adapters:
        by_weight = np.asarray(named_leaves(of_weights)[f"{name}.weight"], np.float64)
        scale = lora.alpha / lora.rank
        gradients[f"{name}.a"] = scale * by_weight @ held[f"{name}.b"].T
        gradients[f"{name}.b"] = scale * held[f"{name}.a"].T @ by_weight
    norm = np.sqrt(sum(np.sum(np.square(gradient)) for gradient in gradients.values()))
    assert len(gradients) == 4 and float(metrics["gradient_norm"]) == pytest.approx(norm, rel=1e-5)
    chosen = config.optimizer
    for name, value in named_leaves(after.adapters).items():
        clipped = gradients[name] * min(1.0, chosen.clip_norm / norm)
        direction = clipped / (np.abs(clipped) + chosen.epsilon) + chosen.weight_decay * held[name]
        expected = held[name] - float(metrics["learning_rate"]) * direction
        assert_allclose(value, expected, rtol=1e-5, atol=1e-6)
    for ours, before in leaf_pairs(after.model, state.model):
        assert_array_equal(ours, before)


@pytest.mark.fast_rows
@pytest.mark.parametrize(
    ("config", "scanned"),
    [(LLAMA, True), (GPT2, False), (MODERN, True)],
    ids=["llama, scanned", "gpt2", "modern, scanned"],
)
def test_forward_and_gradients_equal_those_of_the_merged_weights(config, scanned):
    config = replace(config, scan_layers=scanned)
    model, adapters, batch = random_model(config), drawn_adapters(config), device_batch(config)
    read = jax.jit(lambda model: model.logits(model.read(batch.inputs_BT, batch.segment_ids_BT)))
    weights = named_arrays(model)
    for name, one in named_leaves(adapters).items():
        if name.endswith(".a"):
            product = np.asarray(one, np.float64) @ np.asarray(adapters[name.removesuffix(".a")].b[...], np.float64)
            weight = name.removesuffix(".a") + ".weight"
            weights[weight] = (weights[weight] + LORA.alpha / LORA.rank * product).astype(np.float32)
    expected = read(replace_leaves(model, weights))
    assert np.abs(expected - read(model)).max() > 0.1
    assert_allclose(read(adapted(model, adapters)), expected, rtol=1e-4, atol=1e-4)
    assert_allclose(read(merged(model, adapters)), expected, rtol=1e-4, atol=1e-4)

    normalized = batch._replace(weights_BT=batch.weights_BT / batch.weights_BT.sum())
    explicit = jax.jit(jax.grad(lambda one: loss_terms(with_products(model, one), normalized, TRAIN)[0]))(adapters)
    in_parts = replace(TRAIN, micro_batches=2)
    _, found = jax.jit(lambda one: loss_and_gradients(model, batch, in_parts, adapters=one))(adapters)
    for name, value in named_leaves(explicit).items():
        assert_allclose(named_leaves(found)[name], value, rtol=1e-3, atol=2e-5, err_msg=name)


def test_stacked_layers_start_with_the_same_adapters():
    one_by_one = named_leaves(make_adapters(random_model(LLAMA), LORA, 5))
    stacked = named_leaves(make_adapters(random_model(replace(LLAMA, scan_layers=True)), LORA, 5))
    for name, stack in stacked.items():
        for layer in range(LLAMA.layers):
            assert_array_equal(one_by_one[name.replace("blocks.", f"blocks.{layer}.")], stack[layer])
    assert len(one_by_one) == LLAMA.layers * len(stacked)
    assert not np.array_equal(one_by_one["blocks.0.mlp.up.a"], one_by_one["blocks.1.mlp.up.a"])
    assert not np.array_equal(one_by_one["blocks.0.mlp.up.a"], one_by_one["blocks.0.mlp.gate.a"])


MESHES = MeshConfig(), MeshConfig(fsdp=2, tensor=2, zero1=True), MeshConfig(context=2, fsdp=4)


@pytest.mark.slow
def test_every_mesh_computes_the_same_steps():
    config = replace(LLAMA, scan_layers=True)
    losses, after = [], []
    for mesh_config in MESHES:
        train_config = replace(TRAIN, mesh=mesh_config, lora=LORA)
        mesh, optimizer = make_mesh(mesh_config, config, 8), make_optimizer(TRAIN.optimizer, 12)
        choices = train_config.spikes, mesh_config.zero1, False, LORA
        step = compile_step(optimizer, abstract_state(config, optimizer, mesh, *choices), mesh, train_config)
        state, found = initializer(config, optimizer, 0, mesh, *choices)(), []
        held = sum(x.nbytes for x in jax.tree.leaves(state.adapters))
        needed = training_bytes(config, train_config)
        assert (needed["adapters"], needed["gradients"]) == (held, held)
        assert needed["moments"] - 2 * held <= 16  # and the count of steps
        for _ in range(3):
            state, metrics = step(state, shard_batch(batch_of(config), mesh, 8))
            found.append(float(metrics["loss"]))
        losses.append(found)
        after.append(named_leaves(state.model_to_use))
        sharded = {name: str(x.sharding.spec) for name, x in named_leaves(state.adapters).items()}
        assert ("fsdp" in sharded["blocks.mlp.up.a"]) and ("tensor" in sharded["blocks.mlp.up.b"])
    for found, model in zip(losses[1:], after[1:], strict=True):
        assert_allclose(found, losses[0], rtol=1e-5)
        for name, value in model.items():
            assert_allclose(value, after[0][name], atol=1e-4, err_msg=name)
    assert losses[0][2] < losses[0][0] - 0.1


@pytest.fixture(scope="module")
def runs(tokens, tmp_path_factory) -> tuple[Path, Path]:
    """(base run, run that trained adapters of it)."""
    folder = tmp_path_factory.mktemp("lora")
    base, run = (copy(tokens, folder / name) for name in ("base", "run"))
    about = {"step": 0, "steps": 0, "tokenizer": load(base / "tokenizer").fingerprint}
    write_parameters(base / "checkpoints/0", TINY.model, random_parameters(TINY.model), about)
    train(TINY.model, config_of(base), run)
    for place, config in ((base, TINY.train), (run, config_of(base))):
        write_json(place / "config.json", asdict(replace(TINY, train=config)))
    return base, run


def config_of(base: Path):
    return replace(
        TINY.train, steps=STEPS, checkpoint_every=2, checkpoints_kept=9, validate_every=0,
        sample_every=0, mesh=MeshConfig(fsdp=2, zero1=True), snapshot_steps=(3,), lora=LORA,
        start=StartConfig(str(base / "checkpoints/0")),
    )  # fmt: skip


@pytest.mark.slow
def test_weights_stay_frozen_and_a_resumed_run_has_the_same_bits(runs):
    base, run = runs
    start, whole = random_parameters(TINY.model), bits(run)
    assert steps_there(run) == [2, 4, 6]
    arrays = {name: np.frombuffer(value, np.float32) for name, value in whole.items() if "guard" not in name}
    shapes = {name: x.shape for name, x in named_leaves(make_adapters(random_model(TINY.model), LORA, 0)).items()}
    for name, value in start.items():
        assert whole[f"training.parameters.{name}"] == value.tobytes()
        a, b = (f"{name.removesuffix('.weight')}.{part}" for part in "ab")
        if a not in shapes:
            assert whole[f"model.{name}"] == value.tobytes()
            continue
        pair = [arrays[f"training.adapters.{one}"].reshape(shapes[one]).astype(np.float64) for one in (a, b)]
        expected = value + LORA.alpha / LORA.rank * np.matmul(*pair)
        assert_allclose(arrays[f"model.{name}"], expected.ravel(), rtol=1e-5, atol=1e-7)
        assert np.abs(expected - value).max() > 1e-3
    moments = [name for name in whole if name.startswith("training.optimizer.") and ".mu." in name]
    assert len(moments) == len(shapes)

    train(TINY.model, config_of(base), forget(run, 4, 6))
    assert steps_there(run) == [2, 4, 6] and bits(run) == whole


@pytest.mark.parametrize(("config", "maps"), [(LLAMA, ()), (GPT2, ("attention.value", "mlp.down"))], ids=["all", "two"])
def test_an_exported_adapter_has_the_merged_weights(tmp_path, config, maps):
    lora = replace(LORA, maps=maps)
    model, adapters = random_model(config), drawn_adapters(config, lora)
    named = {f"adapters.{name}": np.asarray(x) for name, x in named_leaves(adapters).items()}
    write_adapter(tmp_path, config, lora, named)
    about = json.loads((tmp_path / "adapter_config.json").read_text())
    tensors = {name: x.read() for name, x in read_header(tmp_path / "adapter_model.safetensors").items()}
    before, after = map(named_arrays, (model, merged(model, adapters)))
    for theirs, stored in stored_tensors(config).items():
        value = stored_value(stored, before, config).astype(np.float32)
        module = theirs.removesuffix(".weight")
        key = f"base_model.model.{module}.lora_{{}}.weight"
        if key.format("A") in tensors:
            a, b = tensors.pop(key.format("A")), tensors.pop(key.format("B"))
            (target,) = [one for one in about["target_modules"] if module.endswith("." + one)]
            assert about["rank_pattern"][target] == len(a) and about["fan_in_fan_out"] == (config == GPT2)
            product = about["alpha_pattern"][target] / len(a) * b @ a
            value = value + (product.T if about["fan_in_fan_out"] else product)
        assert_allclose(value, stored_value(stored, after, config), rtol=1e-4, atol=1e-5, err_msg=theirs)
    assert not tensors


@pytest.mark.slow
def test_a_run_exports_its_adapters_or_says_why_not(runs, tmp_path):
    base, run = runs
    opened = RunFolder(run).open_to_publish()
    export(opened, tmp_path / "out", "hugging_face", adapter=True)
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {"adapter_config.json", "adapter_model.safetensors"}
    tensors = read_header(tmp_path / "out/adapter_model.safetensors")
    saved = np.frombuffer(bits(run)["training.adapters.blocks.0.mlp.up.a"], np.float32).reshape(-1, LORA.rank)
    assert_array_equal(tensors["base_model.model.model.layers.0.mlp.up_proj.lora_A.weight"].read(), saved.T)
    assert len(tensors) == 2 * 7 * TINY.model.layers

    with pytest.raises(UsageError, match="--adapter with --format gguf"):
        export(opened, tmp_path / "none", "gguf", adapter=True)
    with pytest.raises(UsageError, match=r"of a run with train.lora.rank = 0"):
        export(RunFolder(base).open_to_publish(), tmp_path / "none", "hugging_face", adapter=True)
    with pytest.raises(UsageError, match="neither a GPT-2 nor a Llama"):
        write_adapter(tmp_path / "none", MODERN, LORA, {})
    assert not (tmp_path / "none").exists()


def test_tokens_that_a_template_appends_are_refused(runs, tmp_path):
    chat = ChatConfig(base=str(runs[0]), conversations=("talks.jsonl",))
    whole = replace(TINY, chat=chat)
    assert prepared(whole, tmp_path).model.vocab_size == TINY.model.vocab_size + 6
    experiment = replace(whole, train=replace(TINY.train, lora=LORA))
    with pytest.raises(UsageError, match=r"train.lora.rank = 3 freezes the embeddings, .* has never read 6 tokens"):
        prepared(experiment, tmp_path)


def test_invalid_maps_and_ranks_are_refused():
    with pytest.raises(UsageError, match=r"train.lora.maps has mlp.gate; this model has attention.key, .*mlp.up"):
        make_adapters(random_model(GPT2), LoraConfig(rank=1, maps=("mlp.gate",)), 0)
    with pytest.raises(UsageError, match=r"train.lora.rank is -1"):
        LoraConfig(rank=-1)
