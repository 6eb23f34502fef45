"""Training runs: resume is bit-exact, every step is logged once, the mesh does not change the result."""

import contextlib
import functools
import gzip
import json
import logging
import re
import shutil
import sys
import threading
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from lm.checkpoints.manager import Checkpoints
from lm.checkpoints.manifest import RetentionPolicy, read_manifest, write_manifest
from lm.config import MeshConfig, MixtureSource, MuonConfig
from lm.data.batches import Batch, BatchSource
from lm.errors import InputError, UsageError
from lm.evaluation.evaluator import EvaluatorConfig
from lm.evaluation.held_out import Validation
from lm.metrics.profiling import PORT
from lm.model.param_names import named_leaves
from lm.model.transformer import Transformer
from lm.parallel import make_mesh, one_device_mesh
from lm.resilience.preemption import PreemptionHandler
from lm.tokenizer import load
from lm.training.aot_compile import WORTH_MEASURING, worth_measuring
from lm.training.hooks import all_finite
from lm.training.loop import train
from lm.training.optimizer import make_optimizer
from lm.training.setup import description_texts, open_shards
from lm.training.state import abstract_state, initializer
from tests.lm.training.conftest import CONFIG, MODEL
from tests.lm.trees import named_arrays
from tests.run_files import restore_model
from tests.train_process import free_port
from tests.train_runs import bits, copy, forget, rows, told


def parameters(run: Path) -> dict[str, np.ndarray]:
    model = restore_model(MODEL, run / "checkpoints")
    return named_arrays(model)


def test_a_resumed_run_ends_bit_for_bit_equal(finished, tmp_path, capsys):
    run = copy(finished, tmp_path / "run", 8, 12)
    with (run / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"step": 12, "lo')  # a line truncated by a kill
    train(MODEL, CONFIG, run)
    printed = capsys.readouterr().out
    assert "resuming from the checkpoint at step 4" in printed  # otherwise the run started from scratch
    assert "mesh data 8 x fsdp 1 x context 1 x tensor 1, layers unrolled, remat none" in printed
    assert [row["step"] for row in rows(run) if "run" in row] == [0, 4]  # the configuration, once per start
    assert bits(run) == bits(finished)
    assert told(run) == told(finished)
    for path in sorted((finished / "samples").glob("*.json")):
        assert (run / "samples" / path.name).read_bytes() == path.read_bytes()


def test_a_copy_of_the_shards_in_a_mixture_gives_the_same_run(run, finished, tokens, tmp_path, capsys):
    """The mixture has only the copy; validation still uses the run's own shards."""
    shutil.copytree(tokens / "tokens", tmp_path / "other")
    mixture = (MixtureSource(str(tmp_path / "other"), 3.0),)
    train(MODEL, replace(CONFIG, mixture=mixture, own_weight=0.0), run)
    assert f"100.0% of the sequences from {tmp_path / 'other'}" in capsys.readouterr().out
    assert told(run) == told(finished)
    assert bits(run) == bits(finished)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "optimizer", "changes"),
    [
        ({"qk_norm": True, "token_shift": True}, {"muon": MuonConfig(0.02, 0.95, 5)}, {"dropout": 0.1}),
        ({"scan_layers": True}, {"name": "adafactor"}, {"remat": "full"}),
        (
            {"parameter_dtype": "bfloat16"},
            {"name": "lion", "schedule": "warmup_stable_decay", "decay_steps": 4},
            {"micro_batches": 2, "batch_size": 16, "validation_batches": 1},
        ),
    ],
    ids=["muon, dropout", "adafactor, scan", "lion, micro-batches, bfloat16 parameters"],
)
def test_every_optimizer_resumes_bit_for_bit(run, capsys, model, optimizer, changes):
    model = replace(MODEL, **model)
    optimizer = replace(CONFIG.optimizer, **optimizer)
    config = replace(CONFIG, optimizer=optimizer, mesh=MeshConfig(fsdp=2), **changes)
    train(model, config, run)
    expected = bits(run)
    train(model, config, forget(run, 8, 12))
    assert "resuming from the checkpoint at step 4" in capsys.readouterr().out
    assert bits(run) == expected


def test_a_diverged_run_saves_no_checkpoint(run):
    wild = replace(CONFIG.optimizer, learning_rate=1e30, warmup_steps=0, name="lion")
    config = replace(CONFIG, optimizer=wild, log_every=12, checkpoint_every=1, checkpoints_kept=1, validate_every=12)
    with pytest.raises(InputError, match="the run has diverged"):
        train(MODEL, config, run)
    assert max((int(path.name) for path in (run / "checkpoints").glob("[0-9]*")), default=0) <= 2


