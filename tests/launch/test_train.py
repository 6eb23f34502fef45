"""External inputs of training, such as shards of other runs, are part of its identity."""

import dataclasses
import json
from pathlib import Path

import pytest

from launch import train
from launch.stages.stage import Stage, run_stage
from lm.checkpoints.manifest import amend, lengths, read_manifest, steps_in, write_manifest
from lm.config import MixtureSource, StartConfig
from lm.data.mixture import manifest_sha256
from lm.errors import InputError, UsageError
from lm.storage import write_atomically
from tests.launch.toy_stages import EXPERIMENT, files_of, interrupted
from tests.lm.shard_files import STREAMS, write_tokens

STAGE = dataclasses.replace(train.STAGE, after=(), make=lambda experiment, run: None)


def with_train(**changes):
    return dataclasses.replace(EXPERIMENT, train=dataclasses.replace(EXPERIMENT.train, **changes))


def with_mixture(*sources: tuple[Path, float]):
    return with_train(mixture=tuple(MixtureSource(str(tokens), weight) for tokens, weight in sources))


@pytest.fixture
def other(tmp_path) -> Path:
    (tmp_path / "other").mkdir()
    return write_tokens(tmp_path / "other", {"train": STREAMS})


def test_rewritten_shards_of_another_run_are_noticed(other, tmp_path):
    experiment, run = with_mixture((other, 1.0)), tmp_path / "run"
    assert run_stage(STAGE, experiment, run) is True
    assert run_stage(STAGE, experiment, run) is False
    before = manifest_sha256(other)
    write_tokens(other, {"train": STREAMS[:2]})
    after = manifest_sha256(other)
    with pytest.raises(UsageError, match=rf"SHA-256 of {other}/manifest\.json: '{before}' there, '{after}' asked for"):
        run_stage(STAGE, experiment, run)
    write_tokens(other, {"train": STREAMS})  # the same bytes again
    assert run_stage(STAGE, experiment, run) is False
    with pytest.raises(UsageError, match=r"train\.mixture: .*'weight': 1\.0.* there, .*'weight': 2\.0.* asked for"):
        run_stage(STAGE, with_mixture((other, 2.0)), run)


def test_metadata_amended_later_in_the_initial_checkpoint_makes_no_other_run(tmp_path):
    folder = tmp_path / "checkpoints/8"
    folder.mkdir(parents=True)
    (folder / "array").write_text("1")
    write_manifest(folder, {"step": 8, "told": False})
    experiment = with_train(start=StartConfig(str(folder), "everything"))
    before = train.external_inputs(experiment)
    amend(folder, {"told": True})
    assert train.external_inputs(experiment) == before
    (folder / "array").write_text("2")
    (folder / "manifest.json").unlink()
    with pytest.raises(InputError, match=r"train.start.checkpoint: .*manifest.json is missing"):
        train.external_inputs(experiment)
    write_manifest(folder, {"step": 8, "told": True})
    assert train.external_inputs(experiment) != before


def test_interrupted_training_does_not_resume_with_other_shards(other, tmp_path):
    begun = lambda experiment, run: (run / "checkpoints/4").mkdir(parents=True)
    experiment, run = with_mixture((other, 1.0)), tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        run_stage(interrupted(STAGE, after=begun), experiment, run)
    write_tokens(other, {"train": STREAMS[:2]})
    with pytest.raises(UsageError, match="SHA-256 of"):
        run_stage(STAGE, experiment, run)


def test_a_settings_error_before_the_first_checkpoint_locks_nothing(tmp_path):
    def failed(experiment, run):
        (run / "goodput.json").write_text("[]")
        raise UsageError("too many validation batches")

    with pytest.raises(UsageError, match="too many"):
        run_stage(dataclasses.replace(STAGE, make=failed), EXPERIMENT, tmp_path)
    assert run_stage(STAGE, with_train(batch_size=4), tmp_path) is True


def checkpoint_up_to(stop=None):
    """A `make` function that leaves a checkpoint manifest, as training does, at the last step or at `stop`."""

    def make(experiment, run):
        made = steps_in(run / "checkpoints")
        about = read_manifest(run / f"checkpoints/{made[-1]}")["about"] if made else {}
        if stop is not None or not made or made[-1] < experiment.train.steps:
            at = experiment.train.steps if stop is None else stop
            folder = run / f"checkpoints/{at}"
            folder.mkdir(parents=True)
            (folder / "array").write_text(str(at))
            write_manifest(folder, {"step": at} | lengths(about, experiment.train.steps))
        if stop is not None:
            raise InputError("the plug was pulled")

    return make


