"""What training reads outside of its run folder, shards of other runs, is a part of what identifies it."""

import dataclasses
from pathlib import Path

import pytest

from launch import train
from launch.stage import run_stage
from lm.checkpoint_files import amend, write_manifest
from lm.config import MixtureSource, StartConfig
from lm.errors import InputError, UsageError
from lm.mixture import manifest_sha256
from tests.corpus import tiny_experiment
from tests.lm.shard_files import STREAMS, write_tokens

EXPERIMENT = tiny_experiment()
STAGE = dataclasses.replace(train.STAGE, after=(), make=lambda experiment, workdir, out: None)


def with_mixture(*sources: tuple[Path, float]):
    mixture = tuple(MixtureSource(str(tokens), weight) for tokens, weight in sources)
    return dataclasses.replace(EXPERIMENT, train=dataclasses.replace(EXPERIMENT.train, mixture=mixture))


@pytest.fixture
def other(tmp_path) -> Path:
    (tmp_path / "other").mkdir()
    return write_tokens(tmp_path / "other", {"train": STREAMS})


def test_shards_of_another_run_that_were_written_again_are_noticed(other, tmp_path):
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


def test_what_is_said_later_of_the_checkpoint_it_began_from_makes_no_other_run_of_it(tmp_path):
    folder = tmp_path / "checkpoints/8"
    folder.mkdir(parents=True)
    (folder / "array").write_text("1")
    write_manifest(folder, {"told": False})
    start = StartConfig(str(folder), "everything")
    experiment = dataclasses.replace(EXPERIMENT, train=dataclasses.replace(EXPERIMENT.train, start=start))
    before = train.facts(experiment)
    amend(folder, {"told": True})
    assert train.facts(experiment) == before
    (folder / "array").write_text("2")
    (folder / "manifest.json").unlink()
    with pytest.raises(InputError, match=r"train.start.checkpoint: .*manifest.json is missing"):
        train.facts(experiment)
    write_manifest(folder, {"told": True})
    assert train.facts(experiment) != before


def test_training_that_was_interrupted_does_not_go_on_with_other_shards(other, tmp_path):
    def interrupted(experiment, workdir, out):
        raise InputError("interrupted")

    experiment, run = with_mixture((other, 1.0)), tmp_path / "run"
    with pytest.raises(InputError, match="interrupted"):
        run_stage(dataclasses.replace(STAGE, make=interrupted), experiment, run)
    write_tokens(other, {"train": STREAMS[:2]})
    with pytest.raises(UsageError, match="SHA-256 of"):
        run_stage(STAGE, experiment, run)


def test_another_weight_is_another_experiment(other, tmp_path):
    run_stage(STAGE, with_mixture((other, 1.0)), tmp_path / "run")
    with pytest.raises(UsageError, match=r"train\.mixture: .*'weight': 1\.0.* there, .*'weight': 2\.0.* asked for"):
        run_stage(STAGE, with_mixture((other, 2.0)), tmp_path / "run")


def test_a_folder_without_shards_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(InputError, match=r"train\.mixture names .*/none, but .*manifest\.json is missing"):
        run_stage(STAGE, with_mixture((tmp_path / "none", 1.0)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_what_evaluates_a_run_does_not_need_the_other_shards(other, tmp_path):
    """They may be gone by then."""
    experiment, run = with_mixture((other, 1.0)), tmp_path / "run"
    run_stage(STAGE, experiment, run)
    (other / "manifest.json").unlink()
    later = dataclasses.replace(STAGE, name="later", after=(STAGE,), outputs=(), in_place=False, facts=lambda e: {})
    assert run_stage(later, experiment, run) is True
