"""Evaluators are classes named in the config; metrics appear in metrics.jsonl, TensorBoard and evaluation.json."""

import json
import shutil
from dataclasses import replace

import jax
import numpy as np
import pytest

from launch import evaluate as launch_evaluate
from lm.checkpoints.manifest import verify
from lm.config import TasksConfig
from lm.errors import UsageError
from lm.evaluation.evaluator import EvaluatorConfig
from lm.evaluation.evaluators import HELD_OUT, TAKEN, make_evaluators, run_evaluators
from lm.parallel import make_mesh
from lm.tokenizer import load
from lm.training.loop import train
from lm.trusted_code import module_code, trust
from tests.corpus import tiny_experiment
from tests.lm.evaluation.task_files import write_tasks
from tests.lm.metrics.test_meter import events_of
from tests.lm.model_configs import initial_model
from tests.run_files import restore_model
from tests.train_runs import bits, steps_there, told

OUTSIDE = "tests.lm.evaluation.outside_evaluator"
LARGEST = f"{OUTSIDE}.LargestParameter"
TINY = tiny_experiment()
EXPERIMENT = replace(
    TINY,
    model=replace(TINY.model, layers=1),
    train=replace(
        TINY.train, steps=4, log_every=2, validate_every=2, validation_batches=1, sample_every=0, checkpoint_every=0,
        evaluators=("validation", LARGEST),
    ),
    evaluate=replace(TINY.evaluate, evaluators=("bits_per_byte", LARGEST), batch_size=4),
)  # fmt: skip


@pytest.fixture(autouse=True)
def own_evaluators_are_trusted():
    trust(module_code("tests.lm.evaluation.outside_evaluator"))


def test_a_users_evaluator_runs_in_training_and_in_the_evaluation(tokens, tmp_path, capsys):
    run = shutil.copytree(tokens, tmp_path / "run")
    tasks = TasksConfig(str(write_tasks(tmp_path / "data", 8)), limit=4)
    train(
        EXPERIMENT.model,
        replace(EXPERIMENT.train, evaluators=("validation", LARGEST, "piqa"), tasks=tasks),
        run,
    )
    assert "nats/token" in (out := capsys.readouterr().out) and "largest_parameter" in out
    logged = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert {name for row in logged if "loss" in row for name in row} <= TAKEN  # no evaluator can return these
    evaluated = [row for row in told(run) if "largest_parameter" in row]
    assert [(row["step"], row["rows_at_once"]) for row in evaluated] == [(2, 8), (4, 8)]
    assert all("validation_loss" in row and "validation_bits_per_byte" in row for row in evaluated)
    assert all({row["piqa_acc"], row["piqa_acc_norm"]} <= {0, 0.25, 0.5, 0.75, 1} for row in evaluated)
    tags = [(event.step, value.tag) for event in events_of(run / "tensorboard") for value in event.summary.value]
    assert [step for step, tag in tags if tag == "largest_parameter"] == [2, 4]
    model = restore_model(EXPERIMENT.model, run / "checkpoints")
    largest = max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(model))
    assert verify(run / "checkpoints/4")["largest_parameter"] == largest

    evaluate = replace(EXPERIMENT.evaluate, evaluators=("bits_per_byte", LARGEST, "piqa"), tasks=tasks)
    launch_evaluate.make(replace(EXPERIMENT, evaluate=evaluate), run)
    figures = json.loads((run / "evaluation.json").read_text())
    assert figures["largest_parameter"] == pytest.approx(largest)
    assert all(figures[name] == evaluated[-1][name] for name in ("piqa_acc", "piqa_acc_norm"))
    assert figures["rows_at_once"] == 8  # evaluate.batch_size = 4, rounded up to a multiple of 8 devices
    assert {"validation_loss", "validation_bits_per_byte", "gzip_bits_per_byte", "parameters"} <= figures.keys()


@pytest.mark.slow
def test_a_run_resumed_after_a_failed_evaluator_equals_one_without_the_failure(tokens, tmp_path):
    """The step is saved as not evaluated, and the resumed run evaluates it first."""
    config = replace(EXPERIMENT.train, validate_every=3, steps=4)
    broken = replace(config, evaluators=("validation", f"{OUTSIDE}.Failing"))
    runs = {name: shutil.copytree(tokens, tmp_path / name) for name in ("mended", "undisturbed")}
    with pytest.raises(ZeroDivisionError):
        train(EXPERIMENT.model, broken, runs["mended"])
    assert steps_there(runs["mended"]) == [3] and verify(runs["mended"] / "checkpoints/3")["evaluated"] is False
    for run in runs.values():
        train(EXPERIMENT.model, config, run)
    assert bits(runs["mended"]) == bits(runs["undisturbed"])
    evaluated = [[row for row in told(run) if "largest_parameter" in row] for run in runs.values()]
    assert evaluated[0] == evaluated[1] and [row["step"] for row in evaluated[0]] == [3, 4]


@pytest.mark.slow
def test_metrics_of_held_out_text_do_not_depend_on_the_mesh(tokens):
    tokenizer, model_config = load(tokens / "tokenizer"), EXPERIMENT.model
    config = EvaluatorConfig(model_config, tokenizer, tokens / "tokens", 8, 16, 2)
    model = initial_model(model_config)
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


@pytest.mark.parametrize(
    ("names", "message"),
    [
        *(
            ((name,), r"x\.evaluators names .* the evaluators are validation, .*, blimp\.")
            for name in ("perplexity", "no_such_package.Evaluator", "tests.no_such_module.Evaluator", "", ".")
        ),
        (("validation", LARGEST, "bits_per_byte"), "names validation and bits_per_byte, which report metrics"),
        ((f"{OUTSIDE}.Nothing",), "has no attribute 'Nothing'"),
        ((f"{OUTSIDE}.jax",), "is not an evaluator"),
        ((f"{OUTSIDE}.EvaluatorConfig",), "is not an evaluator"),
    ],
)
def test_invalid_evaluators_are_rejected(names, message):
    with pytest.raises(UsageError, match=message):
        make_evaluators(names, None, "x.evaluators")  # ty: ignore[invalid-argument-type]


class Returning:
    def __init__(self, figures):
        self.figures = figures

    def run(self, model, mesh):
        return self.figures


def run(*figures) -> dict[str, float]:
    evaluators = {f"number_{number}": Returning(one) for number, one in enumerate(figures)}
    return run_evaluators(evaluators, None, None)  # ty: ignore[invalid-argument-type]


@pytest.mark.parametrize(
    ("figures", "message"),
    [
        ([{"step": 7}], "The evaluator number_0 returned the metric 'step', but another metric has that name"),
        ([{"a": "seven"}], "The evaluator number_0 returned a = .*seven.*, which is not a number"),
        ([None], "The evaluator number_0 returned 'None' instead of a dict"),
        ([{"a": 0.5}, {"a": 0.5}], "a is a metric of the evaluator number_1 and of an earlier one"),
    ],
)
def test_invalid_metrics_are_rejected(figures, message):
    with pytest.raises(UsageError, match=message):
        run(*figures)


def test_a_metric_on_a_device_becomes_a_plain_number():
    metric = jax.numpy.float32(1.5)
    with jax.transfer_guard("disallow"):
        found = run({"b": metric, "a": 3})
    assert json.dumps(found) == '{"b": 1.5, "a": 3}'


def test_required_evaluators_cannot_be_omitted():
    with pytest.raises(UsageError, match=r"evaluate.evaluators is validation, without bits_per_byte"):
        replace(EXPERIMENT.evaluate, evaluators=("validation",))