@pytest.mark.slow
def test_a_skipped_save_does_not_delay_the_next_steps(run, monkeypatch):
    """Each attempted save checks the parameters once; a skipped save is retried when the previous one is on disk."""
    written, looks, real = threading.Event(), [], all_finite
    publish = lambda *arguments: written.wait(600) and write_manifest(*arguments)
    monkeypatch.setattr("lm.checkpoints.manager.write_manifest", publish)

    def look(tree):
        looks.append(tree)
        if len(looks) == 3:
            written.set()
        return real(tree)

    monkeypatch.setattr("lm.training.hooks.all_finite", look)
    config = replace(CONFIG, log_every=12, checkpoint_every=2, validate_every=12, validation_batches=1, sample_every=12)
    monkeypatch.setattr(Checkpoints, "__init__", functools.partialmethod(Checkpoints.__init__, timeout=0.0))
    train(MODEL, config, run)
    assert len(looks) == 3  # after step 2, which is saved; 4, which is skipped; and 12, which waits for the disk
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["12", "2"]


def test_a_resumed_run_uses_the_optimizer_state_of_the_checkpoint(finished, tmp_path):
    """Other Adam moments in the checkpoint lead to other final parameters."""
    run = copy(finished, tmp_path / "run", 4, 12)
    mesh = make_mesh(MeshConfig(), MODEL, 8)
    optimizer = make_optimizer(CONFIG.optimizer, 12)
    with contextlib.closing(Checkpoints(run / "checkpoints", RetentionPolicy(2))) as checkpoints:
        state = checkpoints.restore(run / "checkpoints/8", abstract_state(MODEL, optimizer, mesh))
        changed = jax.tree.map(lambda x: x * 2 if x.dtype == "float32" else x, state.optimizer_state)
        checkpoints.save(
            9,
            state._replace(step=state.step + 1, optimizer_state=changed),
            read_manifest(run / "checkpoints/8")["about"],
        )
    train(MODEL, CONFIG, run)
    expected, found = parameters(finished), parameters(run)
    assert any((found[name] != expected[name]).any() for name in expected)


def test_too_many_validation_batches_mean_all_of_them_with_a_note(tokens):
    said: list[str] = []
    config = EvaluatorConfig(MODEL, load(tokens / "tokenizer"), tokens / "tokens", 8, 32, say=said.append)
    every = Validation(config)
    assert not said
    assert len(Validation(replace(config, batches=3000)).batches) == len(every.batches)
    windows = BatchSource(tokens / "tokens", "val", 32, 8, seed=0, loader_threads=1).windows
    assert said == [
        f"train.validation_batches asks for 24,000 sequences, but the validation split holds {windows} of 32 tokens; "
        "all are used"
    ]
    assert len(Validation(replace(config, batches=1)).batches) == 1 and len(said) == 1


