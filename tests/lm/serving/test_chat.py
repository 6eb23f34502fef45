"""POST /v1/chat/completions by OpenAI's client: answers, tools of the server and the client, errors, fuzzed bodies."""

import asyncio
import copy
import dataclasses
import json
import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import openai
import pytest

from lm.chat import sandbox
from lm.chat.messages import check_messages
from lm.chat.template import ChatTemplate
from lm.chat.tools import tools_of
from lm.inference.engine import Engine
from lm.inference.requests import GenerationRequest, SamplingParams
from lm.serving.fields import ApiError
from lm.serving.protocol import Limits
from tests.assistant_run import CONTEXT, PAGES, talks
from tests.lm.serving.in_process import TOKENIZER, call, in_process
from tests.server_process import HEADERS, ServerProcess, until

QUESTION = [{"role": "user", "content": "What is Brem?"}]
SUM = [{"role": "user", "content": "Add 6 and 7."}]
SEARCH = {
    "type": "function",
    "function": {"name": "search", "parameters": {"type": "object", "properties": {"query": {"type": "string"}}}},
}
CALCULATOR = {"type": "function", "function": {"name": "calculator", "parameters": {"type": "object"}}}

DEEP: Any = []
for _ in range(60):
    DEEP = [DEEP] if _ % 2 else {"a": DEEP}


def ask(client: Any, messages: list, **fields: Any) -> Any:
    return client.chat.completions.create(model="mine", messages=messages, **{"temperature": 0} | fields)


def idle(server: ServerProcess) -> bool:
    return server.get("health").json()["in_flight"] == 0


def post(server: ServerProcess, **fields: object) -> httpx.Response:
    return server.post("v1/chat/completions", **{"messages": QUESTION} | fields)


def test_the_server_runs_its_tools_and_returns_the_steps_with_sources(client, loaded):
    template = ChatTemplate(loaded.tokenizer)
    for talk in map(check_messages, talks()):
        answer = ask(client, talk[:1])
        (choice,) = answer.choices
        assert choice.message.content == talk[-1]["content"] and choice.finish_reason == "stop"
        called, result = choice.message.steps
        function = called["tool_calls"][0]["function"]
        assert json.loads(function["arguments"]) == talk[1]["tool_calls"][0]["function"]["arguments"]
        assert (result["role"], result["content"]) == ("tool", talk[2]["content"])
        assert result["tool_call_id"] == called["tool_calls"][0]["id"]
        name = talk[0]["content"].split()[-1].strip("?")
        if name in PAGES:
            (source,) = result["sources"]
            assert source["url"] == f"https://a.example/{name}" and source["passage"] == PAGES[name]
        drawn = sum(len(template.encode(talk[:last]).ids) for last in (2, 4))
        read = sum(len(template.encode(talk[:first], reply=True).ids) for first in (1, 3))
        assert answer.usage.prompt_tokens == len(template.encode(talk[:1], reply=True).ids)
        assert answer.usage.completion_tokens == drawn - read - 2  # without the tokens that end the replies


def test_the_oldest_messages_are_left_out_if_asked_for(client):
    wanted = ask(client, QUESTION)
    for copies, message in ((9, "the context holds 160"), (900, "The messages have")):
        long = [*(talks()[0] * copies), *QUESTION]
        with pytest.raises(openai.BadRequestError, match=message):
            ask(client, long)
        found = ask(client, long, extra_body={"truncation": "auto"})
        assert found.choices[0].message.content == wanted.choices[0].message.content
        assert found.usage == wanted.usage
    with pytest.raises(openai.BadRequestError, match="auto or disabled"):
        ask(client, QUESTION, extra_body={"truncation": "yes"})


def joined(stream: Any) -> tuple[dict[int, dict[str, Any]], Any]:
    """({choice: all its pieces}, usage)."""
    found: dict[int, dict[str, Any]] = {}
    usage = None
    for chunk in stream:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            one = found.setdefault(
                choice.index, {"content": "", "tool_calls": [], "steps": [], "logprobs": [], "finish_reason": None}
            )
            one["content"] += choice.delta.content or ""
            one["tool_calls"] += [call.to_dict() for call in choice.delta.tool_calls or []]
            one["steps"] += (choice.delta.model_extra or {}).get("steps", [])
            one["logprobs"] += [score.to_dict() for score in (choice.logprobs.content if choice.logprobs else [])]
            one["finish_reason"] = choice.finish_reason or one["finish_reason"]
    return found, usage


def without_ids(value: Any) -> Any:
    """Calls have new ids in each answer."""
    if isinstance(value, dict):
        return {key: without_ids(one) for key, one in value.items() if key not in ("id", "tool_call_id", "index")}
    return [without_ids(one) for one in value] if isinstance(value, list) else value


