"""A server process: OpenAI's client, plain HTTP requests, clients that disconnect, and SIGTERM."""

import concurrent.futures
import contextlib
import functools
import json
import math
import signal
import socket

import httpx
import jax
import numpy as np
import openai
import pytest

from lm.inference.generate import sample_texts
from lm.serving.protocol import Limits
from tests.assistant_run import CONTEXT
from tests.lm.inference.models import log_probabilities
from tests.server_process import HEADERS, KEY, until

PROMPTS = ["The miller", "A farmer carried", "", "In the village there was a", "The"]


def test_the_official_client_gets_the_models_text(client, loaded):
    """As by lm.inference.generate, without server and batch."""
    config = loaded.experiment.model
    expected = sample_texts(
        loaded.model, config, loaded.tokenizer, PROMPTS, [0.0] * len(PROMPTS), 24, key=jax.random.key(0)
    )
    for prompt, text in zip(PROMPTS, expected, strict=True):
        room = 24 - 1 - len(loaded.tokenizer.encode(prompt))
        answer = client.completions.create(model="mine", prompt=prompt, max_tokens=room, temperature=0, echo=True)
        assert answer.choices[0].text == text
        assert answer.usage.prompt_tokens == 24 - room
    (model,) = client.models.list().data
    assert model.id == client.models.retrieve("mine").id == "mine"


def test_greedy_answers_under_load_equal_those_of_an_idle_server_bit_for_bit(client):
    """Text, tokens and log-probabilities, for requests that join and leave at any time."""
    asked = [
        {"prompt": prompt, "max_tokens": tokens, "logprobs": 3, "echo": tokens % 2 == 0, "temperature": 0}
        for prompt in PROMPTS for tokens in (0, 1, 5, 10, 16)
    ]  # fmt: skip

    def ask(fields: dict) -> tuple:
        choice = client.completions.create(model="mine", **fields).choices[0]
        return choice.text, choice.finish_reason, choice.logprobs.to_dict()

    alone = [ask(fields) for fields in asked]
    with concurrent.futures.ThreadPoolExecutor(len(asked)) as pool:
        together = list(pool.map(ask, asked))
    assert together == alone


def test_echo_gives_the_log_probabilities_of_the_whole_forward_pass(client, loaded):
    """Those of the prompt, after the BOS added by the server, and of the drawn token."""
    bos, text = loaded.tokenizer.bos_id, "The miller carried grain"
    ids = loaded.tokenizer.encode(text)
    wanted_TV = log_probabilities(loaded.model, CONTEXT)([bos, *ids])
    wanted = [float(wanted_TV[i, id]) for i, id in enumerate(ids)] + [float(wanted_TV[-1].max())]
    for prompt, more in ((ids, 0), ([bos, *ids], 1), (text, 0)):
        answer = client.completions.create(
            model="mine", prompt=prompt, max_tokens=1, temperature=0, logprobs=2, echo=True
        )
        logprobs = answer.choices[0].logprobs
        assert len(logprobs.tokens) == len(wanted) + more
        np.testing.assert_allclose(logprobs.token_logprobs[more:], wanted, atol=1e-4)
        assert logprobs.token_logprobs[:more] == logprobs.top_logprobs[:more] == [None] * more
        for logprob, top in zip(logprobs.token_logprobs[more:], logprobs.top_logprobs[more:], strict=True):
            assert logprob in top.values() and 2 <= len(top) <= 3
        for token, offset in zip(logprobs.tokens, logprobs.text_offset, strict=True):
            assert answer.choices[0].text.startswith(token, offset) or token == logprobs.tokens[-1]


