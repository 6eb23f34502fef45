"""The value 0 disables logging, validation, samples or checkpoints; they do not affect the parameters."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from lm.config import TrainConfig
from lm.errors import UsageError
from lm.training.loop import train
from tests.corpus import tiny_experiment
from tests.train_runs import bits, steps_there, told

EXPERIMENT = tiny_experiment()
MODEL = dataclasses.replace(EXPERIMENT.model, layers=1)
CONFIG = dataclasses.replace(
    EXPERIMENT.train, steps=6, log_every=2, validate_every=2, validation_batches=1, sample_every=3, checkpoint_every=2
)


def trained(tokens: Path, folder: Path, config: TrainConfig) -> Path:
    run = Path(shutil.copytree(tokens, folder / "run"))
    train(MODEL, config, run)
    return run


@pytest.fixture(scope="module")
def everything(tokens, tmp_path_factory) -> Path:
    """A run with all of them enabled."""
    return trained(tokens, tmp_path_factory.mktemp("everything"), CONFIG)


def seen(run: Path) -> dict[str, list[int]]:
    """The steps logged, validated, sampled and saved."""
    rows = told(run)
    return {
        "log_every": [row["step"] for row in rows if "loss" in row],
        "validate_every": [row["step"] for row in rows if "validation_loss" in row],
        "sample_every": sorted(int(path.stem[-8:]) for path in (run / "samples").glob("step-*.json")),
        "checkpoint_every": steps_there(run),
    }


@pytest.mark.parametrize(
    ("name", "left"),
    [
        pytest.param("log_every", [6], marks=pytest.mark.slow),
        pytest.param("validate_every", [], marks=pytest.mark.slow),
        pytest.param("sample_every", [], marks=pytest.mark.slow),
        ("checkpoint_every", [6]),
    ],
)
def test_0_disables_each_and_changes_nothing_else(tokens, everything, tmp_path, name, left):
    """The last step is always logged and saved."""
    run = trained(tokens, tmp_path, dataclasses.replace(CONFIG, **{name: 0}))
    assert seen(everything)[name] != left
    assert seen(run) == seen(everything) | {name: left}
    assert bits(run) == bits(everything)


@pytest.mark.parametrize(("seconds", "saved"), [(1e-9, [2, 3, 4, 5, 6]), (1e5, [6])])
def test_checkpoints_by_time_change_nothing_else(tokens, everything, tmp_path, seconds, saved):
    """The interval of the first counts from the end of the first step."""
    config = dataclasses.replace(CONFIG, checkpoint_every=0, checkpoint_every_seconds=seconds, checkpoints_kept=9)
    run = trained(tokens, tmp_path, config)
    assert seen(run) == seen(everything) | {"checkpoint_every": saved}
    assert bits(run) == bits(everything)


def test_a_validation_split_is_needed_only_for_validation(tokens, everything, tmp_path):
    whole = Path(shutil.copytree(tokens, tmp_path / "whole"))
    for path in (whole / "tokens").glob("val-*"):
        path.unlink()
    manifest = json.loads((whole / "tokens/manifest.json").read_text())
    del manifest["splits"]["val"]
    (whole / "tokens/manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UsageError, match="val"):
        trained(whole, tmp_path / "on", CONFIG)
    run = trained(whole, tmp_path / "off", dataclasses.replace(CONFIG, validate_every=0))
    assert bits(run) == bits(everything)


def test_a_prompt_that_is_too_long_is_allowed_without_samples(tokens, tmp_path):
    long = dataclasses.replace(CONFIG, sample_prompt="The miller carried a sack of grain. " * 9, steps=4)
    with pytest.raises(UsageError, match="leaves no room within 24"):
        trained(tokens, tmp_path / "on", long)
    assert not (tmp_path / "on/run/metrics.jsonl").exists()  # rejected before the first step
    trained(tokens, tmp_path / "off", dataclasses.replace(long, sample_every=0))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"validate_every": 0, "checkpoints_kept_best": 2}, ["checkpoints_kept_best = 2", "validate_every = 0"]),
        ({"evaluators": ()}, ["validate_every = 2", "evaluators is empty"]),
        ({"sample_every": -1}, ["sample_every is -1", "at least 0"]),
    ],
)
def test_contradictory_switches_are_rejected_with_the_values(changes, words):
    with pytest.raises(UsageError) as error:
        dataclasses.replace(CONFIG, **changes)
    assert all(word in str(error.value) for word in words), error.value
