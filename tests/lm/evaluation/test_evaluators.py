"""An evaluation is one class, named in the config: its figures are wherever figures of training and evaluation are."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest

from launch import evaluate as launch_evaluate
from lm.checkpoints.manifest import verify
from lm.checkpoints.reading import restore_model
from lm.config import TasksConfig
from lm.errors import UsageError
from lm.evaluation.evaluator import EvaluatorConfig
from lm.evaluation.evaluators import HELD_OUT, check_evaluators, make_evaluators, run_evaluators
from lm.model.transformer import Transformer
from lm.parallel import make_mesh
from lm.tokenizer import load
from lm.training.loop import train
from lm.trusted_code import module_code, trust
from tests.corpus import tiny_experiment
from tests.lm.evaluation.task_files import write_tasks
from tests.lm.metrics.test_meter import events_of
from tests.train_runs import bits, steps_there, told

OUTSIDE = "tests.lm.evaluation.outside_evaluator.LargestParameter"
TINY = tiny_experiment()
EXPERIMENT = dataclasses.replace(
    TINY,
    model=dataclasses.replace(TINY.model, layers=1),
    train=dataclasses.replace(
        TINY.train, steps=4, log_every=2, validate_every=2, validation_batches=1, sample_every=0, checkpoint_every=0,
        evaluators=("validation", OUTSIDE),
    ),
    evaluate=dataclasses.replace(TINY.evaluate, evaluators=("bits_per_byte", OUTSIDE), batch_size=4),
)  # fmt: skip


@pytest.fixture(autouse=True)
def own_evaluators_are_trusted():
    trust(module_code("tests.lm.evaluation.outside_evaluator"))


def test_an_evaluator_from_outside_is_run_in_training_and_in_the_evaluation(tokens, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(tokens, run)
    made = TasksConfig(str(write_tasks(tmp_path / "data", 8)), limit=4)
    config = dataclasses.replace(EXPERIMENT.train, evaluators=("validation", OUTSIDE, "piqa"), tasks=made)
    train(EXPERIMENT.model, config, run)
    assert "nats/token" in (out := capsys.readouterr().out) and "largest_parameter" in out
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    evaluated = [row for row in rows if "largest_parameter" in row]
    assert [(row["step"], row["rows_at_once"]) for row in evaluated] == [(2, 8), (4, 8)]
    assert all("validation_loss" in row and "validation_bits_per_byte" in row for row in evaluated)
    assert all({row["piqa_acc"], row["piqa_acc_norm"]} <= {0, 0.25, 0.5, 0.75, 1} for row in evaluated)
    tags = [(event.step, value.tag) for event in events_of(run / "tensorboard") for value in event.summary.value]
    assert [step for step, tag in tags if tag == "largest_parameter"] == [2, 4]
    model = restore_model(EXPERIMENT.model, run / "checkpoints")
    largest = max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(model))
    assert verify(run / "checkpoints/4")["largest_parameter"] == largest

    evaluators = ("bits_per_byte", OUTSIDE, "piqa")
    asked = dataclasses.replace(EXPERIMENT.evaluate, evaluators=evaluators, tasks=made)
    launch_evaluate.make(dataclasses.replace(EXPERIMENT, evaluate=asked), run)
    figures = json.loads((run / "evaluation.json").read_text())
    assert figures["largest_parameter"] == pytest.approx(largest)
    assert (figures["piqa_acc"], figures["piqa_acc_norm"]) == (
        evaluated[-1]["piqa_acc"],
        evaluated[-1]["piqa_acc_norm"],
    )
    assert figures["rows_at_once"] == 8  # evaluate.batch_size = 4, rounded up to what eight devices share
    assert {"validation_loss", "validation_bits_per_byte", "gzip_bits_per_byte", "parameters"} <= figures.keys()


def test_an_evaluator_that_fails_costs_no_step_and_the_mended_run_equals_one_without_the_defect(tokens, tmp_path):
    """What was trained is saved, as not yet evaluated; the run that resumes evaluates that step first."""
    config = dataclasses.replace(EXPERIMENT.train, validate_every=3, steps=4)
    broken = dataclasses.replace(config, evaluators=("validation", "tests.lm.evaluation.outside_evaluator.Failing"))
    runs = {name: shutil.copytree(tokens, tmp_path / name) for name in ("mended", "undisturbed")}
    with pytest.raises(ZeroDivisionError):
        train(EXPERIMENT.model, broken, runs["mended"])
    assert steps_there(runs["mended"]) == [3] and verify(runs["mended"] / "checkpoints/3")["evaluated"] is False
    for run in runs.values():
        train(EXPERIMENT.model, config, run)
    assert bits(runs["mended"]) == bits(runs["undisturbed"])
    evaluated = [[row for row in told(run) if "largest_parameter" in row] for run in runs.values()]
    assert evaluated[0] == evaluated[1] and [row["step"] for row in evaluated[0]] == [3, 4]


@pytest.mark.parametrize("name", ["perplexity", "no_such_package.Evaluator", "tests.no_such_module.Evaluator", "", "."])
def test_a_name_that_is_no_evaluator_is_refused_with_those_there_are(name):
    with pytest.raises(
        UsageError,
        match=r"train.evaluators names .* the evaluators are validation, .*, blimp\.",
    ):
        check_evaluators((name,), "train.evaluators")


def test_every_evaluator_of_held_out_text_has_figures_that_do_not_depend_on_the_mesh(tokens):
    tokenizer, model_config = load(tokens / "tokenizer"), EXPERIMENT.model
    config = EvaluatorConfig(model_config, tokenizer, tokens / "tokens", 8, 16, 2)
    model = jax.jit(Transformer, static_argnums=0)(model_config, jax.random.key(0))
    found = {}
    for devices in (jax.devices()[:1], jax.devices()):
        mesh = make_mesh(EXPERIMENT.train.mesh, model_config, 8, devices)
        placed = jax.device_put(model, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec()))
        found[len(devices)] = {
            name: make_evaluators((name,), config, "evaluate.evaluators")[name].run(placed, mesh) for name in HELD_OUT
        }
    for name in HELD_OUT:
        assert found[1][name]["validation_loss"] > 0
        assert found[8][name] == pytest.approx(found[1][name], rel=1e-6)


def test_two_evaluators_of_one_figure_are_refused():
    with pytest.raises(
        UsageError, match=r"evaluate\.evaluators names validation and bits_per_byte, which report metrics"
    ):
        check_evaluators(("validation", OUTSIDE, "bits_per_byte"), "evaluate.evaluators")

    class One:
        def run(self, model, mesh):
            return {"accuracy": 0.5}

    with pytest.raises(UsageError, match="accuracy is a metric of the evaluator second and of an earlier one"):
        run_evaluators({"first": One(), "second": One()}, None, None)  # ty: ignore[invalid-argument-type]


def test_a_class_that_the_module_does_not_have_is_refused(tokens):
    with pytest.raises(UsageError, match="has no attribute 'Nothing'"):
        make_evaluators(("tests.lm.evaluation.outside_evaluator.Nothing",), None, "train.evaluators")  # ty: ignore[invalid-argument-type]


@pytest.mark.parametrize(
    ("figures", "words"),
    [
        ({"step": 7}, "returned a metric 'step', a name that is taken"),
        ({"a": "seven"}, "returned a = .*seven.*, which is not a number"),
        (None, "returned 'None' instead of a dict"),
    ],
)
def test_figures_that_cannot_be_rows_are_refused(figures, words):
    class Odd:
        def run(self, model, mesh):
            return figures

    with pytest.raises(UsageError, match=f"The evaluator odd {words}"):
        run_evaluators({"odd": Odd()}, None, None)  # ty: ignore[invalid-argument-type]


def test_a_figure_on_a_device_becomes_a_plain_number():
    figure = jax.numpy.float32(1.5)

    class OnDevice:
        def run(self, model, mesh):
            return {"b": figure, "a": 3}

    with jax.transfer_guard("disallow"):
        found = run_evaluators({"x": OnDevice()}, None, None)  # ty: ignore[invalid-argument-type]
    assert json.dumps(found) == '{"b": 1.5, "a": 3}'


def test_what_is_no_class_with_run_is_refused(tokens):
    for name in ("jax", "EvaluatorConfig"):
        with pytest.raises(UsageError, match="is not an evaluator"):
            make_evaluators((f"{OUTSIDE.rpartition('.')[0]}.{name}",), None, "train.evaluators")  # ty: ignore[invalid-argument-type]


def test_figures_that_the_rest_needs_cannot_be_left_out():
    with pytest.raises(UsageError, match=r"evaluate.evaluators is validation, without bits_per_byte"):
        dataclasses.replace(EXPERIMENT.evaluate, evaluators=("validation",))
    with pytest.raises(UsageError, match=r"checkpoints_kept_best = 2 .*train.evaluators is my.Own"):
        dataclasses.replace(EXPERIMENT.train, checkpoints_kept_best=2, evaluators=("my.Own",))
