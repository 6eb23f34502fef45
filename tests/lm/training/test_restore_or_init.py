"""Start of a run: its own newest checkpoint first, else the named checkpoint of another run, never one by mistake."""

import contextlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from lm.checkpoints.manager import Checkpoints
from lm.checkpoints.manifest import MANIFEST, RetentionPolicy, verify, write_manifest
from lm.config import MeshConfig, StartConfig
from lm.errors import InputError, UsageError
from lm.model.param_names import named_leaves
from lm.parallel import make_mesh
from lm.training.loop import train
from lm.training.optimizer import make_optimizer
from lm.training.schedule import learning_rate
from lm.training.state import TrainState, abstract_state
from tests.lm.training.conftest import CONFIG, MODEL
from tests.train_runs import bits, copy, forget, steps_there, told


def state_at(run: Path, step: int, model=MODEL, config=CONFIG) -> TrainState:
    mesh = make_mesh(config.mesh, model, config.batch_size)
    optimizer = make_optimizer(config.optimizer, config.steps)
    like = abstract_state(model, optimizer, mesh, config.spikes, config.mesh.zero1)
    with contextlib.closing(Checkpoints(run / "checkpoints", RetentionPolicy(9))) as checkpoints:
        return checkpoints.restore(run / f"checkpoints/{step}", like)


def started_from(folder: Path, take, **changes):
    return replace(CONFIG, start=StartConfig(str(folder), take), **changes)


@pytest.mark.slow
def test_parameters_can_be_loaded_with_another_optimizer(tokens, finished, tmp_path, capsys):
    run = copy(tokens, tmp_path / "run")
    lion = replace(CONFIG.optimizer, name="lion", learning_rate=1e-12, final_learning_rate=1e-12)
    config = started_from(finished / "checkpoints/12", "parameters", optimizer=lion, steps=4)
    train(MODEL, config, run)
    assert "starting with parameters from " in capsys.readouterr().out
    assert [row["step"] for row in told(run)][:4] == [1, 2, 3, 4]  # from the beginning
    before, after = named_leaves(state_at(finished, 12).model), named_leaves(state_at(run, 4, MODEL, config).model)
    for name, value in before.items():  # the learning rate is negligible
        np.testing.assert_allclose(np.asarray(after[name]), np.asarray(value), rtol=1e-6, atol=1e-9, err_msg=name)


@pytest.mark.slow
def test_a_run_resumed_on_another_mesh_with_and_without_zero1_has_the_same_losses(finished, tmp_path):
    """A run without it continues with it, then without it on another mesh; losses equal those of `finished`."""
    losses = lambda run: {row["step"]: row["loss"] for row in told(run) if "loss" in row}
    run, expected = copy(finished, tmp_path / "run"), losses(finished)
    for mesh, damaged in ((MeshConfig(zero1=True), (8, 12)), (MeshConfig(fsdp=4), (12,))):
        train(MODEL, replace(CONFIG, mesh=mesh), forget(run, *damaged))
        assert losses(run) == pytest.approx(expected, rel=1e-5)
        moments = lambda one: jax.tree.leaves(state_at(one, 12).optimizer_state)
        for ours, theirs in zip(moments(run), moments(finished), strict=True):
            np.testing.assert_allclose(np.asarray(ours), np.asarray(theirs), rtol=1e-3, atol=1e-6)


@pytest.mark.slow
def test_everything_continues_at_its_step_also_in_bfloat16(tokens, finished, tmp_path, capsys):
    run = copy(tokens, tmp_path / "run")
    narrow = replace(MODEL, parameter_dtype="bfloat16", compute_dtype="bfloat16")
    config = started_from(finished / "checkpoints/8", "everything")
    train(narrow, config, run)
    assert "starting with everything from " in (out := capsys.readouterr().out) and ", at step 8\n" in out
    ours, theirs = told(run), [row for row in told(finished) if row["step"] > 8]
    assert [row["step"] for row in ours] == [row["step"] for row in theirs]
    assert [row.get("tokens") for row in ours] == [row.get("tokens") for row in theirs]
    assert ours[0]["loss"] == pytest.approx(theirs[0]["loss"], abs=0.05)
    kinds = {np.asarray(x).dtype.name for x in named_leaves(state_at(run, 12, narrow, config).model).values()}
    assert kinds == {"bfloat16"}


@pytest.mark.slow
def test_everything_in_the_same_dtypes_ends_bit_for_bit_equal(tokens, finished, tmp_path):
    run = copy(tokens, tmp_path / "run")
    train(MODEL, started_from(finished / "checkpoints/8", "everything"), run)
    assert bits(run, 12) == bits(finished, 12)


@pytest.mark.slow
def test_a_run_resumes_from_its_own_checkpoint_and_not_from_train_start(tokens, finished, tmp_path, capsys):
    run = copy(tokens, tmp_path / "run")
    config = started_from(finished / "checkpoints/8", "parameters")
    train(MODEL, config, run)
    forget(run, 12)
    expected = bits(run, 8)
    capsys.readouterr()
    train(MODEL, config, run)
    assert "resuming from the checkpoint at step 8" in capsys.readouterr().out
    assert bits(run, 8) == expected
    assert steps_there(run) == [4, 8, 12]


