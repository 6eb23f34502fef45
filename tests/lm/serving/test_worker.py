"""The Engine's thread: its failures reach all clients, and no client waits forever."""

import asyncio
import dataclasses
import threading
import time

import pytest

from lm.inference.engine import Engine
from lm.inference.requests import GenerationRequest
from lm.serving import app
from lm.serving.answers import ChoiceWriter, joined
from lm.serving.app import SMALL_BODY
from lm.serving.fields import ApiError
from lm.serving.protocol import CompletionCall, parse_completion
from lm.tokenizer.characters import CharacterTokenizer
from tests.lm.inference.models import always_predicting
from tests.lm.serving.in_process import CONFIG, GREEDY, LIMITS, TOKENIZER, answer, in_process

pytestmark = pytest.mark.anyio
ONE = GenerationRequest((1,), GREEDY)


async def test_an_engine_failure_reaches_waiting_and_new_clients(engine, monkeypatch, capsys):
    async with in_process(engine) as (client, _, worker):
        assert await answer(worker, ONE) == [(0, "length")]
        monkeypatch.setattr(engine, "decode", None)  # as if the device were lost
        with pytest.raises(ApiError) as failed:
            await answer(worker, ONE, GenerationRequest((3,), GREEDY))
        assert failed.value.status == 500 and worker.failure
        assert (await client.get("/health")).status_code == 503
        refused = await client.post("/v1/completions", json={"prompt": "The"})
        assert refused.status_code == 503 and refused.json()["error"]["type"] == "server_error"
        with pytest.raises(ApiError) as refused:
            worker.submit([ONE])
        assert refused.value.status == 503 and worker.in_flight == 0
    assert "Traceback" in capsys.readouterr().err  # in the server's log


async def test_large_bodies_are_parsed_one_at_a_time_outside_the_event_loop(engine, monkeypatch):
    at_once, most = [], []

    def parse(*given) -> CompletionCall:
        at_once.append(threading.current_thread())
        time.sleep(0.05)
        most.append(len(at_once))
        assert at_once.pop() is not threading.main_thread()
        return parse_completion(*given)

    monkeypatch.setattr(app, "parse_completion", parse)
    async with in_process(engine) as (client, _, _):
        large = [client.post("/v1/completions", json={"prompt": "x" * SMALL_BODY}) for _ in range(4)]
        assert [answer.status_code for answer in await asyncio.gather(*large)] == [400] * 4
    assert most == [1] * 4


async def test_a_call_with_one_invalid_request_is_rejected_whole(engine):
    async with in_process(engine) as (_, _, worker):
        with pytest.raises(ApiError) as refused:
            await answer(worker, ONE, GenerationRequest((999,), GREEDY))
        assert refused.value.status == 400 and "999" in refused.value.message
        assert sorted(await answer(worker, ONE, ONE, ONE)) == [(0, "length"), (1, "length"), (2, "length")]
        assert worker.in_flight == 0


async def test_the_queue_accepts_all_requests_of_a_call_or_none(engine):
    async with in_process(engine, queue=1) as (_, _, worker):
        long = GenerationRequest((1,), dataclasses.replace(GREEDY, max_tokens=30))
        call = worker.submit([long, long])
        with pytest.raises(ApiError) as full:
            worker.submit([long, long])
        assert full.value.status == 429 and full.value.headers["Retry-After"]
        other = worker.submit([long])
        worker.cancel(call)
        assert {event.finish_reason async for _, event in call.events()} >= {"cancelled"}
        assert [event.finish_reason async for _, event in other.events()][-1] == "length"
        assert worker.in_flight == 0


async def test_tokenize_rejects_a_text_that_the_tokenizer_cannot_encode(engine):
    async with in_process(engine, tokenizer=CharacterTokenizer("\nabc")) as (client, _, _):
        assert (await client.post("/tokenize", json={"prompt": "ab"})).json()["tokens"] == [0, 1, 2]
        refused = await client.post("/tokenize", json={"prompt": "é"})
        assert refused.status_code == 400 and refused.json()["error"]["type"] == "invalid_request_error"


def test_the_end_of_a_document_counts_as_a_token_with_its_log_probability(model):
    """lm-eval requests one token with all log-probabilities and drops the last one. Without an entry for the end of the
    document, it would drop the last token of the prompt."""
    engine = Engine(always_predicting(model, TOKENIZER.bos_id), CONFIG, TOKENIZER, slots=2, decode_steps=3)
    body = b'{"prompt": [65, 66], "max_tokens": 1, "temperature": 0, "logprobs": 1, "echo": true}'
    call = parse_completion(body, "tiny", TOKENIZER, LIMITS)
    writer = ChoiceWriter(0, call.prompts[0], call, TOKENIZER)
    choice = joined([writer.piece(event) for event in engine.generate(call.requests)])
    assert choice["finish_reason"] == "stop" and choice["text"] == TOKENIZER.decode([65, 66])
    logprobs = choice["logprobs"]
    assert isinstance(logprobs, dict)
    assert logprobs["tokens"] == [TOKENIZER.decode([65]), TOKENIZER.decode([66]), "<|endoftext|>"]
    assert len(logprobs["token_logprobs"]) == 3
