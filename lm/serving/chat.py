"""POST /v1/chat/completions, as in OpenAI's API.

With `truncation` "auto", as in OpenAI's Responses API, the oldest messages are left out so that half of the context is
free for the answer.

If a call has no `tools`, the server runs its own (lm/chat/tools.py), and the answer has them as `steps`: the messages
between question and answer, those of tools with the `sources` of their passages. Otherwise calls of tools are returned
to the client.
"""

import asyncio
import dataclasses
import json
import threading
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from lm.chat.assistant import TEMPERATURE, Answer, Step, recent
from lm.chat.messages import Message, MessageError, check_messages, check_tools
from lm.chat.sandbox import RenderingStopped
from lm.chat.template import ChatTemplate, strings_in
from lm.chat.tools import NO_TOOLS, Tools
from lm.errors import InputError, shown
from lm.inference.requests import TokenLogprob
from lm.serving.answers import LEAST_LOGPROB, Usage, to_json, token_text
from lm.serving.fields import ApiError, Fields, parse_object, wrong
from lm.serving.http import read_body, respond, unless_disconnected
from lm.serving.metrics import CallRecord, ServerMetrics, recorded
from lm.serving.protocol import (
    GOLDEN,
    KNOWN,
    SEEDS,
    Limits,
    check_model,
    include_usage,
    refuse_unsupported,
    sampling_params,
)
from lm.serving.worker import EngineWorker, RunningCall

ADDED = (
    "messages", "tools", "tool_choice", "parallel_tool_calls", "max_completion_tokens", "top_logprobs",
    "response_format", "truncation",
)  # fmt: skip
REMOVED = ("prompt", "best_of", "echo", "suffix", "add_special_tokens")
KNOWN_HERE = (*(name for name in KNOWN if name not in REMOVED), *ADDED)
MOST_TOOLS = 64


@dataclasses.dataclass(frozen=True)
class ChatCall:
    """Parsed call."""

    answers: list[Answer]
    """As many as asked for, with different seeds."""
    stream: bool
    include_usage: bool


