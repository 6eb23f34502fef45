"""Snapshots hold the parameters of their step bit for bit, are never deleted, and do not affect the run."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from configs.experiment.run_folder import RunFolder
from lm.checkpoints.manifest import read_manifest, steps_in, verify
from lm.checkpoints.reading import read_parameters
from lm.config import MeshConfig
from lm.errors import InputError, UsageError
from lm.fields import identifying
from lm.model.param_names import named_leaves
from lm.training.loop import train
from lm.training.optimizer import make_optimizer
from lm.training.state import make_state
from tests.lm.training.conftest import CONFIG, MODEL, SNAPSHOTS, WITH_SNAPSHOTS
from tests.train_runs import bits, copy, forget, told


@pytest.fixture
def run(finished, tmp_path) -> RunFolder:
    return RunFolder(copy(finished, tmp_path / "run"))


def bytes_of(model) -> dict[str, bytes]:
    return {name: np.asarray(value).tobytes() for name, value in named_leaves(model).items()}


def parameters(folder: Path) -> dict[str, bytes]:
    verify(folder)
    return bytes_of(read_parameters(MODEL, folder, None))


def stamps(run: RunFolder) -> dict[str, int]:
    return {path.name: (path / "manifest.json").stat().st_mtime_ns for path in run.snapshots.iterdir()}


def back_at_4(run: RunFolder) -> dict[str, int]:
    """Reset the run to resume at step 4, although it was trained further."""
    return stamps(RunFolder(forget(run.root, 8, 12)))


@pytest.mark.slow
def test_a_snapshot_equals_the_parameters_of_its_step_and_is_never_deleted(finished, tokens, tmp_path):
    """Compared with a run that keeps the checkpoint of every step and writes no snapshot."""
    every = copy(tokens, tmp_path / "every")
    train(MODEL, replace(CONFIG, checkpoint_every=1, checkpoints_kept=99), every)
    assert steps_in(RunFolder(finished).snapshots) == [*SNAPSHOTS]
    for step in (1, 3, 4, 8, 11):
        assert parameters(RunFolder(finished).snapshot(step)) == parameters(every / f"checkpoints/{step}"), step
    fresh = make_state(MODEL, make_optimizer(CONFIG.optimizer, 12), CONFIG.seed, CONFIG.spikes).model
    assert parameters(RunFolder(finished).snapshot(0)) == bytes_of(fresh)
    assert bits(finished) == bits(every)  # training is unchanged
    assert told(finished) == told(every)
    assert json.loads(json.dumps(identifying(WITH_SNAPSHOTS))) == json.loads(json.dumps(identifying(CONFIG)))
    assert {path.name for path in RunFolder(finished).snapshot(3).iterdir()} == {"model", "manifest.json"}


@pytest.mark.slow
def test_a_resumed_run_has_the_same_snapshots_and_rewrites_only_damaged_ones(finished, run):
    """A bit of the snapshot of step 11 is flipped; that of step 8 is intact."""
    before = back_at_4(run)
    flip = next(path for path in (run.snapshot(11) / "model").rglob("d/*"))
    flip.write_bytes(flip.read_bytes()[:-1] + bytes([flip.read_bytes()[-1] ^ 1]))
    train(MODEL, replace(WITH_SNAPSHOTS, checkpoints_kept=1), run.root)
    after = stamps(run)
    assert {step for step in before if before[step] == after[step]} == {"0", "1", "3", "4", "8"}
    for step in SNAPSHOTS:
        assert parameters(run.snapshot(step)) == parameters(RunFolder(finished).snapshot(step)), step
    assert steps_in(run.checkpoints) == [12]


@pytest.mark.slow
@pytest.mark.parametrize("change", [{"steps": 16}, {"mesh": MeshConfig(fsdp=4)}], ids=" ".join)
def test_snapshots_after_a_change_are_written_again_and_earlier_ones_remain(run, change):
    before = back_at_4(run)
    train(MODEL, replace(WITH_SNAPSHOTS, **change), run.root)
    after = stamps(run)
    assert {step for step in before if before[step] == after[step]} == {"0", "1", "3", "4"}
    assert steps_in(run.snapshots) == [*SNAPSHOTS]
    about = read_manifest(run.snapshot(11))["about"]
    assert about["step"] == 11 and (about["steps"], about["mesh"]["fsdp"]) in ((16, 1), (12, 4))


def test_a_step_is_read_from_its_checkpoint_or_else_its_snapshot(run):
    assert run.load(step=12).step == run.load().step == 12
    early = run.load(step=1)
    assert early.step == 1
    assert bytes_of(jax.device_get(early.model)) == parameters(run.snapshot(1))
    with pytest.raises(
        UsageError, match=r"no checkpoint of step 2 in .*checkpoints or .*snapshots.*0, 1, 3, 4, 8, 11, "
    ):
        run.load(step=2)
    for path in (run.snapshot(3) / "model").rglob("d/*"):
        path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(InputError, match=r"snapshots/3 is damaged: .* or use step 12"):
        run.load(step=3)
    shutil.rmtree(run.checkpoints)
    assert run.load().step == 11  # a run without checkpoints yet


@pytest.mark.slow
def test_a_snapshot_that_cannot_be_written_is_reported_and_the_run_continues(tokens, tmp_path, capsys):
    run = RunFolder(copy(tokens, tmp_path / "run"))
    run.snapshots.write_text("in the way")
    train(MODEL, replace(WITH_SNAPSHOTS, steps=4, snapshot_steps=(1,)), run.root)
    assert "snapshot: step 1 is not saved; training continues" in capsys.readouterr().out
    assert steps_in(run.checkpoints) == [4]
