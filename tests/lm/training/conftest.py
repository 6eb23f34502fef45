"""One trained run for the tests of training: every file with another model or config would compile its own step."""

from dataclasses import asdict, replace
from pathlib import Path

import pytest

from configs.experiment.run_folder import RunFolder
from lm.storage import write_json
from lm.training.loop import train
from tests.corpus import tiny_experiment
from tests.train_runs import copy

TINY = tiny_experiment()
SNAPSHOTS = (0, 1, 3, 4, 8, 11)
EXPERIMENT = replace(
    TINY,
    model=replace(TINY.model, layers=1),
    train=replace(TINY.train, log_every=1),
)
MODEL, CONFIG = EXPERIMENT.model, EXPERIMENT.train
WITH_SNAPSHOTS = replace(CONFIG, snapshot_steps=(*SNAPSHOTS, 99))


@pytest.fixture(scope="session")
def finished(tokens, tmp_path_factory) -> Path:
    """A run of EXPERIMENT without interruption, with checkpoints of steps 4, 8 and 12 and SNAPSHOTS. Copy it to change
    it."""
    run = copy(tokens, tmp_path_factory.mktemp("finished") / "run")
    train(MODEL, WITH_SNAPSHOTS, run)
    write_json(RunFolder(run).config_json, asdict(replace(EXPERIMENT, train=WITH_SNAPSHOTS)))
    return run