def test_a_joined_stream_equals_the_whole_answer(client):
    asked = {
        "model": "mine", "prompt": ["The miller", "A"], "n": 2, "max_tokens": 8, "seed": 3, "logprobs": 1, "echo": True,
    }  # fmt: skip
    whole = client.completions.create(**asked)
    texts, tokens, ends = [""] * 4, [[] for _ in range(4)], [None] * 4
    usage = None
    for piece in client.completions.create(**asked, stream=True, stream_options={"include_usage": True}):
        usage = piece.usage or usage
        for choice in piece.choices:
            texts[choice.index] += choice.text
            tokens[choice.index] += choice.logprobs.tokens
            ends[choice.index] = choice.finish_reason or ends[choice.index]
    assert texts == [choice.text for choice in whole.choices]
    assert tokens == [choice.logprobs.tokens for choice in whole.choices]
    assert ends == [choice.finish_reason for choice in whole.choices]
    assert usage is not None and usage == whole.usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert len(set(texts[:2])) == 2  # choices of a prompt differ


def test_a_stop_string_ends_the_text_before_it(client):
    ask = lambda stop: client.completions.create(model="mine", prompt="The", max_tokens=20, temperature=0, stop=stop)
    whole = ask(None).choices[0].text
    stop = whole[len(whole) // 2 :][:3]
    choice = ask([stop, "never to be seen"]).choices[0]
    assert (choice.text, choice.finish_reason) == (whole[: whole.index(stop)], "stop")


def test_additional_fields_pass_through_extra_body(client):
    ask = lambda **extra: client.completions.create(
        model="mine", prompt="The", max_tokens=6, seed=1, temperature=5.0, extra_body=extra
    )
    greedy = client.completions.create(model="mine", prompt="The", max_tokens=6, temperature=0).choices[0].text
    assert ask(top_k=1).choices[0].text == ask(min_p=1.0).choices[0].text == greedy
    assert ask().choices[0].text == ask().choices[0].text != greedy
    assert ask(add_special_tokens=False).usage.prompt_tokens == ask().usage.prompt_tokens - 1


def test_streams_are_server_sent_events(server):
    answer = server.post("v1/completions", prompt="The", max_tokens=4, stream=True)
    assert answer.headers["content-type"].startswith("text/event-stream")
    *pieces, last = filter(None, answer.text.splitlines())
    assert last == "data: [DONE]"
    assert all(json.loads(line.removeprefix("data: "))["object"] == "text_completion" for line in pieces)


def test_errors_have_the_types_of_the_official_client(client, server):
    with pytest.raises(openai.BadRequestError) as refused:
        client.completions.create(model="mine", prompt="The", max_tokens=1000)
    assert (
        refused.value.param == "max_tokens"
        and "1000" in refused.value.message
        and str(CONTEXT) in refused.value.message
    )
    with pytest.raises(openai.NotFoundError) as unknown:
        client.completions.create(model="davinci", prompt="The")
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError, match="suffix"):
        client.completions.create(model="mine", prompt="The", suffix="end")
    for path, status in (("v1/embeddings", 404), ("v1/completions", 405), ("v1/models/other", 404)):
        answer = server.get(path)
        assert answer.status_code == status and (message := answer.json()["error"]["message"])
        assert path != "v1/embeddings" or ("POST /v1/chat/completions" in message and "POST /v1/completions" in message)
    large = Limits(1).max_body_bytes + 1
    post = functools.partial(httpx.post, f"{server.url}/v1/completions", headers=HEADERS, timeout=60)
    assert post(content=b"x" * large).status_code == 413

    def chunks():
        yield from [b"x" * (large // 9)] * 10

    with contextlib.suppress(httpx.WriteError):  # the server may close the connection early
        assert post(content=chunks()).status_code == 413


def test_a_full_queue_returns_429_with_retry_after(server):
    """Of 128 requested texts, 44 fit: the whole call is rejected, and other calls are still answered."""
    answer = server.post("v1/completions", prompt=["The"] * 64, n=2)
    assert answer.status_code == 429 and int(answer.headers["retry-after"]) >= 1
    assert "44" in answer.json()["error"]["message"]
    assert server.post("v1/completions", prompt="The", max_tokens=1).status_code == 200
    assert server.metric('gristmill_requests_total{outcome="overloaded"}') >= 1


TEXTS = "completions", {"prompt": ["The"] * 40, "max_tokens": 150, "temperature": 1}
REPLIES = "chat/completions", {"messages": [{"role": "user", "content": "Hi"}], "n": 40, "temperature": 2}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("path", "fields"), [TEXTS, REPLIES], ids=["texts", "replies"])
def test_disconnected_clients_free_their_slots(server, path, fields, stream):
    """The call is repeated if the server answers it before the client leaves."""

    def calls() -> list[float]:
        outcomes = "answered", "cancelled"
        return [server.metric(f'gristmill_requests_total{{outcome="{one}"}}') for one in outcomes]

    until(lambda: server.metric("gristmill_slots_busy") == 0)
    body = json.dumps(fields | {"stream": stream}).encode()
    head = f"POST /v1/{path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\n"
    for _ in range(10):
        before = calls()
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            if stream:
                connection.recv(1)
            until(lambda: server.metric("gristmill_slots_busy") > 0 or calls() != before)  # noqa: B023
        until(lambda: calls() != before)  # noqa: B023
        if calls() == [before[0], before[1] + 1]:
            break
    else:
        raise AssertionError("no call was cancelled")
    until(lambda: server.metric("gristmill_slots_busy") == 0)
    assert server.metric("gristmill_queue_length") == 0


def test_metrics_count_calls_and_tokens(server):
    names = ("gristmill_prompt_tokens_total", "gristmill_generated_tokens_total",
             "gristmill_time_to_first_token_seconds_count", 'gristmill_requests_total{outcome="answered"}')  # fmt: skip
    before = [server.metric(name) for name in names]
    usage = server.post("v1/completions", prompt=["The", "A"], max_tokens=5, temperature=0).json()["usage"]
    after = [server.metric(name) for name in names]
    changes = [b - a for a, b in zip(before, after, strict=True)]
    assert changes == [usage["prompt_tokens"], usage["completion_tokens"], 2, 1]
    assert server.metric("gristmill_slots") == 4


def test_tokenizer_routes_of_lm_eval(server, loaded):
    ask = lambda path, **fields: server.post(path, **fields).json()
    ids = loaded.tokenizer.encode("The miller")
    assert ask("tokenize", prompt="The miller", add_special_tokens=False)["tokens"] == ids
    assert ask("tokenize", prompt="The miller")["tokens"] == [loaded.tokenizer.bos_id, *ids]
    assert ask("detokenize", tokens=ids)["prompt"] == "The miller"
    end = server.get("tokenizer_info").json()["eos_token"]
    assert ask("tokenize", prompt=end, add_special_tokens=False)["tokens"] == [loaded.tokenizer.special_tokens[end]]


def test_scores_are_finite(client):
    """No NaN or infinity reaches a client, because JSON has neither."""
    answer = client.completions.create(
        model="mine", prompt="A", max_tokens=9, temperature=1e30, logprobs=20, extra_body={"repetition_penalty": 100.0}
    )
    assert all(math.isfinite(one) for one in answer.choices[0].logprobs.token_logprobs)


def test_every_path_but_health_requires_the_key(server):
    assert httpx.get(f"{server.url}/health", timeout=60).status_code == 200
    for key in ("", "Bearer open", "Bearer öpen", "open-sesame!"):
        for path in ("/v1/models", "/metrics"):
            headers = {b"Authorization": key.encode()} if key else {}
            refused = httpx.get(server.url + path, headers=headers, timeout=60)
            assert refused.status_code == 401 and refused.json()["error"]["code"] == "invalid_api_key"


def test_sigterm_stops_running_calls_and_the_process_with_code_0(server, client):
    def ask() -> int:
        try:
            client.completions.create(model="mine", prompt=["The"] * 44, max_tokens=29)
        except openai.InternalServerError as error:
            return error.status_code
        return 200

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        running = pool.submit(ask)
        until(lambda: running.done() or server.get("health").json()["in_flight"] > 0)
        server.process.send_signal(signal.SIGTERM)
        said, _ = server.process.communicate(timeout=60)
        assert server.process.returncode == 0 and "Traceback" not in said, said
        assert running.result() in (200, 503)  # 200 if it finished first
