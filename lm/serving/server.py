"""Server process: one socket, one event loop, one thread for the Engine."""

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType

import uvicorn
from starlette.responses import Response

from lm.chat.tools import NO_TOOLS, Tools
from lm.errors import InputError, UsageError
from lm.inference.engine import Engine
from lm.inference.requests import GenerationRequest, SamplingParams
from lm.serving.app import CompletionServer
from lm.serving.fields import ApiError
from lm.serving.http import protocol_class
from lm.serving.inspections import Inspection
from lm.serving.protocol import Limits
from lm.serving.worker import EngineWorker
from lm.tokenizer import Tokenizer

AFTER_GRACE = 5
"""Seconds for the last responses after the grace period."""


def bind(host: str, port: int) -> socket.socket:
    """Return a socket that is bound to host and port but does not listen yet; port 0 selects a free port. Raises
    UsageError for an invalid port, InputError if the address cannot be bound."""
    if not 0 <= port < 2**16:  # the system would use only its low 16 bits
        raise UsageError(f"--port is {port}; it must be from 0 (any free port) to 65,535.")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        bound = socket.socket(family, kind, protocol)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except (OSError, OverflowError, UnicodeError) as error:
        raise InputError(
            f"--host {host} --port {port} cannot be bound: {getattr(error, 'strerror', None) or error}. Give "
            "another --port (0 for any free port), or another --host."
        ) from None
    return bound


def is_loopback(bound: socket.socket) -> bool:
    """Return whether only this machine can reach the socket."""
    host = bound.getsockname()[0]
    return host.startswith("127.") or host == "::1"


def read_key(file: str, variable: str) -> str:
    """Return the API key in `file` or, if `file` is "", in the environment variable `variable`; "" if both are "".
    Raises UsageError if neither is "", or if the key is invalid."""
    if file and variable:
        raise UsageError(f"--api-key-file {file} and --api-key-env {variable} are both given. Give one of them.")
    if not file and not variable:
        return ""
    try:
        key = Path(file).expanduser().read_text("utf-8").strip() if file else os.environ.get(variable, "").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--api-key-file {file} cannot be read: {error}. Give a text file.") from None
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        named = f"--api-key-file {file}" if file else f"--api-key-env {variable}"
        raise UsageError(f"{named} does not hold a key. Give one word of printable ASCII characters.")
    return key


def warm_up(engine: Engine, every_length: bool) -> None:
    """Compile the programs for the shortest prompts; with `every_length`, for all prompts."""
    tokens = [1 << power for power in range(engine.context.bit_length()) if 1 << power < engine.context]
    lengths = [*tokens, engine.context - 1] if every_length else [1]
    params = SamplingParams(max_tokens=2, temperature=0.0, logprobs=0, prompt_logprobs=True)
    bos = engine.tokenizer.bos_id
    engine.complete([GenerationRequest((bos,) * length, params) for length in lengths])


class Server(uvicorn.Server):
    """uvicorn.Server that calls `on_start` when it listens, and ends running calls `grace_seconds` after SIGTERM."""

    def __init__(
        self, config: uvicorn.Config, worker: EngineWorker, grace_seconds: float, on_start: Callable[[], None]
    ):
        super().__init__(config)
        self.worker, self.grace_seconds, self.on_start = worker, grace_seconds, on_start

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.on_start()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        loop = self.worker.loop
        stopped = ApiError(503, "The server is being stopped.", code="stopping")
        loop.call_soon_threadsafe(loop.call_later, self.grace_seconds, self.worker.fail_all, stopped)


def serve(
    engine: Engine,
    tokenizer: Tokenizer,
    model: str,
    step: int,
    bound: socket.socket,
    slots: int,
    limits: Limits,
    *,
    api_key: str = "",
    cors_origins: Sequence[str] = (),
    allowed_hosts: Sequence[str] = (),
    grace_seconds: float = 10.0,
    on_start: Callable[[], None] = lambda: None,
    inspections: Sequence[Inspection] = (),
    pages: Mapping[str, Callable[[], Response]] | None = None,
    tools: Tools = NO_TOOLS,
) -> None:
    """Serve on the socket `bound` until SIGTERM or Ctrl-C. Then accept no more calls, and end running ones after
    `grace_seconds`. `on_start` is called when the server listens. Returns after SIGTERM; raises KeyboardInterrupt after
    Ctrl-C."""

    async def run() -> None:
        worker = EngineWorker(engine, slots, limits.max_queue)
        completions = CompletionServer(worker, tokenizer, model, step, limits, api_key, inspections, pages, tools)
        app = completions.app(cors_origins, allowed_hosts)
        http = protocol_class(limits.read_seconds, limits.write_seconds, limits.max_connections_per_peer)
        config = uvicorn.Config(
            app, http=http, ws="none", lifespan="off", log_level="error", access_log=False, server_header=False,
            limit_concurrency=limits.max_connections, timeout_graceful_shutdown=int(grace_seconds) + AFTER_GRACE,
        )  # fmt: skip
        server = Server(config, worker, grace_seconds, on_start)
        try:
            await server.serve(sockets=[bound])
        finally:
            completions.inspect.close()
            await worker.stop()

    before = signal.signal(signal.SIGTERM, lambda number, frame: None)  # uvicorn raises the signal again when it stops
    try:
        asyncio.run(run())
    finally:
        signal.signal(signal.SIGTERM, before)