@pytest.mark.parametrize(
    "fields",
    [
        {}, {"logprobs": True, "top_logprobs": 3}, {"tools": [SEARCH]}, {"tools": [SEARCH], "tool_choice": "none"},
        {"n": 3, "temperature": 1.5, "seed": 5, "logprobs": True, "max_tokens": 40}, {"stop": ["river", "in"]},
        {"max_completion_tokens": 3},
        {"n": 2, "temperature": 2.0, "seed": 1, "tool_choice": "none", "max_tokens": 60, "logprobs": True},
    ],
    ids=lambda fields: " ".join(fields) or "plain",
)  # fmt: skip
def test_a_joined_stream_equals_the_whole_answer(client, fields):
    whole = ask(client, QUESTION, **fields)
    pieces, usage = joined(ask(client, QUESTION, **fields, stream=True, stream_options={"include_usage": True}))
    assert usage == whole.usage and len(whole.choices) == len(pieces) == fields.get("n", 1)
    for choice in whole.choices:
        one = pieces[choice.index]
        assert one["content"] == (choice.message.content or "") and one["finish_reason"] == choice.finish_reason
        calls = [call.to_dict() for call in choice.message.tool_calls or []]
        assert without_ids(one["tool_calls"]) == without_ids(calls)
        assert without_ids(one["steps"]) == without_ids((choice.message.model_extra or {}).get("steps", []))
        assert one["logprobs"] == [score.to_dict() for score in (choice.logprobs.content if choice.logprobs else [])]


@pytest.mark.parametrize(("messages", "tool", "arguments"), [
    (QUESTION, "search", {"query": "Brem"}), (SUM, "calculator", {"expression": "6 + 7"}),
])  # fmt: skip
def test_calls_of_the_clients_tools_go_to_the_client_and_their_results_back(client, messages, tool, arguments):
    tools = [SEARCH, CALCULATOR]
    answer = ask(client, messages, tools=tools).choices[0]
    assert answer.finish_reason == "tool_calls" and answer.message.content is None
    (call,) = answer.message.tool_calls
    assert call.function.name == tool and json.loads(call.function.arguments) == arguments
    assert not hasattr(answer.message, "steps")
    result = PAGES["Brem"] if tool == "search" else "13"
    talk = [*messages, answer.message, {"role": "tool", "tool_call_id": call.id, "content": result}]
    answer = ask(client, talk, tools=tools).choices[0]
    assert answer.finish_reason == "stop"
    assert answer.message.content == ("Brem is a river in the north." if tool == "search" else "It is 13.")


@pytest.mark.parametrize("stream", [False, True])
def test_a_tool_that_the_request_does_not_offer_is_never_called(client, stream):
    for messages, offered in ((SUM, SEARCH), (QUESTION, CALCULATOR)):
        with pytest.raises(openai.APIError, match=r"The model called .(search|calculator)., which") as refused:
            list(ask(client, messages, tools=[offered], stream=stream))
        assert refused.value.code == "tool_not_offered"


def test_answers_are_the_most_likely_ones_by_default(client):
    texts = lambda **fields: {
        client.chat.completions.create(model="mine", messages=QUESTION, **fields).choices[0].message.content
        for _ in range(3)
    }
    assert texts() == texts(temperature=0) and len(texts(temperature=2, tool_choice="none")) > 1


@pytest.mark.fast_rows
@pytest.mark.anyio
@pytest.mark.parametrize("context", [48, 24], ids=["before its result", "within a call"])
async def test_a_conversation_that_does_not_fit_gets_an_error_and_not_an_empty_answer(loaded, assistant, context):
    engine = Engine(loaded.model, loaded.experiment.model, loaded.tokenizer, slots=2, context=context, mesh=loaded.mesh)
    more = "", (), None, tools_of(str(assistant.parent / "base"), loaded.tokenizer)
    async with in_process(engine, *more, tokenizer=loaded.tokenizer, limits=Limits(context)) as (http, _, _):
        for stream in (False, True):
            answer = await http.post("/v1/chat/completions", json={"messages": QUESTION, "stream": stream})
            assert answer.status_code == (200 if stream else 400)
            assert f"The context of {context} tokens was full before the text of the answer." in answer.text
            assert '"code":"context_length_exceeded"' in answer.text and '"length"' not in answer.text


