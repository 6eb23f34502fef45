"""Server processes with their clients, and an Engine for servers in this process."""

from collections.abc import Generator
from pathlib import Path

import openai
import pytest

from configs.experiment.run_folder import RunFolder
from lm.inference.engine import Engine
from lm.model.transformer import Transformer
from lm.parallel import one_device_mesh
from tests.assistant_run import base_experiment
from tests.lm.model_configs import initial_model
from tests.lm.serving.in_process import CONFIG, TOKENIZER
from tests.server_process import KEY, ServerProcess, end, quick_environment, start, write_served_run


@pytest.fixture(scope="module")
def server(assistant, tmp_path_factory) -> Generator[ServerProcess]:
    """A server of the assistant, named `mine`, with a key, four slots and a short queue; a test may stop it."""
    key = tmp_path_factory.mktemp("key") / "key"
    key.write_text(f"{KEY}\n")
    options = ("--slots", "4", "--max-queue", "40", "--grace-seconds", "0.2", "--model-name", "mine", "--step", "200")
    server = start(assistant, *options, "--api-key-file", str(key), environment=quick_environment())
    try:
        yield server
        if server.process.poll() is None:
            said = end(server)
            assert "Traceback" not in said, said
    finally:
        server.process.kill()
        server.process.communicate()


@pytest.fixture(scope="module")
def client(server) -> Generator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0, timeout=120) as client:
        yield client


@pytest.fixture(scope="module")
def loaded(assistant):
    return RunFolder(assistant).load(one_device_mesh(base_experiment().model))


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
    return initial_model(CONFIG)


@pytest.fixture
def engine(model) -> Engine:
    return Engine(model, CONFIG, TOKENIZER, slots=2, decode_steps=3)
