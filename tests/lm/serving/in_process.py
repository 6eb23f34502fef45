"""A server in this process, with a client that calls its ASGI application."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any, NamedTuple

import httpx

from lm.inference.engine import Engine
from lm.inference.requests import GenerationRequest, SamplingParams
from lm.serving.app import CompletionServer
from lm.serving.protocol import Limits
from lm.serving.worker import EngineWorker
from lm.tokenizer import Tokenizer, train_bpe
from tests.corpus import texts, tiny_experiment

CONFIG = tiny_experiment().model
TOKENIZER = train_bpe(texts(20), tiny_experiment().tokenizer)
GREEDY = SamplingParams(max_tokens=4, temperature=0.0)
LIMITS = Limits(context=32)
SECONDS = 60


class InProcess(NamedTuple):
    client: httpx.AsyncClient
    server: CompletionServer
    worker: EngineWorker


@contextlib.asynccontextmanager
async def in_process(
    engine: Engine, *more: Any, tokenizer: Tokenizer = TOKENIZER, limits: Limits = LIMITS, queue: int = 10,
    origins: Sequence[str] = (), hosts: Sequence[str] = (),
) -> AsyncGenerator[InProcess]:  # fmt: skip
    """A server with two slots; `more` are further arguments of CompletionServer."""
    worker = EngineWorker(engine, 2, queue)
    server = CompletionServer(worker, tokenizer, "tiny", 4, limits, *more)
    transport = httpx.ASGITransport(server.app(origins, hosts), raise_app_exceptions=False)
    try:
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=SECONDS) as client:
            yield InProcess(client, server, worker)
    finally:
        server.inspect.close()
        await asyncio.wait_for(worker.stop(), SECONDS)


async def answer(worker: EngineWorker, *requests: GenerationRequest) -> list[tuple[int, str | None]]:
    """(request, finish reason) in the order in which the requests end."""
    call = worker.submit(requests)
    await asyncio.wait_for(call.is_accepted(), SECONDS)
    return [(number, event.finish_reason) async for number, event in call.events() if event.finish_reason]


async def call(app: Any, path: str, parts: list[bytes], gone: asyncio.Event) -> int:
    """Return the status sent to a client that sends `parts`, from the last one, and disconnects when `gone` is set."""
    sent: list[dict] = []

    async def receive() -> dict:
        if parts:
            return {"type": "http.request", "body": parts.pop(), "more_body": bool(parts)}
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: dict) -> None:
        sent.append(message)

    scope = {
        "type": "http", "method": "POST", "path": path, "headers": [], "query_string": b"", "http_version": "1.1",
        "scheme": "http", "root_path": "", "raw_path": path.encode(),
    }  # fmt: skip
    await app(scope, receive, send)
    return sent[0]["status"]


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(SECONDS):
        while not holds():
            await asyncio.sleep(0.005)
