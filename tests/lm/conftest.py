"""What tests of the trainer share."""

import contextlib
import functools
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.corpus import tiny_experiment, write_tokens


@pytest.fixture(scope="session")
def tokens(tmp_path_factory) -> Path:
    """A run folder that holds documents/, tokenizer/ and tokens/ of the tiny experiment; copy it to train."""
    run = tmp_path_factory.mktemp("tokens") / "run"
    write_tokens(run, tiny_experiment())
    return run


@pytest.fixture(scope="session", autouse=True)
def patient_saves() -> Generator[None]:
    """No test may depend on how busy the disk is: a save waits for the one before it, however long that takes."""
    with save_timeout(600.0):
        yield


@contextlib.contextmanager
def save_timeout(seconds: float) -> Generator[None]:
    """Another default of Checkpoints; a call that gives `timeout` by name keeps its own."""
    from lm.checkpoints.manager import (
        Checkpoints,  # not above: types are checked in what is imported after pytest has started
    )

    before = Checkpoints.__init__
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoints, "__init__", functools.partialmethod(before, timeout=seconds))
        yield
