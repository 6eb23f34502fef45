"""The value 0 disables logging, validation, samples or checkpoints; they do not affect the parameters."""

import dataclasses
import json
from pathlib import Path

import pytest

from lm.errors import UsageError
from lm.training.loop import train
from tests.lm.training.conftest import CONFIG, MODEL
from tests.train_runs import bits, copy, steps_there, told


def trained(tokens: Path, folder: Path, **changes) -> Path:
    run = copy(tokens, folder / "run")
    train(MODEL, dataclasses.replace(CONFIG, **changes), run)
    return run


def seen(run: Path) -> dict[str, list[int]]:
    """The steps logged, validated, sampled and saved."""
    rows = told(run)
    return {
        "log_every": [row["step"] for row in rows if "loss" in row],
        "validate_every": [row["step"] for row in rows if "validation_loss" in row],
        "sample_every": sorted(int(path.stem[-8:]) for path in (run / "samples").glob("step-*.json")),
        "checkpoint_every": steps_there(run),
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "left"), [("log_every", [12]), ("validate_every", []), ("sample_every", []), ("checkpoint_every", [12])]
)
def test_0_disables_each_and_changes_nothing_else(tokens, finished, tmp_path, name, left):
    """The last step is always logged and saved."""
    run = trained(tokens, tmp_path, **{name: 0})
    assert seen(finished)[name] != left
    assert seen(run) == seen(finished) | {name: left}
    assert bits(run) == bits(finished)


@pytest.mark.slow
@pytest.mark.parametrize(("seconds", "saved"), [(1e-9, [*range(2, 13)]), (1e5, [12])])
def test_checkpoints_by_time_change_nothing_else(tokens, finished, tmp_path, seconds, saved):
    """The interval of the first counts from the end of the first step."""
    run = trained(tokens, tmp_path, checkpoint_every=0, checkpoint_every_seconds=seconds, checkpoints_kept=99)
    assert seen(run) == seen(finished) | {"checkpoint_every": saved}
    assert bits(run) == bits(finished)


@pytest.mark.slow
def test_a_validation_split_is_needed_only_for_validation(tokens, finished, tmp_path):
    whole = copy(tokens, tmp_path / "whole")
    for path in (whole / "tokens").glob("val-*"):
        path.unlink()
    manifest = json.loads((whole / "tokens/manifest.json").read_text())
    del manifest["splits"]["val"]
    (whole / "tokens/manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UsageError, match="val"):
        trained(whole, tmp_path / "on")
    run = trained(whole, tmp_path / "off", validate_every=0)
    assert bits(run) == bits(finished)


def test_a_prompt_that_is_too_long_is_allowed_without_samples(tokens, tmp_path):
    long = "The miller carried a sack of grain. " * 9
    with pytest.raises(UsageError, match="leaves no room within 24"):
        trained(tokens, tmp_path / "on", sample_prompt=long)
    assert not (tmp_path / "on/run/metrics.jsonl").exists()  # rejected before the first step
    trained(tokens, tmp_path / "off", sample_prompt=long, sample_every=0)
