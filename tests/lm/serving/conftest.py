"""A tiny trained run, for servers of it."""

from pathlib import Path

import pytest

from tests.server_process import write_served_run


@pytest.fixture(scope="session")
def run(tmp_path_factory) -> Path:
    """A run folder named `tiny`, with a checkpoint at step 4."""
    folder = tmp_path_factory.mktemp("served") / "tiny"
    write_served_run(folder)
    return folder