@pytest.mark.parametrize("lost", ["a disk that is not mounted", "a folder that is gone"])
def test_training_does_not_restart_if_the_checkpoints_are_missing(tokens, finished, tmp_path, lost):
    run = copy(finished, tmp_path / "run")
    shutil.rmtree(run / "checkpoints")
    if lost == "a disk that is not mounted":
        (run / "checkpoints").symlink_to(tmp_path / "away")
    else:
        attempts = json.loads((run / "goodput.json").read_text())
        (run / "goodput.json").write_text(json.dumps([*attempts, attempts[0] | {"first_step": 4}]))
    before = (run / "metrics.jsonl").read_bytes()
    with pytest.raises(
        InputError, match=r"There is no checkpoint in .*run/checkpoints, but (it is a broken link|earlier)"
    ):
        train(MODEL, CONFIG, run)
    assert (run / "metrics.jsonl").read_bytes() == before
    assert not (tmp_path / "away").exists()


@pytest.mark.slow
def test_a_longer_run_uses_the_rate_of_its_new_length_and_records_it_in_checkpoints(finished, tmp_path, capsys):
    run, longer = copy(finished, tmp_path / "run"), replace(CONFIG, steps=16)
    train(MODEL, longer, run)
    assert "so far a run of 12 steps; from step 12 on" in capsys.readouterr().out
    rates = {row["step"]: row["learning_rate"] for row in told(run) if "learning_rate" in row}
    for steps, rated in ((12, range(1, 13)), (16, range(13, 17))):
        rate = learning_rate(CONFIG.optimizer, steps)
        assert [rates[step] for step in rated] == pytest.approx(
            [np.asarray(rate(step - 1)).item() for step in rated], rel=1e-5
        )
    assert rates[13] > rates[12]
    abouts = {step: verify(run / f"checkpoints/{step}") for step in (12, 16)}
    assert (abouts[12]["steps"], abouts[12]["continued_from"]) == (12, [])
    assert (abouts[16]["steps"], abouts[16]["continued_from"]) == (16, [{"steps": 12, "at": 12}])
    assert bits(run, 12) == bits(finished, 12)


def test_a_start_after_the_last_step_is_rejected(tokens, finished, tmp_path):
    config = started_from(finished / "checkpoints/12", "everything", steps=10)
    with pytest.raises(UsageError, match=r"checkpoints/12 is at step 12, and train.steps is 10: nothing is left"):
        train(MODEL, config, copy(tokens, tmp_path / "run"))


def test_a_checkpoint_of_another_tokenizer_is_rejected(tokens, finished, tmp_path):
    other = copy(finished / "checkpoints/8", tmp_path / "8")
    about = verify(other)
    (other / MANIFEST).unlink()
    write_manifest(other, about | {"tokenizer": "ab" * 32})
    with pytest.raises(InputError, match=r"was trained with tokenizer abab.*, but this run's is [0-9a-f]{64}"):
        train(MODEL, started_from(other, "parameters"), copy(tokens, tmp_path / "run"))


@pytest.mark.parametrize("place", ["", "checkpoints", "nowhere", "checkpoints/7"])
def test_a_start_without_a_checkpoint_is_rejected_with_the_existing_steps(finished, place):
    (finished / "checkpoints/2026-11-01").mkdir(exist_ok=True)  # a folder of the user
    with pytest.raises(UsageError, match=r"is not the folder of a checkpoint") as error:
        StartConfig(str(finished / place)).folder()
    assert ("there are 4, 8, 12" in str(error.value)) == (place in ("", "checkpoints"))


def test_a_damaged_checkpoint_is_rejected(tokens, finished, tmp_path):
    other = copy(finished / "checkpoints/8", tmp_path / "8")
    (path, *_) = [path for path in other.rglob("d/*") if path.is_file()]
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(InputError, match=r"train\.start\.checkpoint is damaged: .*has the SHA-256 .* instead of"):
        train(MODEL, started_from(other, "parameters"), copy(tokens, tmp_path / "run"))


@pytest.mark.fast_rows
@pytest.mark.parametrize(
    ("changes", "words"),
    [({"seed": 5}, "seed is 0, this run's 5"), ({}, r"data is \[.*, this run's \[")],
    ids=["seed", "data"],
)
def test_a_checkpoint_of_another_run_is_rejected(finished, tmp_path, changes, words):
    """For example, checkpoints that were copied, or shards that were rewritten."""
    run = copy(finished, tmp_path / "run")
    if not changes:
        manifest = run / "tokens/manifest.json"
        manifest.write_text(json.dumps(json.loads(manifest.read_text())))
    with pytest.raises(InputError, match=words):
        train(MODEL, replace(CONFIG, steps=14, **changes), run)
