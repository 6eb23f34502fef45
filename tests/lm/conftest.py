"""Fixtures for tests of the trainer."""

import functools
import shutil
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.corpus import tiny_experiment, write_tokens


@pytest.fixture(scope="session")
def tokens(tmp_path_factory) -> Path:
    """A run folder with documents/, tokenizer/ and tokens/ of the tiny experiment; copy it for training."""
    run = tmp_path_factory.mktemp("tokens") / "run"
    write_tokens(run, tiny_experiment())
    return run


@pytest.fixture
def run(tokens, tmp_path) -> Path:
    """A copy of `tokens` to train in."""
    return Path(shutil.copytree(tokens, tmp_path / "run"))


@pytest.fixture(scope="session", autouse=True)
def patient_saves() -> Generator[None]:
    """Tests must not depend on the speed of the disk: a save waits for the previous one as long as necessary, without
    an explicit `timeout`."""
    from lm.checkpoints.manager import (
        Checkpoints,  # a local import: types are checked only in modules imported after pytest has started
    )

    before = Checkpoints.__init__
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoints, "__init__", functools.partialmethod(before, timeout=600.0))
        yield