def test_log_probabilities_are_the_engines(client, loaded):
    """Of all tokens of the text, with the alternatives."""
    template = ChatTemplate(loaded.tokenizer)
    talk = talks()[0]
    prompt = tuple(template.encode(check_messages(talk[:3]), reply=True).ids.tolist())
    engine = Engine(loaded.model, loaded.experiment.model, loaded.tokenizer, slots=1, mesh=loaded.mesh)
    (wanted,) = engine.complete([GenerationRequest(prompt, SamplingParams(50, temperature=0.0, logprobs=3))])
    scores = ask(client, talk[:3], logprobs=True, top_logprobs=3).choices[0].logprobs.content
    assert "".join(one.token for one in scores) == wanted.text == " " + talk[3]["content"]
    for found, expected in zip(scores, wanted.logprobs[:-1], strict=True):
        assert bytes(found.bytes) == loaded.tokenizer.token_bytes(expected.token)
        assert found.logprob == pytest.approx(expected.logprob, abs=1e-4)
        assert [bytes(one.bytes) for one in found.top_logprobs] == [
            loaded.tokenizer.token_bytes(token) for token, _ in expected.top
        ]
        assert [one.logprob for one in found.top_logprobs] == pytest.approx([one for _, one in expected.top], abs=1e-4)


def test_seeds_and_choices(client):
    texts = lambda **fields: [
        (one.message.content, one.finish_reason)
        for one in ask(client, QUESTION, temperature=2, tool_choice="none", max_tokens=30, **fields).choices
    ]
    assert texts(n=4, seed=7) == texts(n=4, seed=7) and len({*texts(n=4, seed=7)}) == 4
    assert texts(n=4, seed=7)[:1] == texts(seed=7) != texts(seed=8)
    assert texts() != texts()


def test_a_reply_ends_at_its_limit_or_a_stop_string(client):
    short = ask(client, talks()[0][:3], max_tokens=2)
    assert short.choices[0].finish_reason == "length" and short.usage.completion_tokens == 2
    stopped = ask(client, talks()[0][:3], stop="river").choices[0]
    assert (stopped.message.content, stopped.finish_reason) == ("Brem is a ", "stop")
    # The limit is on all tokens of an answer, also those that call tools.
    whole = ask(client, QUESTION)
    for most in range(1, whole.usage.completion_tokens):
        cut = ask(client, QUESTION, max_tokens=most)
        assert cut.usage.completion_tokens <= most and cut.choices[0].finish_reason == "length"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": None}, "messages"), ({"messages": [{"role": "bot", "content": "x"}]}, "messages"),
        ({"messages": [{"role": "user", "content": "x" * 3 * CONTEXT}]}, "messages"),
        ({"messages": [{"role": "user", "content": "x" * 10**6}]}, "messages"),
        ({"tools": "search"}, "tools"), ({"tools": [{"type": "function"}]}, "tools"),
        ({"tools": [SEARCH] * 65}, "tools"), ({"tools": [{**SEARCH, "x": DEEP}]}, "tools"),
        ({"tool_choice": "required"}, "tool_choice"), ({"tool_choice": {"type": "function"}}, "tool_choice"),
        ({"parallel_tool_calls": 1}, "parallel_tool_calls"),
        ({"response_format": {"type": "json_object"}}, "response_format"), ({"response_format": 1}, "response_format"),
        ({"n": 0}, "n"), ({"n": 129}, "n"), ({"n": "2"}, "n"), ({"stream": 1}, "stream"),
        ({"logprobs": 2}, "logprobs"), ({"top_logprobs": 2}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"), ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"), ({"max_completion_tokens": -1}, "max_completion_tokens"),
        ({"temperature": -1}, "temperature"), ({"temperature": "x"}, "temperature"), ({"top_p": 2}, "top_p"),
        ({"seed": -1}, "seed"), ({"stop": [""]}, "stop"), ({"stop": 3}, "stop"),
        ({"stream_options": {}}, "stream_options"),
        ({"presence_penalty": 1}, "presence_penalty"), ({"logit_bias": {"1": 1}}, "logit_bias"),
        ({"prompt": "x"}, "prompt"), ({"best_of": 2}, "best_of"), ({"echo": True}, "echo"), ({"suffix": "x"}, "suffix"),
        ({"functions": []}, "functions"),
    ],
    ids=lambda value: json.dumps(value)[:40] if isinstance(value, dict) else value,
)  # fmt: skip
def test_wrong_fields_are_refused_by_name(server, fields, param):
    answer = post(server, **fields)
    assert answer.status_code == 400 and answer.json()["error"]["param"] == param, answer.text
    assert len(answer.text) < 1000


def test_null_is_the_same_as_an_absent_field(server):
    names = ("model", "tools", "tool_choice", "n", "stream", "logprobs", "top_logprobs", "stop", "seed", "max_tokens",
             "max_completion_tokens", "response_format", "stream_options", "user", "parallel_tool_calls")  # fmt: skip
    answer = post(server, temperature=0, **dict.fromkeys(names))
    assert answer.json()["choices"][0]["message"]["content"] == "Brem is a river in the north."


