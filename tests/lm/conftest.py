"""What tests of the trainer share."""

from pathlib import Path

import pytest

from tests.corpus import tiny_experiment, write_tokens


@pytest.fixture(scope="session")
def tokens(tmp_path_factory) -> Path:
    """A run folder that holds documents/, tokenizer/ and tokens/ of the tiny experiment; copy it to train."""
    run = tmp_path_factory.mktemp("tokens") / "run"
    write_tokens(run, tiny_experiment())
    return run
