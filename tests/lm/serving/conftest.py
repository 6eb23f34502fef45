"""A tiny trained run for server processes, and an Engine for servers in this process."""

from pathlib import Path

import jax
import pytest

from lm.inference.engine import Engine
from lm.model.transformer import Transformer
from tests.lm.serving.in_process import CONFIG, TOKENIZER
from tests.server_process import write_served_run


@pytest.fixture(scope="session")
def run(tmp_path_factory) -> Path:
    """A run folder named `tiny`, with a checkpoint at step 4."""
    folder = tmp_path_factory.mktemp("served") / "tiny"
    write_served_run(folder)
    return folder


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="package")
def model() -> Transformer:
    return jax.jit(Transformer, static_argnums=0)(CONFIG, jax.random.key(0))


@pytest.fixture
def engine(model) -> Engine:
    return Engine(model, CONFIG, TOKENIZER, slots=2, decode_steps=3)