def later(name, before):
    def make(experiment, run):
        write_atomically(run / f"{name}.json", str(steps_in(run / "checkpoints")[-1]))

    return Stage(name, f"launch.{name}", before, lambda experiment: {}, make, outputs=(f"{name}.json",))


TRAIN = dataclasses.replace(STAGE, make=checkpoint_up_to())
EVALUATE = later("evaluate", (TRAIN,))
REPORT = later("report", (TRAIN, EVALUATE))
THREE = (TRAIN, EVALUATE, REPORT)


def run_three(steps: int, workdir: Path) -> list[bool]:
    return [run_stage(stage, with_train(steps=steps), workdir) for stage in THREE]


def test_more_steps_continue_training_and_rebuild_later_stages(tmp_path):
    for steps, made in ((12, True), (12, False), (20, True), (20, False), (30, True)):
        assert run_three(steps, tmp_path) == [made] * 3
        assert (tmp_path / "report.json").read_text() == str(steps)
    assert steps_in(tmp_path / "checkpoints") == [12, 20, 30]
    marker = json.loads((tmp_path / "stages/train.json").read_text())
    assert marker["continued_from"] == [{"steps": 12, "at": 12}, {"steps": 20, "at": 20}]
    other = tmp_path / "straight"
    run_stage(TRAIN, with_train(steps=30), other)
    assert json.loads((other / "stages/train.json").read_text())["key"] != marker["key"]  # other parameters


def test_fewer_steps_than_trained_are_rejected_and_nothing_is_lost(tmp_path):
    run_three(12, tmp_path)
    before = files_of(tmp_path)
    with pytest.raises(UsageError, match=r"train\.steps = 8, but .* already has 12 steps.* give more than 12.*--from"):
        run_stage(TRAIN, with_train(steps=8), tmp_path)
    with pytest.raises(UsageError, match=r"train\.seed: 0 there, 5 asked for"):
        run_stage(TRAIN, with_train(steps=20, seed=5), tmp_path)
    assert files_of(tmp_path) == before


def test_an_interrupted_run_may_be_extended_and_shortened_again(tmp_path):
    stop = lambda at: dataclasses.replace(TRAIN, make=checkpoint_up_to(at))
    run_three(12, tmp_path)
    evaluated = json.loads((tmp_path / "stages/evaluate.json").read_text())
    for at, steps in ((15, 900), (16, 900), (17, 20)):  # 900 was a mistake
        with pytest.raises(InputError, match="the plug"):
            run_stage(stop(at), with_train(steps=steps), tmp_path)
    assert run_three(20, tmp_path) == [True] * 3
    marker = json.loads((tmp_path / "stages/train.json").read_text())
    assert marker["continued_from"] == [{"steps": 12, "at": 12}, {"steps": 900, "at": 16}]
    assert json.loads((tmp_path / "stages/evaluate.json").read_text())["replaces"] == [evaluated["key"]]


def test_more_steps_and_back_before_any_was_trained(tmp_path):
    run_three(12, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        run_stage(interrupted(TRAIN, after=lambda *given: None), with_train(steps=20), tmp_path)
    assert run_three(12, tmp_path) == [True, False, False]


def test_a_folder_without_shards_is_rejected_before_anything_is_written(tmp_path):
    with pytest.raises(InputError, match=r"train\.mixture names .*/none, but .*manifest\.json is missing"):
        run_stage(STAGE, with_mixture((tmp_path / "none", 1.0)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_evaluation_of_a_run_does_not_need_the_other_shards(other, tmp_path):
    """They may have been deleted by then."""
    experiment, run = with_mixture((other, 1.0)), tmp_path / "run"
    run_stage(STAGE, experiment, run)
    (other / "manifest.json").unlink()
    later = dataclasses.replace(
        STAGE, name="later", after=(STAGE,), outputs=(), grows=False, external_inputs=lambda e: {}
    )
    assert run_stage(later, experiment, run) is True
