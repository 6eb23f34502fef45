"""launch.serve as a separate process on a free port, for tests, benchmarks and chaos."""

import contextlib
import dataclasses
import os
import re
import signal
import subprocess
import sys
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import httpx

from tests.run_files import HANG_SECONDS, QUICK, REPOSITORY
from tests.until import until as until

KEY = "open-sesame"
"""The API key that tests send; servers without a key ignore it."""
HEADERS = {"Authorization": f"Bearer {KEY}"}


class ServerProcess(NamedTuple):
    """A running server."""

    process: subprocess.Popen[str]
    url: str
    """http://127.0.0.1:PORT"""

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def post(self, path: str, **fields: object) -> httpx.Response:
        return httpx.post(f"{self.url}/{path}", json=fields, timeout=HANG_SECONDS, headers=HEADERS)

    def get(self, path: str) -> httpx.Response:
        return httpx.get(f"{self.url}/{path}", timeout=HANG_SECONDS, headers=HEADERS)

    def metric(self, name: str) -> float:
        lines = self.get("metrics").text.splitlines()
        return next(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{name} "))


def start(run: Path, *options: str, environment: Mapping[str, str] | None = None) -> ServerProcess:
    """A server of the run, once it accepts connections."""
    return start_command(["launch.serve", str(run), "--port", "0", *options], environment)


def start_command(words: Sequence[str], environment: Mapping[str, str] | None = None) -> ServerProcess:
    """The server `python -m words`, once it accepts connections."""
    command = [sys.executable, "-m", *words]
    process = subprocess.Popen(
        command, cwd=REPOSITORY, env=dict(environment or os.environ), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    said = ""
    assert process.stdout is not None
    while line := process.stdout.readline():
        said += line
        if found := re.search(r", on (http://\S+)/v1(?:;|$)", line.rstrip()):
            return ServerProcess(process, found[1])
    raise AssertionError(f"the server ended with {process.wait()}:\n{said}")


def end(server: ServerProcess) -> str:
    """The server's output since its start, after SIGTERM has ended it normally."""
    server.process.send_signal(signal.SIGTERM)
    said, _ = server.process.communicate(timeout=HANG_SECONDS)
    assert server.process.returncode == 0, said
    return said


@contextlib.contextmanager
def serving(run: Path, *options: str, environment: Mapping[str, str] | None = None) -> Generator[ServerProcess]:
    """A server, stopped at the end of the block; its output has no traceback."""
    with ending(start(run, *options, environment=environment)) as server:
        yield server


@contextlib.contextmanager
def ending(server: ServerProcess) -> Generator[ServerProcess]:
    """The server, stopped at the end of the block; its output has no traceback."""
    try:
        yield server
        said = end(server)
        assert "Traceback" not in said, said
    finally:
        server.process.kill()
        server.process.communicate()


def quick_environment() -> dict[str, str]:
    """As in tests, on one CPU device."""
    return os.environ | QUICK


def write_served_run(folder: Path) -> None:
    """A run folder with a tiny model, trained for four steps."""
    from lm.storage import write_json
    from lm.training.loop import train
    from tests.corpus import tiny_experiment, write_tokens

    tiny = tiny_experiment()
    quick = dataclasses.replace(tiny.train, steps=4, checkpoint_every=4, validate_every=0, sample_every=0)
    experiment = dataclasses.replace(tiny, train=quick)
    write_tokens(folder, experiment)
    train(experiment.model, experiment.train, folder)
    write_json(folder / "config.json", dataclasses.asdict(experiment))
