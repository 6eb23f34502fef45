"""train.patience: training ends when the validation loss no longer falls, the result is the step with the lowest one,
and a run that was stopped or killed ends at the same step with the same bits."""

import dataclasses
import os
import shutil
import signal
from collections.abc import Generator
from pathlib import Path

import pytest
from jax.sharding import Mesh

from lm.checkpoints.manager import Checkpoints
from lm.checkpoints.manifest import read_manifest, render
from lm.errors import InputError, Stopped
from lm.evaluation.held_out import Validation
from lm.training.loop import train
from lm.training.state import TrainState
from lm.trusted_code import module_code, trust
from tests.corpus import tiny_experiment
from tests.train_runs import bits, steps_there, told

EXPERIMENT = tiny_experiment()
STEPS, EVERY = 12, 2
CONFIG = dataclasses.replace(
    EXPERIMENT.train, steps=STEPS, validate_every=EVERY, checkpoint_every=3, checkpoints_kept=1, sample_every=0,
    snapshot_steps=(), log_every=4, evaluators=("validation",),
    optimizer=dataclasses.replace(EXPERIMENT.train.optimizer, final_learning_rate=1e-2, warmup_steps=1),
)  # fmt: skip
LOSSES = {2: 5.0, 4: 4.5, 6: 4.0, 8: 4.0, 10: 3.75, 12: 3.5}
"""Validation losses by step, instead of the model's, whose last bits depend on the CPU."""
BEST, END = 6, 8
"""The step with the lowest loss of the first four evaluations, and the one after it."""


@pytest.fixture(scope="module", autouse=True)
def fixed_losses() -> Generator[None]:
    """Replace the validation loss by LOSSES; the bits per byte are the model's."""

    def run(self: Validation, state: TrainState, mesh: Mesh) -> dict[str, float]:
        return self.run(state.model_to_use, mesh) | {"validation_loss": LOSSES[int(state.step)]}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Validation, "run_in_training", run, raising=False)
        yield


class Interruption:
    """Hook that asks the process to stop, or fails, after the step `at`."""

    every = 1
    at = 0
    fails = False

    def __init__(self, config: object): ...

    def run(self, state: object, step: int) -> None:
        if step == Interruption.at:
            if Interruption.fails:
                raise InputError("a failing hook")
            os.kill(os.getpid(), signal.SIGTERM)


def trained(tokens: Path, run: Path, **changes: object) -> Path:
    if not run.exists():
        shutil.copytree(tokens, run)
    train(EXPERIMENT.model, dataclasses.replace(CONFIG, **changes), run)
    return run


@pytest.fixture(scope="module")
def without(tokens, tmp_path_factory) -> Path:
    """The run without patience, all of whose checkpoints are kept."""
    return trained(tokens, tmp_path_factory.mktemp("without") / "run", checkpoint_every=1, checkpoints_kept=STEPS)


@pytest.fixture(scope="module")
def patient(tokens, tmp_path_factory) -> Path:
    return trained(tokens, tmp_path_factory.mktemp("patient") / "run", patience=1)


def losses_of(run: Path) -> list[tuple[float, float]]:
    return [(row["validation_loss"], row["validation_bits_per_byte"]) for row in told(run) if "validation_loss" in row]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("patience", "steps", "best", "end"),
    [
        (1, STEPS, BEST, END),
        pytest.param(2, END, BEST, END, id="the run ends before its patience"),
        pytest.param(2, STEPS, STEPS, STEPS, id="the last step is the best"),
    ],
)
def test_the_result_is_the_step_with_the_lowest_loss(tokens, without, tmp_path, patience, steps, best, end, capsys):
    run = trained(tokens, tmp_path / "run", patience=patience, steps=steps)
    assert steps_there(run)[-1] == best and bits(run) == bits(without, best)
    assert losses_of(run) == losses_of(without)[: end // EVERY]
    lowest = LOSSES[best]
    assert read_manifest(run / "checkpoints" / str(best))["about"]["validation_loss"] == lowest
    said = capsys.readouterr().out
    assert f"the result is step {best}, whose validation loss of {lowest:.4f} is the lowest" in said
    assert (f"step {end} is the last: no lower validation loss in {patience} evaluations" in said) == (end < steps)
    assert told(run)[-1]["step"] == end


@pytest.mark.slow
@pytest.mark.parametrize("fails", [False, True], ids=["asked to stop", "a hook fails"])
def test_an_interrupted_run_ends_with_the_same_bits(tokens, patient, tmp_path, fails, monkeypatch):
    monkeypatch.setattr(Interruption, "fails", fails)
    name = f"{__name__}.Interruption"
    trust(module_code(__name__))
    for at in (1, BEST - 1, BEST, END - 1, END):
        run = tmp_path / str(at)
        monkeypatch.setattr(Interruption, "at", at)
        with pytest.raises(InputError if fails else Stopped):
            trained(tokens, run, patience=1, hooks=(name,))
        monkeypatch.setattr(Interruption, "at", 0)
        trained(tokens, run, patience=1, hooks=(name,))
        assert steps_there(run)[-1] == BEST and bits(run) == bits(patient) and losses_of(run) == losses_of(patient)


@pytest.mark.slow
def test_a_kill_before_later_checkpoints_are_deleted_changes_nothing(tokens, patient, tmp_path, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Checkpoints, "delete_after", killed)
        with pytest.raises(KeyboardInterrupt):
            trained(tokens, tmp_path / "run", patience=1, checkpoint_every=1)
    assert steps_there(tmp_path / "run")[-1] > steps_there(patient)[-1]  # the test is not empty
    run = trained(tokens, tmp_path / "run", patience=1, checkpoint_every=1)
    assert steps_there(run) == steps_there(patient)[-1:] and bits(run) == bits(patient)


@pytest.mark.slow
def test_a_finished_run_continues_from_its_result_with_more_patience(tokens, patient, without, tmp_path):
    shutil.copytree(patient, tmp_path / "run")
    run = trained(tokens, tmp_path / "run", patience=2)
    assert losses_of(run) == losses_of(without)
    assert steps_there(run)[-1] == STEPS and bits(run) == bits(without)


@pytest.mark.slow
def test_the_best_step_is_kept_by_a_run_that_was_not_patient_before(tokens, tmp_path):
    """Its older checkpoint has a lower loss, but is not of the steps that patience has seen."""
    run = trained(tokens, tmp_path / "run", patience=0, steps=2, checkpoint_every=1, checkpoints_kept=9)
    folder = run / "checkpoints/2"
    manifest = read_manifest(folder)
    manifest["about"]["validation_loss"] = 0.5
    (folder / "manifest.json").write_text(render(manifest["about"], manifest["files"]))
    trained(tokens, run, patience=1, checkpoint_every=1)
    assert steps_there(run)[-1] == BEST