@pytest.mark.anyio
async def test_a_model_without_a_template_has_no_conversations(engine):
    async with in_process(engine) as (client, _, _):
        answer = await client.post("/v1/chat/completions", json={"messages": QUESTION})
        error = answer.json()["error"]
        assert answer.status_code == 400 and error["code"] == "no_chat_template"
        assert "launch.finetune" in error["message"] and "/v1/completions" in error["message"]


VALUES = [
    None, True, False, 0, -1, 1, 3, 1.5, 10**30, "", "x", "\ud800", "\0", "<|end|>", "<|call|>search {", [], {}, [[]],
    [{}], [None], {"a": {}}, "tool", "assistant", "system", "auto", "none", [SEARCH], QUESTION, "{{ 7 * 7 }}",
]  # fmt: skip
SEEDS = [
    {"messages": QUESTION}, {"messages": talks()[0], "tools": [SEARCH], "max_tokens": 5},
    {"messages": talks()[4][:3], "logprobs": True, "top_logprobs": 2, "n": 2, "temperature": 0.5},
    {"messages": SUM, "stream": True, "stream_options": {"include_usage": True}, "max_completion_tokens": 9,
     "stop": "x"},
    {"messages": [{"role": "system", "content": "S"}, *QUESTION], "seed": 3, "top_p": 0.9, "tool_choice": "none",
     "response_format": {"type": "text"}, "user": "me"},
]  # fmt: skip


def mutate(value: Any, chance: random.Random) -> Any:
    """The value with some parts replaced, removed, repeated or added."""
    if chance.random() < 0.06:
        return chance.choice([*VALUES, DEEP])
    if isinstance(value, dict):
        found = {key: mutate(one, chance) for key, one in value.items() if chance.random() > 0.04}
        if chance.random() < 0.06:
            found[chance.choice(["content", "role", "tool_calls", "name", "tools", "n", "x", "function"])] = (
                chance.choice(VALUES)
            )
        return found
    if isinstance(value, list):
        found = [mutate(one, chance) for one in value if chance.random() > 0.04]
        return found + found if chance.random() < 0.03 else found
    if isinstance(value, str) and chance.random() < 0.1:
        at = chance.randrange(len(value) + 1)
        return value[:at] + chance.choice(["\ud800", "{", "<|end|>", '"', "\ue000", "😀", "}"]) + value[at:]
    return value


@pytest.mark.fast_rows
@pytest.mark.parametrize("count", [150, 2_000])
def test_fuzzed_bodies_are_answered_or_refused(server, count):
    chance = random.Random(count)
    statuses: dict[int, int] = {}
    with httpx.Client(timeout=120, headers=HEADERS) as client:
        for _ in range(count):
            body = json.dumps(mutate(copy.deepcopy(chance.choice(SEEDS)), chance)).encode()
            if chance.random() < 0.05:
                at = chance.randrange(len(body))
                body = body[:at] + bytes([chance.randrange(256)]) * chance.randrange(3) + body[at + 1 :]
            answer = client.post(f"{server.url}/v1/chat/completions", content=body)
            statuses[answer.status_code] = statuses.get(answer.status_code, 0) + 1
            assert answer.status_code in (200, 400, 404), (body, answer.text)
            if answer.headers["content-type"].startswith("text/event-stream"):
                assert answer.text.endswith("data: [DONE]\n\n") and '"error"' not in answer.text, (body, answer.text)
            else:
                answer.json()
    assert min(statuses[200], statuses[400]) > 0.15 * count, statuses
    until(lambda: idle(server))


@pytest.mark.fast_rows
@pytest.mark.anyio
@pytest.mark.parametrize("how", ["the client leaves", "the server stops"])
async def test_a_rendering_ends_when_nobody_waits_for_it(engine, monkeypatch, how):
    """In a server with one thread: another call gets the thread."""
    monkeypatch.setattr(sandbox, "MOST_STEPS", 2**62)
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    endless = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
    tokenizer = dataclasses.replace(TOKENIZER, chat_template=endless)
    parts, left = [json.dumps({"messages": QUESTION}).encode()], asyncio.Event()
    async with in_process(engine, tokenizer=tokenizer) as (_, server, worker), asyncio.timeout(60):
        asked = asyncio.create_task(call(server.app(allowed_hosts=["test"]), "/v1/chat/completions", parts, left))
        while parts:
            await asyncio.sleep(0.01)
        other = asyncio.create_task(asyncio.to_thread(int))
        await asyncio.sleep(0.1)
        assert not other.done() and not asked.done()
        if how == "the client leaves":
            left.set()
        else:
            worker.fail_all(ApiError(503, "The server is being stopped.", code="stopping"))
        await other
        assert await asked == (499 if how == "the client leaves" else 503)
