"""HTTP with clients that are slow, send too much, or go away."""

import asyncio
import contextlib
import ipaddress
from collections.abc import AsyncGenerator, Callable, Collection, Coroutine
from typing import Any
from urllib.parse import urlsplit

import h11
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from lm.errors import shown
from lm.serving.answers import to_json
from lm.serving.errors import ApiError

JSON = "application/json"


def json_answer(value: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(to_json(value), status, headers, JSON)


def error_answer(error: ApiError) -> Response:
    return json_answer(error.as_json(), error.status, error.headers)


def check_page(request: Request, origins: Collection[str], loopback: bool) -> None:
    """Raises ApiError 403 for what a web page asks that is none of the server's own, nor of `origins`: a browser sends
    that although the page may not read the answer. Told as by Go's net/http.CrossOriginProtection.

    At a `loopback` address also for a server's name that is not this machine's: a page may have its own name point
    here (DNS rebinding), and would be of one origin with the server.
    """
    given = request.headers
    origin, host = given.get("origin", ""), given.get("host", "")
    if "*" in origins or origin in origins:
        return
    site = given.get("sec-fetch-site", "")  # not sent to addresses of other machines without TLS
    own = site in ("same-origin", "none") if site else origin.rpartition("://")[2].lower() == host.lower()
    if request.method != "GET" and (site or origin) and not own:
        raise ApiError(
            403, f"Web pages of {shown(origin)} may not ask this server. It is started for them by --cors-origins.",
            code="other_origin",
        )  # fmt: skip
    if loopback and not is_here(host) and host not in [urlsplit(one).netloc for one in origins]:
        raise ApiError(
            403, f"This server is asked as {shown(host)}, which is no name of this machine. Ask it as 127.0.0.1, or "
            "start it with --api-key-file, or with the address of what stands before it in --cors-origins.",
            code="other_host",
        )  # fmt: skip


def is_here(host: str) -> bool:
    """Whether a Host header is an address, or a name that is always this machine's (RFC 6761); or not there, as of no
    browser."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        if name == "localhost" or name.endswith(".localhost") or not host:
            return True
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


async def read_body(request: Request, most: int, seconds: float) -> bytes:
    """The body. Raises ApiError: 413 beyond `most` bytes, 408 where it is not there after `seconds`; and
    ClientDisconnect."""
    close = {"Connection": "close"}  # what else is under way of the body is not read
    too_large = lambda size: ApiError(
        413, f"The body is {size} bytes; this server reads at most {most:,}. Send less at once.",
        code="body_too_large", headers=close,
    )  # fmt: skip
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and (len(announced) > 15 or int(announced) > most):
        raise too_large(announced[:30])
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for part in request.stream():
                body += part
                if len(body) > most:
                    raise too_large(f"more than {most:,}")
    except TimeoutError:
        raise ApiError(
            408, f"The body was not there after {seconds:g} seconds ({len(body):,} bytes were).",
            code="timeout", headers=close,
        ) from None  # fmt: skip
    return bytes(body)


async def gone(receive: Receive) -> None:
    """Returns when the client has gone; to be called once the body has been read."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def unless_gone[T](receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """What `work` returns. Raises ClientDisconnect, with `work` cancelled, where the client goes first."""
    job, lost = asyncio.create_task(work), asyncio.create_task(gone(receive))
    try:
        await asyncio.wait((job, lost), return_when=asyncio.FIRST_COMPLETED)
        if job.done():
            return job.result()
        raise ClientDisconnect
    finally:
        for task in (job, lost):
            task.cancel()
            with contextlib.suppress(BaseException):
                await task


class EventStream(Response):
    """Server-sent events (html.spec.whatwg.org/multipage/server-sent-events.html), each sent as soon as it is there."""

    media_type = "text/event-stream"

    def __init__(self, pieces: AsyncGenerator[bytes], on_end: Callable[[], None]):
        """`on_end` is called however it ends, also where the client goes before it began."""
        super().__init__(None, 200, {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self.pieces, self.on_end = pieces, on_end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            with contextlib.suppress(ClientDisconnect, OSError):
                await unless_gone(receive, self.send_all(send))
        finally:
            await self.pieces.aclose()
            self.on_end()

    async def send_all(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        async for piece in self.pieces:
            await send({"type": "http.response.body", "body": b"data: " + piece + b"\n\n", "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def protocol_class(read_seconds: float, write_seconds: float) -> type[H11Protocol]:
    """uvicorn's protocol, which also ends the connection of a client that leaves it waiting: for the headers of a
    request, for `read_seconds`; with as much of an answer unread as is kept for it, for `write_seconds`."""

    class PatientForAWhile(H11Protocol):
        reading: asyncio.TimerHandle | None = None
        writing: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self.watch_headers()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self.watch_headers()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self.watch_headers()

        def watch_headers(self) -> None:
            """Sets the timer while a request's headers are awaited, and takes it away when they are there."""
            if self.conn.their_state is not h11.IDLE:
                if self.reading is not None:
                    self.reading.cancel()
                self.reading = None
            elif self.reading is None:
                self.reading = self.loop.call_later(read_seconds, self.transport.abort)

        def pause_writing(self) -> None:
            super().pause_writing()
            self.writing = self.loop.call_later(write_seconds, self.transport.abort)

        def resume_writing(self) -> None:
            super().resume_writing()
            if self.writing is not None:
                self.writing.cancel()

        def connection_lost(self, exc: Exception | None) -> None:
            for timer in (self.reading, self.writing):
                if timer is not None:
                    timer.cancel()
            super().connection_lost(exc)

    return PatientForAWhile
