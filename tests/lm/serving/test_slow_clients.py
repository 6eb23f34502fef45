"""Clients that leave the server waiting: for headers, for a body, for an answer to be read."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncGenerator

import pytest
import uvicorn
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from lm.errors import UsageError
from lm.serving.fields import ApiError
from lm.serving.http import EventStream, error_answer, protocol_class, read_body
from lm.serving.server import bind

PIECES = 2000
ended: list[int] = []
"""Pieces that were made of each stream that has ended."""


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Reads a body, then streams 20 MB."""
    made = 0

    async def pieces() -> AsyncGenerator[bytes]:
        nonlocal made
        for made in range(PIECES):  # noqa: B007
            await asyncio.sleep(0)  # where a model would make it
            yield b"x" * 10_000

    try:
        await read_body(Request(scope, receive), 1000, seconds=0.5)
    except ApiError as error:
        await error_answer(error)(scope, receive, send)
    else:
        await EventStream(pieces(), lambda: ended.append(made))(scope, receive, send)


async def answers(*sent: bytes, read: bool = True) -> bytes:
    """What the server says until it closes the connection of a client that sends this, and no more."""
    bound = bind("127.0.0.1", 0)
    config = uvicorn.Config(app, http=protocol_class(0.5, 0.5), ws="none", lifespan="off", log_level="error")
    server = uvicorn.Server(config)
    running = asyncio.create_task(server.serve(sockets=[bound]))
    loop, said = asyncio.get_running_loop(), b""
    while not server.started:
        await asyncio.sleep(0.01)
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
        await loop.sock_connect(client, bound.getsockname())
        for part in sent:
            await loop.sock_sendall(client, part)
            await asyncio.sleep(0.05)
        async with asyncio.timeout(60):
            while not read and not ended:
                await asyncio.sleep(0.05)
            with contextlib.suppress(ConnectionResetError):
                while data := await loop.sock_recv(client, 2**20):
                    said += data
    server.should_exit = True
    await running
    return said


@pytest.mark.parametrize("sent", [(), (b"POST / HTTP/1.1\r\nHost: a\r\n",), (b"P", b"O", b"S")], ids=range(3))
def test_who_does_not_send_headers_is_left(sent):
    assert asyncio.run(answers(*sent)) == b""


def test_who_does_not_send_a_body_is_told():
    said = asyncio.run(answers(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n", b"abc"))
    assert said.startswith(b"HTTP/1.1 408 ") and b"3 bytes received" in said


def test_who_does_not_read_the_answer_is_left_and_the_work_for_it_ends():
    ended.clear()
    said = asyncio.run(answers(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", read=False))
    assert len(said) < PIECES * 10_000
    assert len(ended) == 1 and ended[0] < PIECES - 1


@pytest.mark.parametrize("port", [-1, 65_536, 99_999])
def test_a_port_that_cannot_be_is_refused_and_not_cut_to_16_bits(port):
    with pytest.raises(UsageError, match=f"--port is {port}; it must be from 0"):
        bind("127.0.0.1", port)
