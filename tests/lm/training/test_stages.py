"""Schedules of batch size and context: each shape is compiled once, resume is bit-exact, all counts are exact."""

import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import jax
import numpy as np
import pytest

from lm.config import MixtureSource, MixtureStage
from lm.data.batches import BatchSource
from lm.devices import Devices, Target, training_mesh_sizes
from lm.errors import UsageError
from lm.model.cost import flops_per_token
from lm.parallel import training_mesh
from lm.planner.compile import Compiled, compile_for
from lm.planner.topology import topology_of
from lm.training.loop import train
from lm.training.memory import training_bytes
from lm.training.setup import Data, Programs
from tests.corpus import tiny_experiment
from tests.train_runs import bits, copy, rows, told

EXPERIMENT = tiny_experiment()
MODEL = replace(EXPERIMENT.model, layers=1)
CONFIG = replace(
    EXPERIMENT.train, batch_schedule=((3, 16), (9, 8)), context_schedule=((0, 16), (5, 32)), micro_batches=2,
    checkpoint_every=1, checkpoints_kept=99, sample_every=0, log_every=1, validate_every=0,
)  # fmt: skip
SWITCHES = (3, 5, 9)
CHIP = topology_of("v5e:2x4").chip
TOKENS = [(8 if step < 3 or step >= 9 else 16) * 32 for step in range(CONFIG.steps)]


@pytest.fixture(scope="module")
def finished(tokens, tmp_path_factory) -> tuple[Path, list[str]]:
    """(a run without interruption, its output)."""
    run, printed = copy(tokens, tmp_path_factory.mktemp("finished") / "run"), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("builtins.print", lambda *words, **_: printed.append(" ".join(map(str, words))))
        train(MODEL, CONFIG, run)
    return run, printed


@pytest.mark.slow
def test_tokens_and_flops_equal_a_sum_over_the_previous_steps(finished):
    run, _ = finished
    flops = lambda context: flops_per_token(replace(MODEL, context_length=context))
    of_steps = [tokens * flops(16 if step < 5 else 32) for step, tokens in enumerate(TOKENS)]
    trained = [row for row in rows(run) if "tokens" in row]
    assert [(row["step"], row["tokens"]) for row in trained] == [
        (step, sum(TOKENS[:step])) for step in range(1, CONFIG.steps + 1)
    ]
    assert [row["train_flops"] for row in trained] == pytest.approx(np.cumsum(of_steps).tolist(), rel=1e-6)
    assert {row["step"]: row["step_flops"] for row in trained if "step_flops" in row} == {
        step + 1: of_steps[step] for step in (0, *SWITCHES)
    }


@pytest.mark.slow
def test_a_run_prints_the_configuration_of_each_stage(finished):
    run, printed = finished
    told_at = {row["step"]: row["run"] for row in rows(run) if "run" in row}
    names = ("tokens_per_step", "context_length", "micro_batches")
    assert {step: tuple(one[name] for name in names) for step, one in told_at.items()} == {
        0: (256, 16, 1), 3: (512, 16, 2), 5: (512, 32, 2), 9: (256, 32, 1)
    }  # fmt: skip
    text = "\n".join(printed)
    assert f"12 steps, {sum(TOKENS):,} tokens in all" in text
    expected = "from step 3 on: batches of 32 sequences of 16 tokens (512 tokens), micro-batches 2"
    assert text.count(expected) == 2  # at the start, and when the stage begins
    (epochs,) = map(float, re.findall(r"tokens an epoch, ([\d.]+) epochs", text))
    windows = BatchSource(run / "tokens", "train", 32, 1, 0, 1).windows
    assert epochs == pytest.approx(sum(TOKENS) // 32 / windows, abs=0.006)


@pytest.mark.slow
@pytest.mark.parametrize("step", [4, 5, 6, 9])
def test_a_run_resumed_at_before_or_after_a_switch_ends_bit_for_bit_equal(finished, tmp_path, capsys, step):
    whole, _ = finished
    run = copy(whole, tmp_path / "run", *range(step + 1, CONFIG.steps + 1))
    train(MODEL, CONFIG, run)
    assert f"resuming from the checkpoint at step {step}" in capsys.readouterr().out
    assert bits(run) == bits(whole)
    without_cost = lambda run: [{k: v for k, v in row.items() if k != "step_flops"} for row in told(run)]
    assert without_cost(run) == without_cost(whole)


def test_an_extended_run_stays_in_its_last_stage_and_a_shorter_one_omits_it():
    short, long = (replace(CONFIG, steps=steps) for steps in (6, 4000))
    assert [stage.first_step for stage in short.stages(32).between(0, 6)] == [0, 3, 5]
    assert long.stages(32).tokens_before(4000) == sum(TOKENS) + (4000 - 12) * 256
    assert training_bytes(MODEL, short)["batch"] == training_bytes(MODEL, long)["batch"]
    assert training_bytes(MODEL, replace(CONFIG, steps=4))["kept activations"] > 0


def test_memory_is_counted_for_the_largest_batch():
    constant = replace(CONFIG, batch_size=16, batch_schedule=(), context_schedule=())
    assert training_bytes(MODEL, CONFIG) == training_bytes(MODEL, constant)


@pytest.mark.slow
def test_the_planner_uses_the_program_of_the_largest_batch():
    constant = replace(CONFIG, batch_size=16, batch_schedule=(), context_schedule=())
    planned, expected = (compile_for(MODEL, one, jax.devices(), CHIP) for one in (CONFIG, constant))
    assert isinstance(planned, Compiled)
    assert replace(planned, compile_seconds=0.0) == replace(expected, compile_seconds=0.0)


def test_each_shape_is_compiled_once():
    """Also if only the mixture changes, or a shape recurs."""
    mixed = replace(
        CONFIG, batch_schedule=((3, 16), (6, 8)), context_schedule=(), mixture=(MixtureSource("a", 0.0),),
        mixture_schedule=(MixtureStage(4, (1.0, 2.0)),),
    )  # fmt: skip
    source = cast(Any, SimpleNamespace(stages=mixed.stages(MODEL.context_length)))
    data = Data(cast(Any, None), source, lambda step: {})
    programs = Programs(MODEL, mixed, data, training_mesh(mixed, MODEL))
    first, second, mixed_only, again = (programs.at(step) for step in (0, 3, 4, 6))
    assert first is again and second is mixed_only and first is not second
    assert first.batch.inputs_BT.shape == (8, 32) and second.batch.inputs_BT.shape == (16, 32)


def test_a_batch_size_that_the_mesh_does_not_divide_is_rejected_in_any_stage():
    devices = Devices(16, "cpu", Target("cpu"))
    with pytest.raises(UsageError, match=r"From step 9 on, with batches of 8 sequences .*: train\.batch_size = 8 "):
        training_mesh_sizes(replace(CONFIG, micro_batches=1), MODEL, devices)
    assert training_mesh_sizes(replace(CONFIG, micro_batches=1, steps=8), MODEL, devices)["data"] == 16


def test_the_schedules_are_part_of_the_identity_of_a_run():
    from lm.fields import identifying

    mixture = replace(
        EXPERIMENT.train, mixture=(MixtureSource("a", 1.0),), mixture_schedule=(MixtureStage(4, (1.0, 2.0)),)
    )
    for config, name, value in (
        (CONFIG, "batch_schedule", [[3, 16], [9, 8]]), (CONFIG, "context_schedule", [[0, 16], [5, 32]]),
        (mixture, "mixture_schedule", [{"step": 4, "weights": [1.0, 2.0]}]),
    ):  # fmt: skip
        found = identifying(config)
        assert isinstance(found, dict) and found[name] == value
