"""Throughput of launch.serve with many clients compared with one, and latency of /health meanwhile.

    python -m tests.bench.serve [--run runs/demo] [--clients 64] [--slots 16] [--tokens 64] [--calls 3]

Each client requests `tokens` tokens after its own prompt; a separate process requests /health fifty times a second.
Prints a JSON line: tokens per second of one client and of all, their ratio, seconds to the first token (median, p99),
failed calls, and milliseconds of health checks. Server and clients share the machine.
"""

import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import httpx

from tests.bench.runner import require_model, run_benchmark
from tests.server_process import ServerProcess, serving

PROMPTS = ("The people of", "In the year 1990", "It is said that", "A small town in the", "The history of", "She was")
HEALTH = """
import http.client, json, sys, time
port, found = int(sys.argv[1]), []
print("begun", flush=True)
connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
import threading
ended = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
while not ended.wait(0.02):
    began = time.perf_counter()
    connection.request("GET", "/health")
    answer = connection.getresponse()
    answer.read()
    assert answer.status == 200
    found.append(1000 * (time.perf_counter() - began))
print(json.dumps(found))
"""


class Clients:
    """Some clients of one server."""

    def __init__(self, server: ServerProcess, tokens: int):
        self.url, self.tokens = f"{server.url}/v1/completions", tokens
        self.drawn = 0
        self.first: list[float] = []
        self.errors: list[str] = []

    async def call(self, client: httpx.AsyncClient, number: int) -> None:
        fields = {
            "prompt": f"{PROMPTS[number % len(PROMPTS)]} {number}", "max_tokens": self.tokens, "seed": number,
            "stream": True, "stream_options": {"include_usage": True},
        }  # fmt: skip
        began, first, usage, line = time.perf_counter(), None, None, ""
        try:
            async with client.stream("POST", self.url, json=fields) as answer:
                async for text in answer.aiter_lines():
                    line = text or line
                    first = first or time.perf_counter() - began
                    if '"usage":{' in line:
                        usage = json.loads(line.removeprefix("data: "))["usage"]
        except httpx.HTTPError as error:
            usage, line = None, repr(error)
        if usage is None or first is None:
            self.errors.append(line)
            return
        self.drawn += usage["completion_tokens"]
        self.first.append(first)

    async def run(self, clients: int, calls: int) -> float:
        """Tokens per second of `clients` clients with `calls` calls each."""
        limits = httpx.Limits(max_connections=clients)
        self.drawn, self.first = 0, []
        async with httpx.AsyncClient(timeout=600, limits=limits) as client:

            async def one(number: int) -> None:
                for turn in range(calls):
                    await self.call(client, number * calls + turn)

            began = time.perf_counter()
            await asyncio.gather(*map(one, range(clients)))
            return self.drawn / (time.perf_counter() - began)


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(int(share * len(values)), len(values) - 1)]


def measure(
    serving: AbstractContextManager[ServerProcess], clients: int, slots: int, tokens: int, calls: int
) -> dict[str, int | float | str | None]:
    """Return the row. Raises RuntimeError with the last line of a response if all calls fail."""
    with serving as server:
        asked = Clients(server, tokens)
        asyncio.run(asked.run(1, 2))  # warm-up calls, which are not counted
        alone = asyncio.run(asked.run(1, 4 * calls))
        command = [sys.executable, "-c", HEALTH, str(server.port)]
        health = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert health.stdout is not None
        health.stdout.readline()
        together = asyncio.run(asked.run(clients, calls))
        waited = [float(one) for one in json.loads(health.communicate("")[0])]
    if not (first := asked.first) or not alone:
        raise RuntimeError(f"all {clients * calls} calls failed, the first with {asked.errors[0]}")
    return {
        "clients": clients, "slots": slots, "tokens": tokens, "errors": len(asked.errors),
        "first_error": next(iter(asked.errors), None),
        "one_client_tokens_per_second": round(alone, 1), "tokens_per_second": round(together, 1),
        "ratio": round(together / alone, 2),
        "first_token_seconds": round(statistics.median(first), 3),
        "first_token_seconds_p99": round(percentile(first, 0.99), 3), "health_checks": len(waited),
        "health_ms": round(statistics.median(waited), 2) if waited else None,
        "health_ms_p99": round(percentile(waited, 0.99), 2) if waited else None,
    }  # fmt: skip


def main(
    run: Path = Path("runs/demo"), clients: int = 64, slots: int = 16, tokens: int = 64, calls: int = 3
) -> Iterator[dict[str, int | float | str | None]]:
    options = ("--slots", str(slots), "--max-queue", str(2 * clients), "--warm-up")
    yield measure(serving(require_model(run), *options), clients, slots, tokens, calls)


if __name__ == "__main__":
    run_benchmark(main)
