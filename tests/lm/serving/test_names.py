"""Who may ask a server: by which names, from which web pages, and over how many connections of one address."""

import asyncio
import json
import socket
import subprocess
import sys

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from configs.experiment.run_folder import experiment_json
from lm.errors import UsageError
from lm.serving.http import check_names, peer_of, protocol_class
from lm.serving.server import bind
from tests.corpus import tiny_experiment
from tests.run_files import REPOSITORY


@pytest.mark.parametrize("origin", ["*", "https://example.org", "http://127.0.0.1:8000", "http://[::1]:80", "app://x"])
def test_origins_that_browsers_send_are_taken(origin):
    check_names([origin], [], loopback=True)


@pytest.mark.parametrize(
    "origin", ["*x\r\n", "*\n", "https://example.org\r\nX: y", "example.org", "https://example.org/", "https://a b", "",
               "https://Example.org", "null", "https://user@example.org", "https://example.org:x"],
)  # fmt: skip
def test_what_is_no_origin_is_refused_at_the_start(origin):
    with pytest.raises(UsageError, match=r"--cors-origins has .*which is not an origin"):
        check_names(["https://example.org", origin], [], loopback=True)


@pytest.mark.parametrize("host", ["", "a:8000", "https://a", "a/b", "*", "a\r\n", "A.example"])
def test_what_is_no_host_is_refused_at_the_start(host):
    with pytest.raises(UsageError, match=r"--allowed-hosts has .*which is not a host"):
        check_names([], [host], loopback=True)


def test_other_machines_may_ask_only_where_the_server_is_named():
    check_names([], ["models.example.org", "10.0.0.5", "fe80::1"], loopback=False)
    with pytest.raises(UsageError, match="--allowed-hosts is empty"):
        check_names([], [], loopback=False)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--host", "0.0.0.0"), "--allowed-hosts is empty"),
        (("--cors-origins", "*x\r\n"), "--cors-origins has '*x\\r\\n', which is not an origin"),
    ],
)  # fmt: skip
def test_the_command_refuses_them_before_it_reads_the_model(tmp_path, words, told):
    (tmp_path / "config.json").write_text(experiment_json(tiny_experiment()))
    command = [sys.executable, "-m", "launch.serve", str(tmp_path), "--port", "0", *words]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 2 and told in done.stderr and "Traceback" not in done.stderr


class Peer:
    def __init__(self, host: object):
        self.host = host

    def get_extra_info(self, name: str) -> object:
        return self.host


def test_one_client_of_ipv6_is_a_whole_64():
    assert peer_of(Peer(("127.0.0.1", 1))) == peer_of(Peer(("::ffff:127.0.0.1", 1, 0, 0))) == "127.0.0.1"
    assert peer_of(Peer(("2001:db8::1", 1, 0, 0))) == peer_of(Peer(("2001:db8::ffff:2", 1, 0, 0)))
    assert peer_of(Peer(("2001:db8::1", 1, 0, 0))) != peer_of(Peer(("2001:db8:0:1::1", 1, 0, 0)))
    assert peer_of(Peer(None)) == ""


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


async def connect(port: int, address: str, sent: bytes) -> socket.socket:
    client = socket.socket()
    client.bind((address, 0))
    client.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(client, ("127.0.0.1", port))
    await loop.sock_sendall(client, sent)
    return client


async def answer(client: socket.socket) -> bytes:
    """All that the server sends until it closes the connection."""
    said = b""
    async with asyncio.timeout(60):
        while data := await asyncio.get_running_loop().sock_recv(client, 2**16):
            said += data
    client.close()
    return said


WHOLE = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
HALF = b"GET / HTTP/1.1\r\nHost: "


def test_a_client_with_half_requests_on_all_its_connections_shuts_no_other_out():
    async def run() -> None:
        bound = bind("127.0.0.1", 0)
        config = uvicorn.Config(
            app, http=protocol_class(60, 60, most_of_peer=5), ws="none", lifespan="off", log_level="error",
            limit_concurrency=20,
        )  # fmt: skip
        server = uvicorn.Server(config)
        running = asyncio.create_task(server.serve(sockets=[bound]))
        while not server.started:
            await asyncio.sleep(0.01)
        port = bound.getsockname()[1]
        held = [await connect(port, "127.0.0.1", HALF) for _ in range(5)]
        for _ in range(20):  # more than the server takes of all
            said = await answer(await connect(port, "127.0.0.1", b""))
            assert said.startswith(b"HTTP/1.1 429 ")
            assert json.loads(said.partition(b"\r\n\r\n")[2])["error"]["code"] == "too_many_connections"
        assert (await answer(await connect(port, "127.0.0.2", WHOLE))).startswith(b"HTTP/1.1 200 ")
        held.pop().close()
        async with asyncio.timeout(60):
            while not (await answer(await connect(port, "127.0.0.1", WHOLE))).startswith(b"HTTP/1.1 200 "):
                await asyncio.sleep(0.01)
        for client in held:
            client.close()
        server.should_exit = True
        await running

    asyncio.run(run())