def parse_chat(body: bytes, model: str, template: ChatTemplate, limits: Limits, tools_here: Tools) -> ChatCall:
    """Parse the body; if it has no tools, the answers run `tools_here`. Raises ApiError 400 if it is malformed, out of
    bounds or unsupported, 404 for another model."""
    fields = Fields(parse_object(body), KNOWN_HERE)
    check_model(fields, model)
    refuse_unsupported(fields)
    if (form := fields.get("response_format")) not in (None, {"type": "text"}):
        raise wrong("response_format", form, "absent: only text is supported", "unsupported_value")
    fields.boolean("parallel_tool_calls", True)
    tools, choice = fields.get("tools", []), fields.get("tool_choice", "auto")
    if choice not in ("auto", "none"):
        raise wrong("tool_choice", choice, "auto or none", "unsupported_value")
    is_tool = lambda tool: (
        isinstance(tool, dict) and tool.get("type") == "function" and isinstance(tool.get("function"), dict)
        and isinstance(tool["function"].get("name"), str)
    )  # fmt: skip
    if not isinstance(tools, list) or len(tools) > MOST_TOOLS or not all(map(is_tool, tools)):
        raise wrong(
            "tools", tools, f'a list of at most {MOST_TOOLS} {{"type": "function", "function": {{"name": ...}}}}'
        )
    if (truncation := fields.get("truncation", "disabled")) not in ("auto", "disabled"):
        raise wrong("truncation", truncation, "auto or disabled")
    n = fields.integer("n", 1, 1, limits.max_choices)
    stream = fields.boolean("stream", False)
    wants, top = fields.boolean("logprobs", False), fields.integer("top_logprobs", 0, 0, limits.max_logprobs)
    if top and not wants:
        raise wrong("top_logprobs", top, "absent unless logprobs is true")
    most = "max_completion_tokens" if fields.get("max_completion_tokens") is not None else "max_tokens"
    max_tokens = min(fields.integer(most, limits.context, 1, 2**31 - 1), limits.context)
    given = {name: value for name, value in fields.body.items() if name in KNOWN}
    given |= {"logprobs": top if wants else None, "max_tokens": max_tokens}
    params = sampling_params(Fields(given, KNOWN), False, template.tokenizer, limits, TEMPERATURE)
    try:
        messages, tools = check_messages(fields.get("messages")), check_tools(tools)
        own = tools if choice == "auto" else []
        if truncation == "auto":
            messages = recent(template, messages, limits.context // 2, limits.max_prompt_bytes, own)
        if (size := sum(len(text) for text in strings_in([messages, tools]))) > limits.max_prompt_bytes:
            raise ApiError(
                400, f"The messages have {size:,} characters; the limit is {limits.max_prompt_bytes:,}. Shorten them.",
                param="messages", code="context_length_exceeded",
            )  # fmt: skip
        prompt = tuple(template.encode(messages, own, reply=True).ids.tolist())
    except InputError as error:
        tools_are_wrong = isinstance(error, MessageError) and error.reason == "malformed_tools"
        raise ApiError(400, str(error), "tools" if tools_are_wrong else "messages", "invalid_value") from error
    if len(prompt) >= limits.context:
        raise ApiError(
            400, f"The messages are {len(prompt):,} tokens; the context holds {limits.context:,}, including the reply. "
            "Shorten them.",
            param="messages", code="context_length_exceeded",
        )  # fmt: skip
    runs = tools_here if not tools and choice == "auto" else NO_TOOLS
    begin = lambda seed: Answer(
        template, runs, messages, dataclasses.replace(params, seed=seed % SEEDS), limits.context, prompt=prompt,
        reads_calls=bool(own or runs.functions), forgets=truncation == "auto",
        offered={tool["function"]["name"] for tool in own} if own else None,
    )  # fmt: skip
    answers = [begin(params.seed + index * GOLDEN) for index in range(n)]
    return ChatCall(answers, stream, include_usage(fields, stream))


@dataclasses.dataclass(frozen=True)
class ChatRoute:
    """Answers chat calls with an Engine."""

    worker: EngineWorker
    template: ChatTemplate
    model: str
    fingerprint: str
    limits: Limits
    metrics: ServerMetrics
    tools: Tools

    async def answer(self, request: Request) -> Response:
        with recorded(self.metrics) as record:
            body = await read_body(request, self.limits.max_body_bytes, self.limits.read_seconds)
            gone = threading.Event()
            template = self.template.until(lambda: gone.is_set() or self.worker.stopping.is_set())
            try:
                parsing = rendered(parse_chat, body, self.model, template, self.limits, self.tools)
                call = await unless_disconnected(request.receive, parsing)
                return await respond(request, Conversations(self, call, record, gone), record)
            except BaseException:
                gone.set()
                raise


async def rendered[*A, R](function: Callable[[*A], R], *given: *A) -> R:
    """Call a function that renders a template in a thread. Raises ApiError 503 if the rendering was stopped."""
    try:
        return await asyncio.to_thread(function, *given)
    except RenderingStopped:
        raise ApiError(503, "The server is being stopped.", code="stopping") from None


class Conversations:
    """The choices of one call."""

    def __init__(self, route: ChatRoute, call: ChatCall, record: CallRecord, gone: threading.Event):
        """`gone` is set when the choices are cancelled: renderings of the call's template then end."""
        self.route, self.call, self.record, self.gone = route, call, record, gone
        self.usage = Usage(len(call.answers[0].request.prompt))
        self.running: dict[int, RunningCall] = {}
        """{index of a choice: its present round}."""
        self.head = {
            "id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": route.model,
            "system_fingerprint": route.fingerprint,
        }  # fmt: skip
        try:
            for index in range(len(call.answers)):
                self.submit(index)
        except ApiError:
            self.cancel()
            raise

    def submit(self, index: int) -> None:
        self.running[index] = self.route.worker.submit([self.call.answers[index].request])

    async def accepted(self) -> None:
        for one in list(self.running.values()):
            await one.is_accepted()

    def cancel(self) -> None:
        self.gone.set()
        for one in self.running.values():
            self.route.worker.cancel(one)

    async def choice(self, index: int) -> AsyncGenerator[Step]:
        """Yield the steps of one choice. Raises ApiError if the next request, with the results of tools, cannot be
        built, or if there is neither text nor a call for the client."""
        answer = self.call.answers[index]
        while True:
            async for _, event in self.running[index].events():
                self.usage.completion_tokens += len(event.tokens)
                self.record.saw(index, len(event.tokens), event.finish_reason is not None)
                for step in answer.read(event):
                    yield self.for_client(answer, step)
            if answer.finish_reason:
                return
            try:
                steps = await rendered(lambda: list(answer.follow()))
            except InputError as error:
                raise ApiError(400, str(error), param="messages", code="invalid_value") from error
            for step in steps:
                yield self.for_client(answer, step)
            if answer.finish_reason:
                return
            self.submit(index)

    def for_client(self, answer: Answer, step: Step) -> Step:
        """Return the step, with ids of its calls. Raises ApiError for the last step of an answer without text and calls
        that ends because it called another tool than those of the request, or because the context is full. (If
        max_tokens is reached, it is empty.)"""
        message = step.message or {}
        for call in message.get("tool_calls", ()):
            call["id"] = f"call_{uuid.uuid4().hex[:24]}"
        if not step.finish_reason or answer.shows_text or "tool_calls" in message:
            return step
        if answer.refused:
            raise ApiError(
                400, f"The model called {shown(answer.refused[0])}, which the tools of the request do not include. It "
                "was not called. Include it, or omit tools: then the server runs its own.",
                param="tools", code="tool_not_offered",
            )  # fmt: skip
        if answer.finish_reason == "length" and answer.left > 0:
            raise ApiError(
                400, f"The context of {self.route.limits.context:,} tokens was full before the text of the answer. "
                'Shorten the messages, or send "truncation": "auto".',
                param="messages", code="context_length_exceeded",
            )  # fmt: skip
        return step

    async def whole(self) -> dict[str, Any]:
        choices = await asyncio.gather(*(self.whole_choice(index) for index in self.running))
        return self.head | {"object": "chat.completion", "choices": choices, "usage": self.usage.as_json()}

    async def whole_choice(self, index: int) -> dict[str, Any]:
        """Return a choice of a response that is not streamed: the steps of `choice`, joined."""
        answer, steps = self.call.answers[index], list[dict[str, Any]]()
        scores: list[dict[str, Any]] = []
        text, message, reason = "", None, ""
        async for step in self.choice(index):
            text += step.text
            scores += map(self.score, step.logprobs)
            if step.finish_reason:
                message, reason = step.message, step.finish_reason
            elif step.message is not None:
                steps.append(as_step(step))
        assert message is not None
        return {
            "index": index,
            "message": to_client(message | {"content": text}) | ({"steps": steps} if steps else {}),
            "logprobs": {"content": scores} if answer.params.logprobs is not None else None, "finish_reason": reason,
        }  # fmt: skip

    async def events(self) -> AsyncGenerator[bytes]:
        """Yield the data of server-sent events. Raises the errors of a choice."""
        news: asyncio.Queue[tuple[int, Step] | BaseException | None] = asyncio.Queue()

        async def follow(index: int) -> None:
            try:
                async for step in self.choice(index):
                    news.put_nowait((index, step))
                news.put_nowait(None)
            except BaseException as error:
                news.put_nowait(error)

        tasks = [asyncio.create_task(follow(index)) for index in self.running]
        left = len(tasks)
        try:
            for index in self.running:
                yield self.chunk(index, {"role": "assistant", "content": ""})
            while left:
                one = await news.get()
                if one is None:
                    left -= 1
                elif isinstance(one, BaseException):
                    raise one
                else:
                    index, step = one
                    yield self.chunk(index, *self.delta(step), step.logprobs)
            if self.call.include_usage:
                whole = self.head | {"object": "chat.completion.chunk", "choices": [], "usage": self.usage.as_json()}
                yield to_json(whole)
        finally:
            for task in tasks:
                task.cancel()

    def delta(self, step: Step) -> tuple[dict[str, Any], str | None]:
        """(delta of a chunk, finish reason)."""
        if step.message is None:
            return {"content": step.text}, None
        if not step.finish_reason:
            return {"steps": [as_step(step)]}, None
        calls = to_client(step.message).get("tool_calls", [])
        numbered = [{"index": number} | call for number, call in enumerate(calls)]
        return ({"tool_calls": numbered} if numbered else {}), step.finish_reason

    def chunk(
        self, index: int, delta: dict[str, Any], reason: str | None = None, scored: Sequence[TokenLogprob] = ()
    ) -> bytes:
        logprobs = {"content": list(map(self.score, scored))} if scored else None
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
        return to_json(self.head | {"object": "chat.completion.chunk", "choices": [choice], "usage": None})

    def score(self, one: TokenLogprob) -> dict[str, Any]:
        """A token with its log-probability and alternatives, in the form of OpenAI's API."""
        tokenizer = self.route.template.tokenizer
        entry = lambda token, value: {
            "token": token_text(tokenizer, token), "logprob": max(value, LEAST_LOGPROB),
            "bytes": list(tokenizer.token_bytes(token)),
        }  # fmt: skip
        return entry(one.token, one.logprob or 0.0) | {"top_logprobs": [entry(*pair) for pair in one.top]}


def to_client(message: Message) -> Message:
    """A message of the assistant in the form of OpenAI's API: arguments as JSON text."""
    calls = [
        call | {"function": call["function"] | {"arguments": json.dumps(call["function"]["arguments"])}}
        for call in message.get("tool_calls", ())
    ]
    content = message["content"] or (None if calls else "")
    return {"role": "assistant", "content": content} | ({"tool_calls": calls} if calls else {})


def as_step(step: Step) -> dict[str, Any]:
    """A message between question and answer, with the sources of a tool's result."""
    assert step.message is not None
    if step.result is None:
        return to_client(step.message)
    sources = [source._asdict() for source in step.result.sources]
    return dict(step.message) | ({"sources": sources} if sources else {})
