"""HTTP helpers for clients that are slow, send too much, or disconnect."""

import asyncio
import contextlib
import ipaddress
import re
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Collection, Coroutine
from typing import Any
from urllib.parse import urlsplit

import h11
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from lm.errors import UsageError, shown
from lm.serving.answers import to_json
from lm.serving.fields import ApiError
from lm.serving.metrics import CallRecord, outcome_of

JSON = "application/json"


def json_answer(value: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(to_json(value), status, headers, JSON)


def error_answer(error: ApiError) -> Response:
    return json_answer(error.as_json(), error.status, error.headers)


def check_page(request: Request, origins: Collection[str], hosts: Collection[str]) -> None:
    """Raise ApiError 403 for a request with an unknown Host header, or from a web page of another origin.

    Host: a web page could point its own domain at this address (DNS rebinding) and would then share an origin with the
    server. Allowed are names of this machine, `hosts`, the hosts of `origins`, and IP addresses, which need no DNS.

    Origin: a browser sends requests of a page even if the page may not read the response. The rule for such requests is
    that of Go's net/http.CrossOriginProtection.
    """
    given = request.headers
    origin, host = given.get("origin", ""), given.get("host", "")
    name = host_name(host)
    is_here = not host or name == "localhost" or name.endswith(".localhost") or is_address(name)  # RFC 6761
    if not is_here and name not in hosts and host not in [urlsplit(one).netloc for one in origins]:
        raise ApiError(
            403, f"The Host header is {shown(host)}, which is not a name of this server. Use the server's address, "
            "or start it with the name in --allowed-hosts.",
            code="other_host",
        )  # fmt: skip
    if "*" in origins or origin in origins:
        return
    site = given.get("sec-fetch-site", "")  # browsers do not send it to remote addresses without TLS
    own = site in ("same-origin", "none") if site else origin.rpartition("://")[2].lower() == host.lower()
    if request.method != "GET" and (site or origin) and not own:
        raise ApiError(
            403, f"Requests from web pages of {shown(origin)} are not allowed. Allow them with --cors-origins.",
            code="other_origin",
        )  # fmt: skip


def host_name(host: str) -> str:
    """Return the name in a Host header without its port, such as "example.org"; "" if it is malformed."""
    try:
        return (urlsplit(f"//{host}").hostname or "").removesuffix(".")
    except ValueError:
        return ""


def is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?")
NAME = re.compile(r"[a-z0-9._-]+")


def check_names(cors_origins: Collection[str], allowed_hosts: Collection[str], loopback: bool) -> None:
    """Raise UsageError if an origin or host name is invalid, or if `allowed_hosts` is empty although other machines can
    reach the server (not `loopback`)."""
    for origin in cors_origins:
        if origin != "*" and not ORIGIN.fullmatch(origin):
            raise UsageError(
                f"--cors-origins has {shown(origin)}, which is not an origin. Give SCHEME://HOST or SCHEME://HOST:PORT "
                "in lower case, such as https://example.org, or * for all."
            )
    for host in allowed_hosts:
        if not NAME.fullmatch(host) and not is_address(host):
            raise UsageError(
                f"--allowed-hosts has {shown(host)}, which is not a host. Give a name or an address in lower case, "
                "without scheme and port, such as models.example.org."
            )
    if not loopback and not allowed_hosts:
        raise UsageError(
            "--host lets other machines connect, but --allowed-hosts is empty. Give the names and addresses that they "
            "use for this server, such as --allowed-hosts models.example.org 10.0.0.5. Requests under other names are "
            "refused, because a web page could send them (DNS rebinding)."
        )


async def read_body(request: Request, most: int, seconds: float) -> bytes:
    """Read the body of a request. Raises ApiError 413 if it has more than `most` bytes, ApiError 408 if it is
    incomplete after `seconds`, ClientDisconnect if the client disconnects."""
    close = {"Connection": "close"}  # the rest of the body is not read
    too_large = lambda size: ApiError(
        413, f"The body is {size} bytes; the limit is {most:,}. Split it into several requests.",
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
            408, f"The body was incomplete after {seconds:g} seconds ({len(body):,} bytes received). Send it faster.",
            code="timeout", headers=close,
        ) from None  # fmt: skip
    return bytes(body)


async def unless_disconnected[T](receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """Await `work` and return its result. If the client disconnects first, cancel it and raise ClientDisconnect. The
    request's body must have been read before."""

    async def disconnected() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    job, lost = asyncio.create_task(work), asyncio.create_task(disconnected())
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


async def respond(request: Request, running: Any, record: CallRecord) -> Response:
    """Wait until the Engine has accepted a call; return its response, as a stream if it asks for one. `running` are its
    choices: Completions (app.py) or Conversations (chat.py)."""
    try:
        await unless_disconnected(request.receive, running.accepted())
        record.metrics.prompt_tokens.inc(running.usage.prompt_tokens)
        if running.call.stream:
            return EventStream(running.events(), record, running.cancel)
        found = await unless_disconnected(request.receive, running.whole())
    except BaseException:
        running.cancel()
        raise
    record.end("answered")
    return json_answer(found)


class EventStream(Response):
    """Response that sends server-sent events, each as soon as `pieces` yields its data
    (html.spec.whatwg.org/multipage/server-sent-events.html). An ApiError becomes the last event before [DONE]."""

    media_type = "text/event-stream"

    def __init__(self, pieces: AsyncGenerator[bytes], record: CallRecord, on_end: Callable[[], None]):
        """`on_end` is called at the end in any case, even if the client disconnects before the start."""
        super().__init__(None, 200, {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self.pieces, self.record, self.on_end = pieces, record, on_end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            with contextlib.suppress(ClientDisconnect, OSError):
                await unless_disconnected(receive, self.send_all(send))
        finally:
            await self.pieces.aclose()
            self.record.end("cancelled")  # no effect if answered
            self.on_end()

    async def send_all(self, send: Send) -> None:
        event = lambda data: send({"type": "http.response.body", "body": b"data: " + data + b"\n\n", "more_body": True})
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        try:
            async for piece in self.pieces:
                await event(piece)
            self.record.end("answered")
        except ApiError as error:
            self.record.end(outcome_of(error.status))
            await event(to_json(error.as_json()))
        await event(b"[DONE]")
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def peer_of(transport: Any) -> str:
    """Return the client's IPv4 address, or its IPv6 network (/64), which one client can own; "" if unknown."""
    try:
        address = ipaddress.ip_address(transport.get_extra_info("peername")[0].partition("%")[0])
    except (TypeError, ValueError, IndexError):  # disconnected, or not IP
        return ""
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    return str(address.ipv4_mapped or ipaddress.IPv6Network((int(address) >> 64 << 64, 64)))


def protocol_class(read_seconds: float, write_seconds: float, most_of_peer: int = 2**31) -> type[H11Protocol]:
    """Return uvicorn's protocol class with limits. A connection is closed if its headers are incomplete after
    `read_seconds`, or if the client reads nothing of a buffered response for `write_seconds`. A client with
    `most_of_peer` open connections gets status 429 for further ones."""
    open_of: Counter[str] = Counter()

    class PatientForAWhile(H11Protocol):
        reading: asyncio.TimerHandle | None = None
        writing: asyncio.TimerHandle | None = None
        peer: str | None = None

        def connection_made(self, transport: Any) -> None:
            peer = peer_of(transport)
            if open_of[peer] >= most_of_peer:  # refused without reading the request
                error = ApiError(
                    429, "Too many connections from this address. Close some.", code="too_many_connections"
                )
                body = to_json(error.as_json())
                head = f"HTTP/1.1 429 Too Many Requests\r\nContent-Type: {JSON}\r\nContent-Length: {len(body)}\r\n"
                transport.write(f"{head}Connection: close\r\n\r\n".encode() + body)
                transport.close()
                return
            open_of[peer] += 1
            self.peer = peer
            super().connection_made(transport)
            self.watch_headers()

        def data_received(self, data: bytes) -> None:
            if self.peer is not None:
                super().data_received(data)
                self.watch_headers()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self.watch_headers()

        def watch_headers(self) -> None:
            """Start the timer while waiting for request headers; cancel it when they have arrived."""
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
            if self.peer is None:
                return
            open_of[self.peer] -= 1
            if not open_of[self.peer]:
                del open_of[self.peer]
            for timer in (self.reading, self.writing):
                if timer is not None:
                    timer.cancel()
            super().connection_lost(exc)

    return PatientForAWhile
