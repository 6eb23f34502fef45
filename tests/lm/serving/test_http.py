"""Accepted host names, origins and connections; clients that are slow to send requests or read responses."""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncGenerator

import pytest
import uvicorn
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from configs.experiment.run_folder import experiment_json
from lm.errors import UsageError
from lm.serving.fields import ApiError
from lm.serving.http import EventStream, check_names, error_answer, peer_of, protocol_class, read_body
from lm.serving.metrics import CallRecord, ServerMetrics
from lm.serving.server import bind
from tests.commands import run_command
from tests.corpus import tiny_experiment
from tests.lm.serving.in_process import SECONDS


@pytest.mark.parametrize("origin", ["*", "https://example.org", "http://127.0.0.1:8000", "http://[::1]:80", "app://x"])
def test_origins_that_browsers_send_are_valid(origin):
    check_names([origin], [], loopback=True)


@pytest.mark.parametrize(
    "origin", ["*x\r\n", "*\n", "https://example.org\r\nX: y", "example.org", "https://example.org/", "https://a b", "",
               "https://Example.org", "null", "https://user@example.org", "https://example.org:x"],
)  # fmt: skip
def test_invalid_origins_are_rejected(origin):
    with pytest.raises(UsageError, match=r"--cors-origins has .*which is not an origin"):
        check_names(["https://example.org", origin], [], loopback=True)


@pytest.mark.parametrize("host", ["", "a:8000", "https://a", "a/b", "*", "a\r\n", "A.example"])
def test_invalid_hosts_are_rejected(host):
    with pytest.raises(UsageError, match=r"--allowed-hosts has .*which is not a host"):
        check_names([], [host], loopback=True)


def test_a_server_that_other_machines_reach_needs_a_name():
    check_names([], ["models.example.org", "10.0.0.5", "fe80::1"], loopback=False)
    with pytest.raises(UsageError, match="--allowed-hosts is empty"):
        check_names([], [], loopback=False)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--host", "0.0.0.0"), "--allowed-hosts is empty"),
        (("--cors-origins", "*x\r\n"), "--cors-origins has '*x\\r\\n', which is not an origin"),
    ],
)  # fmt: skip
def test_the_command_rejects_invalid_options_before_it_reads_the_model(tmp_path, words, message):
    (tmp_path / "config.json").write_text(experiment_json(tiny_experiment()))
    done = run_command("launch.serve", tmp_path, "--port", 0, *words)
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("port", [-1, 65_536, 99_999])
def test_ports_outside_16_bits_are_rejected(port):
    with pytest.raises(UsageError, match=f"--port is {port}; it must be from 0"):
        bind("127.0.0.1", port)


class Peer:
    def __init__(self, host: object):
        self.host = host

    def get_extra_info(self, name: str) -> object:
        return self.host


def test_an_ipv6_client_is_identified_by_its_64_bit_prefix():
    assert peer_of(Peer(("127.0.0.1", 1))) == peer_of(Peer(("::ffff:127.0.0.1", 1, 0, 0))) == "127.0.0.1"
    assert peer_of(Peer(("2001:db8::1", 1, 0, 0))) == peer_of(Peer(("2001:db8::ffff:2", 1, 0, 0)))
    assert peer_of(Peer(("2001:db8::1", 1, 0, 0))) != peer_of(Peer(("2001:db8:0:1::1", 1, 0, 0)))
    assert peer_of(Peer(None)) == ""


PIECES = 2000
ended: list[int] = []
"""Number of pieces generated for each stream that has ended."""


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Read a body, then stream 20 MB."""
    made = 0

    async def pieces() -> AsyncGenerator[bytes]:
        nonlocal made
        for made in range(PIECES):  # noqa: B007
            await asyncio.sleep(0)  # as if a model computed it
            yield b"x" * 10_000

    try:
        await read_body(Request(scope, receive), 1000, seconds=0.5)
    except ApiError as error:
        await error_answer(error)(scope, receive, send)
    else:
        await EventStream(pieces(), CallRecord(ServerMetrics(1, int)), lambda: ended.append(made))(scope, receive, send)


@contextlib.asynccontextmanager
async def listening(seconds: float, most_of_peer: int = 2**31) -> AsyncGenerator[int]:
    """Run a server of `app` with these timeouts, and yield its port."""
    bound = bind("127.0.0.1", 0)
    protocol = protocol_class(seconds, seconds, most_of_peer)
    config = uvicorn.Config(app, http=protocol, ws="none", lifespan="off", log_level="error", limit_concurrency=20)
    server = uvicorn.Server(config)
    running = asyncio.create_task(server.serve(sockets=[bound]))
    while not server.started:
        await asyncio.sleep(0.01)
    yield bound.getsockname()[1]
    server.should_exit = True
    await running


async def connect(port: int, *sent: bytes, address: str = "127.0.0.1") -> socket.socket:
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.bind((address, 0))
    client.connect(("127.0.0.1", port))
    for number, part in enumerate(sent):  # the first is sent before the server, in the same thread, can accept
        await asyncio.sleep(0.05 if number else 0)
        with contextlib.suppress(ConnectionError):
            client.sendall(part)
    client.setblocking(False)
    return client


async def received(client: socket.socket, most: int = 2**30) -> bytes:
    """Up to `most` bytes from the server, until it closes the connection."""
    data = b""
    async with asyncio.timeout(SECONDS):
        with contextlib.suppress(ConnectionResetError):
            while len(data) < most and (part := await asyncio.get_running_loop().sock_recv(client, 2**20)):
                data += part
    client.close()
    return data


WHOLE = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"
HALF = b"GET / HTTP/1.1\r\nHost: "


@pytest.mark.anyio
async def test_incomplete_requests_of_one_client_do_not_block_other_clients():
    async with listening(60, most_of_peer=5) as port:
        held = [await connect(port, HALF) for _ in range(5)]
        for _ in range(20):  # more than the server accepts in total
            refused = await received(await connect(port))
            assert refused.startswith(b"HTTP/1.1 429 ")
            assert json.loads(refused.partition(b"\r\n\r\n")[2])["error"]["code"] == "too_many_connections"
        assert (await received(await connect(port, WHOLE, address="127.0.0.2"), 20)).startswith(b"HTTP/1.1 200 ")
        held.pop().close()
        async with asyncio.timeout(SECONDS):
            while not (await received(await connect(port, WHOLE), 20)).startswith(b"HTTP/1.1 200 "):
                await asyncio.sleep(0.01)
        for client in held:
            client.close()


@pytest.mark.anyio
@pytest.mark.parametrize("sent", [(), (b"POST / HTTP/1.1\r\nHost: a\r\n",), (b"P", b"O", b"S")], ids=range(3))
async def test_clients_that_do_not_send_headers_are_disconnected(sent):
    async with listening(0.5) as port:
        assert await received(await connect(port, *sent)) == b""


@pytest.mark.anyio
async def test_clients_that_do_not_send_the_body_get_408():
    async with listening(0.5) as port:
        said = await received(await connect(port, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc"))
        assert said.startswith(b"HTTP/1.1 408 ") and b"3 bytes received" in said


@pytest.mark.anyio
async def test_clients_that_do_not_read_are_disconnected_and_the_work_for_them_ends():
    ended.clear()
    async with listening(0.5) as port:
        client = await connect(port, WHOLE)
        async with asyncio.timeout(SECONDS):
            while not ended:
                await asyncio.sleep(0.05)
        assert len(await received(client)) < PIECES * 10_000
    assert len(ended) == 1 and ended[0] < PIECES - 1
