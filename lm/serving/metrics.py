"""Prometheus metrics of the server (prometheus.io/docs/practices/naming)."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Generator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from starlette.requests import ClientDisconnect

from lm.serving.fields import ApiError

SECONDS_TO_FIRST = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 60)
SECONDS_A_TOKEN = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1)
SECONDS_A_REQUEST = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 60, 120, 300)
OUTCOMES = ("answered", "cancelled", "refused", "overloaded", "failed")
"""Outcomes of a call of a completions API: success; client disconnected; 4xx; 429; 5xx."""


def outcome_of(status: int) -> str:
    """Return the entry of OUTCOMES for an HTTP error status."""
    return "overloaded" if status == 429 else "failed" if status >= 500 else "refused"


class ServerMetrics:
    """Prometheus metrics of the server, in their own registry."""

    def __init__(self, slots: int, in_flight: Callable[[], int]):
        """`in_flight` returns the number of requests in slots or waiting for one."""
        self.registry = of = CollectorRegistry()
        disable_created_metrics()  # they would add a second series for every counter
        self.requests = Counter("gristmill_requests", "Calls of /v1/completions, by outcome", ["outcome"], registry=of)
        for outcome in OUTCOMES:
            self.requests.labels(outcome)
        self.prompt_tokens = Counter("gristmill_prompt_tokens", "Prompt tokens processed", registry=of)
        self.generated_tokens = Counter("gristmill_generated_tokens", "Tokens generated", registry=of)
        Gauge("gristmill_slots", "Maximum number of texts generated at once", registry=of).set(slots)
        busy = Gauge("gristmill_slots_busy", "Slots that are generating", registry=of)
        busy.set_function(lambda: min(in_flight(), slots))
        waiting = Gauge("gristmill_queue_length", "Texts waiting for a slot", registry=of)
        waiting.set_function(lambda: max(in_flight() - slots, 0))
        seconds = lambda name, about, buckets: Histogram(
            f"gristmill_{name}_seconds", about, buckets=buckets, registry=of
        )
        self.first_token = seconds("time_to_first_token", "Time from the call to its first token", SECONDS_TO_FIRST)
        self.token = seconds("time_per_token", "Mean time between the tokens of a text", SECONDS_A_TOKEN)
        self.request = seconds("request", "Time from the call to the end of the response", SECONDS_A_REQUEST)

    def text(self) -> bytes:
        """Return the metrics in Prometheus's text format."""
        return generate_latest(self.registry)


class CallRecord:
    """Measures one call of /v1/completions or /v1/chat/completions, and reports it to the metrics."""

    def __init__(self, metrics: ServerMetrics):
        self.metrics, self.began = metrics, time.monotonic()
        self.outcome = ""
        self.first: dict[int, tuple[float, int]] = {}
        """{choice: (time of its first tokens, number of tokens since)}."""

    def saw(self, choice: int, tokens: int, ended: bool) -> None:
        """Record that `tokens` more tokens of a choice have arrived, and whether it has ended."""
        now = time.monotonic()
        if choice in self.first:
            first, count = self.first[choice]
            self.first[choice] = first, count + tokens
        elif tokens:
            self.metrics.first_token.observe(now - self.began)
            self.first[choice] = now, 0
        first, count = self.first.get(choice, (now, 0))
        if ended and count:
            self.metrics.token.observe((now - first) / count)
        self.metrics.generated_tokens.inc(tokens)

    def end(self, outcome: str) -> None:
        """Record how the call ended, one of OUTCOMES; later calls have no effect."""
        if self.outcome:
            return
        self.outcome = outcome
        self.metrics.requests.labels(outcome).inc()
        if outcome == "answered":
            self.metrics.request.observe(time.monotonic() - self.began)


@contextlib.contextmanager
def recorded(metrics: ServerMetrics) -> Generator[CallRecord]:
    """Yield the record of a call. An error or a disconnected client ends the record."""
    record = CallRecord(metrics)
    try:
        yield record
    except ApiError as error:
        record.end(outcome_of(error.status))
        raise
    except (ClientDisconnect, asyncio.CancelledError):
        record.end("cancelled")
        raise
