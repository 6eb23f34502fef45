"""The thread of the Engine: what fails in it is told, and nobody waits for ever."""

import asyncio
import dataclasses
import threading
import time

import httpx
import jax
import pytest

from lm.inference.engine import Engine
from lm.inference.requests import GenerationRequest, SamplingParams
from lm.model.transformer import Transformer
from lm.serving import app
from lm.serving.answers import ChoiceWriter, joined
from lm.serving.app import SMALL_BODY, CompletionServer
from lm.serving.fields import ApiError
from lm.serving.protocol import CompletionCall, Limits, parse_completion
from lm.serving.worker import EngineWorker
from lm.tokenizer import train_bpe
from lm.tokenizer.characters import CharacterTokenizer
from tests.corpus import texts, tiny_experiment

CONFIG = tiny_experiment().model
TOKENIZER = train_bpe(texts(20), tiny_experiment().tokenizer)
GREEDY = SamplingParams(max_tokens=4, temperature=0.0)


@pytest.fixture(scope="module")
def model():
    return jax.jit(Transformer, static_argnums=0)(CONFIG, jax.random.key(0))


@pytest.fixture
def engine(model):
    return Engine(model, CONFIG, TOKENIZER, slots=2, decode_steps=3)


async def answer(worker: EngineWorker, *requests: GenerationRequest) -> list[tuple[int, str | None]]:
    call = worker.submit(requests)
    await asyncio.wait_for(call.is_accepted(), 60)
    return [(number, event.finish_reason) async for number, event in call.events() if event.finish_reason]


def test_an_engine_that_fails_is_told_to_those_who_wait_and_those_who_come(engine, monkeypatch, capsys):
    async def run() -> None:
        worker = EngineWorker(engine, 2, 10)
        assert await answer(worker, GenerationRequest((1, 2), GREEDY)) == [(0, "length")]
        monkeypatch.setattr(engine, "decode", None)  # the device is lost, say
        with pytest.raises(ApiError) as failed:
            await answer(worker, GenerationRequest((1, 2), GREEDY), GenerationRequest((3,), GREEDY))
        assert failed.value.status == 500 and worker.failure
        server = CompletionServer(worker, TOKENIZER, "tiny", 4, Limits(context=32))
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(server.app()), base_url="http://localhost"
        ) as client:
            assert (await client.get("/health")).status_code == 503
            told = await client.post("/v1/completions", json={"prompt": "The"})
            assert told.status_code == 503 and told.json()["error"]["type"] == "server_error"
        with pytest.raises(ApiError) as refused:
            worker.submit([GenerationRequest((1,), GREEDY)])
        assert refused.value.status == 503 and worker.in_flight == 0
        await asyncio.wait_for(worker.stop(), 60)

    asyncio.run(run())
    assert "Traceback" in capsys.readouterr().err  # in the server's log


def test_large_bodies_are_read_one_at_a_time_beside_the_event_loop(engine, monkeypatch):
    at_once, most = [], []

    def parse(*given) -> CompletionCall:
        at_once.append(threading.current_thread())
        time.sleep(0.05)
        most.append(len(at_once))
        assert at_once.pop() is not threading.main_thread()
        return parse_completion(*given)

    async def run() -> None:
        worker = EngineWorker(engine, 2, 10)
        server = CompletionServer(worker, TOKENIZER, "tiny", 4, Limits(context=32))
        monkeypatch.setattr(app, "parse_completion", parse)
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(server.app()), base_url="http://localhost"
        ) as client:
            large = [client.post("/v1/completions", json={"prompt": "x" * SMALL_BODY}) for _ in range(4)]
            assert [answer.status_code for answer in await asyncio.gather(*large)] == [400] * 4
        await worker.stop()

    asyncio.run(run())
    assert most == [1] * 4


def test_what_the_engine_refuses_is_refused_whole_and_the_rest_goes_on(engine):
    async def run() -> None:
        worker = EngineWorker(engine, 2, 10)
        fine, wrong = GenerationRequest((1,), GREEDY), GenerationRequest((999,), GREEDY)
        with pytest.raises(ApiError) as refused:
            await answer(worker, fine, wrong)
        assert refused.value.status == 400 and "999" in refused.value.message
        assert sorted(await answer(worker, fine, fine, fine)) == [(0, "length"), (1, "length"), (2, "length")]
        assert worker.in_flight == 0
        await worker.stop()

    asyncio.run(run())


def test_the_queue_takes_a_call_whole_or_not_at_all(engine):
    async def run() -> None:
        worker = EngineWorker(engine, 2, 1)
        one = GenerationRequest((1,), dataclasses.replace(GREEDY, max_tokens=30))
        call = worker.submit([one, one])
        with pytest.raises(ApiError) as full:
            worker.submit([one, one])
        assert full.value.status == 429 and full.value.headers["Retry-After"]
        other = worker.submit([one])
        worker.cancel(call)
        assert {event.finish_reason async for _, event in call.events()} >= {"cancelled"}
        assert [event.finish_reason async for _, event in other.events()][-1] == "length"
        assert worker.in_flight == 0
        await worker.stop()

    asyncio.run(run())


def test_the_end_of_a_document_counts_as_a_token_with_its_log_probability(model):
    """A client that asks for one token and all log-probabilities, as lm-eval does, leaves out the last: were the end of
    the document not among them, the prompt's own last token would be left out, in silence."""
    end = TOKENIZER.bos_id
    direction = jax.numpy.ones(CONFIG.width)
    ending = jax.tree.map(jax.numpy.zeros_like, model)
    ending.embedding[...] = ending.embedding[...].at[end].set(direction) + 0.01 * direction[None]
    ending.norm.scale[...] = direction
    engine = Engine(ending, CONFIG, TOKENIZER, slots=2, decode_steps=3)
    body = b'{"prompt": [65, 66], "max_tokens": 1, "temperature": 0, "logprobs": 1, "echo": true}'
    call = parse_completion(body, "tiny", TOKENIZER, Limits(context=32))
    writer = ChoiceWriter(0, call.prompts[0], call, TOKENIZER)
    choice = joined([writer.piece(event) for event in engine.generate(call.requests)])
    assert choice["finish_reason"] == "stop" and choice["text"] == TOKENIZER.decode([65, 66])
    logprobs = choice["logprobs"]
    assert isinstance(logprobs, dict)
    assert logprobs["tokens"] == [TOKENIZER.decode([65]), TOKENIZER.decode([66]), "<|endoftext|>"]
    assert len(logprobs["token_logprobs"]) == 3


def test_tokenize_rejects_a_text_that_the_tokenizer_cannot_encode(engine):
    async def run() -> None:
        worker = EngineWorker(engine, 2, 10)
        server = CompletionServer(worker, CharacterTokenizer("\nabc"), "tiny", 4, Limits(context=32))
        transport = httpx.ASGITransport(server.app())
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            assert (await client.post("/tokenize", json={"prompt": "ab"})).json()["tokens"] == [0, 1, 2]
            refused = await client.post("/tokenize", json={"prompt": "é"})
            assert refused.status_code == 400 and refused.json()["error"]["type"] == "invalid_request_error"
        await worker.stop()

    asyncio.run(run())