def test_validation_uses_at_most_a_micro_batch_of_rows_at_once_with_the_same_result(tokens):
    model, mesh = Transformer(MODEL, jax.random.key(0)), one_device_mesh(MODEL)
    found = {}
    for parts in (1, 4):
        config = replace(CONFIG, micro_batches=parts)
        data = open_shards(MODEL, config, tokens, PreemptionHandler(1), print)
        validation = data.evaluators(0)["validation"]
        assert isinstance(validation, Validation)
        assert {batch.inputs_BT.shape[0] for batch in validation.batches} == {config.batch_size // parts}
        found[parts] = validation.run(model, mesh)
    assert found[4] == pytest.approx(found[1], rel=1e-6)


def test_more_than_four_epochs_are_warned_about_with_the_maximum_of_steps(tokens):
    source = BatchSource(tokens / "tokens", "train", 32, 8, seed=0, loader_threads=1)
    run = {
        "parameters": 1, "steps": 1, "tokens_per_step": 256, "devices": 1, "device_kind": "cpu", "mesh": {},
        "scan_layers": False, "remat": "none", "micro_batches": 1, "attention_choice": "",
    }  # fmt: skip
    most = 4 * source.windows // 8
    lines = {steps: [*description_texts(run, replace(CONFIG, steps=steps), source)] for steps in (most, 2 * most)}
    assert not any("warning" in line for line in lines[most])
    assert re.search(rf"warning: [78]\.\d epochs of .*\. Add text, or --train\.steps {most}$", lines[2 * most][-1])


@pytest.mark.slow
def test_a_diverging_run_reports_it(run):
    wild = replace(CONFIG.optimizer, learning_rate=1e38, warmup_steps=0)
    with pytest.raises(InputError, match=r"loss at step \d+ is .* gradient norm of (nan|inf).*learning_rate = 1e\+38"):
        train(MODEL, replace(CONFIG, optimizer=wild), run)


def test_the_configuration_of_a_run_is_logged(finished):
    (run,) = [row for row in rows(finished) if "run" in row]
    assert (run["step"], run) == (0, rows(finished)[0])
    said = run["run"]
    assert (said["attention"], said["attention_choice"]) == ("xla", "attention by xla")
    assert (said["remat"], said["scan_layers"], said["micro_batches"]) == ("none", False, 1)
    assert (said["mesh"], said["devices"]) == ({"data": 8, "fsdp": 1, "context": 1, "tensor": 1}, 8)
    assert said["parameters"] == sum(value.size for value in parameters(finished).values())
    assert said["step_flops"] == next(row for row in rows(finished) if "loss" in row)["step_flops"]


def test_an_implicit_transfer_in_the_loop_is_an_error(run, monkeypatch):
    """For example, if the step gets host arrays: every step would wait for the copy."""
    monkeypatch.setattr("lm.training.loop.shard_batch", lambda batch, *arguments: batch)
    with pytest.raises(Exception, match="Disallowed host-to-device transfer"):
        train(MODEL, CONFIG, run)


def test_the_outputs_of_a_run(finished):
    train_rows = [row for row in rows(finished) if "loss" in row]
    assert [row["step"] for row in train_rows] == [*range(1, 13)]
    assert train_rows[-1]["tokens"] == 12 * 8 * 32
    assert train_rows[-1]["seconds_left"] == 0
    for row in train_rows:  # the peak rate of this machine is measured, so both shares are known
        assert row["cpu_matmul_share"] > 0
        assert "mfu" not in row
        assert 0 < row["data_wait_share"] < 1
        assert 0 < row["process_bytes_in_use"] <= row["process_bytes_peak"]
        assert not any(name.startswith("device_") for name in row)  # CPU devices have no memory of their own
    costs = {"step_flops", "step_state_bytes", "step_temporary_bytes", "compile_seconds"}
    assert costs <= train_rows[0].keys()
    assert not any(costs & row.keys() for row in train_rows[1:])
    assert [row["step"] for row in rows(finished) if "validation_loss" in row] == [6, 12]
    assert train_rows[-1]["loss"] < 0.8 * train_rows[0]["loss"]
    assert sorted(path.name for path in (finished / "checkpoints").iterdir() if path.is_dir()) == ["12", "4", "8"]
    assert sorted(path.name for path in (finished / "samples").iterdir()) == [
        "step-00000006.json",
        "step-00000012.json",
    ]
    assert list((finished / "tensorboard").glob("events.out.tfevents.*"))


def test_the_step_is_compiled_once_and_logged_before_it_runs(run, caplog, capsys, monkeypatch):
    monkeypatch.setattr("lm.training.aot_compile.WORTH_MEASURING", 1)
    short = replace(CONFIG, steps=4, validate_every=4, sample_every=4)
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        train(MODEL, short, run)
    state = abstract_state(MODEL, make_optimizer(short.optimizer, 4), make_mesh(MeshConfig(), MODEL, 8))
    arguments = len(jax.tree.leaves(state)) + len(Batch._fields)  # no other program has as many
    compiled = [
        record.getMessage().count("ShapedArray(")
        for record in caplog.records
        if re.match(r"Compiling (?!jit\(copied\))", record.getMessage())  # which checkpoints.manager compiles
    ]
    assert len(compiled) >= 3  # the log is parsed correctly
    assert compiled.count(arguments) == 1
    assert compiled.count(0) == 1  # the state of step 0, although it is built twice: to measure a step, and to train
    assert max(compiled) == arguments
    printed = capsys.readouterr().out
    said = re.search(r"a step is \S+ MFLOP; a device holds .+ of state, .+ of temporary values; compiled in", printed)
    assert said and said.start() < printed.index("validation loss")
    forecast = re.search(r"4 steps are \S+ MFLOP and take about \d+:\d\d here, at \S+ s a step", printed)
    assert forecast and said.start() < forecast.start() < printed.index("validation loss")


def test_the_duration_is_forecast_only_for_long_runs():
    assert worth_measuring(WORTH_MEASURING, "cpu") and not worth_measuring(WORTH_MEASURING - 1, "cpu")
    assert not worth_measuring(WORTH_MEASURING, "tpu")


@pytest.mark.slow
def test_a_profile_contains_the_requested_steps_also_while_a_server_runs(run, capsys, monkeypatch):
    monkeypatch.setenv(PORT, str(port := free_port()))
    short = replace(CONFIG, steps=7, profile_step=4, profile_steps=2)
    train(MODEL, short, run)
    (path,) = (run / "profile").rglob("*.trace.json.gz")
    printed = capsys.readouterr().out
    assert str(path) in printed and f"jax.collect_profile {port} 3000" in printed
    with gzip.open(path, "rt", encoding="utf-8") as file:  # the file for Perfetto
        events = json.load(file)["traceEvents"]
    steps = [event["args"]["step_num"] for event in events if event.get("name") == "train"]
    assert sorted(map(int, steps)) == [4, 5]


def test_a_wandb_project_without_wandb_is_rejected_before_the_first_step(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)  # as if it were not installed
    with pytest.raises(UsageError, match=r"wandb_project is 'mill'.*make add PACKAGE=wandb"):
        train(MODEL, replace(CONFIG, wandb_project="mill"), run)
    assert not (run / "metrics.jsonl").exists()


def test_the_rows_of_a_step_are_written_before_its_checkpoint(finished):
    """Otherwise a kill between the two would lose them: a resumed run begins with the next step."""
    appeared = (finished / "checkpoints/12").stat().st_ctime_ns  # renamed into place when complete
    for path in (finished / "metrics.jsonl", finished / "samples/step-00000012.json"):
        assert path.stat().st_mtime_ns <= appeared, path


SHARDED = replace(MODEL, heads=4, kv_heads=4)
OPTIMIZER = make_optimizer(CONFIG.optimizer, 12)


def test_a_state_is_sharded_by_the_table_and_restored_bit_for_bit_also_on_another_mesh(tmp_path):
    state = initializer(SHARDED, OPTIMIZER, 3, make_mesh(MeshConfig(fsdp=2, tensor=4), SHARDED, 8))()
    of_up = [leaf for name, leaf in named_leaves(state).items() if name.endswith("blocks.0.mlp.up.weight")]
    assert len(of_up) == 3  # the parameter, and Adam's first and second moments
    assert {(leaf.shape, leaf.addressable_shards[0].data.shape) for leaf in of_up} == {((32, 48), (16, 12))}
    checkpoints = Checkpoints(tmp_path / "checkpoints", RetentionPolicy(1))
    checkpoints.save(5, state, {})
    checkpoints.close()
    like = initializer(SHARDED, OPTIMIZER, 4, make_mesh(MeshConfig(tensor=2), SHARDED, 8, jax.devices()[:2]))()
    restored = Checkpoints(tmp_path / "checkpoints", RetentionPolicy(1)).restore(tmp_path / "checkpoints/5", like)
    expected, found = named_leaves(state), named_leaves(restored)
    assert expected.keys() == found.keys()
    for name, value in found.items():
        np.testing.assert_array_equal(np.asarray(value), np.asarray(expected[name]), err_msg=name)
        assert value.sharding == named_leaves(like)[name].sharding, name


@pytest.mark.parametrize("damage", ["a data file cut", "an item missing"])
def test_a_damaged_or_missing_checkpoint_or_one_of_another_model_is_rejected(finished, tmp_path, damage):
    for other in ({"layers": 3}, {"mlp_width": 64}):
        with pytest.raises(InputError, match="cannot be restored into this model"):
            restore_model(replace(MODEL, **other), finished / "checkpoints")
    folder = tmp_path / "checkpoints"
    with pytest.raises(InputError, match="no checkpoint"):
        restore_model(MODEL, folder)
    shutil.copytree(finished / "checkpoints", folder)
    if damage == "a data file cut":
        for path in (folder / "12/model").rglob("d/*"):
            path.write_bytes(path.read_bytes()[:20])
    else:
        shutil.rmtree(folder / "12/model")
    with pytest.raises(InputError, match=r"checkpoints/12 is damaged: .*checkpoints/12/.* is missing|has 20 bytes"):
        restore_model(MODEL, folder)
